"""How the services of a stack are: what is declared, in force and measured, and where that disagrees. No I/O.

What is not known is None, and said why.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from canary_service.config.settings import Settings
from canary_service.observability.queries import SOURCES
from canary_service.rollout.counting import Count
from canary_service.rollout.events import AnyEvent, Promoted, RolledBack, RunStarted, Sampled
from canary_service.rollout.model import Record
from canary_service.rollout.verdict import Outcome
from canary_service.rollout.verification import Evidence, share_check
from canary_service.routing.router import Manifest
from canary_service.routing.split import TOTAL_WEIGHT, Track
from canary_service.workload.labels import object_name
from canary_service.workload.live import LiveService, image_of
from canary_service.workload.readiness import REVISION
from canary_service.workload.stickiness import kept_at_weight_0

WINDOW_SECONDS: Final = 60
"""What was answered in this time is counted."""


class TrackStatus(Record):
    """One track of a service, as the cluster has it.

    Args:
        image: that its Deployment declares.
        serving: those of its ready pods, of which there are several while it rolls out.
        ready: how many pods are ready.
        wanted: how many there should be.
        restarts: how often containers of its present pods were started again; None when pods could not be listed.
        age_seconds: since when the Deployment has had this image; None when that cannot be told.
    """

    image: str
    serving: tuple[str, ...]
    ready: int
    wanted: int
    restarts: int | None
    age_seconds: float | None


class Measured(Record):
    """What was answered in the last `seconds`: by both tracks, and by the canary, and percent that is of all.

    While requests are mirrored to it there is no share.
    """

    seconds: int
    requests: int
    canary: int
    share: float | None


class LastVerdict(Record):
    """What the stack's last run on this machine said of a service.

    Args:
        run: its id.
        at: when, in seconds since the epoch.
        weight: percent of the canary then, None where it was not known.
        outcome: of all gates together.
        text: those that did not pass, and what the run has done about it.
    """

    run: str
    at: float
    weight: int | None
    outcome: Outcome
    text: str


class ServiceStatus(Record):
    """One service. Weights and shares are percent for the canary.

    Args:
        name: its name.
        declared: the weight that the configuration gives it, None without a canary.
        declared_by: the configuration key that says so.
        weight: that the cluster gives back, None without a route of a canary, or with one that cannot be read.
        mirror: percent of the requests to stable of which the canary gets a copy, as the cluster gives it back.
        measured: what was counted, None when nothing could be.
        not_measured: why that is so.
        stable: stable in the cluster, None when it is not there.
        canary: likewise.
        always_canary: what sends requests to the canary at every weight, also 0.
        verdict: of the last run, None without one.
        changed_by_others: who has changed objects since the last update, by kind and name.
        problems: where all of this disagrees, and what to do.
    """

    name: str
    declared: int | None
    declared_by: str | None
    weight: int | None
    mirror: int = 0
    measured: Measured | None
    not_measured: str | None
    stable: TrackStatus | None
    canary: TrackStatus | None
    always_canary: tuple[str, ...]
    verdict: LastVerdict | None
    changed_by_others: dict[str, tuple[str, ...]]
    problems: tuple[str, ...]


class Status(Record):
    """Services of a stack, PROJECT/STACK, at a moment in seconds since the epoch; `run` is the id of the last one here.

    `schema_version` grows when a field changes its meaning or goes; new fields may come at any time.
    """

    schema_version: int = 1
    stack: str
    at: float
    run: str | None
    services: tuple[ServiceStatus, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a stack at a moment, in seconds since the epoch.

    `pods` and `replica_sets` are None when the account may not list them. `counts` has the services that were counted,
    `not_counted` says why the others were not. `routed_at` is when the route of a service was written last, `changes`
    who has changed which objects of it.
    """

    at: float
    live: Mapping[str, LiveService]
    deployments: Sequence[Manifest]
    replica_sets: Sequence[Manifest] | None = None
    pods: Sequence[Manifest] | None = None
    counts: Mapping[str, Count] = field(default_factory=dict)
    not_counted: str = ""
    routed_at: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def status(settings: Settings, stack: str, names: Sequence[str], seen: Seen, journal: Sequence[AnyEvent]) -> Status:
    """Return how these services of a stack are; `journal` has the events of its last run."""
    run = next((event.run for event in journal if isinstance(event, RunStarted)), None)
    services = tuple(_service(settings, stack, name, seen, _verdict(name, run, journal)) for name in names)
    return Status(stack=stack, at=seen.at, run=run, services=services)


