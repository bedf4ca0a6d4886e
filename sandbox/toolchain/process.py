"""Runs a program that works for minutes: with a sign of life, and never longer than this process."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_TICK = 0.2  # seconds between two looks at the running program
_GRACE = 5.0  # seconds that an ended program has to tidy up


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended: its exit code, negative for a signal, and all that it wrote."""

    code: int
    output: str
    errors: str


def run(
    command: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str],
    tick: Callable[[], None],
    timeout: float = float("inf"),
) -> Finished:
    """Run a program in a folder, calling `tick` several times a second, and end it after `timeout` seconds.

    However this function is left, by kill -9 even, the program ends.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # a process group of its own, so that what it starts can be ended with it
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call; nothing else survives kill -9
        )
        try:
            _wait(process, tick, timeout)
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        return Finished(process.returncode, output.read(), errors.read())


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TICK)
            return
        tick()


def _end(process: subprocess.Popen[bytes]) -> None:
    for order in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, order)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
