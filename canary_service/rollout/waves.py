"""What the runs of a wave of stacks do next: the wave is promoted as a whole, or goes back as a whole. No I/O.

Why it decides as it does: docs/adr/0015-waves.md.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from canary_service.rollout.events import EXIT_CODES

Phase: TypeAlias = Literal["steps", "promotion", "rollback"]
"""What a run of a stack is for: all steps without a promotion; promotion; the way back."""

_DONE: Final = EXIT_CODES["done"]
_ROLLED_BACK: Final = EXIT_CODES["rolled-back"]
_HELD: Final = EXIT_CODES["held"]
_INTERRUPTED: Final = EXIT_CODES["interrupted"]


class Wave:
    """The stacks that go together, each by runs of its own.

    Args:
        stacks: their names.
        parallel: so many runs at a time.
        exposed: those whose canary may get requests already.
        sequential: those of which only one service goes back when it fails.
    """

    def __init__(
        self, stacks: Sequence[str], parallel: int, exposed: Collection[str] = (), sequential: Collection[str] = ()
    ) -> None:
        self._stacks = tuple(stacks)
        self._parallel = parallel
        self._concerned = set(exposed)
        self._sequential = sequential
        # With nobody to wait for, the last step need not be watched twice.
        self._phase: Phase = "steps" if len(stacks) > 1 else "promotion"
        self._queue = deque(stacks)
        self._running: list[str] = []
        self._to_promote: list[str] = []
        self._stopped: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._codes: dict[str, int] = {}
        self._back: set[str] = set()
        self._signals = 0

    def due(self) -> Mapping[str, Phase]:
        """Return the runs that begin now."""
        if not self._running and not self._queue:
            self._next_phase()
        due: dict[str, Phase] = {}
        while self._queue and len(self._running) < self._parallel:
            name = self._queue.popleft()
            due[name] = self._phase
            self._running.append(name)
            self._concerned.add(name)
        return due

    def failed(self, name: str, reason: str = "") -> Collection[str]:
        """Take in that a canary has failed, and return the stacks whose runs have to roll back now, too."""
        if self._phase == "rollback" or name in self._reasons or (self.rolling_back and name in self._stopped):
            return ()
        self._reasons[name] = reason
        return self._stop()

    def ended(self, name: str, exit_code: int, *, released: bool = True) -> Collection[str]:
        """Take in the end of a run, and return the stacks whose runs are to be stopped now.

        Args:
            name: of the stack.
            exit_code: as `canary run` has it.
            released: it had something to release.
        """
        self._running.remove(name)
        if self._phase == "rollback" and exit_code in {_DONE, _ROLLED_BACK}:
            self._back.add(name)
            return ()
        if exit_code == _ROLLED_BACK:
            if name not in self._sequential:
                self._back.add(name)
            return self.failed(name)
        if exit_code == _DONE:
            if self._phase == "steps" and released:
                self._to_promote.append(name)
            return ()
        if exit_code == _INTERRUPTED and name in self._stopped and self._phase != "rollback":
            return ()
        self._codes[name] = exit_code
        return () if exit_code == _HELD or self._phase == "rollback" else self._stop()

    def interrupted(self) -> Collection[str]:
        """Take in that somebody wants it to end, and return the stacks whose runs are to be told.

        The first time does not stop a rollback.
        """
        self._signals += 1
        if self._signals == 1:
            return () if self.rolling_back else self._stop()
        self._queue.clear()
        return tuple(self._running)

    @property
    def over(self) -> bool:
        """Whether nothing runs although all that was due has begun."""
        return not self._running

    @property
    def rolling_back(self) -> bool:
        """Whether all of it has to go back."""
        return bool(self._reasons)

    @property
    def reason(self) -> str:
        """Why it is rolled back; empty when it is not."""
        return "; ".join(f"{name}, of the same wave: {reason}" for name, reason in self._reasons.items())

    @property
    def not_back(self) -> Collection[str]:
        """Those that are to be rolled back and were not yet: their canaries may still get requests."""
        return self._left if self.rolling_back else ()

    @property
    def exit_code(self) -> int:
        """What the command ends with after this wave."""
        if self._signals > 1:
            return _INTERRUPTED
        if self.rolling_back:
            return max((self._codes[name] for name in self._left), default=_ROLLED_BACK)
        failed = [code for code in self._codes.values() if code != _HELD]
        if self._signals and not failed:
            return _INTERRUPTED
        return next(iter([*failed, *self._codes.values()]), _DONE)

    @property
    def _left(self) -> Sequence[str]:
        return [name for name in self._stacks if name in self._concerned - self._back]

    def _stop(self) -> Collection[str]:
        self._queue.clear()
        new = [name for name in self._running if name not in self._stopped and name not in self._reasons]
        self._stopped.update(new)
        return new

    def _next_phase(self) -> None:
        if self._phase == "rollback" or self._signals > 1:
            return
        if self.rolling_back:
            self._phase = "rollback"
            self._queue.extend(self._left)
        elif self._phase == "steps" and not self._codes and not self._signals:
            self._phase = "promotion"
            self._queue.extend(self._to_promote)
