"""Verdicts again, offline: the samples of a run, or of anything else, judged by any gates. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import JsonValue, TypeAdapter, ValidationError

from canary_service.config.settings import GateSettings
from canary_service.rollout.events import EVENTS, RunStarted, Sampled, StepStarted
from canary_service.rollout.model import Record
from canary_service.rollout.samples import Sample
from canary_service.rollout.verdict import Verdict, judge

_LINE: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class ReplayError(Exception):
    """A line is neither an event of a journal nor a sample; the message has its number."""


@dataclass(slots=True)
class Step:
    """The samples of one service at one weight, each with whether the step then had had its time."""

    service: str
    weight: int | None = None
    looks: list[tuple[Sample, bool]] = field(default_factory=list)


class Replayed(Record):
    """What a step would have come to: `verdict` is the first that decides, else the last.

    Args:
        service: its name.
        weight: percent; None when it never was read back.
        samples: how many the step has.
        looks: after how many of them the verdict fell.
        seconds: after which time that was, since the first sample began.
        verdict: what the gates say.
    """

    service: str
    weight: int | None
    samples: int
    looks: int
    seconds: float
    verdict: Verdict


def steps(lines: Iterable[str]) -> list[Step]:
    """Read the steps from the lines of a journal, or from lines that each are a sample.

    A step ends where the journal says so, or at another weight. Without a journal it has had its time at its end. A
    last line that was cut, as when its writer was killed, is left out.

    Raises:
        ReplayError: a line is neither.
    """
    found: list[Step] = []
    newest: dict[str, Step] = {}
    bare: set[int] = set()
    texts = [text for text in lines if text.strip()]
    for number, text in enumerate(texts, start=1):
        try:
            line = _LINE.validate_json(text)
            if "event" in line:
                event = EVENTS.validate_json(text)
                _end(newest, event)
                if not isinstance(event, Sampled):
                    continue
                sample, complete = event.sample, event.remaining_seconds <= 0
            else:
                sample, complete = Sample.model_validate_json(text), False
                bare.add(id(sample))
        except ValidationError as error:
            if number == len(texts) and not text.endswith("\n"):
                break
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise ReplayError(
                f"line {number} is neither an event of a journal nor a sample: {where}: {first['msg']}"
            ) from None
        step = newest.get(sample.service)
        if step is None or (None not in {step.weight, sample.weight} and step.weight != sample.weight):
            step = newest[sample.service] = Step(sample.service)
            found.append(step)
        step.weight = sample.weight if step.weight is None else step.weight
        step.looks.append((sample, complete))
    for step in found:
        last, complete = step.looks[-1]
        step.looks[-1] = last, complete or id(last) in bare
    return found


def _end(newest: dict[str, Step], event: object) -> None:
    """Let the next sample begin a step where the journal says that one begins."""
    if isinstance(event, RunStarted):
        newest.clear()
    if isinstance(event, StepStarted):
        for service in event.services:
            newest.pop(service, None)


def replayed(step: Step, gates: GateSettings) -> Replayed:
    """Judge a step, look by look, until a verdict decides."""
    samples = [sample for sample, _ in step.looks]
    verdict, looks = judge(samples[:1], gates, complete=step.looks[0][1]), 1
    while verdict.outcome == "inconclusive" and looks < len(samples):
        looks += 1
        verdict = judge(samples[:looks], gates, complete=step.looks[looks - 1][1])
    return Replayed(
        service=step.service,
        weight=step.weight,
        samples=len(samples),
        looks=looks,
        seconds=sum(sample.seconds for sample in samples[:looks]),
        verdict=verdict,
    )
