"""Bounds for proportions that hold at every look, and quantiles of histograms. No I/O.

Confidence is one-sided, from 0 to 1: the probability that the truth is on the right side of a bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

Buckets = Sequence[tuple[float, float]]
"""A histogram: upper bounds of its buckets, rising, each with the number of values up to it. All values are more."""

_TIGHTEST: Final = 8.0
"""The bound of `deviations` is tightest at about so many times `rho` (for 95 %)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Lower and upper bound."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many hits among so many cases; no whole numbers where they are estimated."""

    hits: float
    cases: float

    @property
    def rate(self) -> float:
        """Hits per case, 0 without cases."""
        return self.hits / self.cases if self.cases else 0.0

    def wilson(self, z: float) -> Interval:
        """Return the score interval of the rate at `z` standard deviations; 0 to 1 without cases.

        E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209-212.
        """
        if self.cases <= 0:
            return Interval(0.0, 1.0)
        rate, square = self.rate, z * z
        middle = rate + square / (2 * self.cases)
        half = z * math.sqrt(rate * (1 - rate) / self.cases + square / (4 * self.cases**2))
        whole = 1 + square / self.cases
        return Interval(max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole))


def difference(first: Proportion, second: Proportion, z: float) -> Interval:
    """Return bounds of the first rate minus the second at `z` standard deviations.

    Method 10, the hybrid score interval, of R. G. Newcombe, Interval estimation for the difference between independent
    proportions: comparison of eleven methods, Statistics in Medicine 17 (1998) 873-890. Unlike the normal
    approximation it holds for rates near 0, which error rates are.
    """
    one, other, estimate = first.wilson(z), second.wilson(z), first.rate - second.rate
    return Interval(
        estimate - math.hypot(first.rate - one.lower, other.upper - second.rate),
        estimate + math.hypot(one.upper - first.rate, second.rate - other.lower),
    )


def deviations(confidence: float, information: float, least: float) -> float:
    """Return at how many standard deviations a one-sided bound holds at all looks together, however many there are.

    Looking again and again at growing counts, a bound at the usual 1.64 is passed by chance sooner or later. This one
    is not: it is the normal mixture boundary, equation 14 of S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon,
    Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49 (2021) 1055-1080, in its
    closed form. It depends on how much is known, not on how often was looked, so that neither a hold nor a changed
    interval weakens it. Counts are taken as normal, as by `Proportion.wilson`.

    Args:
        confidence: for all looks together, at least 0.5.
        information: how much is known at this look, as a number of cases.
        least: the number of cases from which one looks; there the bound is tightest.
    """
    ratio = information * _TIGHTEST / least
    return math.sqrt(2 * (1 + 1 / ratio) * math.log1p(math.sqrt(1 + ratio) / (2 * (1 - confidence))))


def shared(first: float, second: float) -> float:
    """Return how much two groups of so many cases tell of their difference, as cases: the variances add up."""
    return first * second / (first + second) if first + second else 0.0


def up_to(buckets: Buckets, value: float) -> float:
    """Return how many values of a histogram are at most this one, interpolated within its bucket as Prometheus does.

    Above the last bucket it is as many as up to there: of those above, nothing more is known.
    """
    for (lower, below), (upper, count) in pairwise(((0.0, 0.0), *buckets)):
        if value < upper:
            return below + (count - below) * max(0.0, value - lower) / (upper - lower)
    return buckets[-1][1] if buckets else 0.0


def quantile(buckets: Buckets, total: float, part: float) -> float | None:
    """Return the value that this part (0 to 1) of all is at most; None without values, or above the last bucket."""
    rank = part * total
    for (lower, below), (upper, count) in pairwise(((0.0, 0.0), *buckets)):
        if total > 0 and count >= rank and count > below:
            return lower + (upper - lower) * max(0.0, rank - below) / (count - below)
    return None
