"""When a Deployment's pods take requests, and what stands in the way."""

from typing import Any

import pytest

from canary_service.workload.readiness import Readiness, newest_replica_set, readiness, rollout_completed

TEMPLATE = "abc"


def deployment(*, replicas: int = 2, generation: int = 3, **status: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a status
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    full = {"observedGeneration": 3} | counts | status
    metadata = {"uid": "d", "generation": generation, "annotations": {"deployment.kubernetes.io/revision": "2"}}
    return {"metadata": metadata, "spec": {"replicas": replicas}, "status": full}


def replica_set(revision: str = "2", template: str = TEMPLATE) -> dict[str, Any]:
    annotations = {"deployment.kubernetes.io/revision": revision}
    labels = {"pod-template-hash": template}
    return {"metadata": {"labels": labels, "annotations": annotations, "ownerReferences": [{"uid": "d"}]}}


def pod(number: int, template: str = TEMPLATE, **status: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a status
    labels = {"pod-template-hash": template}
    return {"metadata": {"name": f"pod-{number}", "labels": labels}, "status": {"podIP": f"10.0.0.{number}"} | status}


def slices(*numbers: int, ready: bool | None = True) -> list[dict[str, Any]]:
    return [{"endpoints": [{"addresses": [f"10.0.0.{n}"], "conditions": {"ready": ready}} for n in numbers]}]


def waiting(reason: str, message: str = "", restarts: int = 0) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"state": state, "restartCount": restarts, "ready": False}]}


def older_ones_run() -> dict[str, Any]:
    found = deployment()
    return found | {"status": found["status"] | {"replicas": 3}}


def judged(found: dict[str, Any], pods: list[dict[str, Any]], endpoints: list[dict[str, Any]]) -> Readiness:
    return readiness(found, replica_set(), pods, endpoints)


def test_all_pods_of_the_newest_revision_among_the_endpoints_are_complete() -> None:
    assert judged(deployment(), [pod(1), pod(2)], slices(1, 2)).complete


@pytest.mark.parametrize(
    ("found", "pods", "endpoints"),
    [
        (deployment(), [pod(1), pod(2)], slices(1)),
        (deployment(), [pod(1), pod(2)], slices(1, 2, ready=False)),
        (deployment(), [pod(1, "old"), pod(2)], slices(1, 2)),
        (deployment(replicas=3), [pod(1), pod(2)], slices(1, 2)),
        (deployment(generation=4), [pod(1), pod(2)], slices(1, 2)),
        (deployment(replicas=2, updatedReplicas=1), [pod(1), pod(2)], slices(1, 2)),
        (older_ones_run(), [pod(1), pod(2)], slices(1, 2)),
    ],
    ids=["endpoint missing", "endpoint unready", "old pod", "too few", "not observed", "not updated", "old ones run"],
)
def test_anything_less_is_not_complete(
    found: dict[str, Any], pods: list[dict[str, Any]], endpoints: list[dict[str, Any]]
) -> None:
    assert not judged(found, pods, endpoints).complete


def test_a_pod_that_has_just_become_ready_may_still_crash() -> None:
    found = judged(deployment(availableReplicas=1), [pod(1), pod(2)], slices(1, 2))

    assert not found.complete
    assert found.reasons == ("1 of them have not been ready for 0 s yet",)


def test_an_endpoint_without_a_ready_condition_counts() -> None:
    assert judged(deployment(), [pod(1), pod(2)], slices(1, 2, ready=None)).complete


def test_an_autoscalers_least_number_is_waited_for() -> None:
    assert readiness(deployment(), replica_set(), [pod(1), pod(2)], slices(1, 2), at_least=3).wanted == 3


@pytest.mark.parametrize(
    ("status", "words", "stuck"),
    [
        (waiting("ContainerCreating"), "not among the Service's endpoints", False),
        (waiting("ErrImagePull", "no such host"), "ErrImagePull: no such host", False),
        (waiting("ImagePullBackOff", "not found"), "ImagePullBackOff: not found", True),
        (waiting("CreateContainerConfigError", 'configmap "x" not found'), 'configmap "x" not found', True),
        (waiting("CrashLoopBackOff", restarts=1), "CrashLoopBackOff: started again 1 times", False),
        (waiting("CrashLoopBackOff", restarts=3), "CrashLoopBackOff: started again 3 times", True),
        ({"containerStatuses": [{"state": {"running": {}}, "ready": False}]}, "readiness probe does not", False),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2"}]},
            "Unschedulable: 0/2",
            False,
        ),
    ],
)
def test_a_pod_says_itself_why_it_takes_no_requests(
    status: dict[str, Any],
    words: str,
    stuck: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    found = judged(deployment(), [pod(1), pod(2, **status)], slices(1))

    (reason,) = found.reasons
    assert reason.startswith("pod-2: ")
    assert words in reason
    assert found.stuck is stuck
    assert found.ready == 1


def test_an_exit_code_is_told_with_a_crash() -> None:
    status = waiting("CrashLoopBackOff", restarts=4)
    status["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 137, "message": "out of memory"}}

    (reason,) = judged(deployment(), [pod(1), pod(2, **status)], slices(1)).reasons

    assert "last with exit code 137: out of memory" in reason


def test_a_quota_speaks_by_the_deployment_and_is_stuck() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: full"}
    found = judged(deployment(conditions=[failure]), [pod(1)], slices(1))

    assert found.reasons == ("FailedCreate: exceeded quota: full",)
    assert found.stuck


def test_a_deployment_that_is_gone_is_stuck() -> None:
    found = readiness(None, None, [], [])

    assert found.stuck
    assert not found.complete


def test_the_newest_replica_set_is_that_of_the_deployments_revision() -> None:
    sets = [replica_set("1", "old"), replica_set("2")]

    assert newest_replica_set(deployment(), sets) == sets[1]
    assert newest_replica_set(deployment(), sets[:1]) is None


@pytest.mark.parametrize(
    ("reason", "generation", "completed"),
    [("NewReplicaSetAvailable", 3, True), ("NewReplicaSetAvailable", 4, False), ("ReplicaSetUpdated", 3, False)],
)
def test_a_rollout_is_completed_when_the_controller_says_so_of_this_generation(
    reason: str,
    generation: int,
    completed: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    progressing = {"type": "Progressing", "status": "True", "reason": reason}

    assert rollout_completed(deployment(generation=generation, conditions=[progressing])) is completed
