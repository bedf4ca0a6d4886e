"""Which pods Deployments and Services find."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from canary_policies.objects import (
    SERVING,
    UNKNOWN,
    Object,
    both,
    get,
    items,
    mapping,
    matches,
    pod_template,
    same_namespace,
    text,
)
from canary_policies.routes import paths_by_role
from canary_policies.rule import Config, Finding, StackRule
from canary_policies.weights import splits

_SUBSETS: Final = {"DestinationRule": "host", "ServiceResolver": ""}
_ROUTES: Final = frozenset({"GRPCRoute", "HTTPRoute", "IngressRoute", "TraefikService", "VirtualService"})


def _labels(workload: Object) -> Any:  # noqa: ANN401 - whatever the manifest holds
    return get(pod_template(workload), "metadata", "labels")


class _Pods:
    """The pods of workloads, by their labels: a stack may have hundreds of workloads and as many selectors."""

    def __init__(self, workloads: Sequence[Object]) -> None:
        self._all = workloads
        self._by_label: dict[tuple[str, str], list[Object]] = {}
        for workload in workloads:
            for key, value in mapping(_labels(workload)).items():
                if isinstance(value, str):
                    self._by_label.setdefault((key, value), []).append(workload)

    def found_by(self, one: Object, selector: object) -> list[Object]:
        """Return the workloads whose pods the selector of an object is known to find."""
        wanted = [(key, value) for key, value in mapping(selector, "matchLabels").items() if isinstance(value, str)]
        candidates = min((self._by_label.get(label, []) for label in wanted), key=len, default=self._all)
        return [found for found in candidates if both(same_namespace(one, found), matches(selector, _labels(found)))]


def _disjoint(objects: Sequence[Object], _: Config) -> Iterator[Finding]:
    pods = _Pods(objects)
    for one in objects:
        selector = get(one.body, "spec", "selector")
        if one.kind == "ReplicationController" and selector:
            selector = {"matchLabels": selector}
        for other in pods.found_by(one, selector):
            if other is not one:
                yield Finding(one, f"its selector finds the pods of {other} too")


def _one_track(objects: Sequence[Object], config: Config) -> Iterator[Finding]:
    label = config["trackLabel"]
    pods = _Pods([found for found in objects if found.kind in SERVING])
    services = [found for found in objects if found.kind == "Service"]
    selected = {
        id(service): pods.found_by(service, selector)
        for service in services
        # A Service without selector finds nothing, unlike a LabelSelector.
        if (selector := {"matchLabels": get(service.body, "spec", "selector")})["matchLabels"]
    }
    mixed: list[str] = []
    reported: set[tuple[str, str]] = set()
    for service in services:
        tracks: dict[str, str] = {}
        for workload in selected.get(id(service), ()):
            track = get(_labels(workload), label)
            if track is not UNKNOWN:
                tracks.setdefault(track if isinstance(track, str) else "unlabelled", workload.name)
        if wrong := _other_track(service, label, tracks):
            mixed.append(service.name)
            yield Finding(service, wrong)
        if (len(tracks.keys() - {"unlabelled"}) > 1 or {"canary", "unlabelled"} <= tracks.keys()) and not any(
            _tells_apart(found, service) for found in objects
        ):
            both_tracks = " and ".join(f"{track} pods ({tracks[track]})" for track in sorted(tracks))
            mixed.append(service.name)
            yield Finding(service, f"it selects {both_tracks}: the canary gets requests whatever its weight is")
    for router, names in _shared_routes(objects):
        for one, other in pairwise(names):
            # Several routers may split between the same two.
            if not {one, other}.intersection(mixed) and (one, other) not in reported:
                reported.add((one, other))
                yield from _overlap(router, [found for found in services if found.name in {one, other}], selected)


def _other_track(service: Object, label: str, tracks: Mapping[str, str]) -> str:
    """Return in what way a Service of one track selects pods of the other alone; nothing when it does not."""
    selected = get(service.body, "spec", "selector", label)
    if selected is None and len(tracks) == 1:
        (selected,) = tracks
    told = get(service.body, "metadata", "labels", label)
    if told is None and (name := text(service.body, "metadata", "name")):
        told = "canary" if "canary" in name else "stable"
    if not isinstance(selected, str) or not isinstance(told, str) or "canary" not in {selected, told}:
        return ""
    return "" if selected == told else f"it is the {told} Service, but selects {selected} pods"


def _overlap(router: Object, pair: Sequence[Object], selected: dict[int, list[Object]]) -> Iterator[Finding]:
    """Find Services between which a router splits traffic, but that have pods in common."""
    inside = [found for found in pair if same_namespace(found, router)]
    for one, other in pairwise(inside):
        common = {found.name for found in selected.get(id(one), ())} & {f.name for f in selected.get(id(other), ())}
        if common:
            yield Finding(one, f"it selects the pods of {min(common)}, and so does {other.name}, beside it in {router}")


def _shared_routes(objects: Sequence[Object]) -> Iterator[tuple[Object, list[str]]]:
    """Return the Services between which each router splits traffic."""
    for found in objects:
        if found.kind in _ROUTES:
            for split in splits(found):
                yield found, sorted({backend.name.partition(".")[0] for backend in split.backends})
    canaries, ordinary, _open = paths_by_role([found for found in objects if found.kind == "Ingress"])
    for canary in canaries:
        for stable in ordinary:
            names = [name for name in (canary.service, stable.service) if isinstance(name, str)]
            if canary.mirrors(stable):
                yield canary.ingress, sorted(set(names))


def _tells_apart(found: Object, service: Object) -> bool:
    """Tell whether subsets separate the versions behind a Service, as Istio and Consul do."""
    if found.kind not in _SUBSETS or same_namespace(found, service) is False:
        return False
    host = text(found.body, "spec", "host") if found.kind == "DestinationRule" else found.name
    subsets = get(found.body, "spec", "subsets")
    several = subsets is UNKNOWN or bool(items(found.body, "spec", "subsets") or mapping(found.body, "spec", "subsets"))
    return several and host.partition(".")[0] == service.name


RULES: Final = (
    StackRule(
        name="disjoint-selectors",
        why="A Deployment counts, scales and ends whatever pods its selector finds",
        fix="tell stable and canary apart by a label of selector and pods, such as version",
        kinds=SERVING,
        check=_disjoint,
    ),
    StackRule(
        name="service-selects-one-track",
        why="A stable Service that selects canary pods sends them requests, whatever the canary's weight is",
        fix="give the Service's selector the label that tells stable and canary apart, with the value of its own track",
        kinds=SERVING | _ROUTES | frozenset(_SUBSETS) | {"Ingress", "Service"},
        options={
            "trackLabel": {
                "type": "string",
                "default": "version",
                "description": "Label of pods that says whether they are stable or canary",
            }
        },
        check=_one_track,
    ),
)
