"""`canary run`: takes canaries from 0 to promoted, or safely back."""

import difflib
import getpass
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from canary_service.cli.errors import RefusedError
from canary_service.cli.progress import Progress
from canary_service.cli.project import Project, opened
from canary_service.cli.report import write_after
from canary_service.cli.streams import unfailing
from canary_service.cli.terminal import Terminal
from canary_service.cli.view import Lines, View, listener
from canary_service.cli.waves import PARALLEL, Fleet, members
from canary_service.cluster.connection import connect
from canary_service.cluster.errors import ClusterError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import ConfigError
from canary_service.config.settings import Settings
from canary_service.rollout.alone import alone
from canary_service.rollout.commits import CommitError, Commits, require_committed
from canary_service.rollout.configuration import stack_file
from canary_service.rollout.driver import Driver, Start, Task
from canary_service.rollout.ends import RunEnded
from canary_service.rollout.engine import EngineError
from canary_service.rollout.event_words import duration, listed
from canary_service.rollout.events import EVENTS, AnyEvent, Finished, RunEnd
from canary_service.rollout.interruption import Interruptions, SystemClock
from canary_service.rollout.journal import Journal
from canary_service.rollout.notifications import Notifier
from canary_service.rollout.sampling import Sampler
from canary_service.rollout.stack import LockedError, Stack
from canary_service.rollout.tools import Tools
from canary_service.rollout.verdict import judge

_FOLDER: Final = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)

_NO_PROMETHEUS: Final = (
    "without a Prometheus server no canary can be judged: --prometheus URL, or\n"
    "  pulumi config set --path rollout.prometheusUrl http://prometheus.monitoring:9090"
)


