"""`canary run --wave`: many stacks as one release, wave after wave, each stack by a `canary run` of its own."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Final, TypeAlias

import click
from pydantic import ValidationError

from canary_service.cli import exit_codes
from canary_service.cli.errors import RefusedError
from canary_service.cli.project import Project, opened_without_engine, project_folder
from canary_service.cli.view import stamped
from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import ConfigError
from canary_service.rollout.engine import EngineError
from canary_service.rollout.events import EVENTS, AnyEvent, Promoted, RolledBack, RunStarted, Sampled
from canary_service.rollout.interruption import ROLL_BACK
from canary_service.rollout.waves import Phase, Wave

PARALLEL: Final = 4
"""So many stacks at a time unless told otherwise."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CANARY: Final = Path(__file__).with_name("canary")


@dataclass(frozen=True, slots=True)
class Member:
    """A stack of a wave, by the name it was given."""

    name: str
    project: Project

    @property
    def last_step(self) -> int:
        """The weight (percent) at which it waits for the others."""
        return self.project.settings.rollout.steps[-1]

    @property
    def canaries(self) -> str:
        """Its canaries, as SERVICE (IMAGE)."""
        services = self.project.settings.services.items()
        return ", ".join(f"{name} ({service.canary.image})" for name, service in services if service.canary)

    @property
    def exposed(self) -> bool:
        """Whether its canary may get requests already."""
        settings = self.project.settings
        return any(settings.canary_weight_of(name)[0] for name, service in settings.services.items() if service.canary)


@dataclass(frozen=True, slots=True)
class _Ended:
    name: str
    code: int


@dataclass(frozen=True, slots=True)
class _Said:
    name: str
    line: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class _Signal:
    pass


_News: TypeAlias = _Ended | _Said | _Signal


def members(waves: Sequence[str]) -> list[list[Member]]:
    """Return the stacks of each wave, of which `waves` has the names: STACK or FOLDER:STACK, with commas between.

    Raises:
        click.UsageError: one is not there, cannot be used, or is named twice.
    """
    names = [[name.strip() for name in wave.split(",")] for wave in waves]
    seen: dict[tuple[Path, str], str] = {}
    problems = []
    found: dict[str, Member] = {}
    for name in (name for wave in names for name in wave):
        place, _, stack = name.rpartition(":")
        folder = Path(place).resolve() if place else project_folder()
        if not stack:
            problems.append("a wave is STACK[,STACK...], and a name is missing")
        elif not (folder / "Pulumi.yaml").is_file():
            problems.append(f"{name}: there is no Pulumi.yaml in {folder}")
        elif (folder, stack) in seen:
            problems.append(f"{name} is named twice")
        else:
            seen[folder, stack] = name
            try:
                found[name] = Member(name, opened_without_engine(stack, folder))
            except (ClusterError, ConfigError, EngineError) as error:
                problems.append(f"{name}: {error}")
    if problems:
        raise RefusedError("\n".join(problems))
    return [[found[name] for name in wave] for wave in names]


@dataclass
class _Run:
    """A `canary run` in a process of its own, and what it has told."""

    process: subprocess.Popen[str]
    released: bool = False


