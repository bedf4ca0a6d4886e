"""How often the verdict is wrong: whole runs of simulated traffic, judged by the gates' defaults.

`python -m benchmarks.verdicts` prints the tables of docs/gates.md.
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from statistics import median
from typing import Final, Literal, TypeAlias

from canary_service.config.settings import RolloutSettings
from canary_service.rollout.samples import AlignedSample, PodsSample, Sample, TrackSample
from canary_service.rollout.statistics import Proportion
from canary_service.rollout.verdict import judge, total
from canary_service.routing.split import TOTAL_WEIGHT

RATES: Final = (10, 100, 1000, 10_000)
BASE_ERROR_RATES: Final = (0.0, 0.01)
MORE_ERRORS: Final = (0.0, 0.01, 0.05, 0.10)
SLOWER: Final = (1.0, 1.25, 2.0)
SEED: Final = 7

_MINUTE: Final = 60.0
_PODS: Final = PodsSample(wanted=1, ready=1, limited=("memory",), memory_percent=50.0)
_BOUNDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Of the histogram, in seconds; response times are log-normal with median 50 ms and 95th percentile 150 ms."""
_MEDIAN_SECONDS: Final = 0.05
_SPREAD: Final = math.log(3) / 1.6449  # the 95th percentile of a normal distribution
_NORMAL_FROM: Final = 400.0
"""With this variance a binomial number is drawn as a normal one: the difference is below one part in a hundred."""

