"""A stack: changes of its configuration, and updates of it by the engine with the program kept loaded."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from canary_service.config.settings import Settings
from canary_service.rollout.configuration import configuration, edited, project_of, stack_file
from canary_service.rollout.engine import Ended, EngineError, run
from canary_service.rollout.engine_events import EventStream, Finding, progress, read
from canary_service.rollout.loaded_program import Program
from canary_service.rollout.release import Changes

# Self-managed backends, and Pulumi Cloud (pkg/backend/diy/lock.go, pkg/backend/backenderr).
_LOCKED: Final = re.compile(
    r"the stack is currently locked by|\[409\] Conflict: Another update is currently in progress"
)
_LOCK: Final = re.compile(r"created by (?P<user>[^\s@]+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<time>\S+)")

# How `ConfigError` and `RefusedError` begin, which the program ends with before it changes anything.
_NOTHING_CHANGED: Final = re.compile(r"\d+ (problem|change)s? .*; nothing was changed\.")

# How `NotReadyError` begins, and the advice that it ends with.
_NOT_READY: Final = re.compile(r"Deployment \S+: \d+ of \d+ pods take requests after \d+ s\.")
_ADVICE: Final = re.compile(r"\n[^\n]*run `pulumi up` again\.$")

# gRPC says so once more what the program has ended with.
_REPEATED: Final = "Exception calling application: "

# What the engine says after everything that fails.
_AFTERMATH: Final = re.compile(r"(update|preview) failed|an unhandled error occurred: .*", re.DOTALL)


class LockedError(EngineError):
    """Another update of the stack is running, or was killed; nothing was changed. A retry helps when it has ended."""


class PolicyError(EngineError):
    """A mandatory policy is violated. A retry does not help."""


class PodsError(EngineError):
    """Pods did not become ready, and were waited for already: a retry helps when their own reasons have gone.

    `cause` is the message without advice on what to do next.
    """

    def __init__(self, message: str, cause: str) -> None:
        self.cause = cause
        super().__init__(message)


class Stack:
    """A stack of the project in a folder, with the policy packs that check every update.

    From entering on it holds a process in which the program is loaded.
    """

    def __init__(self, folder: Path, name: str, packs: Sequence[str] = ()) -> None:
        """`packs` are the engine's options `--policy-pack` and `--policy-pack-config` with their values."""
        self._folder = folder
        self._name = name
        self._packs = list(packs)
        self.program = Program(folder)
        self._undo: tuple[bytes, bytes] | None = None

    def __enter__(self) -> Self:
        self.program.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()

    def settings(self) -> Settings:
        """Return the stack's configuration.

        Raises:
            ConfigError: it cannot be used.
            EngineError: it cannot be read.
        """
        return configuration(self._folder, self._name).settings(project_of(self._folder)["name"])

    def set(self, changes: Changes) -> None:
        """Change the stack's file: all of it, or on any error nothing. What is encrypted stays so.

        Raises:
            EngineError: the CLI refuses, or somebody else has changed the file meanwhile.
        """
        if not changes:
            return
        file = self.file
        try:
            before = file.read_bytes()
            after = edited(self._folder, self._name, before, changes)
            if file.read_bytes() != before:
                raise EngineError(f"{file.name} was changed by somebody else meanwhile; it is left as it is now")
            _replace(file, after)
        except OSError as error:
            raise EngineError(f"{file.name} cannot be changed: {error.strerror}") from error
        self._undo = (self._undo[0] if self._undo else before, after)

    def restore(self) -> bool:
        """Take back what was set since the last update that did not fail; return whether that was possible.

        For an update that was refused: the stack's file then says again what is in force.
        """
        file = self.file
        if self._undo is None or file.read_bytes() != self._undo[1]:
            return False
        _replace(file, self._undo[0])
        self._undo = None
        return True

    def up(self, report: Callable[[str], object]) -> EventStream:
        """Update the stack, and return what the engine and the program said.

        Args:
            report: takes a line for everything that is said or begun.

        Raises:
            LockedError: another update is running.
            PolicyError: a mandatory policy is violated.
            PodsError: pods did not become ready.
            EngineError: the update failed; what was done until then stays.
        """
        with tempfile.TemporaryDirectory(prefix="canary-up-") as temporary, self.program.serving() as address:
            log = Path(temporary) / "events"
            log.touch()
            ended = run(
                self._folder,
                [
                    *("up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", self._name),
                    # As the Automation API does it with a program in its own process.
                    *("--client", address, "--exec-kind", "auto.inline", "--event-log", str(log)),
                    *self._packs,
                ],
                _Reporter(log, report).look,
                PULUMI_DEBUG_COMMANDS="true",
            )
            stream = read(log.read_text(encoding="utf-8").splitlines(keepends=True))
        if ended.code:
            raise _failure(ended, stream)
        self._undo = None
        return stream

    @cached_property
    def file(self) -> Path:
        """The stack's file, which `set` changes."""
        return stack_file(self._folder, self._name)


class _Reporter:
    """Hands on what is new in an event log."""

    def __init__(self, log: Path, report: Callable[[str], object]) -> None:
        self._log, self._report = log, report
        self._position = 0

    def look(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._position)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                for text in progress(line.decode()):
                    self._report(text)


def _replace(file: Path, content: bytes) -> None:
    """Give a file another content in one step: whoever reads it finds the one or the other."""
    number, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(number, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(number)
        shutil.copymode(file, draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _failure(ended: Ended, stream: EventStream) -> EngineError:
    if _LOCKED.search(ended.message):
        return LockedError(_locked(ended.message))
    violated = [finding for finding in stream.findings if finding.level == "mandatory"]
    if violated:
        return PolicyError("\n".join(map(_violation, violated)))
    said = [each.message.removeprefix(_REPEATED) for each in stream.diagnostics if each.severity == "error"]
    telling = [message for message in dict.fromkeys(said) if not _AFTERMATH.fullmatch(message)]
    if telling and all(map(_NOT_READY.match, telling)):
        return PodsError("\n".join(telling), "\n".join(_ADVICE.sub("", message) for message in telling))
    text = "\n".join(telling or said) or ended.message or f"`pulumi up` ended with exit code {ended.code}"
    return EngineError(text, usage=ended.usage or bool(_NOTHING_CHANGED.match(text)))


def _locked(message: str) -> str:
    held = _LOCK.search(message)
    if held is None:
        return "another update of the stack is in progress. Wait until it has ended"
    holder = f"{held['user']}@{held['host']} (process {held['pid']}), since {held['time']}"
    if held["host"] == os.uname().nodename and not _runs(int(held["pid"])):
        return f"the stack is locked by {holder}, which has ended without releasing it: `pulumi cancel` does"
    return f"the stack is locked by {holder}. Wait until that has ended; if it was killed, `pulumi cancel` releases it"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _violation(finding: Finding) -> str:
    place = finding.urn.rpartition("::")[2] if finding.urn else "stack"
    return f"{place}: {finding.rule}: {finding.message}"
