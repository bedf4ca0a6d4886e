"""Looks at a canary beside stable: asks Prometheus, the cluster and the user's webhook.

Counts are differences of counters, target by target, between two moments, and not `increase()` over a window: that
extrapolates, misses the first failure of a series that begins with it, and loses what falls between two windows, as
when Prometheus was away for a while.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

import httpx2

from canary_service.cluster.errors import ClusterError
from canary_service.cluster.workloads import PodsSeen
from canary_service.config.settings import Settings
from canary_service.config.values import amount
from canary_service.observability import recorded
from canary_service.observability.manifests import SCRAPE_SECONDS
from canary_service.observability.queries import (
    BUCKET,
    SOURCES,
    TARGET,
    TRACK,
    MetricSource,
    Scope,
    oldest_scrape,
    scrapes,
    track_durations,
    track_failures,
    track_requests,
)
from canary_service.rollout.alignment import Alignment, Reading
from canary_service.rollout.prometheus import TIMEOUT_SECONDS, NoAnswerError, Prometheus, PrometheusError, client, shown
from canary_service.rollout.samples import AlignedSample, PodsSample, Resource, Sample, TrackSample
from canary_service.rollout.statistics import quantile
from canary_service.rollout.verdict import QUANTILE
from canary_service.routing.router import Manifest, UnreadableRouteError
from canary_service.routing.split import TOTAL_WEIGHT, Split, Track
from canary_service.workload.labels import object_name

T = TypeVar("T")

PASSES: Final = 200
WAITS: Final = 202
REJECTS: Final = 409

_LEAST_SCRAPES: Final = 4
"""In so many intervals of a step at least two are counted: one passes until all targets were scraped, one is the age
of the newest counts."""

_COURSE_POINTS: Final = 1000
"""Prometheus gives at most 11,000 points of a series."""

_BASELINE_SECONDS: Final = 86400.0
"""So far back stable is looked for when it answers nothing now."""

_Key = tuple[str, ...]
"""Track and target, and for a histogram the upper bound of the bucket."""


class Routes(Protocol):
    """What is asked of `cluster.routes.Routes`."""

    def split(self, name: str) -> Split:
        """Return how the requests of a service are shared now."""


class Workloads(Protocol):
    """What is asked of `cluster.workloads.Workloads`."""

    def pods_of(self, name: str, track: Track) -> PodsSeen:
        """Return the pods of one track as they are now."""


@dataclass(frozen=True, slots=True)
class _Counters:
    """What each target has counted since it started, and when its newest counts were scraped."""

    requests: Mapping[_Key, float]
    failed: Mapping[_Key, float]
    durations: Mapping[_Key, float]
    scraped: Mapping[_Key, float]

    def over(self, other: "_Counters") -> "_Counters":
        """Return these, and of targets that are not among them what the others have."""
        return _Counters(
            {**other.requests, **self.requests},
            {**other.failed, **self.failed},
            {**other.durations, **self.durations},
            {**other.scraped, **self.scraped},
        )


_NOTHING: Final = _Counters({}, {}, {}, {})


@dataclass(slots=True)
class Mark:
    """Where the samples of a step begin, and how far they have come.

    Args:
        since: when the step had settled, by Prometheus's clock, as `begun` and `at`.
        begun: when all targets had been scraped since: from then on requests count.
        taken: when the newest sample was, or the mark itself, in monotonic seconds.
        at: when `counters` were read, with which the newest sample ended.
        alignment: the counts of this step, by which the share is told.
        restarts: of each pod when the step began, by uid.
        baseline: what stable answered before it was left without requests; `sought` when that has been asked for.
    """

    since: float | None = None
    begun: float | None = None
    at: float | None = None
    counters: _Counters = _NOTHING
    alignment: Alignment = field(default_factory=Alignment)
    restarts: dict[str, int] | None = None
    baseline: TrackSample | None = None
    sought: bool = False
    taken: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Look:
    """What could not be asked so far for one sample. `away` is why Prometheus is not asked any more for it.

    `prometheus` is its name in problems.
    """

    prometheus: str
    problems: dict[str, str] = field(default_factory=dict)
    away: str = ""

    def ask(self, what: str, question: Callable[[], T]) -> T | None:
        """Return the answer, None when there is none."""
        try:
            return question()
        except NoAnswerError as error:
            self.away = self.problems[what] = f"{self.prometheus}: {error}"
        except PrometheusError as error:
            self.problems[what] = f"{self.prometheus}: {error}"
        except (ClusterError, UnreadableRouteError, _NotConfiguredError, _WebhookError) as error:
            self.problems[what] = str(error)
        return None

    def ask_prometheus(self, what: str, question: Callable[[], T]) -> T | None:
        """Return the answer, None when there is none; it is not waited for again in vain."""
        if self.away:
            self.problems[what] = self.away
            return None
        return self.ask(what, question)


class _NotConfiguredError(Exception):
    """What is to be asked is not in the configuration."""


class _WebhookError(Exception):
    """The user's webhook gives no answer that can be used."""


