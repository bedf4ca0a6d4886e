"""The shares of requests that canaries answered, as the shipped rules recorded them."""

from collections.abc import Mapping

from canary_service.config.settings import Settings
from canary_service.observability.queries import SERVICE, TRACK
from canary_service.observability.recorded import LEAST_WEIGHT, MOST_WEIGHT, SHARE
from canary_service.rollout.prometheus import PrometheusError, instant, shown
from canary_service.routing.split import Track
from canary_service.workload.facts import Share


def measured_shares(settings: Settings, url: str | None) -> tuple[Mapping[str, Share], str]:
    """Return the share of each service that has one, and why others have none.

    The recorded weights are those of the same minutes: a shift that was just made is no difference.
    """
    if not url:
        return {}, "rollout.prometheusUrl is not set"
    here = f'namespace="{settings.namespace}"'
    series = (f'{SHARE}{{{here},{TRACK}="{Track.CANARY}"}}', f"{LEAST_WEIGHT}{{{here}}}", f"{MOST_WEIGHT}{{{here}}}")
    try:
        percents, least, most = (instant(url, query, SERVICE) for query in series)
    except PrometheusError as error:
        return {}, f"{shown(url)} was asked, and {error}"
    measured = percents.keys() & least.keys() & most.keys()
    shares = {name: Share(percents[name], least[name], most[name]) for name in measured}
    return shares, f"{shown(url)} has none recorded: too few requests, or none of the rules of docs/monitoring.md"
