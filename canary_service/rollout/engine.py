"""Runs the `pulumi` CLI with care for signals, and says in one way what may go wrong with it."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.1
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)

# The engine ends what it has begun when it is interrupted once, and at a second time lets go of it; a killed one leaves
# its lock behind.
_WAYS_TO_END: Final = ((signal.SIGINT, 30.0), (signal.SIGINT, 10.0), (signal.SIGKILL, None))

# What the CLI ends with when the invocation or the stack's name is wrong (pkg/cmd/pulumi/cmd/exit_codes.go).
_USAGE_CODES: Final = frozenset({2, 6})
_MISTAKES: Final = ("validating stack config", "validating policy config", "no stack selected", "invalid stack name")


class EngineError(Exception):
    """The engine failed, or did not begin; `usage` tells whether invocation or configuration is to blame."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        self.usage = usage
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command of the CLI ended with, and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def message(self) -> str:
        """Why it failed, empty when it did not say."""
        return self.errors.strip().removeprefix("error: ")

    @property
    def usage(self) -> bool:
        """Whether the invocation or the configuration is to blame."""
        return self.code in _USAGE_CODES or self.message.startswith(_MISTAKES)


def run(
    folder: Path,
    arguments: Sequence[str],
    tick: Callable[[], object] = lambda: None,
    text: str | None = None,
    **environment: str,
) -> Ended:
    """Run a command of the CLI in a project's folder; however this is left, the command ends.

    An interrupt is handed on and waited for, so that the engine ends what it has begun and releases its lock; a second
    one makes it hurry, a third kills it.

    Args:
        folder: where Pulumi.yaml is.
        arguments: the command and its options.
        tick: called several times a second meanwhile.
        text: what it finds on its standard input, where secrets do not show.
        environment: variables beside those of this process.

    Raises:
        EngineError: there is no CLI.
    """
    command = ["pulumi", "--non-interactive", "--color", "never", *arguments]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            with _signals_held() as held:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
                    stdout=output,
                    stderr=errors,
                    # A group of its own: what is typed on the terminal reaches it through this process, once.
                    process_group=0,
                )
        except OSError as error:
            raise EngineError(f"pulumi cannot be run: {error.strerror}") from error
        try:
            if held:
                raise KeyboardInterrupt
            if process.stdin and text is not None:
                with suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(text.encode())
            while not _has_ended(process, _LOOK_SECONDS):
                tick()
        finally:
            _end(process)
        tick()
        output.seek(0)
        errors.seek(0)
        return Ended(process.returncode, output.read(), errors.read())


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Note signals instead of obeying them: between its start and the moment it is known, an engine would be left."""
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held  # signals are the main thread's alone
        return
    former = {each: signal.signal(each, lambda number, _: held.append(number)) for each in _ENDING}
    try:
        yield held
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the engine end what it has begun, and be less patient with every further interrupt."""
    for order, seconds in _WAYS_TO_END:
        if process.poll() is None:
            process.send_signal(order)
            with suppress(KeyboardInterrupt):
                _has_ended(process, seconds)
    process.wait()


def _has_ended(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None
