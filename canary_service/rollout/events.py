"""What happens in a run: the lines of its journal, and what every view, report and notification is made of. No I/O.

One JSON object a line, told apart by `event` (docs/journal.md). Weights are percent, times seconds since the epoch.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from canary_service.rollout.model import Record
from canary_service.rollout.samples import Sample
from canary_service.rollout.verdict import Verdict

Means: TypeAlias = Literal["update", "cut-off"]
"""What sets a weight: `pulumi up`, or the API server directly in a rollback."""

RunEnd: TypeAlias = Literal["done", "rolled-back", "held", "failed", "locked", "refused", "interrupted"]

EXIT_CODES: Final[Mapping[RunEnd, int]] = {
    "done": 0,
    "refused": 1,
    "rolled-back": 2,
    "held": 3,
    "failed": 4,
    "locked": 5,
    "interrupted": 130,
}
"""What a command that ends so exits with (docs/reference.md)."""


class Event(Record):
    """`at` is when it happened, `stack` where, as PROJECT/STACK."""

    at: float
    stack: str


class RunStarted(Event):
    """A driver began. `services` are those it moves, with stable's image, the canary's, and the weight if it was read.

    `schema_version` grows when a field changes its meaning or goes; new fields and events may come at any time. `by` is
    who started it, as USER@HOST.
    """

    event: Literal["run-started"] = "run-started"
    schema_version: int = 1
    run: str
    by: str | None = None
    command: Literal["run", "promote", "abort", "set"]
    steps: tuple[int, ...]
    step_seconds: int
    sample_seconds: int
    services: dict[str, "ServiceAtStart"]


class ServiceAtStart(Record):
    """One service when a run began."""

    stable_image: str | None
    canary_image: str | None
    weight: int | None


class StepStarted(Event):
    """An update to another weight begins."""

    event: Literal["step-started"] = "step-started"
    services: tuple[str, ...]
    weight: int


class WeightSet(Event):
    """A weight was changed and read back. `seconds` is how long that took."""

    event: Literal["weight-set"] = "weight-set"
    service: str
    before: int
    read_back: int
    seconds: float
    means: Means


class Sampled(Event):
    """The canary was looked at; `verdict` is on the step so far, of which `remaining_seconds` are left."""

    event: Literal["sampled"] = "sampled"
    sample: Sample
    verdict: Verdict
    remaining_seconds: float


class Held(Event):
    """The run does not go on until something changes: data is missing, or a person has to approve."""

    event: Literal["held"] = "held"
    services: tuple[str, ...]
    reason: str
    approval: bool = False


class Resumed(Event):
    """What held the run is over."""

    event: Literal["resumed"] = "resumed"
    services: tuple[str, ...]


class RolledBack(Event):
    """A canary was taken out of the traffic. `seconds` is the time from the verdict until weight 0 was read back."""

    event: Literal["rolled-back"] = "rolled-back"
    services: tuple[str, ...]
    reason: str
    seconds: float


class Promoted(Event):
    """Stable runs what was the canary's image, and the canary is gone."""

    event: Literal["promoted"] = "promoted"
    services: tuple[str, ...]


class Troubled(Event):
    """Something failed that does not end the run; what happens next is in `text` too."""

    event: Literal["troubled"] = "troubled"
    text: str


class Finished(Event):
    """The last line. `exit_code` is that of the command."""

    event: Literal["finished"] = "finished"
    outcome: RunEnd
    exit_code: int
    text: str


AnyEvent: TypeAlias = Annotated[
    RunStarted | StepStarted | WeightSet | Sampled | Held | Resumed | RolledBack | Promoted | Troubled | Finished,
    Field(discriminator="event"),
]
EVENTS: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)
"""Reads a line of a journal."""
