"""What `canary set`, `promote` and `abort` have in common: say what would happen, ask, do it, read back."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

import click

from canary_service.cli import exit_codes
from canary_service.cli.errors import RefusedError
from canary_service.cli.progress import Progress
from canary_service.cli.project import Project
from canary_service.cluster.connection import connect
from canary_service.cluster.errors import ClusterError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import ConfigError
from canary_service.rollout.engine import EngineError
from canary_service.rollout.model import Record
from canary_service.rollout.release import Changes, ReleaseError
from canary_service.rollout.stack import LockedError, PolicyError, Stack
from canary_service.workload.live import LiveService

Outcome: TypeAlias = Literal["done", "unchanged", "refused", "violated", "locked", "failed"]
Command = TypeVar("Command", bound=Callable[..., Any])

_EXIT_CODES: Final[Mapping[Outcome, int]] = {
    "done": exit_codes.DONE,
    "unchanged": exit_codes.DONE,
    "refused": exit_codes.USAGE,
    "violated": exit_codes.CHECK_FAILED,
    "locked": exit_codes.LOCKED,
    "failed": exit_codes.CLUSTER,
}
_FOLDER: Final = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)


@dataclass(frozen=True, slots=True)
class Options:
    """What all three commands take."""

    stack: str | None
    services: tuple[str, ...]
    policy_packs: tuple[Path, ...]
    policy_configs: tuple[Path, ...]
    yes: bool
    as_json: bool

    @property
    def packs(self) -> list[str]:
        """The engine's options for the policy packs."""
        return [
            *(part for pack in self.policy_packs for part in ("--policy-pack", str(pack))),
            *(part for file in self.policy_configs for part in ("--policy-pack-config", str(file))),
        ]


class ServiceResult(Record):
    """A canary's weight (percent) before and as it was read back, None where no canary is routed; stable's image.

    `unreadable` says why no weight could be read back.
    """

    before: int | None
    read_back: int | None
    stable_image: str | None
    unreadable: str | None = None


class Result(Record):
    """What a command did. `error` says why it did not. Seconds until the last weight was read back."""

    command: str
    stack: str
    outcome: Outcome
    services: dict[str, ServiceResult]
    cut_off_seconds: float | None = None
    seconds: float
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """What a command would do.

    `says` is a line for each service. `weights` are those that the canaries then have, None without a canary;
    `images` those of stable, where they change. `cut_off` are the services whose canary is taken out of the traffic
    before all else. `stays` says that the stack's file keeps the changes when the update is refused.
    """

    changes: Changes
    says: Sequence[str]
    weights: Mapping[str, int | None]
    images: Mapping[str, str] = field(default_factory=dict)
    cut_off: tuple[str, ...] = ()
    stays: bool = False

    def is_done(self, live: Mapping[str, LiveService]) -> bool:
        """Tell whether this is what is in force."""
        return not self.missing(live)

    def missing(self, live: Mapping[str, LiveService]) -> list[str]:
        """Return what is otherwise than it ought to be, in words."""
        found = {name: weight_of(live[name]) for name in self.weights}
        wrong = [
            f"{name}: {shown(weight)} was declared, but {live[name].unreadable or shown(found[name])} read back"
            for name, weight in self.weights.items()
            if found[name] != weight or live[name].unreadable
        ]
        wrong += [f"{name}: the canary still gets copies of requests" for name in self.cut_off if live[name].mirror]
        stable = {name: running.image if (running := live[name].stable) else None for name in self.images}
        return wrong + [
            f"{name}: stable runs {stable[name]} instead of {image}"
            for name, image in self.images.items()
            if stable[name] != image
        ]


