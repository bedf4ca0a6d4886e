"""The queries that everything which looks at metrics shares. Pure data: nothing is asked here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

WINDOW: Final = "5m"
"""Over this time rates are averaged: long enough for several scrapes, short enough to follow a shift."""


@dataclass(frozen=True, slots=True)
class MetricSource:
    """Who counts requests, and by which names: the counter, and its labels for namespace and service."""

    requests: str
    namespace: str
    service: str


# The application's own counter, which also has `version` (the track) and `status`. `namespace` comes from the scrape
# configuration, as the Prometheus operator sets it; without it, stages that share a Prometheus would be added up.
APPLICATION: Final = MetricSource(requests="http_requests_total", namespace="namespace", service="app")


def request_rate(source: MetricSource, namespace: str, services: Iterable[str]) -> str:
    """Return the query for requests per second of each service, both tracks together; one series per service.

    A service without a series has not been counted, which is not the same as 0.
    """
    names = "|".join(services)  # DNS labels, in which nothing has a meaning for a regular expression
    selected = f'{source.namespace}="{namespace}",{source.service}=~"{names}"'
    return f"sum by ({source.service}) (rate({source.requests}{{{selected}}}[{WINDOW}]))"