@dataclass
class Fleet:
    """Takes waves through.

    Args:
        options: those that each run is given besides its own.
        approved: steps (percent) that are approved, wherever a stack asks for it.
        parallel: so many runs at a time.
        as_json: the events are written as they come.
        command: begins a `canary run`.
    """

    options: Sequence[str]
    approved: Sequence[int] = ()
    parallel: int = PARALLEL
    as_json: bool = False
    command: Sequence[str | Path] = (_CANARY, "run")
    _news: SimpleQueue[_News] = field(default_factory=SimpleQueue)
    _running: dict[str, _Run] = field(default_factory=dict)
    _promoted: list[str] = field(default_factory=list)
    _width: int = 0

    def release(self, waves: Sequence[Sequence[Member]]) -> int:
        """Take one wave after the other through; return the exit code."""
        self._width = max(len(member.name) for wave in waves for member in wave)
        with self._signals():
            for number, each in enumerate(waves, 1):
                names = ", ".join(member.name for member in each)
                self._say(f"Wave {number} of {len(waves)}: {names}")
                wave = Wave(
                    [member.name for member in each],
                    self.parallel,
                    exposed=[member.name for member in each if member.exposed],
                    sequential=[m.name for m in each if m.project.settings.rollout.order == "sequential"],
                )
                self._carry_out(wave, {member.name: member for member in each})
                if code := wave.exit_code:
                    self._say(
                        self._end(wave, code, [m.name for m in each], [m.name for w in waves[number:] for m in w])
                    )
                    return code
        self._say(
            f"All waves are done. Promoted: {', '.join(self._promoted) or 'nothing, there was nothing to release'}"
        )
        return exit_codes.DONE

    def _carry_out(self, wave: Wave, stacks: Mapping[str, Member]) -> None:
        while True:
            for name, phase in wave.due().items():
                self._begin(stacks[name], phase, wave.reason)
            if wave.over:
                return
            match self._news.get():
                case _Said(name, line, error=True):
                    self._write(f"{name:{self._width}}  {line}", err=True)
                case _Said(name, line):
                    self._told(wave, name, line)
                case _Ended(name, code):
                    run = self._running.pop(name, None)
                    self._stop(wave, wave.ended(name, code, released=run is not None and run.released))
                case _Signal():
                    self._send(wave.interrupted(), signal.SIGTERM)

    def _begin(self, member: Member, phase: Phase, reason: str) -> None:
        own: Mapping[Phase, list[str]] = {
            "steps": ["--to", str(member.last_step)],
            "promotion": [],
            "rollback": ["--roll-back", reason],
        }
        approvals = member.project.settings.rollout.approvals
        approved = [str(weight) for weight in self.approved if weight in approvals]
        try:
            process = subprocess.Popen(
                [
                    *(*self.command, "--stack", member.project.stack, "--yes", "--json", *self.options, *own[phase]),
                    *(part for weight in approved for part in ("--approve", weight)),
                ],
                cwd=member.project.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                process_group=0,  # what is typed on the terminal is passed on, so that a rollback is not stopped by it
            )
        except OSError as error:
            self._news.put(_Said(member.name, f"Error: `canary run` cannot be begun: {error.strerror}", error=True))
            self._news.put(_Ended(member.name, exit_codes.CLUSTER))
            return
        self._running[member.name] = _Run(process)
        threading.Thread(target=self._follow, args=(member.name, process), daemon=True).start()

    def _follow(self, name: str, process: subprocess.Popen[str]) -> None:
        def read(pipe: IO[str] | None, *, error: bool) -> None:
            with suppress(ValueError):  # closed meanwhile
                for line in pipe or ():
                    self._news.put(_Said(name, line.rstrip("\n"), error))

        errors = threading.Thread(target=read, args=(process.stderr,), kwargs={"error": True}, daemon=True)
        errors.start()
        read(process.stdout, error=False)
        errors.join()
        with process:  # which closes its pipes
            code = process.wait()
        if code < 0:  # a signal came before it could hear any, or was SIGKILL
            code = exit_codes.INTERRUPTED if -code in {*_ENDING, ROLL_BACK} else exit_codes.CLUSTER
        self._news.put(_Ended(name, code))

    def _told(self, wave: Wave, name: str, line: str) -> None:
        try:
            event: AnyEvent = EVENTS.validate_json(line)
        except ValidationError:  # a line that was cut off when the run was killed
            return
        match event:
            case RunStarted():
                self._running[name].released = True
            case Promoted():
                self._promoted.append(name)
            case Sampled() if event.verdict.outcome == "fail":  # the rollback may take long
                why = "; ".join(gate.text for gate in event.verdict.gates if gate.outcome == "fail")
                self._stop(wave, wave.failed(name, f"{event.verdict.service}: {why}"))
            case RolledBack():
                self._stop(wave, wave.failed(name, event.reason))
        if self.as_json:
            self._write(line)
        elif not isinstance(event, Sampled):  # `canary watch` shows those of a stack
            self._write(f"{name:{self._width}}  {stamped(event)}")

    def _stop(self, wave: Wave, names: Iterable[str]) -> None:
        self._send(names, ROLL_BACK if wave.rolling_back else signal.SIGTERM)

    def _send(self, names: Iterable[str], number: signal.Signals) -> None:
        for run in filter(None, map(self._running.get, names)):
            run.process.send_signal(number)

    def _end(self, wave: Wave, code: int, stacks: Sequence[str], later: Sequence[str]) -> str:
        parts = []
        if code == exit_codes.HELD:
            parts.append("The wave is held: no stack of it is promoted before all have passed")
        elif wave.rolling_back:
            parts.append(f"The wave is rolled back: {wave.reason}")
        else:
            parts.append("The wave ends; the weights stay as they are")
        if wave.not_back:
            parts.append(f"NOT ROLLED BACK: {', '.join(wave.not_back)}. Run `canary abort` there")
        if promoted := [name for name in stacks if name in self._promoted]:
            parts.append(f"Promoted before, and so left: {', '.join(promoted)}")
        if later:
            parts.append(f"Not begun: {', '.join(later)}")
        return ". ".join(parts)

    def _say(self, text: str) -> None:
        self._write(text, err=self.as_json)

    @staticmethod
    def _write(text: str, *, err: bool = False) -> None:
        with suppress(OSError):  # nobody reads any more, which is no reason to leave the runs alone
            click.echo(text, err=err)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take signals in as news meanwhile: a SimpleQueue may be filled by a handler, whatever it came upon."""
        heard = [each for each in _ENDING if signal.getsignal(each) != signal.SIG_IGN]
        handler: Callable[[int, object], object] = lambda *_: self._news.put(_Signal())  # noqa: E731
        former = {each: signal.signal(each, handler) for each in heard}
        try:
            yield
        finally:
            for each, before in former.items():
                signal.signal(each, before)