def options(command: Command) -> Command:
    """Give a command the options that become `Options`."""
    for option in (
        click.option("as_json", "--json", is_flag=True, help="Write JSON (docs/releases.md has its schema)."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option(
            "policy_configs",
            "--policy-pack-config",
            type=_FILE,
            multiple=True,
            help="Configure that policy pack by this file.",
        ),
        click.option("policy_packs", "--policy-pack", type=_FOLDER, multiple=True, help="Check with this policy pack."),
        click.option("services", "--service", metavar="NAME", multiple=True, help="Only this service (repeatable)."),
        click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one)."),
    ):
        command = option(command)
    return command


def weight_of(live: LiveService) -> int | None:
    """Return the weight (percent) that is in force, None where no canary is routed, or that cannot be read."""
    return live.split.weight if live.split and live.split.canary and not live.unreadable else None


def shown(weight: int | None) -> str:
    """Return a weight in words."""
    return "no canary" if weight is None else f"{weight} %"


def in_force(live: LiveService) -> str:
    """Return the weight that is in force in words."""
    return "?" if live.unreadable else shown(weight_of(live))


def chosen(project: Project, names: Sequence[str], having: Sequence[str]) -> list[str]:
    """Return the services that a command is for: those named, else all that have a canary.

    Raises:
        click.UsageError: one is not known, or there is none.
    """
    known = list(project.settings.services)
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(
            f"no service is called {', '.join(unknown)}; stack {project.stack} has {', '.join(known)}"
        )
    if without := [name for name in names if name not in having]:
        others = f"; those that have one: {', '.join(having)}" if having else ""
        raise click.UsageError(f"{', '.join(without)} has no canary{others}")
    if not having:
        raise click.UsageError(f"no service of stack {project.stack} has a canary")
    return [name for name in known if name in (names or having)]


def release(
    context: click.Context,
    options: Options,
    read: Callable[[str | None], Project],
    plan: Callable[[Project, Mapping[str, LiveService]], Move],
    *,
    down: bool = False,
) -> None:
    """Say what a command would do, ask, do it, read back, and exit with its code.

    Args:
        context: of the command.
        options: what it was called with.
        read: reads the project.
        plan: says what the command would do to what is in force.
        down: it takes canaries out of the traffic, also where it cannot be told what is in force.
    """
    if options.policy_configs and not options.policy_packs:
        raise click.UsageError("--policy-pack-config configures a --policy-pack, and there is none")
    command = context.info_name or ""
    begin = time.monotonic()
    stack = options.stack or ""
    try:
        project = read(options.stack)
        stack = project.stack
        # Paths in a kubeconfig's configuration count from there, as they do for the program.
        os.chdir(project.folder)
        cluster = LiveCluster(connect(project.provider), project.settings)
        live = _live(cluster, down=down)
        move = plan(project, live)
    except (ClusterError, ConfigError, EngineError, ReleaseError) as error:
        result = Result(command=command, stack=stack, services={}, seconds=0, **_failed(error))
    else:
        if move.changes or not move.is_done(live):
            _ask(options, project.stack, move)
            begin = time.monotonic()
            result = _Doing(command, project, cluster, move, live).result(options, begin)
        else:
            result = Result(
                command=command,
                stack=stack,
                outcome="unchanged",
                services=_services(move, live, live),
                seconds=0,
            )
    if options.as_json:
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    else:
        _tell(result)
    context.exit(_EXIT_CODES[result.outcome])


def _live(cluster: LiveCluster, *, down: bool) -> Mapping[str, LiveService]:
    services = cluster.settings.services.items()
    try:
        live = cluster.read()
        if not down:
            cluster.routes.refuse_unknown_kinds()
    except ClusterError as error:
        if not (down and any(service.canary for _, service in services)):
            raise
        return {name: LiveService(unreadable=str(error) if service.canary else "") for name, service in services}
    return live