def _not_measured(seen: Seen, has_canary: bool) -> str:  # noqa: FBT001 - one caller
    if not has_canary:
        return "there is no canary"
    return seen.not_counted or "nothing has counted requests of it"


def _service(settings: Settings, stack: str, name: str, seen: Seen, verdict: LastVerdict | None) -> ServiceStatus:
    live, count = seen.live[name], seen.counts.get(name)
    weight, key = settings.canary_weight_of(name)
    declared = settings.services[name].canary is not None
    routed = live.split is not None and live.split.canary is not None
    measured = None
    if count is not None and (declared or routed):
        requests, canary = round(count.total), round(count.canary)
        share = TOTAL_WEIGHT * canary / requests if requests and not live.mirror else None
        measured = Measured(seconds=WINDOW_SECONDS, requests=requests, canary=canary, share=share)
    found = ServiceStatus(
        name=name,
        declared=weight if declared else None,
        declared_by=key if declared else None,
        weight=live.weight if routed and not live.unreadable else None,
        mirror=live.mirror,
        measured=measured,
        not_measured=None if measured else _not_measured(seen, declared or routed),
        stable=_track(name, Track.STABLE, live, seen),
        canary=_track(name, Track.CANARY, live, seen),
        always_canary=tuple(kept_at_weight_0(settings, name)),
        verdict=verdict,
        changed_by_others=dict(seen.changes.get(name, {})),
        problems=(),
    )
    problems = [*_of_owner(live, stack), *_of_weight(settings, found, live), *_of_images(settings, found)]
    problems += _of_pods(found)
    # What was counted before a shift is no sign of what is in force since.
    if seen.routed_at.get(name, 0) < seen.at - 2 * WINDOW_SECONDS:
        problems += _of_share(settings, found, count)
    return found.model_copy(update={"problems": tuple(problems)})


def _track(name: str, track: Track, live: LiveService, seen: Seen) -> TrackStatus | None:
    deployed = object_name(name, track)
    manifest = next((each for each in seen.deployments if each["metadata"]["name"] == deployed), None)
    deployment = live.stable if track is Track.STABLE else live.canary
    if manifest is None or deployment is None:
        return None
    labels = deployment.selector.items()
    pods = [pod for pod in seen.pods or () if labels <= (pod["metadata"].get("labels") or {}).items()]
    since = _since(name, manifest, seen.replica_sets)
    return TrackStatus(
        image=deployment.image,
        serving=deployment.serving,
        ready=deployment.ready,
        wanted=manifest["spec"].get("replicas", 1),
        restarts=None if seen.pods is None else sum(map(_restarts, pods)),
        age_seconds=None if since is None else max(seen.at - since, 0.0),
    )


def _restarts(pod: Manifest) -> int:
    statuses: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    return sum(status.get("restartCount", 0) for status in statuses)


def _since(name: str, deployment: Manifest, replica_sets: Sequence[Manifest] | None) -> float | None:
    """Return since when a Deployment has had its image: the age of the oldest of its last revisions that have it too.

    A revision that was gone back to is as old as when it was first there.
    """
    if replica_sets is None:
        return None
    uid, image = deployment["metadata"]["uid"], image_of(name, deployment["spec"])
    own = [each for each in replica_sets if uid in {o["uid"] for o in each["metadata"].get("ownerReferences") or ()}]
    since = None
    for each in sorted(own, key=_revision, reverse=True):
        if image_of(name, each["spec"]) != image:
            break
        since = _time(each)
    return since


