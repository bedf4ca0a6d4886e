"""What a cluster has of one service before an update, read from its objects. No I/O."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from canary_service.config.settings import Settings
from canary_service.routing.router import Manifest, Pending, Router, UnreadableRouteError
from canary_service.routing.split import Split, Track
from canary_service.workload.labels import VERSION_LABEL, object_name
from canary_service.workload.readiness import generation, rollout_completed

FIELD_MANAGER: Final = "canary-service"
"""Under this name the engine applies every object, and nothing else does."""

OWNER_ANNOTATION: Final = "canary-service/stack"
"""Which stack an object belongs to, as PROJECT/STACK: two stacks that meet in a namespace leave each other alone."""

DECLARED_ANNOTATION: Final = "canary-service/declared-as"
"""As what a program declares the service of an object: TYPES::NAME of a component, as in its URN.

Absent where that is a CanaryService of the service's own name without parents, as it is in a program that has its
services from configuration.
"""

SERVICE_COMPONENT: Final = "canary:index:CanaryService"
"""The type of the component that is one service."""

ROLLED_BACK_ANNOTATION: Final = "canary-service/rolled-back"
"""On a canary's Deployment: the image that was rolled back, so that no run tries it again unasked."""

_CONTROLLERS: Final = frozenset({"kube-controller-manager"})
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_NEVER_PAST: Final = datetime.max.replace(tzinfo=UTC)


def declared_as(component: str, service: str) -> str:
    """Return what DECLARED_ANNOTATION says of a service that this component declares, empty for none."""
    return "" if component == f"{SERVICE_COMPONENT}::{service}" else component


@dataclass(frozen=True, slots=True)
class LiveDeployment:
    """One Deployment as it is.

    `image` is that of the service's container; `serving` those of ready pods: others too during a rollout, and `image`
    when there are none. `ready` is the number of ready pods. `declared_replicas` is None where somebody else than this
    program or an autoscaler has set their number. `generation` counts changes of the specification; `rolled_out` says
    whether its newest revision has ever been rolled out in full. Where something else has set the image,
    `overridden_version` is the version of the one that this program had declared. `rolled_back` is the image that a run
    has rolled back, empty for none.
    """

    image: str
    serving: tuple[str, ...]
    ready: int
    declared_replicas: int | None
    selector: Mapping[str, str]
    generation: int
    rolled_out: bool
    overridden_version: str | None = None
    rolled_back: str = ""


@dataclass(frozen=True, slots=True)
class LivePort:
    """A port of a Service: its number, its name (empty for none), and number or name of the container's port."""

    number: int
    name: str
    target: int | str


@dataclass(frozen=True, slots=True)
class LiveService:
    """What there is of a service.

    `split` is None when no route was found; `unreadable` says why what was found is no split. `selector` is that of
    the Service which stable's route leads to, `port` its first port, None also where something else has changed the
    one that this program declared. `ours` means that this program has applied stable's Deployment or Service, `owner`
    is the stack that the objects belong to, empty when they say nothing of it, and `declared_as` what it declares them
    as (DECLARED_ANNOTATION, empty where an object has none).
    `strands` means that as it is declared it would lead to no ready pod, although now it does. `taken_along` are other
    hosts and paths whose requests the canary gets a share of too. `former_routers` are others than the declared one
    that have objects of this program too: the stack is moving, and of those that serve `split` is the one that gives
    the canary most. `least` is then the percent that one of those gives it at least, `most` what any would give that
    has objects; None where there is one router.
    `pending` says why the declared router's objects, which are there, route nothing.
    """

    stable: LiveDeployment | None = None
    canary: LiveDeployment | None = None
    split: Split | None = None
    unreadable: str = ""
    selector: Mapping[str, str] | None = None
    port: LivePort | None = None
    ours: bool = False
    owner: str = ""
    declared_as: frozenset[str] = frozenset()
    strands: bool = False
    taken_along: tuple[str, ...] = ()
    former_routers: tuple[str, ...] = ()
    pending: Pending | None = None
    least: int | None = None
    most: int | None = None

    @property
    def weight(self) -> int:
        """Percent of the requests that go to the canary, as read back."""
        return self.split.weight if self.split else 0

    @property
    def rises_from(self) -> int:
        """Percent above which a declared weight gives the canary more requests than it has."""
        return self.weight if self.least is None else self.least

    @property
    def falls_from(self) -> int:
        """Percent below which a declared weight takes something from the canary."""
        return self.weight if self.most is None else self.most

    @property
    def mirror(self) -> int:
        """Percent of the requests to stable of which the canary gets a copy."""
        return self.split.mirror if self.split else 0

    @property
    def misrouted(self) -> tuple[str, ...]:
        """Why requests may not come in as the declared router's objects say, in words that follow a service's name."""
        former, found = " and ".join(self.former_routers), []
        if former:
            refused = self.pending and self.pending.refused
            ends = "" if refused else ": `pulumi up` ends the move"
            found.append(f"objects of router {former} take its requests too{ends}")
        if self.pending:
            found.append(f"the declared router does not route it: {self.pending.reason}: `canary doctor`")
        return tuple(found)

    @property
    def stable_image(self) -> str | None:
        """Stable's image; None when this program does not see stable's Deployment."""
        return self.stable.image if self.stable else None

    @property
    def canary_image(self) -> str | None:
        """The canary's image; None when there is no canary."""
        return self.canary.image if self.canary else None

    @property
    def canary_images(self) -> tuple[str, ...]:
        """The images that the canary's requests meet; none when there is no canary."""
        return self.canary.serving if self.canary else ()