@dataclass(frozen=True, slots=True)
class _Options:
    stack: str | None
    services: tuple[str, ...]
    to: int | None
    approved: tuple[int, ...]
    again: bool
    roll_back: str | None
    waves: tuple[str, ...]
    parallel: int | None
    policy_packs: tuple[Path, ...]
    policy_configs: tuple[Path, ...]
    prometheus: str | None
    commit: bool
    show_change: bool
    yes: bool
    as_json: bool

    @property
    def packs(self) -> list[str]:
        """The engine's options for the policy packs."""
        return [
            *(part for pack in self.policy_packs for part in ("--policy-pack", str(pack))),
            *(part for file in self.policy_configs for part in ("--policy-pack-config", str(file))),
        ]


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("services", "--service", metavar="NAME", multiple=True, help="Only this service (repeatable).")
@click.option("--to", type=int, metavar="WEIGHT", help="End after this step, without a promotion.")
@click.option("approved", "--approve", type=int, metavar="WEIGHT", multiple=True, help="This step is approved.")
@click.option("--again", is_flag=True, help="Also a canary that was rolled back before.")
@click.option("--roll-back", metavar="REASON", help="Release nothing: roll back, as when a gate fails.")
@click.option("waves", "--wave", metavar="STACK[,...]", multiple=True, help="These stacks together (repeatable).")
@click.option(
    "--parallel", type=click.IntRange(1), metavar="N", help=f"Stacks of a wave at a time (default {PARALLEL})."
)
@click.option("policy_packs", "--policy-pack", type=_FOLDER, multiple=True, help="Check with this policy pack.")
@click.option(
    "policy_configs", "--policy-pack-config", type=_FILE, multiple=True, help="Configure that policy pack by this file."
)
@click.option("--prometheus", metavar="URL", help="Ask this server (default: rollout.prometheusUrl).")
@click.option("--commit", is_flag=True, help="Commit each change of the stack's file with git.")
@click.option("show_change", "--pr", is_flag=True, help="Print the change of the stack's file at the end.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("as_json", "--json", is_flag=True, help="Write a JSON object for each event (docs/journal.md).")
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:  # noqa: ANN401 - click hands over each option
    """Release the canaries step by step, watch them, and promote them or roll them back.

    At each of rollout.steps it sets the weight, updates, reads back, and watches for rollout.stepSeconds. A canary that
    is worse than stable (rollout.gates) is out of the traffic within a second; one of which too little is known is
    held, never promoted. The next step follows from the weight in force: killed anywhere, it goes on when run again.
    Control-C stops it at the present weight.

    \b
    canary run                                  all services that have a canary, together (rollout.order)
    canary run --service auth-service --to 20   one service, ends at 20 %
    canary run --approve 20                     goes on after the step that rollout.approvals holds
    canary run --yes --json --commit            unattended
    canary run --wave dev --wave eu,us          stack dev, and when it is promoted, eu and us as one release

    Exit codes: 0 promoted, or where --to ends; 1 the invocation or the configuration is wrong, or the release is
    refused or no longer what it was; 2 rolled back; 3 held; 4 engine or cluster failed; 5 another update or run is
    under way; 6 a mandatory policy is violated; 130 interrupted.
    """  # noqa: D301 - \b tells click to keep lines
    options = _Options(**given)
    stack = options.stack or ""
    if options.policy_configs and not options.policy_packs:
        raise click.UsageError("--policy-pack-config configures a --policy-pack, and there is none")
    if options.waves:
        with unfailing():
            code = _run_waves(options)
        context.exit(code)
    if options.roll_back is not None and options.to is not None:
        raise click.UsageError("--roll-back ends at 0 %, so that there is no --to")
    if options.parallel:
        raise click.UsageError("--parallel is for the stacks of a --wave, and there is none")
    with unfailing(), Interruptions() as signals:
        try:
            with signals.allowed():
                project = opened(options.stack)
            stack = project.full_name
            _check(options, project.settings, project.stack)
            # Paths in a kubeconfig's configuration count from there, as they do for the program.
            os.chdir(project.folder)
            with alone(project.folder, project.stack):
                try:
                    code = _run(options, project, signals)
                except RunEnded as ended:
                    code = _not_begun(options, stack, ended)
        except (click.UsageError, ClusterError, CommitError, ConfigError, EngineError) as error:
            if isinstance(error, click.UsageError) and not options.as_json:
                raise
            code = _not_begun(options, stack, _ended(error))
    context.exit(code)


def _run(options: _Options, project: Project, signals: Interruptions) -> int:
    settings, folder = project.settings, project.folder
    if options.commit and options.roll_back is None:
        require_committed(stack_file(folder, project.stack))
    console = Console()
    view = _JsonLines() if options.as_json else listener(console)
    progress = _Progress()
    person = Terminal(view.paused)
    with ExitStack() as open_:
        engine = open_.enter_context(Stack(folder, project.stack, options.packs))
        cluster = LiveCluster(connect(project.provider), settings)
        url = options.prometheus or settings.rollout.prometheus_url
        sampler = open_.enter_context(closing(Sampler(settings, url, cluster.routes, cluster.workloads)))
        driver = Driver(
            Task(
                project.full_name,
                _who(),
                options.services,
                options.to,
                frozenset(options.approved),
                again=options.again,
                roll_back=options.roll_back,
            ),
            Tools(
                engine=engine,
                cluster=cluster,
                routes=cluster.routes,
                sampler=sampler,
                judge=partial(judge, gates=settings.rollout.gates),
                clock=SystemClock(),
                signals=signals,
                person=person,
                # A live table has the step and its time already.
                progress=progress.show if isinstance(view, Lines | _JsonLines) else lambda _line: None,
            ),
            [],
        )
        start = driver.prepare()
        with signals.allowed():
            _ask(options, project, start)
        before = engine.file.read_text(encoding="utf-8")
        journal = open_.enter_context(Journal(folder, project.stack, lambda text: click.echo(text, err=True)))
        # The journal is told first: it is what outlives everything else.
        listeners: list[Callable[[AnyEvent], object]] = [journal, progress, view]
        if settings.rollout.webhook_url:
            say = partial(click.echo, err=True)
            listeners.append(open_.enter_context(Notifier(settings.rollout.webhook_url, say)))
        if options.commit:
            listeners.append(Commits(engine.file))
        with view, person:
            finished = driver.run(start, journal.run, listeners)
    if isinstance(view, View):
        click.echo(finished.text)  # which the table may have cut to its width
    _report(options, journal)
    if options.show_change:
        click.echo(_change(before, engine.file), nl=False)
    return finished.exit_code


def _run_waves(options: _Options) -> int:
    single = {
        "--stack": options.stack,
        "--service": options.services,
        "--to": options.to,
        "--roll-back": options.roll_back,
        "--pr": options.show_change,
    }
    if given := [name for name, value in single.items() if value]:
        raise click.UsageError(f"{listed(given)} cannot be combined with --wave, which takes stacks as a whole")
    waves = members(options.waves)
    rollouts = {member.name: member.project.settings.rollout for wave in waves for member in wave}
    if blind := [name for name, each in rollouts.items() if not (options.prometheus or each.prometheus_url)]:
        raise click.UsageError(f"{', '.join(blind)}: {_NO_PROMETHEUS}")
    asked = {weight for each in rollouts.values() for weight in each.approvals}
    if others := [weight for weight in options.approved if weight not in asked]:
        raise click.UsageError(_no_approval(others, sorted(asked)))
    if options.commit:
        _require_committed([member.project for wave in waves for member in wave])
    for number, wave in enumerate(waves, 1):
        click.echo(f"Wave {number}:", err=True)
        for member in wave:
            click.echo(f"  {member.name}: {member.canaries or 'no canary'}", err=True)
    _agree(options)
    own = {"--prometheus": options.prometheus}
    flags = {"--again": options.again, "--commit": options.commit}
    passed = [
        *options.packs,
        *(part for name, value in own.items() if value for part in (name, value)),
        *(name for name, value in flags.items() if value),
    ]
    return Fleet(passed, options.approved, options.parallel or PARALLEL, options.as_json).release(waves)


def _require_committed(projects: Sequence[Project]) -> None:
    try:
        for project in projects:
            require_committed(stack_file(project.folder, project.stack))
    except CommitError as error:
        raise RefusedError(str(error)) from None


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def _ended(error: Exception) -> RunEnded:
    outcome: RunEnd = "refused"
    if isinstance(error, LockedError):
        outcome = "locked"
    elif isinstance(error, ClusterError) or (isinstance(error, EngineError) and not error.usage):
        outcome = "failed"
    return RunEnded(outcome, str(error))


def _not_begun(options: _Options, stack: str, ended: RunEnded) -> int:
    finished = Finished(at=time.time(), stack=stack, outcome=ended.outcome, exit_code=ended.exit_code, text=ended.text)
    if options.as_json:
        _JsonLines()(finished)
    else:
        done = ended.outcome == "done"
        click.echo(ended.text if done else f"Error: {ended.text}", err=not done)
    return ended.exit_code


def _check(options: _Options, settings: Settings, stack: str) -> None:
    known, rollout = settings.services, settings.rollout
    if unknown := [name for name in options.services if name not in known]:
        raise click.UsageError(f"no service is called {', '.join(unknown)}; stack {stack} has {', '.join(known)}")
    if not (options.prometheus or rollout.prometheus_url):
        raise click.UsageError(_NO_PROMETHEUS)
    if options.to is not None and options.to not in rollout.steps:
        raise click.UsageError(f"--to {options.to} is none of rollout.steps: {_numbers(rollout.steps)}")
    if others := [weight for weight in options.approved if weight not in rollout.approvals]:
        raise click.UsageError(_no_approval(others, rollout.approvals))


def _no_approval(others: Sequence[int], approvals: Sequence[int]) -> str:
    known = _numbers(approvals) or "no step needs one"
    return f"--approve {_numbers(others)} is none of rollout.approvals: {known}"


def _ask(options: _Options, project: Project, start: Start) -> None:
    """Say what is about to happen, and let a person agree."""
    click.echo("\n".join([f"{project.stack}:", *announcement(start, options.to, options.roll_back)]), err=True)
    _agree(options)


def announcement(start: Start, to: int | None, roll_back: str | None) -> Iterator[str]:
    """Yield what a run that is asked for so (`rollout.driver.Task`) is about to do."""
    rollout = start.settings.rollout
    for name in start.finishing:
        yield f"  {name}: the promotion that was begun is finished"
    for name in start.moving:
        weight = start.live[name].weight
        now = "?" if start.live[name].unreadable else weight
        if roll_back is not None:
            yield f"  {name}: {now} % → 0 %: {roll_back}"
            continue
        if name in start.returning:
            yield f"  {name}: {now} % → 0 %: rolled back before (--again tries it again)"
            continue
        steps = [step for step in rollout.steps if step > weight and step <= (to or rollout.steps[-1])]
        first = f"{now} % (watched first)" if now else "0 %"
        course = " → ".join((first, *(f"{step} %" for step in steps)))
        end = "" if to is not None else ", then promoted"
        canary = start.settings.services[name].canary
        yield f"  {name}: {canary.image if canary else ''}, {course}{end}"
    if start.moving and not start.returning and roll_back is None:
        order = f", {rollout.order}" if len(start.moving) > 1 else ""
        yield f"  each step is watched for {duration(rollout.step_seconds)}{order}"


def _agree(options: _Options) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError("nobody can be asked here: say --yes to go on")
    click.confirm("Go on?", abort=True, err=True)


def _report(options: _Options, journal: Journal) -> None:
    """Make the page of the run."""
    report = write_after(journal.path)
    if report and not options.as_json:
        click.echo(f"Report: {os.path.relpath(report)}", err=True)


def _change(before: str, file: Path) -> str:
    after = file.read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{file.name}", f"b/{file.name}"
    )
    return "".join(lines)


def _numbers(weights: Sequence[int]) -> str:
    return listed([str(weight) for weight in weights])


class _Progress:
    """Says how far an update is, anew after each event."""

    def __init__(self) -> None:
        self._progress = Progress("pulumi up")

    def __call__(self, _event: AnyEvent) -> None:
        with self._progress:  # which takes away what it has drawn
            self._progress = Progress("pulumi up")

    def show(self, text: str) -> None:
        self._progress.show(text)


class _JsonLines(nullcontext[None]):
    """Writes each event as the journal has it."""

    def __call__(self, event: AnyEvent) -> None:
        click.echo(EVENTS.dump_json(event, by_alias=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn that would be in the way."""
        yield
