"""What an update would change for traffic, in terms of services instead of resources. No I/O.

`Plan` is also the JSON that `canary plan --json` prints: names and meaning of its fields stay as they are
(docs/plan.md).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from pydantic import Field

from canary_service.config.loader import Problem
from canary_service.config.settings import Settings
from canary_service.rollout.engine_events import COMPONENT, SECRET, STACK, EventStream, Step, kind_and_name
from canary_service.rollout.guards import IDENTIFIER, RefusedError, moves, transitions
from canary_service.rollout.model import Record
from canary_service.routing.router import Manifest, Router, UnreadableRouteError
from canary_service.routing.split import TOTAL_WEIGHT, Track
from canary_service.workload.labels import object_name
from canary_service.workload.live import LiveService, Objects, live_service
from canary_service.workload.stickiness import kept_at_weight_0

Outcome: TypeAlias = Literal["unchanged", "changes", "invalid", "refused", "violated", "failed"]
Change: TypeAlias = Literal[
    "first deploy",
    "canary added",
    "shift",
    "canary image",
    "stable image",
    "route",
    "promotion",
    "abort",
    "removed",
    "update",
    "unchanged",
]
Operation: TypeAlias = Literal["create", "update", "replace", "delete", "release", "restore"]

_OPERATIONS: Final[Mapping[str, Operation]] = {
    "create": "create",
    "import": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
}

# What the program says of an object that others have changed (canary_service/components/canary_service.py): to the
# engine it is as it was, but an update puts it back.
_PUT_BACK: Final = "`pulumi up` applies what is declared"

# What the language host and the engine say after everything that fails.
_AFTERMATH: Final = re.compile(
    r"preview failed|an unhandled error occurred: program exited with non-zero exit code: \d+"
)


class Weight(Record):
    """Percent of a service's requests that go to its canary; None where there is no canary, or it cannot be read."""

    before: int | None
    after: int | None


class Requests(Record):
    """Requests per second: all of a service, and those which another version answers after the update."""

    total: float
    moved: float


class TrackPlan(Record):
    """Image and number of pods of one track; None where there is no such track, or where it is not known.

    With an autoscaler, the pods are the fewest that it keeps.
    """

    image_before: str | None = None
    image_after: str | None = None
    pods_before: int | None = None
    pods_after: int | None = None


class ServicePlan(Record):
    """What happens to one service.

    `unreadable` says why the weight before cannot be read from the route, None when it can. `mirror` is percent of the
    requests to stable of which the canary gets a copy, absent when it gets none. `always_canary` is what sends requests
    to the canary at every weight. `requests_per_second` is absent when nothing has counted them. `changes` are those of
    settings of the pods and of their configuration, in words, without any values.
    """

    name: str
    change: Change
    weight: Weight
    unreadable: str | None = None
    mirror: Weight | None = None
    stable: TrackPlan
    canary: TrackPlan
    always_canary: tuple[str, ...] = ()
    requests_per_second: Requests | None = None
    changes: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()


class ObjectPlan(Record):
    """What happens to one object.

    `release` means that it stays in the cluster, but is managed no more; `restore`, that others have changed or deleted
    it and it is put back. `fields` are the paths that change.
    """

    operation: Operation
    kind: str
    name: str
    service: str | None = None
    fields: tuple[str, ...] = ()


class PolicyFinding(Record):
    """What a rule of a policy pack says of an object. A mandatory one stops the update."""

    severity: Literal["mandatory", "advisory"]
    pack: str
    rule: str
    object: str
    message: str


class Refusal(Record):
    """A value of the configuration with which no update happens, and the command that mends it."""

    key: str
    value: str
    allowed: str
    fix: str