@dataclass(frozen=True, slots=True)
class Objects:
    """What a namespace has: Deployments and Services by name, all objects of the router's kinds, and the ReplicaSets.

    ReplicaSets are needed where the newest revision of a Deployment was never rolled out in full.
    """

    deployments: Mapping[str, Manifest]
    services: Mapping[str, Manifest]
    routes: Sequence[Manifest] = ()
    replica_sets: Sequence[Manifest] = ()


def live_service(settings: Settings, name: str, objects: Objects) -> LiveService:
    """Return what a namespace has of one service, which may be configured otherwise than it runs."""
    split, unreadable, pending = None, "", None
    router = settings.router_of_stack()
    try:
        found = routes_of(settings, name, objects.routes)
        split = read_split(settings, name, router, with_stable(settings, name, found)) if found else None
        pending = router.pending(found) if found else None
    except UnreadableRouteError as error:
        unreadable = str(error)
    stable_service = objects.services.get(split.stable.service if split else name)
    stable = objects.deployments.get(object_name(name, Track.STABLE))
    canary = objects.deployments.get(object_name(name, Track.CANARY))
    canary_service = objects.services.get(object_name(name, Track.CANARY))
    owned = [each for each in (stable, stable_service, canary, canary_service) if each and _owner(each)]
    return LiveService(
        stable=_deployment(name, stable, objects.replica_sets),
        canary=_deployment(name, canary, objects.replica_sets),
        split=split,
        unreadable=unreadable,
        port=_port(stable_service),
        ours=any(applied(found) for found in (stable, stable_service) if found),
        owner=next(map(_owner, owned), ""),
        declared_as=frozenset(_annotation(each, DECLARED_ANNOTATION) for each in owned),
        taken_along=tuple(router.taken_along(objects.routes, split)) if split else (),
        selector=(stable_service["spec"].get("selector") or {}) if stable_service else None,
        pending=pending,
    )


def read_split(settings: Settings, name: str, router: Router, routes: Sequence[Manifest]) -> Split:
    """Return the split that the objects of a router say for a service.

    Raises:
        UnreadableRouteError: they say none, or one between other Services than the service's own.
    """
    split = router.read(routes)
    own = {Track.STABLE: split.stable} | ({Track.CANARY: split.canary.backend} if split.canary else {})
    names = {track: object_name(name, track) for track in Track}
    for track, backend in own.items():
        # What something else owns may have any name; another canary on its path is refused as such.
        if backend.service != names[track] and (
            settings.services[name].stable != "existing" or backend.service in names.values()
        ):
            there = f"Service {backend.service} is in the place of {names[track]}"
            raise UnreadableRouteError(f"{routes[0]['kind']} {name}: {there}")
    return split