@dataclass(frozen=True, slots=True)
class _Doing:
    command: str
    project: Project
    cluster: LiveCluster
    move: Move
    before: Mapping[str, LiveService]

    def result(self, options: Options, begin: float) -> Result:
        warnings: list[str] = []
        cut_off: float | None = None
        problem: dict[str, Any] = {"outcome": "done"}
        try:
            if self.move.cut_off:
                self.cluster.routes.lower(dict.fromkeys(self.move.cut_off, 0))
                cut_off = round(time.monotonic() - begin, 3)
        except ClusterError as error:
            warnings.append(f"not cut off ahead of the update: {error}")
        try:
            warnings += self._updated(options)
        except EngineError as error:
            problem = _failed(error)
        after: Mapping[str, LiveService] = {}
        try:
            after = self.cluster.read()
            if problem["outcome"] == "done" and (missing := self.move.missing(after)):
                problem = {"outcome": "failed", "error": "\n".join(missing)}
        except ClusterError as error:
            problem = {"outcome": "failed", "error": "\n".join(filter(None, (problem.get("error"), str(error))))}
        return Result(
            command=self.command,
            stack=self.project.stack,
            services=_services(self.move, self.before, after),
            cut_off_seconds=cut_off,
            seconds=round(time.monotonic() - begin, 3),
            warnings=tuple(warnings),
            **problem,
        )

    def _updated(self, options: Options) -> list[str]:
        with (
            Stack(self.project.folder, self.project.stack, options.packs) as stack,
            Progress(f"canary {self.command}") as progress,
        ):
            stack.set(self.move.changes)
            with _taken_back(stack, keep=self.move.stays):
                stream = stack.up(progress.show)
        return [each.message for each in stream.diagnostics if each.severity == "warning"]


@contextmanager
def _taken_back(stack: Stack, *, keep: bool) -> Iterator[None]:
    """Let the stack's file say again what is in force when an update was refused before it began, but to `keep` it."""
    try:
        yield
    except EngineError as error:
        if not keep and (error.usage or isinstance(error, LockedError | PolicyError)) and stack.restore():
            raise type(error)(f"{error}\nThe stack's file is as it was.", usage=error.usage) from error
        if keep and error.usage:
            told = str(error).replace("nothing was changed", "nothing more was changed", 1)
            raise type(error)(told, usage=True) from error
        raise


def _ask(options: Options, stack: str, move: Move) -> None:
    click.echo("\n".join((f"{stack}:", *(f"  {line}" for line in move.says))), err=options.as_json)
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError("nobody can be asked here: say --yes to go on")
    click.confirm("Go on?", abort=True, err=True)


def _services(
    move: Move, before: Mapping[str, LiveService], after: Mapping[str, LiveService]
) -> dict[str, ServiceResult]:
    return {
        name: ServiceResult(
            before=weight_of(before[name]),
            read_back=weight_of(after[name]),
            stable_image=running.image if (running := after[name].stable) else None,
            unreadable=after[name].unreadable or None,
        )
        for name in move.weights
        if after
    }


def _failed(error: Exception) -> dict[str, Any]:
    outcome: Outcome = "failed"
    if isinstance(error, LockedError):
        outcome = "locked"
    elif isinstance(error, PolicyError):
        outcome = "violated"
    elif isinstance(error, ConfigError | ReleaseError) or (isinstance(error, EngineError) and error.usage):
        outcome = "refused"
    return {"outcome": outcome, "error": str(error)}


def _tell(result: Result) -> None:
    for text in result.warnings:
        click.echo(f"Warning: {text}", err=True)
    if result.error is not None:
        click.echo(f"Error: {result.error}", err=True)
    if result.outcome == "unchanged":
        click.echo("Nothing changes: all of it is in force already.")
        return
    for name, service in result.services.items():
        stable = f", stable runs {service.stable_image}" if result.command == "promote" else ""
        if service.unreadable:
            click.echo(f"{name}: NO WEIGHT READ BACK, the canary may get requests: {service.unreadable}")
        else:
            click.echo(f"{name}: {shown(service.read_back)}{stable}, read back")
    if result.cut_off_seconds is not None:
        click.echo(f"Weight 0 was read back after {1000 * result.cut_off_seconds:.0f} ms.")
    if result.outcome == "done":
        click.echo(f"Done in {result.seconds:.1f} s.")