End: TypeAlias = Literal["promoted", "rolled back", "held"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests a minute of the service, the part of stable's that fails, and how the canary differs.

    `more_errors` is added to the part that fails, `slower` multiplies response times.
    """

    rate: int
    base: float
    more_errors: float = 0.0
    slower: float = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, and after how many minutes."""

    end: End
    minutes: float


def run(scenario: Scenario, rollout: RolloutSettings, source: random.Random) -> Ended:
    """Take a canary from step to step as the driver does: fail at any look, pass at the end of a step, else hold."""
    seconds, baseline = 0.0, None
    for weight in rollout.steps:
        samples: list[Sample] = []
        elapsed = 0.0
        while True:
            elapsed += rollout.sample_seconds
            samples.append(_sample(scenario, weight, rollout.sample_seconds, baseline, source))
            outcome = judge(samples, rollout.gates, complete=elapsed >= rollout.step_seconds).outcome
            if outcome == "fail":
                return Ended("rolled back", (seconds + elapsed) / _MINUTE)
            if outcome == "pass":
                break
            if elapsed >= rollout.step_seconds + rollout.hold_seconds:
                return Ended("held", (seconds + elapsed) / _MINUTE)
        seconds += elapsed
        baseline = total(sample.stable for sample in samples)
    return Ended("promoted", seconds / _MINUTE)


def _sample(
    scenario: Scenario, weight: int, seconds: float, baseline: TrackSample | None, source: random.Random
) -> Sample:
    requests = round(scenario.rate * seconds / _MINUTE)
    canary = binomial(requests, weight / TOTAL_WEIGHT, source)
    return Sample(
        service="app",
        at=0.0,
        seconds=seconds,
        weight=weight,
        stable=_track(requests - canary, scenario.base, 1.0, source),
        canary=_track(canary, scenario.base + scenario.more_errors, scenario.slower, source),
        aligned=AlignedSample(stable=requests - canary, canary=canary),
        baseline=baseline if weight == TOTAL_WEIGHT else None,
        pods=_PODS,
    )


def _track(requests: int, error_rate: float, slower: float, source: random.Random) -> TrackSample:
    left, counted, below = requests, 0, 0.0
    buckets = []
    for bound in _BOUNDS:
        up_to = _part_up_to(bound / slower)
        found = binomial(left, (up_to - below) / (1 - below), source)
        left, counted, below = left - found, counted + found, up_to
        buckets.append((bound, float(counted)))
    failed = binomial(requests, error_rate, source)
    return TrackSample(requests=requests, failed=failed, timed=requests, buckets=tuple(buckets))


def _part_up_to(seconds: float) -> float:
    return 0.5 * math.erfc(-math.log(seconds / _MEDIAN_SECONDS) / _SPREAD / math.sqrt(2))


def binomial(cases: int, probability: float, source: random.Random) -> int:
    """Draw how many of so many cases are hits."""
    if probability > 0.5:  # noqa: PLR2004 - the other half is drawn as its complement
        return cases - binomial(cases, 1 - probability, source)
    if cases == 0 or probability <= 0:
        return 0
    variance = cases * probability * (1 - probability)
    if variance > _NORMAL_FROM:
        return min(cases, max(0, round(source.gauss(cases * probability, math.sqrt(variance)))))
    # The distances between hits are geometric (L. Devroye, Non-Uniform Random Variate Generation, 1986, X.4.3).
    hits, position, scale = -1, 0, math.log1p(-probability)
    while position <= cases:
        position += 1 + int(math.log(1.0 - source.random()) / scale)
        hits += 1
    return hits


def _runs(job: tuple[Scenario, int, int]) -> list[Ended]:
    scenario, runs, seed = job
    source = random.Random(f"{seed} {scenario}")  # noqa: S311 - a simulation, which has to be repeatable
    rollout = RolloutSettings()
    return [run(scenario, rollout, source) for _ in range(runs)]


def _cell(ended: Sequence[Ended]) -> str:
    parts = []
    for end in ("promoted", "rolled back", "held"):
        minutes = [each.minutes for each in ended if each.end == end]
        if minutes:
            percent = 100 * len(minutes) / len(ended)
            parts.append(f"{percent:.3g} % {end} ({median(minutes):.0f} min)")
    return ", ".join(parts)


def _table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="whole runs of each scenario (default: 1000)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the traffic (default: {SEED})")
    options = parser.parse_args()
    errors = [Scenario(*each) for each in product(RATES, BASE_ERROR_RATES, MORE_ERRORS)]
    slower = [replace(Scenario(rate, 0.01), slower=factor) for rate in RATES for factor in SLOWER[1:]]
    jobs = [(scenario, options.runs, options.seed) for scenario in (*errors, *slower)]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        ended = dict(zip((*errors, *slower), pool.map(_runs, jobs), strict=True))
    rows = [
        (f"{rate:,}", f"{100 * base:g} %", *(_cell(ended[Scenario(rate, base, more)]) for more in MORE_ERRORS))
        for rate, base in product(RATES, BASE_ERROR_RATES)
    ]
    head = (
        "requests/min",
        "stable fails",
        *(f"{100 * more:+g} points" if more else "no change" for more in MORE_ERRORS),
    )
    lines = [f"{options.runs} runs of each, seed {options.seed}.", "", *_table(rows, head), ""]
    factors = ("no change", *(f"{100 * (factor - 1):+.0f} % response time" for factor in SLOWER[1:]))
    rows = [(f"{rate:,}", *(_cell(ended[Scenario(rate, 0.01, slower=factor)]) for factor in SLOWER)) for rate in RATES]
    lines += _table(rows, ("requests/min", *factors))
    unchanged = [each.end for scenario, all_ended in ended.items() for each in all_ended if scenario == _same(scenario)]
    alarms = Proportion(unchanged.count("rolled back"), len(unchanged))
    lines += [
        "",
        f"Rolled back without a reason: {alarms.hits:.0f} of {alarms.cases:,.0f} whole runs without a change ",
    ]
    lines[-1] += f"(at most {100 * alarms.wilson(1.645).upper:.2g} %, with 95 % confidence)."
    sys.stdout.write("\n".join(lines) + "\n")


def _same(scenario: Scenario) -> Scenario:
    return Scenario(scenario.rate, scenario.base)


if __name__ == "__main__":
    main()