def with_stable(settings: Settings, name: str, found: list[Manifest]) -> list[Manifest]:
    """Return the routes with stable's as declared where somebody has deleted those: the canary's own say its weight."""
    if settings.services[name].stable == "existing":
        return found
    there = set(map(key_of, found))
    declared = settings.split_of(name)
    return found + [
        route.manifest
        for route in settings.router_of_stack().render(declared)
        if route.services == {declared.stable.service} and key_of(route.manifest) not in there
    ]


def routes_of(settings: Settings, name: str, routes: Iterable[Manifest]) -> list[Manifest]:
    """Return the objects that route one service, without what was added for the engine.

    They have the names that this program gives them; a stable route that something else owns is told by the requests
    that it matches.
    """
    if settings.services[name].stable == "existing":
        plain = [_without_engine_annotations(route) for route in routes]
        return settings.router_of_stack().narrowed(plain, settings.split_of(name).match)
    own = {object_name(name, track) for track in Track}
    return [_without_engine_annotations(route) for route in routes if route["metadata"]["name"] in own]


def changed_by_others(manifest: Manifest) -> set[str]:
    """Return who has written to an object since this program last did, by name of the field manager.

    Controllers, which write what is theirs, and writers of the status alone are left out. The API server keeps full
    seconds, so that a write in the same second counts too; it keeps no time of `kubectl scale`, which counts always.
    """
    entries: list[dict[str, Any]] = manifest["metadata"].get("managedFields") or []
    own = [entry for entry in entries if entry["manager"] == FIELD_MANAGER and entry["operation"] == "Apply"]
    last = max((_time(entry) for entry in own), default=_EPOCH)
    return {
        entry["manager"]
        for entry in entries
        if entry not in own
        and entry.get("subresource") != "status"
        and entry["manager"] not in _CONTROLLERS
        and _time(entry) >= last
    }


def key_of(manifest: Manifest) -> tuple[str, str]:
    """Return kind and name of an object, by which those of one namespace differ."""
    return manifest["kind"], manifest["metadata"]["name"]


def last_written(manifest: Manifest) -> float:
    """Return when anybody has written to an object, but for its status, in seconds since the epoch; 0 if not known."""
    entries: list[dict[str, Any]] = manifest["metadata"].get("managedFields") or []
    times = [_time(entry) for entry in entries if entry.get("subresource") != "status" and entry.get("time")]
    return max(times, default=_EPOCH).timestamp()


def lacks(manifest: Manifest, declared: Manifest, *, keep_replicas: bool = False) -> bool:
    """Tell whether this program no longer owns a field of an object that it declares.

    Who removes a field (`kubectl annotate NAME KEY-`) leaves no entry in managedFields, but the field's owner loses it.
    A field that is declared for the first time is not owned yet either. `keep_replicas` leaves out the number of
    replicas, which is an autoscaler's.
    """
    own = [
        entry.get("fieldsV1") or {}
        for entry in manifest["metadata"].get("managedFields") or ()
        if entry["manager"] == FIELD_MANAGER and entry["operation"] == "Apply"
    ]
    kept = {key: declared["metadata"].get(key) or {} for key in ("labels", "annotations")}
    spec = {key: value for key, value in declared["spec"].items() if not (keep_replicas and key == "replicas")}
    return not any(_owned(fields, {"metadata": kept, "spec": spec}) for fields in own)


def _owned(fields: Mapping[str, Any], declared: object) -> bool:
    """Tell whether a set of fields, in the form of managedFields, covers all of a declared value.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#fieldsv1
    """
    if not fields.keys() - {"."}:  # a leaf, or a map or list that has one owner as a whole
        return True
    if isinstance(declared, dict):
        return all(f"f:{key}" in fields and _owned(fields[f"f:{key}"], v) for key, v in declared.items() if v != {})
    if isinstance(declared, list):
        keys = [(json.loads(key[2:]), owned) for key, owned in fields.items() if key.startswith("k:")]
        return all(any(_is_item(item, key) and _owned(owned, item) for key, owned in keys) for item in declared)
    return True


def _is_item(item: object, key: Mapping[str, Any]) -> bool:
    """Tell whether a list's item has this key; what the item leaves out the API server has filled in."""
    return isinstance(item, dict) and all(item.get(name, value) == value for name, value in key.items())