class Plan(Record):
    """What an update of a stack would do.

    `weights_from` says where the weights before the update were read: in the cluster, or in the state of the last
    update. `unchanged_objects` counts the others.
    """

    schema_version: Literal[1] = 1
    stack: str
    outcome: Outcome
    weights_from: Literal["cluster", "state"] | None = None
    services: tuple[ServicePlan, ...] = ()
    objects: tuple[ObjectPlan, ...] = ()
    unchanged_objects: int = 0
    policies: tuple[PolicyFinding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = Field((), description="what is not known, and why")

    @property
    def changed(self) -> tuple[ServicePlan, ...]:
        """The services to which something happens."""
        return tuple(service for service in self.services if service.change != "unchanged")

    @property
    def mandatory(self) -> tuple[PolicyFinding, ...]:
        """The findings that stop the update."""
        return tuple(finding for finding in self.policies if finding.severity == "mandatory")


@dataclass(frozen=True, slots=True)
class Target:
    """What would be updated; `stack` as `pulumi --stack` takes it, perhaps with organisation and project before it."""

    project: str
    stack: str

    @property
    def owner(self) -> str:
        """How objects say which stack they belong to."""
        return f"{self.project}/{self.stack.rpartition('/')[2]}"


@dataclass(frozen=True, slots=True)
class Before:
    """What there is of each service before the update; `live` is empty where nothing of it can be told.

    `missing` says why no cluster was asked; it is then the state of the last update. `refused` is what keeps any update
    from it. `rates` are requests per second of services that something has counted, `notes` why there are none.
    """

    live: Mapping[str, LiveService]
    missing: str = ""
    refused: tuple[Problem, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def planned(target: Target, stream: EventStream, settings: Settings, before: Before, *, failed: bool) -> Plan:
    """Return the plan of a preview that got as far as running the program."""
    refusals: Sequence[Problem] = before.refused
    if refusals and not before.live:
        return Plan(stack=target.stack, outcome="refused", refusals=tuple(map(_refusal, refusals)))
    warned: Mapping[str, tuple[str, ...]] = {}
    notes = list(before.notes)
    lowered: dict[str, int] = {}
    try:
        changes = transitions(settings, before.live, target.owner)
        warned = {name: change.warnings for name, change in changes.items()}
        lowered = {name: change.lowers_to for name, change in changes.items() if change.lowers_to is not None}
    except RefusedError as error:
        refusals = [*refusals, *error.problems]
    if before.missing:
        notes.append(
            f"{before.missing}. The weights before are those of the last update, and what the update may not do is "
            "not checked"
        )
        if refusals:
            listed = "; ".join(f"{problem.key} = {problem.value} (allowed: {problem.allowed})" for problem in refusals)
            notes.append(f"if the cluster is as the last update left it, this is refused: {listed}")
            refusals = ()
    refusals = [*refusals, *_made_anew(stream.steps)]
    restored = _restored(stream)
    services = []
    for name in settings.services:
        risks = [*warned.get(name, ()), *_risks(settings, name, before, lowered)]
        found = _service(settings, name, before, stream.steps, risks)
        if found.change == "unchanged" and any(each.service == name for each in restored):
            found = found.model_copy(update={"change": "update"})
        services.append(found)
    services += _removed(settings.router_of_stack(), settings, before.rates, stream.steps)
    objects = (*_objects(stream.steps), *restored)
    policies = tuple(_policies(stream))
    told = {f"{name}: {warning}" for name, warnings in warned.items() for warning in warnings}
    outcome = _outcome(services, objects, policies, refused=bool(refusals), failed=failed)
    return Plan(
        stack=target.stack,
        outcome=outcome,
        weights_from="state" if before.missing else "cluster",
        # What the state has of a service is not known when the engine did not get through it.
        services=() if before.missing and outcome == "failed" else tuple(services),
        objects=objects,
        unchanged_objects=sum(_is_object(step) and step.op == "same" for step in stream.steps) - len(restored),
        policies=policies,
        refusals=tuple(map(_refusal, refusals)),
        errors=_errors(stream, outcome),
        warnings=tuple(
            said.message
            for said in stream.diagnostics
            if said.severity == "warning"
            and said.message not in told
            and not (before.missing and said.message.startswith(before.missing))
        ),
        notes=tuple(notes),
    )


def invalid(stack: str, problems: Iterable[Problem]) -> Plan:
    """Return the plan of a configuration that cannot be used."""
    return Plan(stack=stack, outcome="invalid", refusals=tuple(map(_refusal, problems)))


def stack_of(stream: EventStream) -> str | None:
    """Return the name of the stack that was previewed, None when it ended before it had one."""
    return next((step.urn.split("::")[0].rpartition(":")[2] for step in stream.steps if step.type == STACK), None)


def removed_services(settings: Settings, steps: Iterable[Step]) -> list[str]:
    """Return the services that the state has and the configuration has not."""
    return [step.name for step in steps if step.type == COMPONENT and step.name not in settings.services]


def state_before(settings: Settings, steps: Sequence[Step]) -> dict[str, LiveService]:
    """Return what the last update left of each service, for want of a cluster that could be asked."""
    outputs = next((step.outputs.get("services") for step in steps if step.type == STACK), None)
    found: dict[str, dict[str, Manifest]] = {}
    for step in steps:
        if step.custom and step.old and step.service:
            found.setdefault(step.kind, {})[step.name] = _as_left(step, outputs if isinstance(outputs, dict) else {})
    routes = [old for kind, named in found.items() if kind in _route_kinds(settings) for old in named.values()]
    objects = Objects(found.get("Deployment", {}), found.get("Service", {}), routes)
    return {name: live_service(settings, name, objects) for name in settings.services}


def _outcome(
    services: Iterable[ServicePlan],
    objects: Sequence[ObjectPlan],
    policies: Iterable[PolicyFinding],
    *,
    refused: bool,
    failed: bool,
) -> Outcome:
    if refused:
        return "refused"
    if any(finding.severity == "mandatory" for finding in policies):
        return "violated"
    if failed:
        return "failed"
    return "changes" if objects or any(service.change != "unchanged" for service in services) else "unchanged"


def _errors(stream: EventStream, outcome: Outcome) -> tuple[str, ...]:
    """Return what else went wrong than what the outcome says, as it was said."""
    if outcome == "refused":
        return ()
    said = [each.message for each in stream.diagnostics if each.severity == "error"]
    telling = [message for message in said if not _AFTERMATH.fullmatch(message)]
    return tuple(telling or (said if outcome == "failed" else ()))


def _service(settings: Settings, name: str, before: Before, steps: Sequence[Step], risks: Iterable[str]) -> ServicePlan:
    live, declared = before.live[name], settings.services[name]
    own = [step for step in steps if step.service == name]
    weight_before = live.weight if live.split and live.split.canary and not live.unreadable else None
    weight = Weight(before=weight_before, after=settings.canary_weight_of(name)[0] if declared.canary else None)
    mirror = Weight(before=live.mirror, after=settings.mirror_of(name))
    tracks = {track: _track(settings, name, track, live, own) for track in Track}
    change = _change(settings, name, live, weight, own)
    rate = None if live.unreadable else before.rates.get(name)
    return ServicePlan(
        name=name,
        change=change,
        weight=weight,
        unreadable=live.unreadable or None,
        mirror=mirror if mirror.before or mirror.after else None,
        stable=tracks[Track.STABLE],
        canary=tracks[Track.CANARY],
        always_canary=tuple(kept_at_weight_0(settings, name)),
        requests_per_second=_requests(rate, _moved(tracks, change, weight)),
        changes=tuple(sorted(_changes(own))),
        risks=tuple(risks),
    )


def _change(settings: Settings, name: str, live: LiveService, weight: Weight, own: Iterable[Step]) -> Change:  # noqa: PLR0911 - one line for each
    declared = settings.services[name]
    if live.stable is None and live.split is None and not live.unreadable:
        return "first deploy"
    if any(moves(settings, name, live)):
        return "route"
    if live.stable and declared.image not in (None, live.stable.image, *live.canary_images):
        return "stable image"
    if declared.canary and weight.before is None and not (live.unreadable and live.canary):
        return "canary added"
    if declared.canary and live.canary_image not in (None, declared.canary.image):
        return "canary image"
    if weight.after is None and (weight.before is not None or live.canary):
        return "promotion" if declared.image in live.canary_images else "abort"
    if weight.before != weight.after or live.unreadable:
        return "shift"
    if any(_is_object(step) and step.op != "same" for step in own):
        return "update"
    return "unchanged"


def _track(settings: Settings, name: str, track: Track, live: LiveService, own: Iterable[Step]) -> TrackPlan:
    running = live.stable if track is Track.STABLE else live.canary
    there = track is Track.STABLE or settings.services[name].canary is not None
    pods = next((step for step in own if step.kind == "Deployment" and step.name == object_name(name, track)), None)
    return TrackPlan(
        image_before=running.image if running else None,
        image_after=settings.image_of(name, track) if there else None,
        pods_before=_replicas(pods.old) if pods else None,
        pods_after=settings.replicas_of(name, track) if there else None,
    )


def _replicas(deployment: Manifest | None) -> int | None:
    found = ((deployment or {}).get("spec") or {}).get("replicas")
    return int(found) if isinstance(found, int | float) else None


def _moved(tracks: Mapping[Track, TrackPlan], change: Change, weight: Weight) -> int:
    """Return the percent of requests that another version answers afterwards, or none."""
    if change == "route":
        return TOTAL_WEIGHT
    shares = Counter[str](), Counter[str]()
    for track in Track:
        images = tracks[track].image_before, tracks[track].image_after
        for found, image, canary in zip(shares, images, (weight.before or 0, weight.after or 0), strict=True):
            found[image or track] += canary if track is Track.CANARY else TOTAL_WEIGHT - canary
    return TOTAL_WEIGHT - (shares[0] & shares[1]).total()


def _requests(total: float | None, moved: int) -> Requests | None:
    if total is None:
        return None
    return Requests(total=round(total, 3), moved=round(total * moved / TOTAL_WEIGHT, 3))


def _risks(settings: Settings, name: str, before: Before, lowered: Mapping[str, int]) -> Iterator[str]:
    declared, live = settings.services[name], before.live[name]
    after, _ = settings.canary_weight_of(name)
    if name in lowered:
        yield f"the canary's weight falls to {lowered[name]} % ahead of everything else, whatever fails afterwards"
    replaced = declared.canary and live.canary_image not in (None, declared.canary.image)
    if declared.canary and replaced and (at_once := min(live.weight, after)):
        yield f"{at_once} % of the requests meet {declared.canary.image} at once"
    if declared.canary and after == TOTAL_WEIGHT:
        yield f"weight {TOTAL_WEIGHT}: what is wrong with {declared.canary.image} meets every request"
    if declared.canary and declared.session_affinity and live.split and after != live.weight:
        yield (
            f"clients with session cookie {declared.session_affinity.cookie_name} stay where they are: the share "
            "follows the weight only as new clients come"
        )
    unproven = live.stable and declared.image not in (None, live.stable.image, *live.canary_images)
    if unproven and declared.stable == "managed":
        yield f"stable changes to {declared.image}, which no canary has tried"


def _changes(own: Sequence[Step]) -> Iterator[str]:
    for step in own:
        if step.kind == "Deployment" and step.op in ("update", "replace"):
            yield from (f"{_track_of(step)}: {text}" for text in _pod_changes(step))
            for kind in ("ConfigMap", "Secret"):
                yield from (f"{_track_of(step)}: {text}" for text in _content_changes(kind, _track_of(step), own))


def _pod_changes(step: Step) -> Iterator[str]:
    """Tell in words what changes in the pods of a Deployment, its image and number apart."""
    old, new = _container(step.old), _container(step.new)
    if old is None or new is None:
        yield "pod settings change, which are encrypted"
        return
    variables = [{entry["name"]: entry for entry in each.get("env") or ()} for each in (old, new)]
    if names := list(_compared(*variables)):
        yield "environment: " + ", ".join(names)
    others = {
        re.sub(r"^spec\.template\.(spec\.)?(containers\[\d+\]\.)?", "", path)
        for path in step.fields
        if path.startswith("spec.template.")
        and not re.search(r"containers\[\d+\]\.(env\b|envFrom|image$)|\.labels|volumes\[", path)
    }
    if others:
        yield "pods: " + ", ".join(sorted(others))


def _content_changes(kind: str, track: str, own: Sequence[Step]) -> Iterator[str]:
    """Tell which keys of a track's ConfigMap or Secret change: their content is part of their name."""
    steps = [step for step in own if step.kind == kind and _track_of(step) == track]
    gone = next((step for step in steps if step.op in ("delete", "replace")), None)
    made = next((step for step in steps if step.op in ("create", "replace")), None)
    if not gone and not made:
        return
    old = ((gone and gone.old) or {}).get("data") or {}
    new = ((made and made.new) or {}).get("data") or {}
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield f"content of the {kind} changes, which is encrypted"
    elif names := list(_compared(old, new)):
        yield f"{kind}: " + ", ".join(names)


def _compared(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    """Yield each key that differs, with what happens to it but without its value."""
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{name} added"
        elif name not in new:
            yield f"{name} removed"
        elif old[name] != new[name]:
            yield f"{name} changed"


def _container(deployment: Manifest | None) -> dict[str, Any] | None:
    """Return the container of the service, the first one; None where it is hidden."""
    try:
        found = deployment["spec"]["template"]["spec"]["containers"][0] if deployment else None
    except (KeyError, TypeError, IndexError):
        return None
    return found if isinstance(found, dict) else None


def _track_of(step: Step) -> str:
    labels = ((step.new or step.old or {}).get("metadata") or {}).get("labels") or {}
    return str(labels.get("version", Track.STABLE))


def _removed(
    router: Router, settings: Settings, rates: Mapping[str, float], steps: Sequence[Step]
) -> Iterator[ServicePlan]:
    for name in removed_services(settings, steps):
        own = [step for step in steps if step.service == name]
        kinds = _route_kinds(settings)
        try:
            split = router.read([step.old for step in own if step.kind in kinds and step.old])
            canary, unreadable = split.weight if split.canary else None, None
        except UnreadableRouteError as error:
            canary, unreadable = None, str(error)
        weight = Weight(before=canary, after=None)
        yield ServicePlan(
            name=name,
            change="removed",
            weight=weight,
            unreadable=unreadable,
            stable=TrackPlan(),
            canary=TrackPlan(),
            requests_per_second=_requests(rates.get(name), TOTAL_WEIGHT),
            risks=("the service is removed with its route: its requests get no answer any more",),
        )


def _route_kinds(settings: Settings) -> set[str]:
    return {kind.kind for kind in settings.router_of_stack().kinds}


def _objects(steps: Iterable[Step]) -> Iterator[ObjectPlan]:
    """Yield what changes, in an order that the engine, which works on many objects at once, does not have.

    What is of no one service comes last: it changes with every weight and says least.
    """
    order = list(_OPERATIONS)
    changing = [step for step in steps if step.op in order]

    def place(step: Step) -> tuple[object, ...]:
        return order.index(step.op), step.service is None, step.service or "", step.kind, step.name

    for step in sorted(changing, key=place):
        if _is_object(step):
            operation = _OPERATIONS[step.op]
            yield ObjectPlan(
                operation="release" if operation == "delete" and step.retained else operation,
                kind=step.kind,
                name=step.name,
                service=step.service,
                fields=step.fields,
            )


def _made_anew(steps: Sequence[Step]) -> Iterator[Problem]:
    """Yield which live objects would be replaced under the name that they have: deleted last is what was made first."""
    same = [
        f"{step.kind} {step.name}"
        for step in sorted(steps, key=lambda each: (each.kind, each.name))
        if step.op == "replace" and step.type.startswith("kubernetes:") and not step.retained
        if _place(step.old) == _place(step.new)
    ]
    by_provider = any(step.op == "replace" and step.type == "pulumi:providers:kubernetes" for step in steps)
    if same:
        cluster = f"kubernetes:kubeconfig, kubernetes:context and kubernetes:{IDENTIFIER}"
        yield Problem(
            ", ".join(same),
            "replaced",
            "updated in place: a replacement of the same name is the same object, which the engine then deletes as the "
            "former one, and every request for it fails",
            f"put back what changed of {cluster}, and `pulumi up`; once {IDENTIFIER} is in force, the others may change"
            if by_provider
            else "put back what changed of it",
        )


def _place(manifest: Manifest | None) -> tuple[object, object]:
    metadata = (manifest or {}).get("metadata")
    return (metadata.get("name"), metadata.get("namespace")) if isinstance(metadata, dict) else (None, None)


def _restored(stream: EventStream) -> list[ObjectPlan]:
    services = {step.urn: step.service for step in stream.steps}
    return [
        ObjectPlan(
            operation="restore",
            kind=kind_and_name(said.urn)[0],
            name=kind_and_name(said.urn)[1],
            service=services.get(said.urn),
        )
        for said in stream.diagnostics
        if said.urn and said.message.endswith(_PUT_BACK)
    ]


def _is_object(step: Step) -> bool:
    return step.custom and not step.type.startswith("pulumi:")


def _policies(stream: EventStream) -> Iterator[PolicyFinding]:
    for finding in sorted(stream.findings, key=lambda each: (each.level != "mandatory", each.urn, each.rule)):
        kind, name = kind_and_name(finding.urn) if finding.urn else ("Stack", "")
        yield PolicyFinding(
            severity="mandatory" if finding.level == "mandatory" else "advisory",
            pack=finding.pack,
            rule=finding.rule,
            object=f"{kind} {name}".strip(),
            message=finding.message,
        )


def _refusal(problem: Problem) -> Refusal:
    return Refusal(key=problem.key, value=problem.value, allowed=problem.allowed, fix=problem.fix)


def _as_left(step: Step, outputs: Mapping[str, Any]) -> Manifest:
    """Return an object as the last update left it; of a Deployment it waited for all pods.

    Where pods are hidden, the image is that of the outputs.
    """
    manifest = step.old or {}
    if step.kind != "Deployment":
        return manifest
    if _container(manifest) is None:
        image = ((outputs.get(step.service or "") or {}).get(_track_of(step)) or {}).get("image", SECRET)
        template = {"spec": {"containers": [{"name": step.service, "image": image}]}}
        manifest = manifest | {"spec": manifest["spec"] | {"template": template}}
    return manifest | {"status": {"readyReplicas": _replicas(manifest) or 0}}
