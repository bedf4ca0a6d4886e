"""Whether a canary is as good as stable, by what was sampled (docs/gates.md). No I/O."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

from canary_service.config.settings import GateSettings, QueryGate
from canary_service.rollout.model import Record
from canary_service.rollout.samples import AlignedSample, PodsSample, Resource, Sample, TrackSample
from canary_service.rollout.statistics import Proportion, deviations, difference, quantile, shared, up_to

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]

LOOKS: Final = 3
"""What may pass by itself (pods that are not ready, a slow minute, a peak of memory) has to last for so many looks."""

QUANTILE: Final = 0.95
"""The part of response times that is compared."""


class GateResult(Record):
    """What one gate says.

    Args:
        gate: its name, such as `error-rate`.
        outcome: `inconclusive` where nothing is known, or too little.
        measured: the number that was judged, None where there is none; `unit` is that of it and of `limit`.
        limit: what it was held against.
        text: one line for people, with the numbers.
        looks: how many samples of the step there are.
        unasked: in how many of them what it needs could not be asked.
        empty: in how many of them it was asked, and nothing was there.
    """

    gate: str
    outcome: Outcome
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    text: str
    looks: int = 0
    unasked: int = 0
    empty: int = 0


class Verdict(Record):
    """What all gates together say of one service's canary: one that fails is enough, and all have to pass.

    `complete` says whether the step has had its time. Before, the verdict is `fail` or `inconclusive`, while gates say
    what they would say at the end.
    """

    service: str
    outcome: Outcome
    gates: tuple[GateResult, ...]
    complete: bool = True


def judge(samples: Sequence[Sample], gates: GateSettings, *, complete: bool) -> Verdict:
    """Judge one service's canary by the samples of one step, at least one, oldest first.

    Samples at another weight than the newest that is known are left aside. Each gate needs an answer in the newest
    sample to pass: what was good before Prometheus went away may have changed since.

    Args:
        samples: all of the step so far, also those of a hold.
        gates: the limits.
        complete: the step has had its time, so that it can pass; it can fail at any time.
    """
    weight = next((sample.weight for sample in reversed(samples) if sample.weight is not None), None)
    step = [sample for sample in samples if sample.weight in {weight, None}]
    results = tuple(_results(step, weight, gates))
    outcomes = {result.outcome for result in results}
    outcome: Outcome = "pass" if complete and outcomes == {"pass"} else "inconclusive"
    return Verdict(
        service=samples[-1].service, outcome="fail" if "fail" in outcomes else outcome, gates=results, complete=complete
    )


def _results(step: Sequence[Sample], weight: int | None, gates: GateSettings) -> Iterator[GateResult]:
    canary = total(sample.canary for sample in step)
    stable = total(sample.stable for sample in step)
    baseline = next((sample.baseline for sample in reversed(step) if sample.baseline), None)
    # At weight 100 stable answers nothing: the canary is held against what stable did before.
    usual = baseline if baseline and stable.requests < gates.min_requests else stable
    yield _requests(step, canary, gates)
    yield _error_rate(step, canary, usual, gates)
    yield _latency(step, canary, usual, gates)
    if weight is not None and not step[-1].sticky:
        yield _share(step, weight, gates)
    yield _availability(step)
    yield _restarts(step, gates.max_restarts)
    if gates.max_cpu_percent is not None:
        yield _usage(step, "cpu", lambda pods: pods.cpu_percent, gates.max_cpu_percent)
    if gates.max_memory_percent is not None:
        yield _usage(step, "memory", lambda pods: pods.memory_percent, gates.max_memory_percent)
    for name, query in gates.queries.items():
        yield _query(step, name, query)
    if gates.webhook_url is not None:
        yield _webhook(step)


def total(samples: Iterable[TrackSample | None]) -> TrackSample:
    """Add up what a track answered."""
    known = [sample for sample in samples if sample is not None]
    counts: dict[float, float] = {}
    for sample in known:
        for bound, count in sample.buckets:
            counts[bound] = counts.get(bound, 0.0) + count
    buckets = tuple(sorted(counts.items()))
    timed = sum(sample.timed for sample in known)
    return TrackSample(
        requests=sum(sample.requests for sample in known),
        failed=sum(sample.failed for sample in known),
        p95_seconds=quantile(buckets, timed, QUANTILE),
        timed=timed,
        buckets=buckets,
    )


def _requests(step: Sequence[Sample], canary: TrackSample, gates: GateSettings) -> GateResult:
    enough = canary.requests >= gates.min_requests
    return _result(
        step,
        "requests",
        "pass" if enough else "inconclusive",
        f"the canary answered {canary.requests:,.0f} requests; {gates.min_requests:,} are needed",
        measured=canary.requests,
        limit=gates.min_requests,
        unit="requests",
    )


def _error_rate(step: Sequence[Sample], canary: TrackSample, stable: TrackSample, gates: GateSettings) -> GateResult:
    name, least, limit = "error-rate", gates.min_requests, gates.error_rate_difference
    failing, usual = Proportion(canary.failed, canary.requests), Proportion(stable.failed, stable.requests)
    if failing.cases < least:
        return _result(step, name, "inconclusive", _too_few("canary", failing.cases, least), limit=limit, unit="points")
    confidence = gates.confidence / 100
    if usual.cases >= least:
        bounds = difference(failing, usual, deviations(confidence, shared(failing.cases, usual.cases), least))
        beside = f"stable {_percent(usual.rate)} of {usual.cases:,.0f}"
    else:
        # As the alert does. With nothing to compare with, the limit is that of a stable without failures.
        usual = Proportion(0.0, 0.0)
        bounds = failing.wilson(deviations(confidence, failing.cases, least))
        beside = "stable is taken to fail none, because it answered too few"
    measured, lower, upper = (100 * rate for rate in (failing.rate - usual.rate, bounds.lower, bounds.upper))
    outcome: Outcome = "fail" if lower > limit else "pass" if upper <= limit else "inconclusive"
    text = (
        f"{_percent(failing.rate)} of the canary's {failing.cases:,.0f} requests failed, {beside}: {measured:+.3g} "
        f"points, with {gates.confidence:g} % confidence {lower:+.3g} to {upper:+.3g}; up to {limit:g} are accepted"
    )
    return _result(step, name, outcome, text, measured=measured, limit=limit, unit="points")


def _latency(step: Sequence[Sample], canary: TrackSample, stable: TrackSample, gates: GateSettings) -> GateResult:
    name, least = "latency", gates.min_requests
    for track, sample in ("canary", canary), ("stable", stable):
        if sample.timed < least:
            text = f"the durations of {sample.timed:,.0f} of the {track}'s requests are known; {least:,} are needed"
            return _result(step, name, "inconclusive", text, unit="ms")
    usual = stable.p95_seconds
    last = canary.buckets[-1][0] if canary.buckets else 0.0
    slowest = max(usual * gates.latency_ratio, usual + gates.latency_difference_milliseconds / 1000) if usual else last
    slow = _slower(canary, slowest)
    if usual is None or (slowest > last and slow.rate > 1 - QUANTILE):
        text = f"response times reach beyond the last bucket of the histogram, {_milliseconds(last)}"
        return _result(step, name, "inconclusive", text, unit="ms")
    # The 95th percentile is above the limit when more than 5 % of the requests are: a proportion, which has bounds.
    z = deviations(gates.confidence / 100, shared(canary.timed, stable.timed), least)
    certain = difference(slow, _slower(stable, usual), z).lower > 0
    looks = [
        _slower(each.canary, slowest).rate > 1 - QUANTILE for each in step if each.canary and each.canary.timed > 0
    ]
    is_slow = slow.rate > 1 - QUANTILE
    outcome: Outcome = "fail" if certain and _lasts(looks) else "inconclusive" if is_slow else "pass"
    measured = canary.p95_seconds
    shown = _milliseconds(measured) if measured is not None else f"more than {_milliseconds(last)}"
    text = (
        f"95 % of the canary's {canary.timed:,.0f} requests took up to {shown}, of stable's "
        f"{_milliseconds(usual)}; up to {_milliseconds(slowest)} are accepted"
    )
    if outcome == "inconclusive":
        text += f", and more has to be certain and last for {LOOKS} looks to count"
    milliseconds = None if measured is None else 1000 * measured
    return _result(step, name, outcome, text, measured=milliseconds, limit=1000 * slowest, unit="ms")


def _share(step: Sequence[Sample], weight: int, gates: GateSettings) -> GateResult:
    """Judge whether the router does what it was told. If not, nothing else was measured as meant: a person has to look.

    A rollback would rely on the same router.
    """
    name, known = "share", AlignedSample.total(sample.aligned for sample in step)
    canary, answered = (known.canary, known.stable + known.canary) if known else (0.0, 0.0)
    if answered < gates.min_requests:
        text = (
            f"{answered:,.0f} requests were counted in a time for which all pods have been scraped; "
            f"{gates.min_requests:,} are needed"
        )
        return _result(step, name, "inconclusive", text, limit=weight, unit="%")
    share = Proportion(canary, answered)
    two_sided = (1 + gates.confidence / 100) / 2
    bounds = share.wilson(deviations(two_sided, answered, gates.min_requests))
    off = 100 * bounds.lower > weight + gates.weight_difference or 100 * bounds.upper < weight - gates.weight_difference
    text = (
        f"the canary answered {_percent(share.rate)} of {answered:,.0f} requests at weight {weight} %; "
        f"{gates.weight_difference:g} points of difference are accepted"
    )
    outcome: Outcome = "inconclusive" if off else "pass"
    if off:
        text += ": the router does not follow the weight, so that no step means what it says"
    return _result(step, name, outcome, text, measured=100 * share.rate, limit=weight, unit="%")


def _availability(step: Sequence[Sample]) -> GateResult:
    known = [sample.pods for sample in step if sample.pods]
    if not known:
        return _result(step, "availability", "inconclusive", "the canary's pods are not known", needs="pods")
    pods = known[-1]
    outcome: Outcome = "pass" if pods.ready >= pods.wanted else "inconclusive"
    if pods.crashing or _lasts([each.ready < each.wanted for each in known]):
        outcome = "fail"
    text = f"{pods.ready} of {pods.wanted} pods are ready"
    if pods.reasons and outcome != "pass":
        text += f": {'; '.join(pods.reasons)}"
    return _result(
        step, "availability", outcome, text, measured=pods.ready, limit=pods.wanted, unit="pods", needs="pods"
    )


def _restarts(step: Sequence[Sample], most: int) -> GateResult:
    known = [sample.pods.restarts for sample in step if sample.pods]
    if not known:
        return _result(step, "restarts", "inconclusive", "the canary's pods are not known", needs="pods")
    restarts = max(known)  # those of pods that are gone would be missing in the newest
    outcome: Outcome = "fail" if restarts > most else "pass"
    text = f"containers were started again {restarts} times in this step; up to {most} are accepted"
    return _result(step, "restarts", outcome, text, measured=restarts, limit=most, unit="restarts", needs="pods")


def _usage(
    step: Sequence[Sample], resource: Resource, percent: Callable[[PodsSample], float | None], most: float
) -> GateResult:
    known = [sample.pods for sample in step if sample.pods]
    if known and resource not in known[-1].limited:
        return _result(
            step, resource, "pass", f"no limit to compare with: not each pod has one of its {resource}", needs="pods"
        )
    values = [value for pods in known if (value := percent(pods)) is not None]
    if not values:
        text = f"nothing has measured it; rollout.gates.max{resource.capitalize()}Percent null does without"
        return _result(step, resource, "inconclusive", text, limit=most, unit="%", needs=resource)
    over = [value > most for value in values]
    outcome: Outcome = "fail" if _lasts(over) else "inconclusive" if over[-1] else "pass"
    text = f"the pod that uses most takes {values[-1]:.1f} % of its {resource} limit; up to {most:g} % are accepted"
    if outcome == "inconclusive":
        text += f", and more has to last for {LOOKS} looks"
    return _result(step, resource, outcome, text, measured=values[-1], limit=most, unit="%", needs=resource)


def _query(step: Sequence[Sample], name: str, query: QueryGate) -> GateResult:
    gate = f"query {name}"
    values = [value for sample in step if (value := sample.values.get(name)) is not None]
    least, most = query.min, query.max
    bounds = (("at least", least), ("at most", most))
    wanted = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
    if not values:
        return _result(step, gate, "inconclusive", f"no value; {wanted} is accepted", needs=gate)
    below = [value for value in values if least is not None and value < least]
    above = [value for value in values if most is not None and value > most]
    outside = below or above
    measured, limit = (outside or values)[-1], least if below or most is None else most
    text = f"its value {'was' if outside else 'is'} {measured:g}; {wanted} is accepted"
    outcome: Outcome = "fail" if outside else "pass"
    return _result(step, gate, outcome, text, measured=measured, limit=limit, needs=gate)


def _webhook(step: Sequence[Sample]) -> GateResult:
    answer = step[-1].webhook
    if answer is None:
        return _result(step, "webhook", "inconclusive", "it has not decided yet", needs="webhook")
    text = "it accepts the canary" if answer else "it rejects the canary"
    return _result(step, "webhook", "pass" if answer else "fail", text, needs="webhook")


def _result(  # noqa: PLR0913 - the fields of a result
    step: Sequence[Sample],
    gate: str,
    outcome: Outcome,
    text: str,
    *,
    measured: float | None = None,
    limit: float | None = None,
    unit: str = "",
    needs: str = "requests",
) -> GateResult:
    """Make a result; what passes without an answer in the newest sample does not."""
    causes = [_problem(sample, needs) for sample in step]
    unasked = [cause is not None for cause in causes]
    empty = [cause is None and _is_empty(sample, needs) for cause, sample in zip(causes, step, strict=True)]
    if outcome == "pass" and (unasked[-1] or empty[-1]):
        outcome = "inconclusive"
    if unasked[-1]:
        text += f"; the newest look could not be made: {causes[-1]}"
    elif empty[-1]:
        text += "; the newest look found no data"
    missed = [
        f"{count} {what}"
        for count, what in ((sum(unasked), "could not be made"), (sum(empty), "found no data"))
        if count
    ]
    if missed and outcome != "pass":
        text += f" (of {len(step)} looks {', '.join(missed)})"
    return GateResult(
        gate=gate,
        outcome=outcome,
        measured=measured,
        limit=limit,
        unit=unit,
        text=text,
        looks=len(step),
        unasked=sum(unasked),
        empty=sum(empty),
    )


def _problem(sample: Sample, what: str) -> str | None:
    """Return why something could not be asked; what a pod uses cannot be told without the pods."""
    return sample.problems.get(what) or (sample.problems.get("pods") if what in {"cpu", "memory"} else None)


def _is_empty(sample: Sample, what: str) -> bool:
    """Tell whether nothing was there where it was asked for."""
    if what == "requests":
        return sample.canary is None
    if what in {"cpu", "memory"}:
        pods = sample.pods
        return pods is None or (pods.cpu_percent if what == "cpu" else pods.memory_percent) is None
    if what.startswith("query "):
        return sample.values.get(what.removeprefix("query ")) is None
    return what == "pods" and sample.pods is None


def _lasts(looks: Sequence[bool]) -> bool:
    return len(looks) >= LOOKS and all(looks[-LOOKS:])


def _slower(track: TrackSample, seconds: float) -> Proportion:
    return Proportion(max(0.0, track.timed - up_to(track.buckets, seconds)), track.timed)


def _too_few(track: str, requests: float, least: int) -> str:
    return f"the {track} answered {requests:,.0f} requests; {least:,} are needed"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"  # noqa: PLR2004 - three digits


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
