"""A stack: its configuration, and updates of it by the engine with the program kept loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, Self

import yaml

from canary_service.config.loader import Location, load
from canary_service.config.settings import Settings
from canary_service.rollout.engine import Ended, EngineError, run
from canary_service.rollout.engine_events import EventStream, Finding, progress, read
from canary_service.rollout.preview import decrypted, selected_stack
from canary_service.rollout.release import Changes, Copy, path_of

_PROGRAM: Final = Path(__file__).with_name("program.py")

# `pulumi config set --path` turns what Go's strconv.Atoi reads into a number, which for these would be another text.
_MISREAD: Final = re.compile(r"(?!(0|-?[1-9][0-9]*)$)[+-]?[0-9]+")

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


# Stands for an encrypted value where that is not needed: every kind of scalar can be read from it.
_ENCRYPTED: Final = "1"


# How the engine says that a stack's file cannot be read, without its name.
_UNREADABLE: Final = re.compile(r"(getting stack configuration: )?(invalid YAML file|yaml: )")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A stack's configuration in plain text, each key with its namespace, and where in it something is encrypted."""

    values: Mapping[str, str]
    encrypted: Collection[Location]

    def settings(self, project: str) -> Settings:
        """Return what the values of a project mean.

        Raises:
            ConfigError: they cannot be used; no value that is encrypted is shown.
        """
        own = f"{project}:"
        values = {key.removeprefix(own): value for key, value in self.values.items() if key.startswith(own)}
        return load(values, [(str(key).removeprefix(own), *rest) for key, *rest in self.encrypted])


def project_of(folder: Path) -> dict[str, Any]:
    """Return what the Pulumi.yaml of a folder says.

    Raises:
        EngineError: it cannot be read, or names no project.
    """
    file = folder / "Pulumi.yaml"
    try:
        project = _yaml(file)
    except OSError as error:
        raise EngineError(f"{file.name} cannot be read: {error.strerror}", usage=True) from error
    if not isinstance(project.get("name"), str) or not project["name"]:
        raise EngineError(f"{file.name} names no project: it needs a line like name: my-project", usage=True)
    return project


def stack_file(folder: Path, name: str) -> Path:
    """Return the file of a stack, which may be named ORGANIZATION/STACK.

    Raises:
        EngineError: the project's file cannot be used.
    """
    return _file_of(folder, project_of(folder), name)


def configuration(folder: Path, name: str) -> Configuration:
    """Return a stack's configuration.

    Raises:
        EngineError: there is no such stack, or its configuration cannot be read.
    """
    file = stack_file(folder, name)
    written = _config_of(file) if file.exists() else {}
    try:
        values, secret = decrypted(folder, ["--stack", name])
    except EngineError as error:
        raise named(error, folder, name) from error
    encrypted: list[Location] = []
    for key in secret:
        # One that the file does not have is a default of the project.
        encrypted += tuple(_encrypted(written.get(key), (key,))) or ((key,),)
    return Configuration(values, encrypted)


def named(error: EngineError, folder: Path, name: str | None) -> EngineError:
    """Return an error of the engine with the name of the stack's file, if that is what the engine could not read.

    The stack is the selected one when None.
    """
    if not _UNREADABLE.match(str(error)):
        return error
    return EngineError(f"{stack_file(folder, name or selected_stack(folder)).name}: {error}", usage=True)


