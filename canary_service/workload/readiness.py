"""Whether the pods of one Deployment take requests, and if not, what they themselves say. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from canary_service.routing.router import Manifest

REVISION: Final = "deployment.kubernetes.io/revision"
POD_TEMPLATE_HASH: Final = "pod-template-hash"

# With these a container waits for something that only a changed configuration brings; the kubelet goes on trying.
# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go and kuberuntime's errors
_HELD: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
CRASHES: Final = 3
"""A container that was started again so often is taken for a crash loop; once or twice can be a slow dependency."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far a Deployment is.

    `ready` of `wanted` pods of the newest revision take requests. `reasons` is what stands in the way, in the words
    of the pods and controllers. `stuck` means that time alone will hardly mend it. `rolled_out` means that all pods
    are of the newest revision and those of older ones have been told to end.
    """

    ready: int
    wanted: int
    rolled_out: bool
    reasons: tuple[str, ...] = ()
    stuck: bool = False

    @property
    def complete(self) -> bool:
        """Whether all wanted pods take requests and no others do."""
        return self.rolled_out and self.ready >= self.wanted


def generation(deployment: Manifest) -> int:
    """Return the number of the specification, which grows with each change of it."""
    return int(deployment["metadata"].get("generation", 0))


def rollout_completed(deployment: Manifest) -> bool:
    """Tell whether the newest revision has ever been rolled out in full, whatever has become of its pods since.

    The controller says so by the reason `NewReplicaSetAvailable`
    (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#complete-deployment).
    """
    status = deployment.get("status") or {}
    observed: int = status.get("observedGeneration", 0)
    progressing = _condition(status, "Progressing")
    return observed >= generation(deployment) and progressing.get("reason") == "NewReplicaSetAvailable"


def newest_replica_set(deployment: Manifest, replica_sets: Iterable[Manifest]) -> Manifest | None:
    """Return the ReplicaSet of the Deployment's present revision, if the controller has made it."""
    revision = _annotations(deployment).get(REVISION)
    uid = deployment["metadata"].get("uid")
    for found in replica_sets:
        owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()}
        if uid in owners and revision is not None and _annotations(found).get(REVISION) == revision:
            return found
    return None


def readiness(
    deployment: Manifest | None,
    replica_set: Manifest | None,
    pods: Sequence[Manifest],
    endpoint_slices: Sequence[Manifest],
    at_least: int = 0,
) -> Readiness:
    """Judge a Deployment by itself, its newest ReplicaSet, the pods and EndpointSlices of its Service.

    Args:
        deployment: the Deployment, None when there is none.
        replica_set: the ReplicaSet of its present revision, None when there is none yet.
        pods: pods that its selector finds, those of older revisions included.
        endpoint_slices: the slices of the Service that leads to the pods.
        at_least: pods that are wanted even when the Deployment asks for fewer, as an autoscaler has not acted yet.
    """
    if deployment is None:
        missing = "the Deployment is not there: something else deleted it"
        return Readiness(0, max(at_least, 1), rolled_out=False, reasons=(missing,), stuck=True)
    wanted = max(int(deployment["spec"].get("replicas", 1)), at_least)
    status = deployment.get("status") or {}
    if status.get("observedGeneration", 0) < generation(deployment) or replica_set is None:
        return Readiness(0, wanted, rolled_out=False, reasons=("the Deployment's controller has not acted yet",))
    template = (replica_set["metadata"].get("labels") or {}).get(POD_TEMPLATE_HASH)
    newest = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(POD_TEMPLATE_HASH) == template]
    addresses = _ready_addresses(endpoint_slices)
    ready = sum(1 for pod in newest if (pod.get("status") or {}).get("podIP") in addresses)
    updated = status.get("updatedReplicas", 0)
    old = status.get("replicas", 0) - updated
    reasons, stuck = _reasons(status, newest, addresses)
    # The controller counts a pod as available when it has been ready for minReadySeconds.
    young = wanted - status.get("availableReplicas", 0)
    if young > 0 and ready >= wanted and old <= 0:
        reasons.append(f"{young} of them have not been ready for {deployment['spec'].get('minReadySeconds', 0)} s yet")
    if old > 0:
        reasons.append(f"{old} of an older revision still run")
    return Readiness(ready, wanted, updated >= wanted and old <= 0 and young <= 0, tuple(dict.fromkeys(reasons)), stuck)


def _reasons(status: dict[str, Any], pods: Sequence[Manifest], addresses: set[str]) -> tuple[list[str], bool]:
    reasons: list[str] = []
    stuck = False
    failure = _condition(status, "ReplicaFailure")
    if failure:  # a quota or an admission webhook refuses pods
        reasons.append(_words(failure))
        stuck = True
    for pod in pods:
        if (pod.get("status") or {}).get("podIP") in addresses or pod["metadata"].get("deletionTimestamp"):
            continue
        reason, held = _reason(pod)
        reasons.append(reason)
        stuck = stuck or held
    return reasons, stuck


def _reason(pod: Manifest) -> tuple[str, bool]:
    """Return why a pod takes no requests, and whether time alone will hardly mend it."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        crashes: int = container.get("restartCount", 0)
        reason: str = waiting.get("reason", "")
        last = (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get("terminated")
        if reason == "CrashLoopBackOff" or (crashes >= CRASHES and not container.get("ready")):
            ended = f", last with exit code {last['exitCode']}" if last else ""
            note = f": {last['message']}" if last and last.get("message") else ""
            return f"{name}: CrashLoopBackOff: started again {crashes} times{ended}{note}", crashes >= CRASHES
        if reason in _HELD:
            return f"{name}: {reason}: {waiting.get('message', '')}".rstrip(": "), True
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            return f"{name}: {reason}: {waiting.get('message', '')}".rstrip(": "), False
    if any("running" in (container.get("state") or {}) and not container.get("ready") for container in containers):
        return f"{name}: runs, but its readiness probe does not succeed", False
    for kind in ("PodScheduled", "Ready"):
        condition = _condition(status, kind)
        if condition.get("status") == "False":
            return f"{name}: {_words(condition)}", False
    return f"{name}: not among the Service's endpoints yet", False


def _ready_addresses(endpoint_slices: Sequence[Manifest]) -> set[str]:
    """Return the addresses that a router may send requests to; an absent `ready` counts as true (discovery/v1)."""
    return {
        address
        for endpoint_slice in endpoint_slices
        for endpoint in endpoint_slice.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") in (True, None)
        for address in endpoint["addresses"]
    }


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition; one like ReplicaFailure is there only while it holds."""
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})


def _words(condition: dict[str, Any]) -> str:
    return f"{condition.get('reason', condition['type'])}: {condition.get('message', '')}".rstrip(": ")


def _annotations(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("annotations") or {}
