"""Checks that requests go where the configuration says: sends some, or looks at those of others."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.settings import Settings
from canary_service.observability.queries import SOURCES, Scope
from canary_service.rollout.counters import Counters
from canary_service.rollout.counting import Count
from canary_service.rollout.prometheus import Prometheus, PrometheusError, shown
from canary_service.rollout.requests import Target, send
from canary_service.rollout.verification import (
    Check,
    Evidence,
    Kind,
    Sent,
    Verification,
    read_back,
    share_check,
    unsettled,
    verification,
)
from canary_service.routing.split import Track
from canary_service.workload.labels import image_version
from canary_service.workload.live import LiveService

_WILDCARD: Final = "*"


@dataclass(frozen=True, slots=True)
class Sending:
    """What is to be sent.

    Args:
        url: where the router takes requests.
        requests: how many for each check.
        version_header: header by which answers tell their version; None asks Prometheus.
        with_header: whether requests with the canary's header are sent, too.
    """

    url: str
    requests: int
    version_header: str | None = None
    with_header: bool = False


class Verifier:
    """Verifies the services of a stack, PROJECT/STACK.

    `prometheus` is the URL of the server that counts; empty where the answers themselves say who gave them. `say` is
    told what is done, several times a second while waiting.
    """

    def __init__(
        self, settings: Settings, stack: str, cluster: LiveCluster, prometheus: str, say: Callable[[str], object]
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._cluster = cluster
        self._prometheus = prometheus
        self._say = say

    def counted(self, names: Sequence[str], seconds: float) -> Verification:
        """Check what others have sent to services in the last seconds.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        live, checks, notes = self._begun(names)
        with Prometheus(self._prometheus) as server:
            for name in filter(lambda name: _is_routed(live[name]), names):
                since = time.time() - self._cluster.routes.written_at(name) - self._sync_seconds
                if since < seconds:
                    notes.append(
                        f"{name}: its route was changed {max(since, 0):.0f} s ago; what came before does not count"
                    )
                requests, failed = Count(), Count()
                try:
                    by_name, failed_by_name = self._counters(server, [name]).last(max(min(seconds, since), 0))
                    requests, failed = by_name.get(name, requests), failed_by_name.get(name, failed)
                except PrometheusError as error:
                    notes.append(self._unasked(error))
                evidence = Evidence("weight", live[name].weight, requests, None, failed, self._copies(live[name]))
                checks.append(share_check(self._settings, name, evidence))
        return self._done(self._counter, live, checks, notes)

    def sent(self, names: Sequence[str], sending: Sending) -> Verification:
        """Send requests to services and check who has answered them.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        live, checks, notes = self._begun(names)
        routed = [name for name in names if _is_routed(live[name])]
        written = max(map(self._cluster.routes.written_at, routed), default=0.0)
        # Not for ever: the API server's clock may be another one.
        time.sleep(min(max(written + self._sync_seconds - time.time(), 0.0), self._sync_seconds))
        kinds: tuple[Kind, ...] = ("weight", "header", "other-header-value") if sending.with_header else ("weight",)
        if sending.with_header:
            without = [name for name in routed if self._target(name, live[name], "header", None) is None]
            notes += [f"{name}: no canary.header is declared" for name in without]
        with Prometheus(self._prometheus) as server:
            sender = _Sender(sending, None if sending.version_header else self._counters(server, routed), self._say)
            for kind in kinds:
                targets = {
                    name: target
                    for name in routed
                    if (target := self._target(name, live[name], kind, sending.version_header))
                }
                try:
                    done = sender.done(kind, targets) if targets else {}
                except PrometheusError as error:
                    notes.append(self._unasked(error))
                    done = {name: (Sent(0, {}, {}), Count()) for name in targets}
                for name, (sent, count) in done.items():
                    copies = 0 if sending.version_header else self._copies(live[name])
                    evidence = Evidence(kind, live[name].weight, count, sent, mirror=copies)
                    checks.append(share_check(self._settings, name, evidence))
        counted_by = f"header {sending.version_header} of the answers" if sending.version_header else self._counter
        return self._done(counted_by, live, checks, notes)

    def _begun(self, names: Sequence[str]) -> tuple[Mapping[str, LiveService], list[Check], list[str]]:
        live = self._cluster.read(monitoring=False)
        notes = [f"{name}: {problem}" for name in names for problem in live[name].misrouted]
        return live, [read_back(self._settings, name, live[name]) for name in names], notes

    def _done(
        self, counted_by: str, live: Mapping[str, LiveService], checks: Sequence[Check], notes: Sequence[str]
    ) -> Verification:
        after = self._cluster.read(monitoring=False)
        order = list(self._settings.services).index
        settled = [unsettled(check, live[check.service].weight, after[check.service].weight) for check in checks]
        return verification(
            self._stack, counted_by, sorted(settled, key=lambda check: order(check.service)), dict.fromkeys(notes)
        )

    def _counters(self, server: Prometheus, names: Collection[str]) -> Counters:
        settings = self._settings
        return Counters(server, SOURCES[settings.monitoring.source], Scope(settings.namespace, tuple(names)))

    def _copies(self, live: LiveService) -> int:
        return live.mirror if SOURCES[self._settings.monitoring.source].counts_copies else 0

    @property
    def _counter(self) -> str:
        return f"monitoring.source {self._settings.monitoring.source}, in Prometheus at {shown(self._prometheus)}"

    def _unasked(self, error: PrometheusError) -> str:
        return f"{shown(self._prometheus)} was asked, and {error}"

    @property
    def _sync_seconds(self) -> float:
        return self._settings.router_of_stack().sync_seconds

    def _target(self, name: str, live: LiveService, kind: Kind, version_header: str | None) -> Target | None:
        """Return where requests of this kind go, None where there is none."""
        service = self._settings.services[name]
        headers = {}
        if kind != "weight":
            header = service.canary.header if service.canary else None
            if header is None:
                return None
            headers[header.name] = header.value if kind == "header" else f"{header.value}-other"
        return Target(
            host=self._settings.host.replace(_WILDCARD, "canary-verify"),
            path=service.path,
            headers=headers,
            version_header=version_header,
            versions=_versions(live) if version_header else {},
        )


class _Sender:
    """Sends requests of one kind after another; without counters, the answers say who gave them."""

    def __init__(self, sending: Sending, counters: Counters | None, say: Callable[[str], object]) -> None:
        self._sending = sending
        self._counters = counters
        self._say = say
        self._counted_until: float | None = None

    def done(self, kind: Kind, targets: Mapping[str, Target]) -> dict[str, tuple[Sent, Count]]:
        """Send requests of this kind, and return what became of them and who answered, by service.

        Raises:
            PrometheusError: it cannot be asked.
        """
        counters, each = self._counters, self._sending.requests
        if counters is None:
            sent = self._send(kind, targets)
            return {name: (found, found.answered or Count()) for name, found in sent.items()}
        begin = self._counted_until
        if begin is None:
            begin = counters.scraped(lambda _: True, lambda: self._say("waiting for a scrape"))
        sent = self._send(kind, targets)

        def all_counted(now: float) -> bool:
            counts = counters.between(begin, now)
            return all(counts.get(name, Count()).total >= each - found.failed for name, found in sent.items())

        end = counters.scraped(
            all_counted, lambda: self._say(f"{each} requests each ({kind}) sent, waiting for a scrape")
        )
        self._counted_until = end
        counts = counters.between(begin, end)
        return {name: (found, counts.get(name, Count())) for name, found in sent.items()}

    def _send(self, kind: Kind, targets: Mapping[str, Target]) -> dict[str, Sent]:
        self._say(f"sending {self._sending.requests} requests each ({kind})")
        return send(self._sending.url, targets, self._sending.requests)


def _is_routed(live: LiveService) -> bool:
    return live.split is not None and live.split.canary is not None


def _versions(live: LiveService) -> dict[Track, tuple[str, ...]]:
    """Return how answers may call their version; what both tracks have in common tells nothing."""
    images = {
        Track.STABLE: live.stable.serving if live.stable else (),
        Track.CANARY: live.canary_images,
    }
    names = {track: {str(track), *found, *map(image_version, found)} for track, found in images.items()}
    return {
        track: tuple(names[track] - names[other])
        for track, other in ((Track.STABLE, Track.CANARY), (Track.CANARY, Track.STABLE))
    }
