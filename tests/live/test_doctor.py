"""`canary doctor` on a real stack: nothing on a sound one, and exactly what was broken on a broken one."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from canary_service.cluster.facts import gathered
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.settings import Settings
from canary_service.rollout.diagnosis import Diagnosis
from canary_service.rollout.doctor import diagnose
from canary_service.rollout.route_checks import WEIGHT_TOTAL
from canary_service.routing.nginx import AFFINITY, HEADER_VALUE, WEIGHT
from canary_service.routing.nginx import CANARY as CANARY_MARK
from canary_service.workload.live import FIELD_MANAGER, OWNER_ANNOTATION
from demo.stack import CHECKOUT
from tests.live.application import eventually
from tests.live.scene import CANARY, NAME, Scene

pytestmark = pytest.mark.live

STACK = "macromind/dev"
MADE = "ingresses,services,deployments,poddisruptionbudgets,resourcequotas"
LONGEST_SECONDS = 60
WEIGHT_OF_CANARY = 20

Command = Sequence[str]


@dataclass(frozen=True)
class Patient:
    scene: Scene
    settings: Settings
    sound: dict[str, dict[str, Any]]

    @staticmethod
    def of(scene: Scene) -> "Patient":
        return Patient(scene, scene.stack.settings(), _made(scene))

    def diagnoses(self, settings: Settings | None = None) -> tuple[Diagnosis, ...]:
        used = settings or self.settings
        return diagnose(used, STACK, gathered(LiveCluster(self.scene.cluster, used)))

    def problems(self, settings: Settings | None = None) -> set[str]:
        return {each.check for each in self.diagnoses(settings) if each.state == "problem"}

    def mend(self) -> None:
        """Bring all objects to what they were, in the name of the program."""
        present = _made(self.scene)
        for key in present.keys() - self.sound.keys():
            self.scene.kubectl("delete", present[key]["kind"], present[key]["metadata"]["name"])
        for key, found in self.sound.items():
            if present.get(key) != found:
                self.apply(found)
            if (
                key in present and _made(self.scene)[key] != found
            ):  # what others have added stays when one's own is applied
                self.scene.kubectl("replace", "--filename", str(self.file))
                self.apply(found)
        eventually(lambda: not self.problems(), LONGEST_SECONDS)

    def apply(self, manifest: dict[str, Any], manager: str = FIELD_MANAGER) -> None:
        self.file.write_text(json.dumps(manifest))
        by = f"--field-manager={manager}"
        self.scene.kubectl("apply", "--server-side", "--force-conflicts", by, "--filename", str(self.file))

    @property
    def file(self) -> Path:
        return self.scene.stack.folder / "manifest.json"

    def canary(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CHECKOUT / "canary_service" / "cli" / "canary", *arguments],
            cwd=self.scene.stack.folder,
            env={**self.scene.stack.environment, "PULUMI_STACK": self.scene.stack.name},
            check=False,
            capture_output=True,
            text=True,
        )


def _made(scene: Scene) -> dict[str, dict[str, Any]]:
    found = json.loads(scene.kubectl("get", MADE, "--output", "json"))["items"]
    for each in found:
        each.pop("status", None)
        for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            each["metadata"].pop(key, None)
        (each["metadata"].get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
    return {f"{each['kind']} {each['metadata']['name']}": each for each in found}


@pytest.fixture(scope="module")
def patient(own_scene: Scene) -> Patient:
    own_scene.configure(disruptionBudget={"maxUnavailable": 1})
    own_scene.deploy(WEIGHT_OF_CANARY)
    return Patient.of(own_scene)


def annotated(ingress: str, key: str, value: str) -> Command:
    return "annotate", "--overwrite", "ingress", ingress, f"{key}={value}"


def patched(kind: str, name: str, path: str, value: object, operation: str = "replace") -> Command:
    change = json.dumps([{"op": operation, "path": path, "value": value}])
    return "patch", kind, name, "--type=json", f"--patch={change}"


def ingress(name: str, path: str, service: str, **annotations: str) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"number": 8080}}}
    paths = [{"path": path, "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"http": {"paths": paths}}]},
    }


RULE = "/spec/rules/0"
PATH = f"{RULE}/http/paths/0"
POD = "/spec/template/spec"
CONTAINER = f"{POD}/containers/0"

BROKEN: dict[str, tuple[list[Command], set[str]]] = {
    "class": ([patched("ingress", CANARY, "/spec/ingressClassName", "other")], {"drift", "ingress-class-name"}),
    "host": ([patched("ingress", CANARY, f"{RULE}/host", "other.example")], {"drift", "route-match"}),
    "path": ([patched("ingress", CANARY, f"{PATH}/path", "/api/v2")], {"drift", "route-match"}),
    "path type": ([patched("ingress", CANARY, f"{PATH}/pathType", "Exact")], {"drift", "route-match"}),
    "route gone": ([("delete", "ingress", CANARY)], {"ingress"}),
    "another Service": (
        [patched("ingress", CANARY, f"{PATH}/backend/service/name", NAME)],
        {"drift", "route-backend"},
    ),
    "another port": (
        [patched("ingress", CANARY, f"{PATH}/backend/service/port/number", 81)],
        {"drift", "route-backend"},
    ),
    "weight": ([annotated(CANARY, WEIGHT, "70")], {"drift", "weight"}),
    "no weight": ([annotated(CANARY, WEIGHT, "half")], {"drift", "canary-annotations"}),
    "parts of 200": ([annotated(CANARY, WEIGHT_TOTAL, "200")], {"weight-total"}),
    "value without header": (
        [annotated(CANARY, HEADER_VALUE, "yes")],
        {"canary-annotations", "undeclared-annotations"},
    ),
    "no canary": ([annotated(CANARY, CANARY_MARK, "false")], {"drift", "canary-annotations"}),
    "affinity": ([annotated(NAME, AFFINITY, "cookie")], {"undeclared-annotations"}),
    "Service gone": ([("delete", "service", CANARY)], {"service"}),
    "canary Service selects nothing": (
        [patched("service", CANARY, "/spec/selector/version", "other")],
        {"drift", "service-selector", "endpoints"},
    ),
    "stable Service selects the canary": (
        [("patch", "service", NAME, "--type=json", '--patch=[{"op": "remove", "path": "/spec/selector/version"}]')],
        {"drift", "service-selector"},
    ),
    "target port": ([patched("service", CANARY, "/spec/ports/0/targetPort", 81)], {"drift", "service-port"}),
    "scaled to 0": ([("scale", "deployment", CANARY, "--replicas=0")], {"drift", "deployment", "endpoints"}),
    "paused": ([("rollout", "pause", f"deployment/{CANARY}")], {"deployment"}),
    "image": (
        [("set", "image", f"deployment/{CANARY}", f"{NAME}=registry.example/app:missing")],
        {"drift", "image-pull"},
    ),
    "ConfigMap": (
        [patched("deployment", CANARY, f"{CONTAINER}/envFrom", [{"configMapRef": {"name": "missing"}}], "add")],
        {"container-start"},
    ),
    "no node, too late": (
        [
            patched("deployment", CANARY, "/spec/progressDeadlineSeconds", 2),
            patched("deployment", CANARY, f"{POD}/nodeSelector", {"disk": "fast"}, "add"),
        ],
        {"drift", "scheduling", "rollout"},
    ),
    "quota": (
        [("create", "quota", "full", "--hard=pods=1"), ("scale", "deployment", CANARY, "--replicas=2")],
        {"drift", "admission"},
    ),
    "crash loop": (
        [("set", "env", f"deployment/{CANARY}", "SANDBOX_CRASH_AFTER_SECONDS=0.1", "SANDBOX_START_SECONDS=600")],
        {"crashes"},
    ),
    "connections refused": (
        [("annotate", "pod", "--selector=version=canary", "sandbox/refuse=true")],
        {"readiness", "endpoints"},
    ),
    "another stack": ([("annotate", "--overwrite", "deployment", NAME, f"{OWNER_ANNOTATION}=other/dev")], {"owner"}),
    "budget": (
        [("create", "poddisruptionbudget", "all", f"--selector=app={NAME}", "--min-available=100%")],
        {"disruption"},
    ),
}


@pytest.mark.parametrize(("commands", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_each_cause_is_told_by_its_own_check_and_by_no_other(
    patient: Patient, commands: list[Command], expected: set[str]
) -> None:
    assert patient.problems() == set()
    for command in commands:
        patient.scene.kubectl(*command)

    found: list[set[str]] = [set()]

    def told() -> bool:
        found[0] = patient.problems()
        return found[0] == expected

    try:
        eventually(told, LONGEST_SECONDS)
    except AssertionError:
        assert found[0] == expected
    problems = [each for each in patient.diagnoses() if each.state == "problem"]
    assert all(each.evidence and each.cause and each.fix for each in problems)
    if commands[0][0] == "annotate" and commands[0][1] == "pod":
        patient.scene.kubectl("annotate", "pod", "--selector=version=canary", "sandbox/refuse-")
    patient.mend()


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (lambda host: _at(ingress("mine", "/api", CANARY, **{CANARY_MARK: "true", WEIGHT: "50"}), host), "one-canary"),
        (lambda host: _at(ingress("mine", "/other", NAME), host), "shared-service"),
        (lambda host: _at(ingress("mine", "/preview", CANARY), host), "shared-service"),
    ],
    ids=["second canary", "stable's Service", "canary's Service"],
)
def test_what_others_add_beside_the_routes_is_told(
    patient: Patient, manifest: Callable[[str], dict[str, Any]], expected: str
) -> None:
    patient.apply(manifest(patient.settings.host), "kubectl")

    eventually(lambda: patient.problems() == {expected})

    patient.mend()


def _at(manifest: dict[str, Any], host: str) -> dict[str, Any]:
    manifest["spec"]["rules"][0]["host"] = host
    return manifest


def test_pods_of_another_deployment_behind_the_service_are_told(patient: Patient) -> None:
    other = json.loads(json.dumps(patient.sound[f"Deployment {CANARY}"]))
    other["metadata"] = {"name": "impostor"}
    patient.apply(other, "kubectl")

    eventually(lambda: patient.problems() == {"foreign-pods"}, LONGEST_SECONDS)

    patient.mend()


def test_a_class_or_namespace_that_is_not_there_is_told(patient: Patient) -> None:
    other_class = patient.settings.model_copy(update={"ingress_class_name": "other"})
    assert patient.problems(other_class) == {"ingress-class", "ingress-class-name"}

    nowhere = patient.settings.model_copy(update={"namespace": "nowhere"})
    assert {"namespace", "ingress", "service", "deployment"} <= patient.problems(nowhere)


def test_the_command_tells_problems_with_their_fix_and_its_exit_code(patient: Patient) -> None:
    sound = patient.canary("doctor")
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.startswith(f"{STACK}: no problem found, ")

    patient.scene.kubectl(*annotated(CANARY, WEIGHT, "70"))
    told = patient.canary("doctor", "--service", NAME)
    assert told.returncode == 6, told.stderr
    assert f"{NAME}: 70 % are in force, and canaryWeight declares {WEIGHT_OF_CANARY} % (weight)" in told.stdout
    assert "    fix:  pulumi up\n" in told.stdout
    content = json.loads(patient.canary("doctor", "--json").stdout)
    assert {each["check"] for each in content["diagnoses"] if each["state"] == "problem"} == {"drift", "weight"}
    patient.mend()
