"""Holding what is declared against what the cluster says, what the proxy does and what was counted."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from lightkube import Client, KubeConfig

from canary_service.cluster.errors import ClusterError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.settings import Settings
from canary_service.routing.router import UnreadableRouteError
from canary_service.routing.split import TOTAL_WEIGHT, Track
from sandbox.alerts import firing
from sandbox.lifecycle import Sandbox
from sandbox.routes_in_force import canary_weight, reloads
from sandbox.traffic import Tally, Traffic

SETTLE_SECONDS: Final = 30.0
MEASURE_SECONDS: Final = 60.0
ALERT_SECONDS: Final = 180.0
ATTEMPTS: Final = 5
_POLL_SECONDS: Final = 0.05

T = TypeVar("T")


class MeasurementError(Exception):
    """What was seen is not what was declared, or a request failed."""


@dataclass(frozen=True)
class Cluster:
    """Where to ask: the API server, the proxy's own interface and Prometheus."""

    client: Client
    proxy_admin_url: str
    prometheus_url: str

    @staticmethod
    def of(sandbox: Sandbox) -> "Cluster":
        """Return the sandbox's."""
        client = Client(KubeConfig.from_file(sandbox.kubeconfig).get(), trust_env=False)
        return Cluster(client, sandbox.proxy_admin_url, sandbox.prometheus_url)


def settle(cluster: Cluster, settings: Settings, service: str) -> int:
    """Wait until the API server gives back the declared weight (percent) and the proxy routes by it; return it.

    Raises:
        MeasurementError: it did not come to that.
    """
    declared = settings.split_of(service).weight

    def weights() -> tuple[int | None, int | None]:
        try:
            return (
                LiveCluster(cluster.client, settings).routes.split(service).weight,
                canary_weight(cluster.proxy_admin_url, settings.namespace, service, settings.router),
            )
        except (ClusterError, UnreadableRouteError, OSError):
            return None, None  # not yet; what stays so is told below

    seen = wait_for(weights, lambda pair: pair == (declared, declared), SETTLE_SECONDS)
    if seen != (declared, declared):
        raise MeasurementError(
            f"{service}: {declared} % is declared, but after {SETTLE_SECONDS:.0f} s the route says {seen[0]} "
            f"and the proxy routes by {seen[1]}"
        )
    return declared


def measure(cluster: Cluster, traffic: Traffic, requests: int) -> dict[str, Tally]:
    """Count the next so many requests of each service, again when the proxy began its round anew meanwhile.

    Raises:
        MeasurementError: the requests did not end in time, or the proxy does not come to rest.
    """
    for _ in range(ATTEMPTS):
        try:
            before = reloads(cluster.proxy_admin_url)
            tallies = {name: window.result(MEASURE_SECONDS) for name, window in traffic.measure(requests).items()}
            if reloads(cluster.proxy_admin_url) == before:
                return tallies
        except (TimeoutError, OSError) as error:
            raise MeasurementError(
                f"{requests} requests did not end within {MEASURE_SECONDS:.0f} s: {error}"
            ) from error
    raise MeasurementError(f"the proxy took over another configuration during each of {ATTEMPTS} counts")


def await_alert(cluster: Cluster, name: str, service: str, *, fires: bool) -> None:
    """Wait until an alert fires for a service, or does not any more.

    Raises:
        MeasurementError: it did not come to that.
    """

    def look() -> bool | None:
        try:
            alerts = firing(cluster.prometheus_url)
        except OSError:
            return None
        return any((alert["alertname"], alert.get("app")) == (name, service) for alert in alerts)

    if wait_for(look, lambda seen: seen is fires, ALERT_SECONDS) is not fires:
        wanted = "fire" if fires else "end"
        raise MeasurementError(f"{service}: alert {name} did not {wanted} within {ALERT_SECONDS:.0f} s")


def check_share(service: str, weight: int, tally: Tally, *, drawn: bool = False) -> None:
    """Hold a count against the declared weight (percent).

    Raises:
        MeasurementError: the share is off, or nothing was answered.
    """
    answers = tally.by_version.total()
    if not answers:
        raise MeasurementError(f"{service}: no request was answered ({dict(tally.failures)})")
    least, most = drawn_bounds(answers, weight) if drawn else round_robin_bounds(answers, weight)
    counted = tally.by_version[Track.CANARY]
    if not least <= counted <= most:
        raise MeasurementError(
            f"{service}: {weight} % of {answers} answers is {least} to {most}, the canary gave {counted}"
        )


def round_robin_bounds(answers: int, weight: int) -> tuple[int, int]:
    """Return the least and the most answers of a canary at this weight (percent) when the router takes turns.

    Any run of answers is exact but for one, depending on where in the round it begins; 0 and 100 admit no exception.
    """
    exact = answers * weight / TOTAL_WEIGHT
    spare = 1 if 0 < weight < TOTAL_WEIGHT else 0
    return math.ceil(exact - spare), math.floor(exact + spare)


def drawn_bounds(answers: int, weight: int, confidence: float = 0.999) -> tuple[int, int]:
    """Return the same for a router that draws each answer at random, as ingress-nginx does: binomial, two-sided."""
    probability, tail = weight / TOTAL_WEIGHT, (1 - confidence) / 2
    if weight in (0, TOTAL_WEIGHT):
        return (answers, answers) if weight else (0, 0)
    cumulated, least, most = 0.0, 0, answers
    for count in range(answers + 1):
        below = cumulated
        cumulated += math.exp(
            math.lgamma(answers + 1)
            - math.lgamma(count + 1)
            - math.lgamma(answers - count + 1)
            + count * math.log(probability)
            + (answers - count) * math.log1p(-probability)
        )
        if below <= tail < cumulated:
            least = count
        if cumulated >= 1 - tail:
            most = count
            break
    return least, most


def wait_for(look: Callable[[], T], good: Callable[[T], bool], seconds: float) -> T:
    """Look again and again until it is good or the time (seconds) is over; return what was seen last."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if good(seen) or time.monotonic() > end:
            return seen
        time.sleep(_POLL_SECONDS)
