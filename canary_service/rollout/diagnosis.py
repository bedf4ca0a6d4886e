"""What a check of `canary doctor` is, what it says, and one service as checks see it. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from canary_service.config.settings import ServiceSettings, Settings
from canary_service.rollout.model import Record
from canary_service.routing.nginx import CANARY
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.facts import Facts
from canary_service.workload.labels import object_name, selector

State: TypeAlias = Literal["ok", "advice", "problem", "unknown"]
"""`unknown`: an account lacks a right, or nothing was measured. `advice` is no problem today."""

UP: Final = "pulumi up"

# What Go's strconv.ParseBool takes for true, as ingress-nginx reads annotations.
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})


class Evidence(Record):
    """Where it can be seen: an object as `KIND NAME`, one of its fields, and what stands there."""

    object: str
    field: str
    value: str


class Diagnosis(Record):
    """What one check says of one service, or of the stack when `service` is None.

    `cause` is a line, `fix` a command or, where none can, what to do; both are empty when it is ok.
    """

    check: str
    service: str | None = None
    state: State
    cause: str = ""
    evidence: tuple[Evidence, ...] = ()
    fix: str = ""


class Examination(Record):
    """All that was diagnosed of a stack, PROJECT/STACK."""

    schema_version: int = 1
    stack: str
    diagnoses: tuple[Diagnosis, ...]

    def having(self, state: State) -> tuple[Diagnosis, ...]:
        """Return the diagnoses of one state."""
        return tuple(each for each in self.diagnoses if each.state == state)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found that is not ok."""

    cause: str
    evidence: tuple[Evidence, ...]
    fix: str
    state: State = "problem"


@dataclass(frozen=True, slots=True)
class Case:
    """One service of a stack (PROJECT/STACK), and what its cluster shows."""

    settings: Settings
    stack: str
    facts: Facts
    name: str

    @property
    def declared(self) -> ServiceSettings:
        """The service's settings."""
        return self.settings.services[self.name]

    @property
    def has_canary(self) -> bool:
        """Whether a canary is declared."""
        return self.declared.canary is not None

    @property
    def weight(self) -> int:
        """The canary's declared weight in percent; 0 without a canary."""
        return self.settings.split_of(self.name).weight

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Those that requests are routed to, of which `stable: existing` belongs to something else."""
        return (Track.STABLE, Track.CANARY) if self.has_canary else (Track.STABLE,)

    @property
    def kubectl(self) -> str:
        """How commands begin."""
        return f"kubectl --namespace {self.settings.namespace}"

    def takes_over(self, track: Track) -> bool:
        """Tell whether a track's objects belong to something else."""
        return track not in self.settings.tracks_of(self.name)

    def ingress(self, track: Track) -> Manifest | None:
        """Return the Ingress of a track; that of something else is told by the requests that it matches."""
        if not self.takes_over(track):
            return self.facts.named("Ingress", object_name(self.name, track))
        ordinary = [found for found in self.facts.of("Ingress") if not is_canary(found)]
        found = self.settings.router_of_stack().narrowed(ordinary, self.settings.split_of(self.name).match)
        return found[0] if found else None

    def service_name(self, track: Track) -> str:
        """Return the name of a track's Service; of something else's, the one that its Ingress leads to."""
        route = self.ingress(track) if self.takes_over(track) else None
        return backends_of(route)[0][0] if route and backends_of(route) else object_name(self.name, track)

    def service(self, track: Track) -> Manifest | None:
        """Return a track's Service."""
        return self.facts.named("Service", self.service_name(track))

    def deployment(self, track: Track) -> Manifest | None:
        """Return a track's Deployment; that of something else is not known."""
        return None if self.takes_over(track) else self.facts.named("Deployment", object_name(self.name, track))

    def selector(self, track: Track) -> dict[str, str]:
        """Return the labels of a track's pods by which they are found, as declared."""
        return selector(self.settings.app_label_of(self.name, track), track)

    def pods(self, track: Track) -> list[Manifest]:
        """Return a track's pods that were not told to end."""
        return [
            pod
            for pod in self.facts.of("Pod")
            if self.selector(track).items() <= labels_of(pod).items() and not pod["metadata"].get("deletionTimestamp")
        ]

    def replica_sets(self, track: Track) -> list[Manifest]:
        """Return the ReplicaSets of a track's Deployment."""
        deployment = self.deployment(track)
        return [found for found in self.facts.of("ReplicaSet") if deployment and is_owned(found, deployment)]

    def set(self, key: str, value: object) -> str:
        """Return the command that changes one of the service's settings."""
        return f"pulumi config set --path services.{self.name}.{key} {value} && {UP}"

    def away(self, track: Track) -> str:
        """Return the command that takes the canary's traffic away, or shows what stable's pods say."""
        if track is Track.CANARY and self.weight:
            return self.set("canary.weight", 0)
        return f"{self.kubectl} describe pods --selector {written(self.selector(track))}"


def evidence(found: Manifest | str, field: str, value: object) -> Evidence:
    """Return where something can be seen: in an object, or in one that is not there, as `KIND NAME`."""
    name = found if isinstance(found, str) else f"{found['kind']} {found['metadata']['name']}"
    return Evidence(object=name, field=field, value=str(value))


def annotations_of(found: Manifest) -> dict[str, str]:
    """Return an object's annotations."""
    return dict(found["metadata"].get("annotations") or {})


def labels_of(found: Manifest) -> dict[str, str]:
    """Return an object's labels."""
    return dict(found["metadata"].get("labels") or {})


def annotation(name: str) -> str:
    """Return the field of an annotation."""
    return f"metadata.annotations[{name}]"


def is_canary(ingress: Manifest) -> bool:
    """Tell whether ingress-nginx takes an Ingress for a canary."""
    return annotations_of(ingress).get(CANARY) in _TRUE


def requests_of(ingress: Manifest) -> list[tuple[str, str, str]]:
    """Return host (`*` for every), path and pathType of each path, in order."""
    return [
        (rule.get("host") or "*", path.get("path") or "/", path["pathType"])
        for rule in ingress["spec"].get("rules") or ()
        for path in (rule.get("http") or {}).get("paths") or ()
    ]


def backends_of(ingress: Manifest) -> list[tuple[str, int | str]]:
    """Return the Service and its port, by number or name, of each path, in order."""
    services = [
        (path.get("backend") or {}).get("service") or {}
        for rule in ingress["spec"].get("rules") or ()
        for path in (rule.get("http") or {}).get("paths") or ()
    ]
    ports = [service.get("port") or {} for service in services]
    return [(s.get("name", ""), p.get("number") or p.get("name", "")) for s, p in zip(services, ports, strict=True)]


def is_owned(found: Manifest, owner: Manifest) -> bool:
    """Tell whether a controller's object has made another one."""
    return any(each["uid"] == owner["metadata"].get("uid") for each in found["metadata"].get("ownerReferences") or ())


def condition(found: Manifest, kind: str) -> Mapping[str, str]:
    """Return a condition of an object, empty when it is not there."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def moment(found: datetime | str | None) -> float:
    """Return a time of an object in seconds since the epoch; 0 for none."""
    if found is None:
        return 0.0
    return (datetime.fromisoformat(found) if isinstance(found, str) else found).timestamp()


def written(labels: Mapping[str, str]) -> str:
    """Return labels as a selector of kubectl."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "everything"


def listed(names: Iterable[str]) -> str:
    """Return names in one piece of text, each once."""
    return ", ".join(sorted(set(names)))
