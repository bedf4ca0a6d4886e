"""The program of a project, kept loaded from one update to the next."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from canary_service.rollout.configuration import project_of
from canary_service.rollout.engine import EngineError

_PROGRAM: Final = Path(__file__).with_name("program.py")


class Program:
    """The project's program, loaded once and run for each update in a process of its own (program.py)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process that writes to it
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin to load it. Nothing is waited for.

        Raises:
            EngineError: the project's file cannot be used, or its Python cannot be run.
        """
        project = project_of(self._folder)
        runtime = project.get("runtime")
        options = (runtime.get("options") if isinstance(runtime, dict) else None) or {}
        python = self._folder / options["virtualenv"] / "bin" / "python" if "virtualenv" in options else sys.executable
        try:
            self._process = subprocess.Popen(
                [python, "-P", _PROGRAM, self._folder / (project.get("main") or "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                process_group=0,  # what is typed on the terminal is the engine's to obey
            )
        except OSError as error:
            raise EngineError(f"the program cannot be run: {python}: {error.strerror}", usage=True) from error

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.communicate()
            self._process = None
        self._said.close()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Have it wait for the engine, at the address that this gives.

        Raises:
            EngineError: it could not be loaded.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ValueError("a stack is to be entered before it is used")
        with suppress(BrokenPipeError):
            process.stdin.write("run\n")
            process.stdin.flush()
        port = process.stdout.readline().strip()
        if not port:
            self._said.seek(0)
            reason = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise EngineError(f"the program cannot be loaded: {reason or 'its Python ended'}", usage=True)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            with suppress(BrokenPipeError):
                process.stdin.write("end\n")
                process.stdin.flush()