def stored(folder: Path, name: str) -> dict[str, str]:
    """Return a stack's configuration as its file has it, without the engine; encrypted values inside maps are 1.

    Raises:
        OSError: there is no such file.
        LookupError: a value is encrypted as a whole.
        EngineError: a file is not what it should be.
    """
    project = project_of(folder)
    defaults = {
        f"{project['name']}:{key}": declared["default"]
        for key, declared in _map(project.get("config")).items()
        if isinstance(declared, dict) and "default" in declared
    }
    config = defaults | _config_of(_file_of(folder, project, name))
    if hidden := [key for key, value in config.items() if _is_encrypted(value)]:
        raise LookupError(f"encrypted: {', '.join(hidden)}")
    return {
        key: json.dumps(_legible(value)) if isinstance(value, dict | list) else _text(value)
        for key, value in config.items()
    }


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
        return configuration(self._folder, self._name).settings(self._project)

    def set(self, changes: Changes) -> None:
        """Change the stack's file: all of it, or on any error nothing. What is encrypted stays so.

        Raises:
            EngineError: the CLI refuses, or somebody else has changed the file meanwhile.
        """
        if not changes:
            return
        file = self._file
        try:
            before = file.read_bytes()
            with tempfile.TemporaryDirectory(prefix="canary-set-") as temporary:
                draft = Path(temporary) / file.name
                draft.write_bytes(before)
                self._write(changes, draft)
                after = draft.read_bytes()
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
        file = self._file
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

    @property
    def file(self) -> Path:
        """The stack's file, which `set` changes."""
        return self._file

    @cached_property
    def _project_file(self) -> dict[str, Any]:
        return project_of(self._folder)

    @property
    def _project(self) -> str:
        return str(self._project_file["name"])

    @property
    def _file(self) -> Path:
        return _file_of(self._folder, self._project_file, self._name)

    def _write(self, changes: Changes, draft: Path) -> None:
        changed = {key: change for key, change in changes.items() if change is not None}
        removed = [key for key, change in changes.items() if change is None]
        present = self._own(_config_of(draft))
        if _is_encrypted(present.get("services")):
            raise EngineError(
                "services is encrypted as a whole, and a path into it would replace it: encrypt values in it instead",
                usage=True,
            )
        copied = any(isinstance(change, Copy) for change in changed.values())
        known = configuration(self._folder, self._name).values if copied else {}
        pairs: list[str] = []
        for key, change in changed.items():
            value = _text(_at(path_of(change.key), self._plain(known))) if isinstance(change, Copy) else change
            source = change.key if isinstance(change, Copy) else key
            secret = _is_encrypted(_at(path_of(source), present))
            if secret or _MISREAD.fullmatch(value):
                kind = ["--secret"] if secret else ["--type", "string"]
                self._config(draft, "set", "--path", "--raw", *kind, key, text=value)
            else:
                pairs += ["--plaintext", f"{key}={value}"]
        if pairs:
            self._config(draft, "set-all", "--path", *pairs)
        if removed:
            self._config(draft, "rm-all", "--path", *removed)

    def _own(self, config: Mapping[str, Any]) -> dict[str, Any]:
        own = f"{self._project}:"
        return {key.removeprefix(own): value for key, value in config.items() if key.startswith(own)}

    def _plain(self, config: Mapping[str, str]) -> dict[str, Any]:
        own = self._own(config)
        return own | {"services": json.loads(own["services"])}

    def _config(self, draft: Path, *arguments: str, text: str | None = None) -> None:
        ended = run(
            self._folder,
            ["config", *arguments, "--stack", self._name, "--config-file", str(draft)],
            text=text,
        )
        if ended.code:
            raise EngineError(ended.message, usage=ended.usage)


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


def _at(path: Sequence[str], content: Any) -> Any:  # noqa: ANN401 - a value of any type that YAML has
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_bytes()) or {}
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise EngineError(f"{file.name}{line} is not valid YAML: {error.problem}", usage=True) from error
    except yaml.YAMLError as error:
        raise EngineError(f"{file.name} is not valid YAML: {error}", usage=True) from error
    if not isinstance(content, dict):
        raise EngineError(f"{file.name} is to hold keys with values, not {type(content).__name__}", usage=True)
    return content


def _config_of(file: Path) -> dict[str, Any]:
    config = _yaml(file).get("config") or {}
    if not isinstance(config, dict):
        raise EngineError(f"config in {file.name} is to hold keys with values, not {config}", usage=True)
    return config


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _file_of(folder: Path, project: Mapping[str, Any], stack: str) -> Path:
    """Return the file of a stack, which may be named ORGANIZATION/STACK."""
    return (folder / (project.get("stackConfigDir") or "") / f"Pulumi.{stack.rpartition('/')[2]}.yaml").resolve()


def _legible(value: Any) -> Any:  # noqa: ANN401 - a value of any type that YAML has
    if isinstance(value, dict):
        return _ENCRYPTED if _is_encrypted(value) else {key: _legible(each) for key, each in value.items()}
    return [_legible(each) for each in value] if isinstance(value, list) else value


def _encrypted(value: object, path: Location) -> Iterator[Location]:
    if _is_encrypted(value):
        yield path
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in parts:
            yield from _encrypted(each, (*path, key))


def _is_encrypted(stored: object) -> bool:
    return isinstance(stored, dict) and stored.keys() == {"secure"}


def _text(value: object) -> str:
    """Return a scalar as configuration holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
