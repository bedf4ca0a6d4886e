"""The recording and alerting rules of a stack, as Prometheus reads them. Pure data."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from canary_service.config.settings import Settings
from canary_service.observability.queries import (
    SERVICE,
    SOURCES,
    TRACK,
    Scope,
    track_error_ratio,
    track_latency,
    track_rate,
)
from canary_service.observability.recorded import (
    DECLARED_MIRROR,
    DECLARED_WEIGHT,
    ERROR_RATIO,
    FAST,
    INTERVAL_SECONDS,
    JUDGED_QUANTILE,
    LATENCY,
    LEAST_WEIGHT,
    MIRRORED,
    MOST_WEIGHT,
    QUANTILES,
    SECONDS,
    SERVICE_ERROR_RATE,
    SERVICE_INFO,
    SERVICE_RATE,
    SHARE,
    SLOW,
    error_budget_ratio,
    ready_pods,
    shortest,
    track_error_ratio_over,
    track_latency_over,
    track_rate_over,
    wanted_pods,
)
from canary_service.routing.split import TOTAL_WEIGHT, Track
from canary_service.workload.stickiness import kept_at_weight_0

Rule: TypeAlias = dict[str, Any]

SETTLE_SECONDS: Final = 120
"""Until a new weight is everywhere: the router has it within seconds, but Prometheus reads the new rule only when the
kubelet has brought the operator's file to it, which takes up to a minute and a half
(https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically)."""

_EXPECTED_REQUESTS: Final = 10
"""When so many are to be expected, none is chance once in e^10 = 22,000 times."""

_DEVIATIONS: Final = 3
"""Routers that draw lots keep within so many standard deviations of the weight, 997 of 1000 times."""

_BY_SERVICE: Final = f"(namespace, {SERVICE})"
_ON: Final = f"on {_BY_SERVICE}"


@dataclass(frozen=True, slots=True)
class BurnRate:
    """Fires while the error budget of 30 days is used up `factor` times too fast over both windows.

    The short window ends the alert soon after the errors end.
    """

    factor: float
    long: str
    short: str
    severity: str


# 2 % of the budget in an hour, 5 % in 6 hours, 10 % in 3 days: The Site Reliability Workbook, chapter 5, table 5-8.
# https://sre.google/workbook/alerting-on-slos/#6-multiwindow-multi-burn-rate-alerts
BURN_RATES: Final = (
    BurnRate(14.4, "1h", "5m", "critical"),
    BurnRate(6, "6h", "30m", "critical"),
    BurnRate(1, "3d", "6h", "warning"),
)


@dataclass(frozen=True, slots=True)
class _Alert:
    """An alerting rule; `lasting` is for how many seconds its expression has to hold, `window` a label."""

    name: str
    severity: str
    expr: str
    summary: str
    description: str
    lasting: int = 0
    window: str = ""

    def rule(self, runbook: str) -> Rule:
        annotations = {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{runbook}#{self.name.lower()}",
        }
        rule: Rule = {"alert": self.name, "expr": self.expr}
        lasting = {"for": f"{self.lasting}s"} if self.lasting else {}
        labels = {"severity": self.severity} | ({"window": self.window} if self.window else {})
        return rule | lasting | {"labels": labels, "annotations": annotations}


def groups(settings: Settings, name: str) -> list[Rule]:
    """Return the groups of rules of a stack, whose names begin with `name`.

    Only the first changes with a weight; Prometheus goes on with the others where they were.
    """
    alerts = [alert.rule(settings.monitoring.runbook_url) for alert in _canary_alerts(settings)]
    budget = [alert.rule(settings.monitoring.runbook_url) for alert in _budget_alerts(settings)]
    # One after another within a group: an alert sees what was recorded just before.
    rules = {"declared": [*_declared(settings)], "canary": [*_recorded(settings), *alerts], "budget": budget}
    return [
        {"name": f"{name}.{part}", "interval": f"{INTERVAL_SECONDS}s", "rules": of_part}
        for part, of_part in rules.items()
    ]


def _declared(settings: Settings) -> Iterator[Rule]:
    def labels(name: str) -> dict[str, str]:
        return {"namespace": settings.namespace, SERVICE: name}

    for name in settings.services:
        yield {"record": SERVICE_INFO, "expr": "vector(1)", "labels": labels(name) | {"router": settings.router}}
    for name, service in settings.services.items():
        if service.canary:
            weight, _ = settings.canary_weight_of(name)
            image = {"image": service.canary.image}
            yield {"record": DECLARED_WEIGHT, "expr": f"vector({weight})", "labels": labels(name) | image}
        if mirror := settings.mirror_of(name):
            yield {"record": DECLARED_MIRROR, "expr": f"vector({mirror})", "labels": labels(name)}


def _recorded(settings: Settings) -> list[Rule]:
    source, scope = SOURCES[settings.monitoring.source], Scope(settings.namespace, tuple(settings.services))
    here, gates = _here(settings), settings.rollout.gates
    lately = f"{SECONDS[SLOW] + SETTLE_SECONDS}s"
    queries = {MIRRORED: f"max by {_BY_SERVICE} (max_over_time({DECLARED_MIRROR}{{{here}}}[{lately}]))"}
    for window in (FAST, SLOW):
        queries[track_rate_over(window)] = track_rate(source, scope, window)
        queries[track_error_ratio_over(window)] = track_error_ratio(source, scope, window)
        for quantile in QUANTILES if window == SLOW else (JUDGED_QUANTILE,):
            queries[track_latency_over(window, quantile)] = track_latency(source, scope, quantile, window)

    def rate(window: str) -> str:
        return f"{track_rate_over(window)}{{{here}}}"

    # What clients were answered: all but what the canary made of copies.
    real = f"({rate(SLOW)} unless ({track_rate_over(SLOW)}{{{_canary(here)}}} and {_ON} {MIRRORED}{{{here}}}))"

    def judged(series: Callable[[str], str]) -> str:
        # A canary that gets nothing any more, or was removed, is not judged by what was.
        return shortest(
            lambda window: (
                f"{series(window)}{{{here}}} and {rate(window)} * {SECONDS[window]} >= {gates.min_requests}"
                f" and {rate(FAST)} > 0"
            )
        )

    # Of so many requests, chance leads less than the accepted difference to the wrong track.
    enough = max(gates.min_requests, math.ceil((_DEVIATIONS * TOTAL_WEIGHT / 2 / gates.weight_difference) ** 2))

    def percent(window: str) -> str:
        seconds = SECONDS[window]
        requests = f"(sum by {_BY_SERVICE} ({rate(window)}) * {seconds} >= {enough})"
        return f"{TOTAL_WEIGHT} * {rate(window)} * {seconds} / {_ON} group_left () {requests}"

    queries |= {
        ERROR_RATIO: judged(track_error_ratio_over),
        LATENCY: judged(track_latency_over),
        SHARE: f"({shortest(percent)}) unless {_ON} {MIRRORED}{{{here}}}",
        LEAST_WEIGHT: _weight_lately("min", here),
        MOST_WEIGHT: _weight_lately("max", here),
        SERVICE_RATE: f"sum by {_BY_SERVICE} ({real})",
        # Without requests there is no ratio, and the failures are 0.
        SERVICE_ERROR_RATE: f"sum by {_BY_SERVICE} ({real} * {track_error_ratio_over(SLOW)}{{{here}}} or 0 * {real})",
    }
    return [
        {"record": record, "expr": expr, "labels": {"namespace": settings.namespace}}
        for record, expr in queries.items()
    ]


def _weight_lately(extreme: str, here: str) -> str:
    weights = f"{DECLARED_WEIGHT}{{{here}}}[{SECONDS[SLOW] + SETTLE_SECONDS}s]"
    # Without a canary there is none, or the weight that it had would be held against its share of nothing.
    return f"{extreme} by {_BY_SERVICE} ({extreme}_over_time({weights})) and {_ON} {DECLARED_WEIGHT}{{{here}}}"


def _canary_alerts(settings: Settings) -> Iterator[_Alert]:
    gates, here = settings.rollout.gates, _here(settings)
    stable, canary = f'{here},{TRACK}="{Track.STABLE}"', _canary(here)
    failing, slow, usual = f"{ERROR_RATIO}{{{canary}}}", f"{LATENCY}{{{canary}}}", f"{LATENCY}{{{stable}}}"
    yield _Alert(
        "CanaryErrorRatioHigh",
        "critical",
        # Where stable has too few requests, it is taken to fail none.
        f"{failing} - {_ON} ({ERROR_RATIO}{{{stable}}} or {_ON} 0 * {failing}) > {gates.error_rate_difference / 100:g}",
        "The canary of {{ $labels.app }} fails more than stable",
        f"{{{{ $value | humanizePercentage }}}} more of its requests fail than of stable's; up to "
        f"{gates.error_rate_difference:g} points are accepted.",
    )
    yield _Alert(
        "CanaryLatencyHigh",
        "warning",
        f"{slow} / {_ON} {usual} > {gates.latency_ratio:g}"
        f" and {_ON} {slow} - {_ON} {usual} > {gates.latency_difference_milliseconds / 1000:g}",
        "The canary of {{ $labels.app }} is slower than stable",
        f"The 95th percentile of its response times is {{{{ $value | humanize }}}} times stable's; up to "
        f"{gates.latency_ratio:g} times are accepted, or {gates.latency_difference_milliseconds} ms more.",
    )
    yield from _share_alerts(settings)
    yield _Alert(
        "CanaryTooOld",
        "warning",
        f"{DECLARED_WEIGHT}{{{here}}} and {DECLARED_WEIGHT}{{{here}}} offset "
        f"{settings.monitoring.canary_max_age_hours}h",
        "The canary of {{ $labels.app }} has been there for long",
        f"{{{{ $labels.image }}}} has been a canary for more than {settings.monitoring.canary_max_age_hours} hours, "
        "now at {{ $value }} %.",
    )
    services = "|".join(settings.services)
    canaries = f"(?:{services})-{Track.CANARY}"
    unready = f"{ready_pods(settings.namespace, canaries)} < {wanted_pods(settings.namespace, canaries)}"
    yield _Alert(
        "CanaryPodsNotReady",
        "warning",
        _with_service(unready, f"(.+)-{Track.CANARY}"),
        "Canary pods of {{ $labels.app }} are not ready",
        "{{ $value }} pods of Deployment {{ $labels.deployment }} are ready, fewer than it asks for.",
        SETTLE_SECONDS,
    )
    yield _Alert(
        "StableWithoutReadyPods",
        "critical",
        f"{_with_service(f'{ready_pods(settings.namespace, services)} == 0', '(.+)')}"
        f" and {_ON} {DECLARED_WEIGHT}{{{here}}}",
        "Stable of {{ $labels.app }} has no ready pod while there is a canary",
        "Whatever the weight is, ingress-nginx answers 503 to all requests when stable has no endpoints.",
        2 * INTERVAL_SECONDS,
    )


def _share_alerts(settings: Settings) -> Iterator[_Alert]:
    # With a session cookie the share follows the weight only as far as new clients come.
    followed = [name for name, service in settings.services.items() if service.session_affinity is None]
    if not followed:
        return
    # By header or cookie, testers reach these at weight 0 too.
    tested = [name for name in followed if kept_at_weight_0(settings, name)]
    among, difference = _of(settings, followed), settings.rollout.gates.weight_difference
    share, least, most = f"{SHARE}{{{_canary(among)}}}", f"{LEAST_WEIGHT}{{{among}}}", f"{MOST_WEIGHT}{{{among}}}"
    rate, total = f"{track_rate_over(SLOW)}{{{_canary(among)}}}", f"{SERVICE_RATE}{{{among}}}"
    others = [name for name in followed if name not in tested]
    declared = (
        f'{{{{ with printf `{DECLARED_WEIGHT}{{namespace="%s",{SERVICE}="%s"}}` $labels.namespace $labels.{SERVICE}'
        " | query }}{{ . | first | value }}{{ end }}"
    )
    coming = [f"{track_rate_over(FAST)}{{{_canary(_of(settings, others))}}} > 0"] if others else []
    coming += [f"{SHARE}{{{_canary(_of(settings, tested))}}} > {difference:g}"] if tested else []
    yield _Alert(
        "CanaryTrafficAtZeroWeight",
        "warning",
        f"({' or '.join(f'({found} and {_ON} {most} == 0)' for found in coming)}) unless {_ON} {MIRRORED}{{{among}}}",
        "The canary of {{ $labels.app }} gets requests although its weight is 0",
        "A weight was set by hand, or something reaches its pods past the router.",
        SETTLE_SECONDS,
    )
    yield _Alert(
        "CanaryWithoutTraffic",
        "warning",
        f"{least} / {TOTAL_WEIGHT} * {total} * {SECONDS[SLOW]} >= {_EXPECTED_REQUESTS} unless {_ON} {rate} > 0",
        "The canary of {{ $labels.app }} gets no requests although its weight is above 0",
        f"{{{{ $value | humanize }}}} requests were to be expected in {SLOW}, and none was counted.",
        SETTLE_SECONDS,
    )
    yield _Alert(
        "CanaryShareOffWeight",
        "warning",
        f"({share} > {_ON} {most} + {difference:g} or {share} < {_ON} {least} - {difference:g})"
        f" and {_ON} {most} > 0 and {_ON} {rate} > 0",
        "The canary of {{ $labels.app }} does not get the share that is declared",
        f"It answers {{{{ $value | humanize }}}} % of the requests, more than {difference:g} points off its declared "
        f"weight of {declared} %: a weight was set by hand, or the router does not follow.",
        SETTLE_SECONDS,
    )


def _budget_alerts(settings: Settings) -> Iterator[_Alert]:
    here, budget = _here(settings), 1 - settings.monitoring.objective / 100
    for burn in BURN_RATES:
        limit = f"{burn.factor * budget:.6g}"
        yield _Alert(
            "ErrorBudgetBurn",
            burn.severity,
            f"{error_budget_ratio(here, burn.long)} > {limit} and {error_budget_ratio(here, burn.short)} > {limit}",
            "{{ $labels.app }} uses up its error budget too fast",
            f"{{{{ $value | humanizePercentage }}}} of its requests failed over {burn.long}, more than {burn.factor:g} "
            f"times what {settings.monitoring.objective:g} % allow.",
            window=burn.long,
        )


def _here(settings: Settings) -> str:
    # Another stack in the namespace has rules of its own, with other limits.
    return _of(settings, settings.services)


def _of(settings: Settings, services: Iterable[str]) -> str:
    return f'namespace="{settings.namespace}",{SERVICE}=~"{"|".join(services)}"'


def _canary(matchers: str) -> str:
    return f'{matchers},{TRACK}="{Track.CANARY}"'


def _with_service(by_deployment: str, pattern: str) -> str:
    """Give series of Deployments the label of the service, which is the pattern's group."""
    return f'label_replace({by_deployment}, "{SERVICE}", "$1", "deployment", "{pattern}")'