class Sampler:
    """Takes samples of the services of one stack. For several threads only if each asks for services of its own."""

    def __init__(self, settings: Settings, prometheus_url: str | None, routes: Routes, workloads: Workloads) -> None:
        self._settings = settings
        self._routes = routes
        self._workloads = workloads
        self._prometheus = Prometheus(prometheus_url) if prometheus_url else None
        self._prometheus_name = f"Prometheus {shown(prometheus_url)}" if prometheus_url else "Prometheus"
        webhook = settings.rollout.gates.webhook_url
        self._webhook = client(webhook) if webhook else None
        # A target that comes back after it could not be scraped has not answered all it counts in this step.
        self._last: dict[str, _Counters] = {}

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._prometheus, self._webhook):
            if connection:
                connection.close()

    def obstacles(self) -> list[str]:
        """Return what would keep verdicts waiting, as it can be told before a run."""
        look, monitoring = _Look(self._prometheus_name), self._settings.monitoring
        look.ask_prometheus("time", self._time)
        found = [f"{problem}. While it is so, canaries are held" for problem in look.problems.values()]
        seconds, least = self._settings.rollout.step_seconds, _LEAST_SCRAPES * SCRAPE_SECONDS
        if monitoring.enabled and monitoring.source == "application" and seconds < least:
            found.append(
                f"rollout.stepSeconds is {seconds}, and pods are scraped every {SCRAPE_SECONDS} s: the first counts of "
                f"a step come up to {SCRAPE_SECONDS} s after it began, and the newest are up to as old, so that steps "
                f"may be held for too few requests. Set it to {least} or more"
            )
        return found

    def begin(self, service: str) -> Mark:
        """Return the mark from which the samples of a step count. To be called when the router has the weight.

        What cannot be asked now is asked again with each sample.
        """
        mark, look = Mark(), _Look(self._prometheus_name)
        look.ask_prometheus("requests", lambda: self._since(mark))
        pods = look.ask("pods", lambda: self._workloads.pods_of(service, Track.CANARY))
        if pods:
            mark.restarts = _restarts(pods.pods)
        return mark

    def sample(self, service: str, mark: Mark) -> Sample:
        """Look at a canary now. Never raises for what cannot be asked: that is among the sample's problems."""
        look, before, now = _Look(self._prometheus_name), mark.at, time.monotonic()
        seconds, mark.taken = now - mark.taken, now
        split = look.ask("weight", lambda: self._routes.split(service))
        weight = split.weight if split else None
        seen = {
            track: look.ask("pods", partial(self._workloads.pods_of, service, track)) for track in self._tracks_asked()
        }
        tracks, aligned = look.ask_prometheus("requests", lambda: self._counted(service, mark, seen)) or ({}, None)
        if weight == TOTAL_WEIGHT and not mark.sought:
            look.ask_prometheus("baseline", lambda: self._seek_baseline(service, mark))
        queries = self._settings.rollout.gates.queries
        return Sample(
            service=service,
            at=time.time(),
            seconds=seconds,
            counted_seconds=(mark.at or 0.0) - (before or mark.begun or 0.0),
            weight=weight,
            stable=tracks.get(Track.STABLE),
            canary=tracks.get(Track.CANARY),
            aligned=aligned,
            baseline=mark.baseline if weight == TOTAL_WEIGHT else None,
            sticky=self._settings.services[service].session_affinity is not None,
            pods=self._pods(service, seen[Track.CANARY], mark, look),
            values={
                name: look.ask_prometheus(f"query {name}", partial(self._value, service, name)) for name in queries
            },
            webhook=look.ask("webhook", lambda: self._decision(service, weight)) if self._webhook else None,
            problems=look.problems,
        )

    def _server(self) -> Prometheus:
        if self._prometheus is None:
            raise _NotConfiguredError("rollout.prometheusUrl is not set")
        return self._prometheus

    def _since(self, mark: Mark) -> float:
        if mark.since is None:
            mark.since = self._time()
        return mark.since

    def _time(self) -> float:
        """Return the time by Prometheus's clock: counts are dated by it."""
        found = self._server().vector("time()")
        if len(found) != 1:
            raise PrometheusError("it did not answer as Prometheus does")
        return found[0].value

    @property
    def _source(self) -> MetricSource:
        return SOURCES[self._settings.monitoring.source]

    def _tracks_asked(self) -> tuple[Track, ...]:
        """Return of which tracks it matters how many pods there are."""
        return tuple(Track) if self._source.in_pods else (Track.CANARY,)

    def _counted(
        self, service: str, mark: Mark, seen: Mapping[Track, PodsSeen | None]
    ) -> tuple[dict[str, TrackSample], AlignedSample | None]:
        """Return what each track has answered since the sample before, and what both have in one and the same time."""
        since, now = self._since(mark), self._time()
        if mark.at is None:
            begin = self._first_scrape(service, since, now)
            if begin is None:
                return {}, None
            before = self._counters(service, begin)
            self._align(mark, before, since, seen)
            mark.counters = before.over(self._last.get(service, _NOTHING))
            mark.begun = mark.at = begin
        after = self._counters(service, now)
        aligned = self._align(mark, after, since, seen)
        found = _tracks(mark.counters, after, self._source.unit)
        mark.at, mark.counters = now, after.over(mark.counters)
        self._last[service] = mark.counters
        return found, aligned

    def _align(
        self, mark: Mark, counters: _Counters, since: float, seen: Mapping[Track, PodsSeen | None]
    ) -> AlignedSample | None:
        targets: dict[_Key, dict[str, float]] = {}
        scraped: dict[_Key, float] = {}
        for key, at in counters.scraped.items():
            if at >= since and key in counters.requests:
                targets.setdefault(_target(key), {})[key[0]] = counters.requests[key]
                scraped[_target(key)] = max(at, scraped.get(_target(key), 0.0))
        found = {target: Reading(scraped[target], counts) for target, counts in targets.items()}
        pods: dict[str, int] = {}
        if self._source.in_pods:
            if None in seen.values():
                return None
            pods = {track: each.readiness.ready for track, each in seen.items() if each}
            if not self._source.up:  # a pod that nothing was sent to cannot be told from one that was not scraped
                pods = {track: min(ready, 1) for track, ready in pods.items()}
        counted = mark.alignment.add(found, pods)
        if counted is None:
            return None
        return AlignedSample(stable=counted.get(Track.STABLE, 0.0), canary=counted.get(Track.CANARY, 0.0))

    def _first_scrape(self, service: str, since: float, now: float) -> float | None:
        """Return when all targets had been scraped since the step settled: before, counts hold older requests."""
        query = oldest_scrape(self._source, self._scope(service))
        step = max(1.0, (now - since) / _COURSE_POINTS)
        course = self._server().course(query, since, max(since, now), step)
        return next((point.at for point in course if point.value >= since), None)

    def _seek_baseline(self, service: str, mark: Mark) -> None:
        """Note what stable answered in the shortest time back in which that was enough to compare with."""
        now, seconds = self._time(), float(self._settings.rollout.step_seconds)
        after = self._counters(service, now)
        unit = self._source.unit
        while seconds <= _BASELINE_SECONDS:
            past = self._counters(service, now - seconds)
            found = _tracks(past, after, unit, found_later=True).get(Track.STABLE)
            if found and found.requests >= self._settings.rollout.gates.min_requests:
                mark.baseline = found
                break
            seconds *= 2
        mark.sought = True

    def _counters(self, service: str, at: float) -> _Counters:
        source, scope = self._source, self._scope(service)
        # Asked for first: of what is scraped meanwhile counts without their time are left aside, and not the reverse.
        scraped = self._by_target(scrapes(source, scope), at)
        return _Counters(
            # A target that is scraped and counts no requests has answered none.
            dict.fromkeys(scraped, 0.0) | self._by_target(track_requests(source, scope), at),
            self._by_target(track_failures(source, scope), at),
            self._durations(track_durations(source, scope), at),
            scraped,
        )

    def _durations(self, query: str, at: float) -> dict[_Key, float]:
        found = self._by_target(query, at, BUCKET)
        return {key: count for key, count in found.items() if _is_bound(key[-1])}

    def _by_target(self, query: str, at: float, *labels: str) -> dict[_Key, float]:
        names = (TRACK, *TARGET, *labels)
        found = self._server().vector(query, at)
        return {tuple(one.labels.get(name, "") for name in names): one.value for one in found}

    def _scope(self, service: str) -> Scope:
        # A canary beside an existing stable has an `app` label of its own.
        labels = dict.fromkeys(self._settings.app_label_of(service, track) for track in Track)
        return Scope(self._settings.namespace, tuple(labels))

    def _pods(self, service: str, seen: PodsSeen | None, mark: Mark, look: _Look) -> PodsSample | None:
        if seen is None:
            return None
        restarts = _restarts(seen.pods)
        if mark.restarts is None:
            mark.restarts = restarts
        limits = {resource: found for resource in _USAGE if (found := _limits(seen.pods, resource))}
        used = {
            resource: look.ask_prometheus(resource, partial(self._used, service, resource, of))
            for resource, of in limits.items()
        }
        return PodsSample(
            wanted=seen.readiness.wanted,
            ready=seen.readiness.ready,
            restarts=sum(max(0, count - mark.restarts.get(pod, 0)) for pod, count in restarts.items()),
            reasons=seen.readiness.reasons,
            crashing=seen.readiness.stuck,
            limited=tuple(limits),
            cpu_percent=used.get("cpu"),
            memory_percent=used.get("memory"),
        )

    def _used(self, service: str, resource: Resource, limits: Mapping[str, float]) -> float | None:
        """Return the percent of its limit that the pod which uses most of it takes."""
        pods = recorded.pods_of(object_name(service, Track.CANARY))
        found = self._server().vector(_USAGE[resource](self._settings.namespace, pods))
        percents = [
            100 * one.value / limits[one.labels["pod"]] for one in found if limits.get(one.labels.get("pod", ""))
        ]
        return max(percents, default=None)

    def _value(self, service: str, name: str) -> float | None:
        template = self._settings.rollout.gates.queries[name].query
        query = template.replace("$namespace", self._settings.namespace).replace("$service", service)
        found = self._server().vector(query)
        if len(found) > 1:
            raise PrometheusError(f"{len(found)} series instead of one: aggregate them in rollout.gates.queries")
        return found[0].value if found else None

    def _decision(self, service: str, weight: int | None) -> bool | None:
        """Ask the user's webhook; None while it waits."""
        url = self._settings.rollout.gates.webhook_url
        if self._webhook is None or url is None:
            return None
        content = {"namespace": self._settings.namespace, "service": service, "weight": weight}
        try:
            # Its answer is the status: of a body that never ends nothing is read.
            with self._webhook.stream("POST", url, json=content) as answer:
                status = answer.status_code
        except httpx2.TimeoutException:
            raise _WebhookError(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _WebhookError(f"no answer: {type(error).__name__}") from None  # its text may quote a token
        if status not in {PASSES, WAITS, REJECTS}:
            raise _WebhookError(f"it answered {status}; {PASSES} passes, {WAITS} waits, {REJECTS} rejects")
        return None if status == WAITS else status == PASSES


_USAGE: Final[Mapping[Resource, Callable[[str, str], str]]] = {"cpu": recorded.cpu, "memory": recorded.memory}


def _tracks(before: _Counters, after: _Counters, unit: float, *, found_later: bool = False) -> dict[str, TrackSample]:
    """Return what each track that is counted has answered between two moments.

    Args:
        before: the counters at the first of them.
        after: the counters at the second.
        unit: of durations, in seconds.
        found_later: count all of targets that were not there before. It may be older than that.
    """
    known = {_target(key) for key in (after if found_later else before).requests}
    requests = _increases(before.requests, after.requests, known)
    failed = _increases(before.failed, after.failed, known)
    durations = _increases(before.durations, after.durations, known)
    return {
        track: _track(*(_of(track, counts) for counts in (requests, failed, durations)), unit=unit)
        for track in {key[0] for key in after.requests}
    }


def _track(
    requests: Mapping[_Key, float], failed: Mapping[_Key, float], durations: Mapping[_Key, float], *, unit: float
) -> TrackSample:
    counts: dict[float, float] = {}
    for key, count in durations.items():
        bound = float(key[-1]) * unit
        counts[bound] = counts.get(bound, 0.0) + count
    answered = sum(requests.values())
    timed = counts.pop(math.inf, 0.0)
    buckets, most = [], 0.0
    for bound, count in sorted(counts.items()):
        most = max(most, count)  # targets that differ in their buckets would make it fall
        buckets.append((bound, most))
    return TrackSample(
        requests=answered,
        failed=min(answered, sum(failed.values())),
        p95_seconds=quantile(buckets, timed, QUANTILE),
        timed=max(timed, most),
        buckets=tuple(buckets),
    )


def _increases(before: Mapping[_Key, float], after: Mapping[_Key, float], known: Collection[_Key]) -> dict[_Key, float]:
    """Return by how much each count of known targets grew; of one that has begun again, what it counts since."""
    again = {_target(key) for key, count in after.items() if count < before.get(key, 0.0)}
    return {
        key: count - (0.0 if _target(key) in again else before.get(key, 0.0))
        for key, count in after.items()
        if _target(key) in known
    }


def _of(track: str, counts: Mapping[_Key, float]) -> dict[_Key, float]:
    return {key: count for key, count in counts.items() if key[0] == track}


def _is_bound(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _target(key: _Key) -> _Key:
    return key[1 : 1 + len(TARGET)]


def _restarts(pods: Iterable[Manifest]) -> dict[str, int]:
    """Return how often containers of each pod were started again, by uid."""
    return {
        pod["metadata"]["uid"]: sum(
            container.get("restartCount", 0) for container in (pod.get("status") or {}).get("containerStatuses") or ()
        )
        for pod in pods
    }


def _limits(pods: Iterable[Manifest], resource: Resource) -> dict[str, float]:
    """Return how much of a resource each pod may use, by name; nothing unless each container has a limit."""
    try:
        return {
            pod["metadata"]["name"]: sum(
                amount(str(container["resources"]["limits"][resource])) for container in pod["spec"]["containers"]
            )
            for pod in pods
        }
    except (KeyError, TypeError, ValueError):
        return {}  # there is none, or one that `Settings` would not take, such as 1E
