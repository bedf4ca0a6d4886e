"""The facts of a sound stack as they were recorded from a cluster, to be broken by tests."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.diagnosis import Diagnosis, State, moment
from canary_service.rollout.doctor import diagnose
from canary_service.routing.router import Manifest
from canary_service.routing.split import Entry
from canary_service.workload.facts import Facts, Log, Share

SOUND = json.loads((Path(__file__).parent / "data/doctor/sound.json").read_text())
STACK = "macromind/dev"
AGE_SECONDS = 60

PROBE = {"path": "/healthz", "periodSeconds": 1}
SERVICE = {
    "port": 8080,
    "image": "registry.example/app:1.0",
    "replicas": 2,
    "drainSeconds": 5,
    "minReadySeconds": 1,
    "probes": {"readiness": PROBE, "liveness": {"failureThreshold": 100}},
}
WITH_CANARY = {
    "path": "/api",
    "disruptionBudget": {"maxUnavailable": 1},
    "canary": {"image": "registry.example/app:2.0", "header": {"name": "X-Canary", "value": "true"}},
}


def settings(weight: int = 20, config: Mapping[str, str] | None = None, **app: Any) -> Settings:  # noqa: ANN401 - values of any key of a service
    own = {key: value for key, value in (SERVICE | WITH_CANARY | app).items() if value is not None}
    services = {"app": own, "web": SERVICE | {"path": "/web"}}
    known = {"namespace": "shop", "host": "shop.example", "canaryWeight": str(weight), "services": json.dumps(services)}
    return load({**known, **(config or {})})


@dataclass
class World:
    """The recorded cluster, to be broken."""

    objects: dict[str, list[Manifest]] = field(default_factory=lambda: deepcopy(SOUND))
    settings: Settings = field(default_factory=settings)
    unread: dict[str, str] = field(default_factory=dict)
    unserved: frozenset[str] = frozenset()
    of_others: dict[str, list[Manifest]] = field(default_factory=dict)
    lacking: dict[Entry, str] = field(default_factory=dict)
    logs: dict[tuple[str, str], Log] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=lambda: {"app": Share(20.4, 20, 20)})

    def named(self, kind: str, name: str) -> Manifest:
        (found,) = [each for each in self.objects[kind] if each["metadata"]["name"] == name]
        return found

    def annotate(self, name: str, key: str, value: str) -> None:
        self.named("Ingress", name)["metadata"]["annotations"][key] = value

    def remove(self, kind: str, name: str) -> None:
        self.objects[kind].remove(self.named(kind, name))

    def copy(self, kind: str, name: str, other: str) -> Manifest:
        found = deepcopy(self.named(kind, name))
        found["metadata"] |= {"name": other, "uid": f"uid-of-{other}"}
        self.objects[kind].append(found)
        return found

    @property
    def path(self) -> Manifest:
        """The only path of the canary's Ingress."""
        path: Manifest = self.named("Ingress", "app-canary")["spec"]["rules"][0]["http"]["paths"][0]
        return path

    @property
    def pod(self) -> Manifest:
        """The canary's only pod."""
        (found,) = [pod for pod in self.objects["Pod"] if pod["metadata"]["name"].startswith("app-canary-")]
        return found

    @property
    def container(self) -> Manifest:
        """The state of its only container."""
        (found,) = self.pod["status"]["containerStatuses"]
        container: Manifest = found
        return container

    def waits(self, reason: str, message: str, restarts: int = 0) -> None:
        self.container.update(
            ready=False, restartCount=restarts, state={"waiting": {"reason": reason, "message": message}}
        )

    def of_deployment(self, name: str, kind: str, **state: str) -> None:
        found = self.named("Deployment", name)
        others = [each for each in found["status"]["conditions"] if each["type"] != kind]
        found["status"]["conditions"] = [*others, {"type": kind} | state]

    @property
    def at(self) -> float:
        """When it was recorded, with pods that have run for a while."""
        begun = [c["state"].get("running", {}) for pod in SOUND["Pod"] for c in pod["status"]["containerStatuses"]]
        return max(moment(each["startedAt"]) for each in begun) + AGE_SECONDS

    def diagnoses(self, *services: str) -> tuple[Diagnosis, ...]:
        facts = Facts(self.at, self.objects, self.unread, self.logs, self.shares, "nobody counted", self.unserved)
        facts = replace(facts, of_others=self.of_others, lacking=self.lacking)
        return diagnose(self.settings, STACK, facts, services)

    def having(self, state: State = "problem") -> set[tuple[str, str | None]]:
        return {(each.check, each.service) for each in self.diagnoses() if each.state == state}

    def only(self, check: str, state: State = "problem") -> Diagnosis:
        (found,) = [each for each in self.diagnoses() if (each.check, each.state) == (check, state)]
        return found


def crash(world: World) -> None:
    world.waits("CrashLoopBackOff", "back-off", restarts=4)
    world.container["lastState"] = {"terminated": {"reason": "Error", "exitCode": 3, "message": "boom"}}
