"""Who may interrupt a run, and how it waits and looks meanwhile."""

from collections.abc import Callable
from typing import Final, TypeVar

from canary_service.cluster.errors import ClusterError, ForbiddenError
from canary_service.rollout import pauses
from canary_service.rollout.emitter import Emitter
from canary_service.rollout.ends import WAYS, FailingCanary, RunEnded
from canary_service.rollout.tools import Tools

CLUSTER_SECONDS: Final = 300.0
"""So long the API server may be away before a run ends, with the weight as it is."""

GO_ON, STOP, ROLL_BACK = "go on", "stop", "roll back"

_ANSWER_SECONDS: Final = 0.2

Answer = TypeVar("Answer")


class Attention:
    """Waits and looks for a run, and hears meanwhile by a signal, or as an answer, that somebody wants it to end.

    All of it may raise RunEnded when somebody does, FailingCanary for a rollback, and KeyboardInterrupt when the run is
    to end at once. `may_roll_back` says whether the run can roll back now.

    Args:
        tools: what the run works with.
        emitter: is told of what fails.
        where: returns what the canaries get, for texts; empty as long as that is not known.
    """

    def __init__(self, tools: Tools, emitter: Emitter, where: Callable[[], str]) -> None:
        self._clock, self._signals, self._person = tools.clock, tools.signals, tools.person
        self._emitter = emitter
        self._where = where
        self._question = ""
        self.may_roll_back = False

    def ask(self, question: str) -> None:
        """Put a question, which `pause` waits for."""
        self._question = question
        self._person.ask(question, self._answers)

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Ask the cluster something; when it does not answer, wait for it, `CLUSTER_SECONDS` at most."""
        begin, between, told = self._clock.monotonic(), pauses.growing(), False
        while True:
            try:
                answer = self.hear(ask)
            except ForbiddenError as error:
                raise RunEnded("failed", str(error)) from error
            except ClusterError as error:
                seconds = self._clock.monotonic() - begin
                if seconds >= CLUSTER_SECONDS:
                    raise RunEnded("failed", f"{error}\nThat is so for {seconds:.0f} s. {WAYS}") from error
                if not told:
                    self._emitter.trouble(f"{error}\nIt is asked again, for {CLUSTER_SECONDS:.0f} s")
                    told = True
                self.wait(next(between))
            else:
                if told:
                    self._emitter.trouble(f"the cluster answers again, after {self._clock.monotonic() - begin:.0f} s")
                return answer

    def hear(self, look: Callable[[], Answer]) -> Answer:
        """Look at something, which may take long; once more if it was interrupted and the run goes on."""
        while True:
            try:
                with self._signals.allowed():
                    return look()
            except KeyboardInterrupt:
                self._interrupted()

    def wait(self, seconds: float) -> None:
        """Wait, unless somebody wants the run to end."""
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            try:
                with self._signals.allowed():
                    self._clock.wait(left)
            except KeyboardInterrupt:
                self._interrupted()

    def pause(self, seconds: float) -> bool:
        """Wait, or when there is a question, until it is answered; return whether it was, by "go on"."""
        end = self._clock.monotonic() + seconds
        while self._question:
            if answer := self._person.answer():
                self._question = ""
                self._decide(answer)
                return True
            left = end - self._clock.monotonic()
            if left <= 0:
                return False
            self.wait(min(left, _ANSWER_SECONDS))
        self.wait(seconds)
        return False

    def _interrupted(self) -> None:
        """Return if a person wants the run to go on; without one it ends."""
        if self._signals.at_once:
            raise KeyboardInterrupt
        if self._signals.roll_back and self.may_roll_back:
            raise FailingCanary(
                "it was told to by a signal, as when another stack of its wave fails", self._clock.monotonic()
            )
        if self._person.present and self._signals.typed:
            where = self._where()
            self._person.ask(f"Interrupted{where and '; '}{where}.", self._answers)
            while (answer := self._person.answer()) is None:
                self._clock.wait(_ANSWER_SECONDS)
            self._decide(answer)
            self._signals.answered()
            if self._question:  # which the answer just given was not for
                self._person.ask(self._question, self._answers)
            return
        raise self._stopped()

    def _decide(self, answer: str) -> None:
        """Return for "go on"; end or roll back otherwise."""
        if answer == ROLL_BACK:
            raise FailingCanary("somebody wanted it", self._clock.monotonic())
        if answer == STOP:
            raise self._stopped()

    def _stopped(self) -> RunEnded:
        where = self._where()
        return RunEnded("interrupted", f"stopped; {where}. {WAYS}" if where else "stopped")

    @property
    def _answers(self) -> tuple[str, ...]:
        return (GO_ON, STOP, ROLL_BACK) if self.may_roll_back else (GO_ON, STOP)
