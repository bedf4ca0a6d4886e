"""Counts requests between two moments by the counters that Prometheus scrapes."""

import time
from collections.abc import Callable
from typing import Final

from canary_service.observability.queries import MetricSource, Scope, oldest_scrape, track_failures, track_requests
from canary_service.rollout.counting import Count, counted
from canary_service.rollout.prometheus import Prometheus, PrometheusError, Series

SCRAPE_SECONDS: Final = 90.0
"""Three times the longest interval at which a rate of a minute still has two samples."""

_POLL_SECONDS: Final = 0.25
_LEAST_STEP_SECONDS: Final = 5.0
_STEPS: Final = 500
"""So many looks tell enough of who has come and gone; Prometheus gives 11,000 of a series at most."""


class Counters:
    """The counters that a source has of the requests to some services."""

    def __init__(self, server: Prometheus, source: MetricSource, scope: Scope) -> None:
        self._server = server
        self._requests = track_requests(source, scope)
        # Where none has failed yet, there may be no series of failures.
        self._failures = f"{track_failures(source, scope)} or 0 * {self._requests}"
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
        return counted(self._readings(self._requests, begin, end), new_after=begin)

    def last(self, seconds: float) -> tuple[dict[str, Count], dict[str, Count]]:
        """Return what each service has answered in the last seconds, and what of that has failed.

        Raises:
            PrometheusError: it cannot be asked.
        """
        now = self.now()
        requests, failures = (
            counted(self._readings(query, now - seconds, now), new_after=None)
            for query in (self._requests, self._failures)
        )
        return requests, failures

    def now(self) -> float:
        """Return the time by Prometheus's clock, in seconds since the epoch.

        Raises:
            PrometheusError: it cannot be asked.
        """
        return self._server.vector("time()")[0].value

    def _readings(self, query: str, begin: float, end: float) -> list[Series]:
        """Return what the counters show at both times, and in between, where some may come and go."""
        step = max(_LEAST_STEP_SECONDS, (end - begin) / _STEPS)
        meanwhile = self._server.course(query, begin + step, end, step) if end > begin + step else []
        return [*self._server.vector(query, begin), *meanwhile, *self._server.vector(query, end)]
