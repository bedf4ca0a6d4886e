"""How a run ends, and the order that makes it roll back."""

from collections.abc import Callable
from typing import Final, TypeVar

from canary_service.config.loader import ConfigError
from canary_service.rollout.engine import EngineError
from canary_service.rollout.events import EXIT_CODES, RunEnd
from canary_service.rollout.release import ReleaseError
from canary_service.rollout.stack import PodsError, PolicyError

POLICY_EXIT_CODE: Final = 6
"""What a run ends with that a mandatory policy refuses, as other commands do (docs/reference.md)."""

WAYS: Final = "`canary run` goes on from there, `canary abort` takes the canary out"
"""What can be done after a run that ended with its canaries in the traffic."""

Result = TypeVar("Result")


class RunEnded(Exception):  # noqa: N818 - most ends are no errors
    """A run is over; `text` says how, and what to do next. `exit_code` is that of the outcome unless told otherwise."""

    def __init__(self, outcome: RunEnd, text: str, exit_code: int | None = None) -> None:
        self.outcome = outcome
        self.text = text
        self.exit_code = EXIT_CODES[outcome] if exit_code is None else exit_code
        super().__init__(text)


class FailingCanary(Exception):  # noqa: N818 - an order to roll back, not an error
    """The canary has to be taken out of the traffic now.

    `since` is when that was known (monotonic seconds). `unready` tells that an update has just waited in vain for pods.
    """

    def __init__(self, reason: str, since: float, *, unready: bool = False) -> None:
        self.reason = reason
        self.since = since
        self.unready = unready
        super().__init__(reason)


def attempted(act: Callable[[], Result]) -> Result:
    """Do something with the stack, and return what it returns.

    Raises:
        RunEnded: the configuration or the engine does not let it be done.
    """
    try:
        return act()
    except (ConfigError, ReleaseError) as error:
        raise RunEnded("refused", str(error)) from error
    except EngineError as error:
        raise refused(error) if error.usage else RunEnded("failed", str(error)) from error


def refused(error: EngineError) -> RunEnded:
    """Return the end of a run that the engine refuses to carry on."""
    return RunEnded("refused", str(error), POLICY_EXIT_CODE if isinstance(error, PolicyError) else None)


def cause(error: Exception) -> str:
    """Return what an error says, without its advice, so that a sentence can follow."""
    return (error.cause if isinstance(error, PodsError) else str(error)).rstrip(".")


def in_short(error: EngineError) -> str:
    """Return what an update failed by, without the reasons of pods, which the samples have."""
    return cause(error).partition("\n")[0].rstrip(".") if isinstance(error, PodsError) else cause(error)
