"""Counts requests between two moments by the counters that Prometheus scrapes."""

import time
from collections.abc import Callable
from typing import Final

from observability.queries import MetricSource, Scope, oldest_scrape, track_failures, track_requests
from rollout.counting import Count, counted
from rollout.prometheus import Prometheus, PrometheusError

SCRAPE_SECONDS: Final = 90.0
"""Three times the longest interval at which a rate of a minute still has two samples."""

_POLL_SECONDS: Final = 0.25


class Counters:
    """The counters that a source has of the requests to some services."""

    def __init__(self, server: Prometheus, source: MetricSource, scope: Scope) -> None:
        self._server = server
        self._requests = track_requests(source, scope)
        self._failures = track_failures(source, scope)
        self._oldest_scrape = oldest_scrape(source, scope)

    def scraped(self, enough: Callable[[float], bool], tick: Callable[[], object]) -> float:
        """Wait until what was counted up to now has been scraped; return a time, by Prometheus's clock, after that.

        Args:
            enough: what has to be true besides, of that time; after `SCRAPE_SECONDS` it need not be.
            tick: called all the while.

        Raises:
            PrometheusError: it cannot be asked, or does not scrape in time.
        """
        asked = self.now()
        deadline = time.monotonic() + SCRAPE_SECONDS
        while True:
            found = self._server.vector(self._oldest_scrape)
            oldest, now = (found[0].value, found[0].at) if found else (self.now(),) * 2
            late = time.monotonic() > deadline
            if oldest >= asked and (late or enough(now)):
                return now
            if late:
                raise PrometheusError(f"what it has scraped is {now - oldest:.0f} s old")
            tick()
            time.sleep(_POLL_SECONDS)

    def between(self, begin: float, end: float) -> dict[str, Count]:
        """Return what each service has answered between two times that `scraped` returned.

        Raises:
            PrometheusError: it cannot be asked.
        """
        return self._between(self._requests, begin, end, from_zero=True)

    def last(self, seconds: float) -> tuple[dict[str, Count], dict[str, Count]]:
        """Return what each service has answered in the last seconds, and what of that has failed.

        Raises:
            PrometheusError: it cannot be asked.
        """
        now = self.now()
        requests = self._between(self._requests, now - seconds, now, from_zero=False)
        return requests, self._between(self._failures, now - seconds, now, from_zero=False)

    def now(self) -> float:
        """Return the time by Prometheus's clock, in seconds since the epoch.

        Raises:
            PrometheusError: it cannot be asked.
        """
        return self._server.vector("time()")[0].value

    def _between(self, query: str, begin: float, end: float, *, from_zero: bool) -> dict[str, Count]:
        return counted(self._server.vector(query, begin), self._server.vector(query, end), from_zero=from_zero)
