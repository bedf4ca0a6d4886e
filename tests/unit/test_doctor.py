"""Each check of `canary doctor`: silent on a sound stack as recorded from a cluster, heard when its cause is there."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from canary_service.cli import findings
from canary_service.rollout.diagnosis import Examination, moment
from canary_service.rollout.doctor import CHECKS
from canary_service.rollout.route_checks import CLASS_ANNOTATION, HEADER_PATTERN, WEIGHT_TOTAL
from canary_service.routing.nginx import AFFINITY, CANARY, COOKIE, HEADER_NAME, HEADER_VALUE, WEIGHT
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Manifest
from canary_service.workload.facts import KINDS, Log, Share
from canary_service.workload.live import FIELD_MANAGER, OWNER_ANNOTATION
from tests.unit.recorded_cluster import STACK, World, crash, settings

ROOT = Path(__file__).parents[2]


def second_canary(world: World) -> None:
    world.copy("Ingress", "app-canary", "mine")["metadata"]["annotations"].pop(OWNER_ANNOTATION)


def to_service(world: World, name: str, service: str) -> None:
    path = world.copy("Ingress", "web", name)["spec"]["rules"][0]["http"]["paths"][0]
    path.update(path="/other", backend={"service": {"name": service, "port": {"number": 8080}}})


def out_of_memory(world: World) -> None:
    crash(world)
    world.container["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


def not_ready(world: World) -> None:
    world.container["ready"] = False
    of_pod = {"uid": world.pod["metadata"]["uid"]}
    told = {"reason": "Unhealthy", "message": "Readiness probe failed: 500", "involvedObject": of_pod}
    event = {"kind": "Event", "metadata": {"name": "e"}, "lastTimestamp": "2026-01-01T00:00:00Z"} | told
    world.objects["Event"].append(event)


def selects_all(world: World) -> None:
    world.named("Service", "app")["spec"]["selector"].pop("version")


def foreign_pod(world: World) -> None:
    name = world.pod["metadata"]["name"]
    world.copy("Pod", name, "mine")["metadata"]["ownerReferences"] = []


def stuck(world: World) -> None:
    world.of_deployment("app-canary", "Progressing", status="False", reason="ProgressDeadlineExceeded", message="late")
    (newest,) = [each for each in world.objects["ReplicaSet"] if each["metadata"]["name"].startswith("app-canary-")]
    old = world.copy("ReplicaSet", newest["metadata"]["name"], "app-canary-old")
    old["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"


def scaled(world: World) -> None:
    world.settings = settings(replicas=None, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    own = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {}}
    for name in ("app", "app-canary"):
        state = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric"}
        status = {"conditions": [state | {"message": "no metrics returned from resource metrics API"}]}
        world.objects["HorizontalPodAutoscaler"].append(
            {"kind": "HorizontalPodAutoscaler", "metadata": {"name": name, "managedFields": [own]}, "status": status}
        )


def routed_by_traefik(world: World) -> None:
    traefik = ROUTERS["traefik"]
    world.of_others["traefik"] = [each.manifest for each in traefik.render(world.settings.split_of("app"))]


def unmanaged(world: World, kind: str, name: str) -> None:
    """What is left of managedFields when another manager has taken the fields."""
    for entry in world.named(kind, name)["metadata"]["managedFields"]:
        entry.update(manager="kubectl-edit", operation="Update", time="2030-01-01T00:00:00Z")


def at(found: Manifest, path: str, value: object) -> None:
    place: Any = found
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    for key in parents:
        place = place[key]
    place[last] = value


def sets(kind: str, name: str, path: str, value: object) -> Callable[[World], None]:
    return lambda world: at(world.named(kind, name), path, value)


def annotates(key: str, value: str, name: str = "app-canary") -> Callable[[World], None]:
    return lambda world: world.annotate(name, key, value)


def removes(kind: str, name: str) -> Callable[[World], None]:
    return lambda world: world.remove(kind, name)


def declares(**changes: Any) -> Callable[[World], None]:  # noqa: ANN401 - values of any setting
    def declare(world: World) -> None:
        world.settings = settings(**changes)

    return declare


def condition(kind: str, message: str) -> Callable[[World], None]:
    return lambda world: world.of_deployment("app-canary", kind, status="True", reason="FailedCreate", message=message)


ROUTE = "spec.rules.0.http.paths.0"
CLASS = ("IngressClass", "nginx", "spec.controller")
TEMPLATE = "spec.template.spec.containers.0"
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]

BROKEN: list[tuple[str, Callable[[World], object], set[str]]] = [
    ("namespace missing", lambda w: w.objects["Namespace"].clear(), {"namespace"}),
    ("namespace going", lambda w: w.objects["Namespace"][0]["metadata"].update(deletionTimestamp="x"), {"namespace"}),
    ("class missing", removes("IngressClass", "nginx"), {"ingress-class"}),
    ("class of F5", sets(*CLASS, "nginx.org/ingress-controller"), {"ingress-class"}),
    ("owner", sets("Service", "app", f"metadata.annotations.{OWNER_ANNOTATION}", "other/dev"), {"owner"}),
    ("routed by another router", routed_by_traefik, {"former-router"}),
    ("edited", lambda w: unmanaged(w, "Deployment", "app"), {"drift"}),
    ("budget deleted", removes("PodDisruptionBudget", "app"), {"drift"}),
    ("stable route deleted", removes("Ingress", "app"), {"ingress"}),
    ("canary route deleted", removes("Ingress", "app-canary"), {"ingress"}),
    ("route of another class", sets("Ingress", "app", "spec.ingressClassName", "other"), {"ingress-class-name"}),
    ("class in an annotation", annotates(CLASS_ANNOTATION, "other"), {"ingress-class-name"}),
    ("no status", sets("Ingress", "app-canary", "status", {"loadBalancer": {}}), {"ingress-status"}),
    (
        "stale status",
        sets("Ingress", "app", "status", {"loadBalancer": {"ingress": [{"hostname": "old.example"}]}}),
        {"ingress-status"},
    ),
    ("other host", sets("Ingress", "app-canary", "spec.rules.0.host", "other.example"), {"route-match"}),
    ("path with a slash", sets("Ingress", "app-canary", f"{ROUTE}.path", "/api/"), {"route-match"}),
    ("other pathType", sets("Ingress", "app-canary", f"{ROUTE}.pathType", "Exact"), {"route-match"}),
    ("stable elsewhere", sets("Ingress", "app", f"{ROUTE}.path", "/v2"), {"route-match", "shared-service"}),
    ("no rules", sets("Ingress", "app-canary", "spec.rules", []), {"route-match"}),
    ("other Service", lambda w: w.path["backend"]["service"].update(name="web"), {"route-backend"}),
    ("other port", lambda w: w.path["backend"]["service"].update(port={"number": 81}), {"route-backend"}),
    ("port by a name", lambda w: w.path["backend"]["service"].update(port={"name": "http"}), {"route-backend"}),
    ("Service missing", removes("Service", "app-canary"), {"service"}),
    ("target port", sets("Service", "app", "spec.ports.0.targetPort", 81), {"service-port"}),
    ("target port by a name", sets("Service", "app", "spec.ports.0.targetPort", "web"), {"service-port"}),
    (
        "selects the canary",
        lambda w: w.named("Service", "app")["spec"]["selector"].pop("version"),
        {"service-selector"},
    ),
    ("selects stable", sets("Service", "app-canary", "spec.selector.version", "stable"), {"service-selector"}),
    ("selects nothing", sets("Service", "app-canary", "spec.selector.app", "other"), {"service-selector"}),
    ("a pod by hand", foreign_pod, {"foreign-pods"}),
    ("second canary", second_canary, {"one-canary"}),
    ("other Ingress to stable", lambda w: to_service(w, "mine", "app"), {"shared-service"}),
    ("other Ingress to the canary", lambda w: to_service(w, "mine", "app-canary"), {"shared-service"}),
    ("not marked", annotates(CANARY, "false"), {"canary-annotations"}),
    ("marked for nginx alone", annotates(CANARY, "1"), {"canary-annotations"}),
    ("weight is no number", annotates(WEIGHT, "20%"), {"canary-annotations"}),
    ("header with a comma", annotates(HEADER_VALUE, "a,b"), {"canary-annotations"}),
    ("header empty", annotates(HEADER_NAME, ""), {"canary-annotations"}),
    (
        "pattern beside value",
        annotates(HEADER_PATTERN, "^(beta|internal)$"),
        {"canary-annotations", "undeclared-annotations"},
    ),
    ("total above 100", annotates(WEIGHT_TOTAL, "1000"), {"weight-total"}),
    ("total below 100", annotates(WEIGHT_TOTAL, "10"), {"weight-total"}),
    ("affinity by hand", annotates(AFFINITY, "cookie", "app"), {"undeclared-annotations"}),
    ("cookie by hand", annotates(COOKIE, "beta"), {"undeclared-annotations"}),
    ("weight by hand", annotates(WEIGHT, "70"), {"weight"}),
    ("weight not deployed", declares(weight=50), {"weight"}),
    ("Deployment missing", removes("Deployment", "app-canary"), {"deployment"}),
    ("scaled to 0", sets("Deployment", "app-canary", "spec.replicas", 0), {"deployment"}),
    ("paused", sets("Deployment", "app-canary", "spec.paused", True), {"deployment"}),  # noqa: FBT003 - the field's value
    ("quota", condition("ReplicaFailure", 'pods "x" is forbidden: exceeded quota: full'), {"admission"}),
    ("webhook", condition("ReplicaFailure", 'admission webhook "w" denied the request'), {"admission"}),
    ("Pod Security", condition("ReplicaFailure", 'violates PodSecurity "restricted:latest"'), {"admission"}),
    ("limit range", condition("ReplicaFailure", "maximum cpu usage per Container is 1"), {"admission"}),
    ("no node", lambda w: w.pod["status"].update(conditions=UNSCHEDULABLE), {"scheduling"}),
    ("image missing", lambda w: w.waits("ImagePullBackOff", "back-off pulling image"), {"image-pull"}),
    (
        "ConfigMap missing",
        lambda w: w.waits("CreateContainerConfigError", "no configmap x"),
        {"container-start"},
    ),
    ("crash loop", crash, {"crashes"}),
    ("out of memory", out_of_memory, {"crashes"}),
    ("not ready", not_ready, {"readiness"}),
    ("rollout stuck", stuck, {"rollout"}),
    ("no metrics", scaled, {"autoscaling"}),
    (
        "budget of 0",
        lambda w: w.named("PodDisruptionBudget", "app")["status"].update(disruptionsAllowed=0),
        {"disruption"},
    ),
    ("two budgets", lambda w: w.copy("PodDisruptionBudget", "app", "mine"), {"disruption"}),
    ("no endpoint", lambda w: w.objects["EndpointSlice"].clear(), {"endpoints"}),
    ("share off", lambda w: w.shares.update(app=Share(2.0, 20, 20)), {"share"}),
]


def test_a_sound_stack_has_no_problem() -> None:
    assert World().having() == set()
    assert World().having("unknown") == set()
    assert {check for check, _ in World().having("ok")} == {each.id for each in CHECKS} - {
        "retired-controller",
        *(each.id for each in CHECKS if "nginx" not in each.routers),
    }


@pytest.mark.parametrize(("broken", "expected"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_each_cause_is_told_by_its_own_check_and_by_no_other(
    broken: Callable[[World], object], expected: set[str]
) -> None:
    world = World()
    broken(world)

    assert {check for check, _ in world.having()} == expected
    problems = [each for each in world.diagnoses() if each.state == "problem"]
    assert all(each.evidence and each.cause and each.fix for each in problems)
    assert all(each.cause.count("\n") == 0 for each in problems)


def test_every_check_has_a_case_in_which_it_finds_something() -> None:
    advice = {"retired-controller", "kept-clients", "header-priority"}

    assert {check for _, _, expected in BROKEN for check in expected} | advice == {
        each.id for each in CHECKS if "nginx" in each.routers
    }


class TestStates:
    def test_what_may_be_meant_is_advice(self) -> None:
        world = World(settings=settings(weight=0))
        world.annotate("app-canary", WEIGHT, "0")
        world.shares["app"] = Share(0.0, 0, 0)

        assert world.having() == set()
        assert world.having("advice") == {("kept-clients", "app"), ("retired-controller", None)}
        assert world.only("kept-clients", "advice").fix.startswith("pulumi config rm --path services.app.canary.header")

    @pytest.mark.parametrize(("path", "told"), [("/", True), ("/we", False)])
    def test_a_header_that_reaches_longer_paths_is_advice(self, path: str, told: bool) -> None:  # noqa: FBT001 - a case
        world = World(settings=settings(path=path))
        for name in ("app", "app-canary"):
            world.named("Ingress", name)["spec"]["rules"][0]["http"]["paths"][0]["path"] = path

        assert world.having() == set()
        assert (("header-priority", "app") in world.having("advice")) is told

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_may_not_be_read_is_unknown_with_the_right_that_is_missing(self, kind: str) -> None:
        world = World(unread={kind: "forbidden: cannot list"})
        del world.objects[kind]

        assert world.having() == set()
        needing = {each.id for each in CHECKS if kind in each.needs and "nginx" in each.routers}
        assert {check for check, _ in world.having("unknown")} == needing
        for each in world.diagnoses():
            if each.check in needing:
                group, resource = KINDS[kind]
                assert f"list {resource}" + (f" in {group}" if group else "") in each.cause
                assert each.state == "unknown"

    def test_a_namespace_that_nothing_was_seen_of_is_unknown(self) -> None:
        world = World(objects={}, unread=dict.fromkeys(KINDS, "forbidden"))

        assert world.having("ok") == {("share", "app")}
        assert world.only("namespace", "unknown").evidence[0].value == "forbidden"

    def test_a_controller_that_is_not_known_is_unknown(self) -> None:
        world = World()
        world.named("IngressClass", "nginx")["spec"]["controller"] = "haproxy.org/ingress-controller"

        assert world.having() == set()
        assert ("ingress-class", None) in world.having("unknown")

    def test_a_share_that_nobody_measured_is_unknown(self) -> None:
        assert World(shares={}).only("share", "unknown").cause == "no share was measured: nobody counted"

    def test_a_shift_that_was_just_made_is_no_difference(self) -> None:
        assert World(shares={"app": Share(12.0, 5, 20)}).having() == set()

    def test_a_share_that_follows_a_weight_set_by_hand_is_no_fault_of_the_router(self) -> None:
        world = World(shares={"app": Share(69.9, 20, 20)})
        world.annotate("app-canary", WEIGHT, "70")

        assert world.having() == {("weight", "app")}

    def test_only_the_services_that_are_asked_for_are_looked_at(self) -> None:
        assert {each.service for each in World().diagnoses("web")} == {None, "web"}


class TestFixes:
    def test_a_crash_is_told_with_reason_exit_code_and_last_lines(self) -> None:
        world = World()
        crash(world)
        world.logs[world.pod["metadata"]["name"], "app"] = Log(("starting", "boom at line 7"))

        found = world.only("crashes")
        assert found.cause == "container app of the canary crashes: Error, exit code 3, started again 4 times"
        assert found.evidence[-1].value == "starting\nboom at line 7"
        assert found.fix == "pulumi config set --path services.app.canary.weight 0 && pulumi up"

    def test_without_the_right_to_read_logs_the_crash_is_told_all_the_same(self) -> None:
        world = World()
        crash(world)
        world.logs[world.pod["metadata"]["name"], "app"] = Log(unread="pods/log is forbidden")

        assert world.only("crashes").evidence[-1].value == "not read: pods/log is forbidden"

    def test_a_container_that_ran_out_of_memory_gets_twice_as_much(self) -> None:
        world = World()
        out_of_memory(world)

        assert (
            world.only("crashes").fix
            == "pulumi config set --path services.app.resources.limits.memory 512Mi && pulumi up"
        )

    def test_the_older_of_two_canaries_is_the_one_in_use(self) -> None:
        world = World()
        second_canary(world)
        world.named("Ingress", "mine")["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"

        found = world.only("one-canary")
        assert found.cause.endswith("the router uses one of the two, here mine")
        assert found.fix == "kubectl --namespace shop delete ingress mine"

    def test_a_canary_that_is_not_declared_any_more_goes_with_the_next_update(self) -> None:
        world = World(settings=settings(canary=None))

        found = world.only("one-canary")
        assert found.cause == "Ingress app-canary is a canary of the service's requests, and none is declared"
        assert found.fix == "pulumi up"

    def test_a_canary_by_hand_where_none_is_declared_is_to_be_deleted(self) -> None:
        world = World(settings=settings(canary=None))
        world.named("Ingress", "app-canary")["metadata"]["annotations"].pop(OWNER_ANNOTATION)

        assert world.only("one-canary").fix == "kubectl --namespace shop delete ingress app-canary"

    def test_a_canary_of_another_stack_is_that_stacks_to_remove(self) -> None:
        world = World()
        world.copy("Ingress", "app-canary", "mine")["metadata"]["annotations"][OWNER_ANNOTATION] = "shop/prod"

        assert world.only("one-canary").fix == "remove it in stack shop/prod"

    def test_a_class_that_would_do_is_named(self) -> None:
        world = World(settings=settings(config={"ingressClassName": "internal"}))

        found = world.only("ingress-class")
        assert found.fix == "pulumi config set ingressClassName nginx && pulumi up"

    def test_a_pod_that_has_just_begun_may_still_fail_its_probe(self) -> None:
        world = World()
        not_ready(world)
        world.container["state"]["running"]["startedAt"] = "2100-01-01T00:00:00Z"

        assert world.having() == set()

    def test_pods_that_were_told_to_end_are_left_out(self) -> None:
        world = World()
        crash(world)
        world.pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

        assert world.having() == set()


class TestExistingStable:
    """Stable's objects belong to something else, and may have any names."""

    def world(self) -> World:
        world = World(settings=settings(stable="existing", disruptionBudget=None))
        for kind in ("Deployment", "Service", "Ingress"):
            world.named(kind, "app")["metadata"].pop("annotations", None)
        world.objects["PodDisruptionBudget"].clear()
        world.named("Ingress", "app")["metadata"]["name"] = "theirs"
        for label in ("Deployment", "Pod", "ReplicaSet"):
            for found in world.objects[label]:
                if found["metadata"]["name"].startswith("app-canary"):
                    found["metadata"]["labels"]["app"] = "app-canary"
        pods = world.named("Deployment", "app-canary")
        pods["spec"]["template"]["metadata"]["labels"]["app"] = "app-canary"
        world.named("Service", "app-canary")["spec"]["selector"]["app"] = "app-canary"
        return world

    def test_it_is_sound(self) -> None:
        assert self.world().having() <= {("drift", "app")}  # the labels were not applied by the program

    def test_its_route_may_be_missing(self) -> None:
        world = self.world()
        world.remove("Ingress", "theirs")

        assert ("ingress", "app") in world.having()
        assert "which the canary is attached to" in world.only("ingress").cause

    def test_its_service_must_not_select_the_canary(self) -> None:
        world = self.world()
        world.named("Service", "app")["spec"]["selector"] = {"app.kubernetes.io/managed-by": "pulumi"}

        assert ("service-selector", "app") in world.having()

    def test_other_paths_of_its_service_are_advice(self) -> None:
        world = self.world()
        to_service(world, "mine", "app")

        assert ("shared-service", "app") in world.having("advice")