def _revision(replica_set: Manifest) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, 0))


def _time(manifest: Manifest) -> float:
    created = manifest["metadata"]["creationTimestamp"]
    return (created if isinstance(created, datetime) else datetime.fromisoformat(created)).timestamp()


def _verdict(name: str, run: str | None, journal: Sequence[AnyEvent]) -> LastVerdict | None:
    samples = [event for event in journal if isinstance(event, Sampled) and event.sample.service == name]
    if run is None or not samples:
        return None
    last = samples[-1]
    texts = [gate.text for gate in last.verdict.gates if gate.outcome == last.verdict.outcome != "pass"]
    for event in journal:
        if isinstance(event, RolledBack) and name in event.services:
            texts.append("rolled back")
        if isinstance(event, Promoted) and name in event.services:
            texts.append("promoted")
    return LastVerdict(
        run=run,
        at=last.at,
        weight=last.sample.weight,
        outcome=last.verdict.outcome,
        text="; ".join(texts),
    )


def _of_owner(live: LiveService, stack: str) -> Iterator[str]:
    if live.owner not in ("", stack):
        yield f"its objects belong to stack {live.owner}: `pulumi up` refuses to touch them"
    if live.unreadable:
        yield f"its route cannot be read, so the weight is not known: {live.unreadable}"
    yield from live.misrouted


def _of_weight(settings: Settings, found: ServiceStatus, live: LiveService) -> Iterator[str]:
    changes = "; ".join(f"{what} was changed by {', '.join(who)}" for what, who in found.changed_by_others.items())
    if found.stable is None and not live.split:
        yield "it is not deployed: `pulumi up`"
        return
    differs = ""
    if found.declared is None and found.weight is not None:
        differs = f"no canary is declared, and the cluster has one with {found.weight} %"
    elif found.declared is not None and found.weight is None and not live.unreadable:
        differs = f"{found.declared} % are declared, and the cluster has no route of the canary"
    elif found.declared != found.weight and not live.unreadable:
        differs = f"{found.declared} % are declared, and {found.weight} % in force"
    elif not live.unreadable and (mirror := settings.mirror_of(found.name)) != live.mirror:
        differs = f"copies of {mirror} % of the requests are declared, and of {live.mirror} % in force"
    if differs and changes:
        yield f"{differs}; {changes}: `pulumi up` puts back what is declared"
    elif differs:
        yield f"{differs}: `pulumi up` carries out what is declared"
    elif changes:
        yield f"{changes}: `pulumi up` puts back what is declared"


def _of_images(settings: Settings, found: ServiceStatus) -> Iterator[str]:
    for track, there in ((Track.STABLE, found.stable), (Track.CANARY, found.canary)):
        if there is None or (track is Track.STABLE and settings.services[found.name].stable == "existing"):
            continue
        if track is Track.CANARY and found.declared is None:
            continue  # the route says so
        declared = settings.image_of(found.name, track)
        if there.image != declared:
            yield f"{track}: {declared} is declared, and {there.image} deployed: `pulumi up` changes that"


def _of_pods(found: ServiceStatus) -> Iterator[str]:
    for track, there in ((Track.STABLE, found.stable), (Track.CANARY, found.canary)):
        if there and there.ready < there.wanted:
            look = f"`canary logs --service {found.name} --track {track}`"
            yield f"{track}: {there.ready} of {there.wanted} pods are ready: `canary doctor`, {look}"


def _of_share(settings: Settings, found: ServiceStatus, count: Count | None) -> Iterator[str]:
    if count is None or found.weight is None:
        return
    copies = found.mirror if SOURCES[settings.monitoring.source].counts_copies else 0
    check = share_check(settings, found.name, Evidence("weight", found.weight, count, mirror=copies))
    if check.outcome == "disagrees":
        yield f"its share is off the weight in force: {check.text}: `canary verify`, `canary doctor`"
