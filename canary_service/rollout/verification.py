"""Whether requests go where the configuration and the cluster say, by what was counted. No I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

from canary_service.config.settings import Settings
from canary_service.rollout.counting import Count
from canary_service.rollout.model import Record
from canary_service.rollout.statistics import Proportion
from canary_service.routing.split import TOTAL_WEIGHT
from canary_service.workload.live import LiveService
from canary_service.workload.stickiness import kept_at_weight_0

Outcome: TypeAlias = Literal["agrees", "disagrees", "unknown"]
Kind: TypeAlias = Literal["read-back", "weight", "header", "other-header-value"]

_DEVIATIONS: Final = NormalDist().inv_cdf(0.995)
"""Standard deviations at which an interval holds the truth with 99 % confidence, on both sides together."""

_ROUTER_POINTS: Final = 1.0
"""Percent points that a share may be off its weight however many requests say so: routers take turns over several
connections and processes. At weights 0 and 100 none is."""


class Check(Record):
    """What was counted of one service's requests of one kind, and whether they went where they should have gone.

    Args:
        service: its name.
        kind: `read-back`: the weight in the cluster beside the declared one, without requests. `weight`: requests for
            which the weight decides. `header`: requests with the canary's header. `other-header-value`: requests with
            the header and another value, for which the weight decides too.
        outcome: `unknown` when too little was counted to tell.
        sent: the requests that were sent for it; None when none were, but those of others counted.
        failed: how many of them, or of those of others, got no answer or one with status 5xx.
        requests: how many were counted with the track that answered; of others too, where counters were asked.
        canary: how many of these the canary answered.
        share: percent of them that the canary answered, None without any.
        at_least: percent; with `at_most` the interval that holds the true share with 99 % confidence.
        at_most: percent.
        expected: percent that should have gone to the canary.
        text: all of it in one line for people, with what to do.
    """

    service: str
    kind: Kind
    outcome: Outcome
    sent: int | None = None
    failed: int = 0
    requests: int = 0
    canary: int = 0
    share: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    expected: float
    text: str


class Verification(Record):
    """All checks of a stack.

    Args:
        schema_version: grows when a field changes its meaning or goes; new fields may come at any time.
        stack: PROJECT/STACK.
        counted_by: who told which track has answered.
        outcome: the worst of the checks.
        checks: one of each kind per service.
        notes: what could not be asked or checked.
    """

    schema_version: int = 1
    stack: str
    counted_by: str
    outcome: Outcome
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """Requests that were sent for a check.

    Args:
        requests: how many.
        failures: how many of them got no answer or one with status 5xx, by reason.
        refusals: how many got status 3xx or 4xx, by status: whoever answered, perhaps no service did.
        answered: who did; None where that was left to counters of others.
    """

    requests: int
    failures: Mapping[str, int]
    refusals: Mapping[str, int]
    answered: Count | None = None

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.failures.values())


_OF_PROXY: Final = re.compile(r"status (404|5\d\d)")
"""What proxies answer where no route, or no pod behind one, takes a request."""


def unsettled(check: Check, before: int, after: int) -> Check:
    """Return a check as it is worth when the weight was another one at its end."""
    if before == after or check.kind == "read-back":
        return check
    text = f"{check.text}; the weight was changed from {before} to {after} % meanwhile"
    return check.model_copy(update={"outcome": "unknown", "text": text})


def verification(stack: str, counted_by: str, checks: Sequence[Check], notes: Iterable[str]) -> Verification:
    """Put checks together."""
    outcomes = {check.outcome for check in checks}
    worst: Outcome = "disagrees" if "disagrees" in outcomes else "unknown" if "unknown" in outcomes else "agrees"
    return Verification(stack=stack, counted_by=counted_by, outcome=worst, checks=tuple(checks), notes=tuple(notes))


def read_back(settings: Settings, name: str, live: LiveService) -> Check:
    """Hold the declared weight of a service against the one that the cluster gives back."""
    split = settings.split_of(name)
    declared = split.weight
    # Without a declared canary there is to be no route of one, whatever its weight.
    routed = live.split is not None and live.split.canary is not None
    wanted = settings.services[name].canary is not None
    if live.unreadable:
        agrees, found = False, f"the route in the cluster cannot be read: {live.unreadable}"
    elif wanted and not routed:
        agrees, found = False, "the cluster has no route of it"
    else:
        agrees, found = wanted == routed and declared == live.weight, f"the cluster has {live.weight} %"
        if agrees and split.mirror != live.mirror:
            agrees = False
            found += f"; copies of {split.mirror} % of the requests declared, and the cluster has {live.mirror} %"
    text = f"{declared} % declared, and {found}" if wanted else f"no canary declared, and {found}"
    if not wanted and not routed and not live.unreadable:
        text = "no canary declared, and the cluster has none"
    return Check(
        service=name,
        kind="read-back",
        outcome="agrees" if agrees else "disagrees",
        expected=declared,
        text=text if agrees else f"{text}: `canary plan` says what `pulumi up` would do about it",
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted for a check.

    Args:
        kind: what the requests were.
        weight: percent in force, for the requests for which it decides.
        mirror: percent of these of which the canary got a copy that was counted too.
        count: who answered.
        sent: what was sent for it; None where the requests of others were counted.
        failed: which of those failed.
    """

    kind: Kind
    weight: int
    count: Count
    sent: Sent | None = None
    failed: Count | None = None
    mirror: int = 0

    @property
    def expected(self) -> float:
        """Percent that the canary should have of what was counted, where nothing but the weight decides."""
        return TOTAL_WEIGHT * self.mirror / (TOTAL_WEIGHT + self.mirror) if self.mirror else self.weight