class TestText:
    def rendered(self, world: World, *, everything: bool = False) -> str:
        return findings.render(Examination(stack=STACK, diagnoses=world.diagnoses()), everything=everything)

    def test_problems_come_first_with_where_they_are_seen_and_their_fix(self) -> None:
        world = World()
        world.annotate("app-canary", WEIGHT, "70")

        lines = self.rendered(world).splitlines()
        assert lines[0].startswith("macromind/dev: 1 problem, 1 to consider; ")
        assert lines[0].endswith(" checks ok")
        assert lines[2:6] == [
            "Problems",
            "  app: 70 % are in force, and canaryWeight declares 20 % (weight)",
            f"    seen: Ingress app-canary metadata.annotations[{WEIGHT}]: 70, not 20",
            "    fix:  pulumi up",
        ]

    def test_the_same_of_several_services_is_told_once(self) -> None:
        world = World(unread={"Pod": "forbidden"})

        assert self.rendered(world).count("app, web: the account lacks the right: list pods (image-pull)") == 1

    def test_lines_of_a_log_stand_below_each_other(self) -> None:
        world = World()
        crash(world)
        world.logs[world.pod["metadata"]["name"], "app"] = Log(("one", "two"))

        assert "log:\n      one\n      two\n    fix:" in self.rendered(world)

    def test_what_is_ok_is_named_on_demand(self) -> None:
        assert "\nOk\n" not in self.rendered(World())
        assert "\n  weight: app\n" in self.rendered(World(), everything=True)


def test_times_are_read_as_text_and_as_the_client_gives_them() -> None:
    text = "2026-01-02T03:04:05Z"

    assert moment(text) == moment(datetime.fromisoformat(text))
    assert moment(None) == 0.0


def test_the_document_has_every_check_in_its_words() -> None:
    document = (ROOT / "docs/doctor.md").read_text()

    missing = [each.id for each in CHECKS if f"| `{each.id}` | {each.claim} |" not in document]
    assert missing == []