def _time(entry: Mapping[str, Any]) -> datetime:
    found = entry.get("time")
    if isinstance(found, datetime):
        return found
    return datetime.fromisoformat(found) if found else _NEVER_PAST


def _deployment(service: str, manifest: Manifest | None, replica_sets: Sequence[Manifest]) -> LiveDeployment | None:
    if manifest is None:
        return None
    spec, uid = manifest["spec"], manifest["metadata"].get("uid")
    container = _container(service, spec)
    serving = {
        image_of(service, found["spec"])
        for found in replica_sets
        if (found.get("status") or {}).get("readyReplicas")
        and any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences") or ())
    }
    return LiveDeployment(
        image=container["image"],
        serving=tuple(sorted(serving)) or (container["image"],),
        ready=(manifest.get("status") or {}).get("readyReplicas", 0),
        declared_replicas=spec.get("replicas", 1) if _declares(manifest, "replicas") or _scaled(manifest) else None,
        selector=spec["selector"].get("matchLabels") or {},
        generation=generation(manifest),
        rolled_out=rollout_completed(manifest),
        overridden_version=None
        if _declares(
            manifest,
            "template",
            "spec",
            "containers",
            _item({"name": container["name"]}),
            "image",
        )
        else (manifest["metadata"].get("labels") or {}).get(VERSION_LABEL),
        rolled_back=_annotation(manifest, ROLLED_BACK_ANNOTATION),
    )


def image_of(service: str, spec: Mapping[str, Any]) -> str:
    """Return the image of the service's container in the specification of a Deployment or ReplicaSet."""
    image: str = _container(service, spec)["image"]
    return image


def _container(service: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = spec["template"]["spec"]["containers"]
    return next((container for container in containers if container["name"] == service), containers[0])


def _owner(manifest: Manifest) -> str:
    return _annotation(manifest, OWNER_ANNOTATION)


def _annotation(manifest: Manifest, key: str) -> str:
    return (manifest["metadata"].get("annotations") or {}).get(key) or ""


def _scaled(manifest: Manifest) -> bool:
    """Tell whether an autoscaler has set the number of pods."""
    return any(
        entry["manager"] in _CONTROLLERS and entry.get("subresource") == "scale"
        for entry in manifest["metadata"].get("managedFields") or ()
    )


def _port(service: Manifest | None) -> LivePort | None:
    for port in (service["spec"].get("ports") or ()) if service else ():
        key = {"port": port["port"], "protocol": port.get("protocol", "TCP")}
        fields = ["targetPort", *(["name"] if port.get("name") else [])]
        if service and applied(service) and not all(_declares(service, "ports", _item(key), f) for f in fields):
            return None
        return LivePort(port["port"], port.get("name") or "", port.get("targetPort") or port["port"])
    return None


def _item(key: Mapping[str, object]) -> str:
    """Return the name that an item of a list has in managedFields."""
    return f"k:{json.dumps(key, separators=(',', ':'))}"


def applied(manifest: Manifest) -> bool:
    """Tell whether this program has ever applied an object."""
    return any(entry["manager"] == FIELD_MANAGER for entry in manifest["metadata"].get("managedFields") or ())


def _declares(manifest: Manifest, *path: str) -> bool:
    """Tell whether this program owns a field below `spec`; list items are keys in the form of managedFields."""
    for entry in manifest["metadata"].get("managedFields") or ():
        fields: Any = (entry.get("fieldsV1") or {}).get("f:spec")
        for key in path:
            fields = (fields or {}).get(key if key.startswith("k:") else f"f:{key}")
        if entry["manager"] == FIELD_MANAGER and fields is not None:
            return True
    return False


def _without_engine_annotations(manifest: Manifest) -> Manifest:
    """Leave out what components add for the engine and for other stacks, which is no part of a split."""
    metadata = manifest["metadata"]
    kept = {
        k: v
        for k, v in (metadata.get("annotations") or {}).items()
        if not k.startswith(("pulumi.com/", OWNER_ANNOTATION, DECLARED_ANNOTATION))
    }
    return manifest | {"metadata": metadata | {"annotations": kept}}