def share_check(settings: Settings, name: str, evidence: Evidence) -> Check:
    """Hold what was counted of a service against the weight that is in force."""
    return _unrouted(name, evidence) or _share_check(settings, name, evidence)


def _unrouted(name: str, evidence: Evidence) -> Check | None:
    """Return the check of requests that no service has counted and proxies may have answered on their own."""
    sent = evidence.sent
    answers = {**sent.failures, **sent.refusals} if sent else {}
    own = {reason: number for reason, number in answers.items() if _OF_PROXY.fullmatch(reason)}
    if sent is None or not sent.requests or evidence.count.total or sum(own.values()) < sent.requests:
        return None
    return Check(
        service=name,
        kind=evidence.kind,
        outcome="disagrees",
        sent=sent.requests,
        failed=sent.failed,
        expected=TOTAL_WEIGHT if evidence.kind == "header" else evidence.expected,
        text=f"no request reached the service: {_listed(own)}",
    )


def _share_check(settings: Settings, name: str, evidence: Evidence) -> Check:
    kind, weight, count, sent = evidence.kind, evidence.expected, evidence.count, evidence.sent
    requests, canary = round(count.total), round(count.canary)
    of_others = max(requests - sent.requests, 0) if sent else requests
    # Requests of others keep to the weight, whatever header ours have.
    all_ours = (TOTAL_WEIGHT * (requests - of_others) + weight * of_others) / requests if requests else TOTAL_WEIGHT
    expected, otherwise = (all_ours, weight) if kind == "header" else (weight, all_ours)
    interval = Proportion(canary, requests).wilson(_DEVIATIONS)
    low, high = TOTAL_WEIGHT * interval.lower, TOTAL_WEIGHT * interval.upper
    share = TOTAL_WEIGHT * canary / requests if requests else None
    tolerance = _tolerance(settings, name, expected, by_others=of_others > 0)
    outcome: Outcome = "agrees"
    reason = ""
    answered = sent.requests - sent.failed if sent else 0
    if kind == "header" and canary < answered <= requests:
        outcome = "disagrees"  # whatever others have sent besides
    elif share is not None and not low <= expected <= high and abs(share - expected) > tolerance:
        outcome = "disagrees"
        if of_others and settings.services[name].session_affinity:
            outcome, reason = "unknown", "clients with a session cookie stay where they are"
    elif requests < settings.rollout.gates.min_requests:
        outcome = "unknown"
        reason = f"too few to tell, rollout.gates.minRequests is {settings.rollout.gates.min_requests}"
    elif kind != "weight" and expected != otherwise and low <= otherwise <= high:
        outcome, reason = "unknown", f"{of_others} of them are of others, too many to tell ours"
    counted = "no requests were counted"
    if share is not None:
        counted = f"{canary} of {requests} requests, {share:.1f} % ({low:.1f} to {high:.1f})"
    copies = f", copies of {evidence.mirror} % of stable's" if evidence.mirror else ""
    parts = [counted, f"{expected:.4g} % expected{copies}", reason]
    failed = sent.failed if sent else round(evidence.failed.total) if evidence.failed else 0
    if evidence.failed and failed:
        parts.append(f"{failed} of them failed, {evidence.failed.canary:.0f} of the canary's")
    if sent and sent.failed:
        parts.append(f"{sent.failed} of {sent.requests} failed: {_listed(sent.failures)}")
    if sent and sent.refusals:
        parts.append(f"of {sent.requests} were answered with {_listed(sent.refusals)}")
    return Check(
        service=name,
        kind=kind,
        outcome=outcome,
        sent=sent.requests if sent else None,
        failed=failed,
        requests=requests,
        canary=canary,
        share=share,
        at_least=low if requests else None,
        at_most=high if requests else None,
        expected=expected,
        text="; ".join(filter(None, parts)),
    )


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{what}: {number}" for what, number in numbers.items())


def _tolerance(settings: Settings, name: str, expected: float, *, by_others: bool) -> float:
    """Return the percent points by which a share may be off what is expected, however many requests say so."""
    at_an_end = expected in (0, TOTAL_WEIGHT)
    if by_others and (kept_at_weight_0(settings, name) or not at_an_end):
        # For some of them the weight may not decide, and pods are not all scraped at the same moment.
        return settings.rollout.gates.weight_difference
    return 0.0 if at_an_end else _ROUTER_POINTS
