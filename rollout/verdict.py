"""Whether a canary is as good as stable, by what was sampled. No I/O."""

from typing import Literal, TypeAlias

from rollout.model import Record

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]


class GateResult(Record):
    """What one gate says.

    Args:
        gate: its name, such as `error-rate`.
        outcome: `inconclusive` where nothing is known, or too little.
        measured: the number that was judged, None where there is none; `unit` is that of it and of `limit`.
        limit: what it was held against.
        text: one line for people, with the numbers.
    """

    gate: str
    outcome: Outcome
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    text: str


class Verdict(Record):
    """What all gates together say of one service's canary: one that fails is enough, and all have to pass."""

    service: str
    outcome: Outcome
    gates: tuple[GateResult, ...]
