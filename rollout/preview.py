"""Runs `pulumi preview` and reads what the engine said."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rollout.engine_events import EventStream, read

_LOOK_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 10.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)

# What the CLI ends with when the invocation or the stack's name is wrong (pkg/cmd/pulumi/cmd/exit_codes.go).
_USAGE_CODES: Final = frozenset({2, 6})
_MISTAKES: Final = ("validating stack config", "validating policy config", "no stack selected", "invalid stack name")


class EngineError(Exception):
    """The engine did not get as far as previewing; `usage` tells whether invocation or configuration is to blame."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        self.usage = usage
        super().__init__(message)


class LockedError(EngineError):
    """Another update of the stack is under way; the message says whose."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview said, and whether it failed."""

    stream: EventStream
    failed: bool


def preview(
    folder: Path,
    options: Sequence[str],
    tick: Callable[[int], object],
) -> Preview:
    """Run `pulumi preview` in a project's folder.

    Args:
        folder: where Pulumi.yaml is.
        options: further options, such as the stack.
        tick: called several times a second with the number of resources compared so far.

    Raises:
        EngineError: it ended before the program ran.
    """
    with tempfile.TemporaryDirectory(prefix="canary-plan-") as temporary:
        log = Path(temporary) / "events"
        log.touch()
        # The digest of `--json` leaves out what policies say; the event log, as the Automation API reads it, does not.
        command = ["preview", "--event-log", str(log), *options]
        code, _, errors = _pulumi(folder, command, lambda: tick(_compared(log)), PULUMI_DEBUG_COMMANDS="true")
        stream = read(log.read_text(encoding="utf-8").splitlines(keepends=True))
    if stream.config is None:
        message = errors.strip().removeprefix("error: ") or f"`pulumi preview` ended with exit code {code}"
        raise EngineError(message, usage=code in _USAGE_CODES or message.startswith(_MISTAKES))
    return Preview(stream, failed=code != 0)


def selected_stack(folder: Path) -> str:
    """Return the name of the stack that is selected in a project's folder.

    Raises:
        EngineError: there is none.
    """
    code, output, errors = _pulumi(folder, ["stack", "--show-name"], lambda: None)
    if code:
        raise EngineError(errors.strip().removeprefix("error: "), usage=code in _USAGE_CODES)
    return output.strip()


def decrypted(folder: Path, options: Sequence[str]) -> dict[str, str]:
    """Return the stack's configuration in plain text, each key with its namespace.

    Raises:
        EngineError: it cannot be read.
    """
    code, output, errors = _pulumi(folder, ["config", "--json", "--show-secrets", *options], lambda: None)
    if code:
        raise EngineError(errors.strip().removeprefix("error: "))
    return {key: entry.get("value", "") for key, entry in json.loads(output).items()}


def _pulumi(
    folder: Path, arguments: Sequence[str], tick: Callable[[], object], **environment: str
) -> tuple[int, str, str]:
    command = ["pulumi", "--non-interactive", "--color", "never", *arguments]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            with _signals_held() as held:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                )
        except OSError as error:
            raise EngineError(f"pulumi cannot be run: {error.strerror}") from error
        try:
            if held:
                raise KeyboardInterrupt
            while process.poll() is None:
                time.sleep(_LOOK_SECONDS)
                tick()
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        return process.returncode, output.read(), errors.read()


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Note signals instead of obeying them: between its start and the moment it is known, an engine would be left."""
    held: list[int] = []
    former = {each: signal.signal(each, lambda number, _: held.append(number)) for each in _ENDING}
    try:
        yield held
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the engine end by itself when it was interrupted together with this process; then make it."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()


def _compared(log: Path) -> int:
    return log.read_bytes().count(b'"resourcePreEvent"')
