"""Holding what is declared against what the cluster says, what the proxy does and what was counted."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from lightkube import Client, KubeConfig

from config.settings import Settings
from rollout.cluster import read_split
from routing.router import UnreadableRouteError
from routing.split import TOTAL_WEIGHT, Track
from sandbox.lifecycle import Sandbox
from sandbox.routes_in_force import canary_weight
from sandbox.traffic import Tally

SETTLE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05

T = TypeVar("T")


class MeasurementError(Exception):
    """What was seen is not what was declared, or a request failed."""


@dataclass(frozen=True)
class Cluster:
    """Where to ask: the API server and the proxy's own interface."""

    client: Client
    proxy_admin_url: str

    @staticmethod
    def of(sandbox: Sandbox) -> "Cluster":
        """Return the sandbox's."""
        return Cluster(Client(KubeConfig.from_file(sandbox.kubeconfig).get()), sandbox.proxy_admin_url)


def settle(cluster: Cluster, settings: Settings, service: str) -> int:
    """Wait until the API server gives back the declared weight (percent) and the proxy routes by it; return it.

    Raises:
        MeasurementError: it did not come to that.
    """
    declared = settings.split_of(service).weight

    def weights() -> tuple[int | None, int | None]:
        try:
            read_back = read_split(cluster.client, settings, service).weight
        except UnreadableRouteError:
            return None, None
        return read_back, canary_weight(cluster.proxy_admin_url, settings.namespace, service)

    seen = wait_for(weights, lambda pair: pair == (declared, declared), SETTLE_SECONDS)
    if seen != (declared, declared):
        raise MeasurementError(
            f"{service}: {declared} % is declared, but after {SETTLE_SECONDS:.0f} s the Ingress says {seen[0]} "
            f"and the proxy routes by {seen[1]}"
        )
    return declared


def check_share(service: str, weight: int, tally: Tally) -> None:
    """Hold a count against the declared weight (percent).

    Traefik's split is a round robin: any run of requests is exact but for one of them, depending on where in the round
    it begins. 0 and 100 admit no exception.

    Raises:
        MeasurementError: the share is off.
    """
    expected = tally.by_version.total() * weight / TOTAL_WEIGHT
    allowed = 1 if 0 < weight < TOTAL_WEIGHT else 0
    counted = tally.by_version[Track.CANARY]
    if abs(counted - expected) > allowed:
        raise MeasurementError(
            f"{service}: {weight} % of {tally.by_version.total()} answers are {expected:g}, the canary gave {counted}"
        )


def wait_for(look: Callable[[], T], good: Callable[[T], bool], seconds: float) -> T:
    """Look again and again until it is good or the time (seconds) is over; return what was seen last."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if good(seen) or time.monotonic() > end:
            return seen
        time.sleep(_POLL_SECONDS)
