"""The journal of a run: one event a line, in a file that outlives the run (docs/journal.md)."""

import fcntl
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from canary_service.rollout.events import EVENTS, AnyEvent, Sampled

_FOLDER: Final = ".canary"
_SUFFIX: Final = ".jsonl"
_UNKNOWN_EVENT: Final = "union_tag_invalid"


class JournalError(Exception):
    """A journal cannot be read, or is none; the message names file and line."""


class Journal:
    """Writes the journal of a new run; call it with each event, and close it at the end.

    It is synced to the disk at every event except samples. What cannot be written is said once and stops nothing: a
    rollback matters more. As long as it is open, others can tell that the run goes on (`Reader.open`).
    """

    def __init__(self, folder: Path, stack: str, say: Callable[[str], object]) -> None:
        """Begin a journal.

        Args:
            folder: that of the project.
            stack: name of the stack; of ORGANIZATION/PROJECT/STACK only the last part counts.
            say: is told once, in a sentence, when the journal cannot be written.
        """
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        self.path = runs(folder, stack) / f"{self.run}{_SUFFIX}"
        self._say: Callable[[str], object] | None = say
        self._file: int | None = None
        try:
            self._file = self._begun(folder)
        except OSError as error:
            self._failed(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: AnyEvent) -> None:
        """Write an event."""
        if self._file is None:
            return
        line = EVENTS.dump_json(event, by_alias=True) + b"\n"
        try:
            self._append(self._file, line)
            if not isinstance(event, Sampled):
                os.fsync(self._file)
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """End the journal; more than once does no harm."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # said already: every line was written or failed before
                os.close(file)

    def _begun(self, folder: Path) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ignore = folder / _FOLDER / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        # Locked before it has its name: whoever finds it sees that the run goes on.
        new = self.path.with_suffix(".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self.path)
        except OSError:
            os.close(file)
            raise
        return file

    @staticmethod
    def _append(file: int, line: bytes) -> None:
        end = os.fstat(file).st_size
        try:
            written = os.write(file, line)
            while written < len(line):
                written += os.write(file, line[written:])
        except OSError:
            os.ftruncate(file, end)  # no half a line, to which a later one would be joined
            raise

    def _failed(self, error: OSError) -> None:
        say, self._say = self._say, None
        if say:
            say(f"the journal {self.path} cannot be written, so events will be missing from it: {error.strerror}")


class Reader:
    """Reads a journal while it may still be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._line = 0

    def new(self) -> tuple[AnyEvent, ...]:
        """Return the events since the last call.

        A last line that was cut off is left for the next call. Fields and events of newer versions are left out.

        Raises:
            JournalError: it cannot be read, or a line of it is no event.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error.strerror}") from None
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        events = []
        for line in whole.splitlines():
            self._line += 1
            try:
                events.append(EVENTS.validate_json(line, extra="ignore"))
            except ValidationError as error:
                problem = error.errors(include_url=False, include_input=False)[0]
                if problem["type"] != _UNKNOWN_EVENT:
                    where = ".".join(map(str, problem["loc"]))
                    text = f"{where}: {problem['msg']}" if where else problem["msg"]
                    raise JournalError(f"{self.path}, line {self._line} is no event of a run: {text}") from None
        return tuple(events)

    @property
    def open(self) -> bool:
        """Whether a run on this machine still writes it; False too when that cannot be found out."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(file)
        return False


def read(path: Path) -> tuple[AnyEvent, ...]:
    """Return the events of a journal, oldest first; a last line that was cut off is left out.

    Raises:
        JournalError: it cannot be read, or a line of it is no event.
    """
    return Reader(path).new()


def journals(folder: Path, stack: str) -> list[Path]:
    """Return the journals of a stack's runs, oldest first.

    Args:
        folder: that of the project.
        stack: its name, as for `Journal`.
    """
    return sorted(runs(folder, stack).glob(f"*{_SUFFIX}"))


def newest(folder: Path, stack: str) -> Path | None:
    """Return the journal of a stack's last run, None without one."""
    found = journals(folder, stack)
    return found[-1] if found else None


def runs(folder: Path, stack: str) -> Path:
    """Return the folder of a stack's journals."""
    return folder / _FOLDER / "runs" / stack.rpartition("/")[2]
