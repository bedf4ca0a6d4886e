"""`canary watch`: a run, or what the canaries do without one, as it goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from canary_service.cli.errors import RefusedError
from canary_service.cli.project import opened, project_folder
from canary_service.cli.view import Listener, Row, Scene, listener, scene_of
from canary_service.cluster.connection import connect
from canary_service.cluster.errors import ClusterError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import ConfigError
from canary_service.config.settings import Settings
from canary_service.observability.queries import (
    SERVICE,
    SOURCES,
    TRACK,
    Scope,
    track_error_ratio,
    track_latency,
    track_rate,
)
from canary_service.rollout.course import Course
from canary_service.rollout.event_words import measured
from canary_service.rollout.journal import JournalError, Reader, newest
from canary_service.rollout.preview import EngineError, selected_stack
from canary_service.rollout.prometheus import PrometheusError, instant, shown
from canary_service.rollout.samples import AlignedSample, Sample, TrackSample
from canary_service.routing.split import Track
from canary_service.workload.live import LiveService

_LOOK_SECONDS: Final = 0.25
"""So often the journal of a run is looked into."""

_POLL_SECONDS: Final = 5.0
"""So often cluster and Prometheus are asked while there is no run."""

_WINDOW_SECONDS: Final = 60.0
_WINDOW: Final = f"{_WINDOW_SECONDS:.0f}s"
_QUANTILE: Final = 0.95
_KEY: Final = "service_and_track"


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("--prometheus", metavar="URL", help="Ask this server (default: rollout.prometheusUrl).")
@click.option("--once", is_flag=True, help="Show it once.")
def watch(stack: str | None, prometheus: str | None, *, once: bool) -> None:
    """Show weights, measured shares, failures and latency as they change.

    While `canary run` moves this stack on this machine it shows that run, until it ends. Otherwise it asks the cluster
    and Prometheus every 5 s, and counts the requests of the last minute. It changes nothing; end it with Ctrl-C.

    \b
    canary watch
    canary watch --once      the present state, once
    canary watch | cat       lines instead of a table: also in a log

    Exit codes: 0 the run ended, or Ctrl-C; 1 invocation or configuration is wrong; 4 the stack cannot be read.
    """  # noqa: D301 - \b tells click to keep lines
    console = Console(highlight=False)
    folder = project_folder()
    try:
        stack = stack or selected_stack(folder)
        run = _running(folder, stack)
        if once:
            console.print(_scene(run) if run else _Poll(stack, prometheus).scene())
            return
        if run is None:
            run = _polled(console, _Poll(stack, prometheus), lambda: _running(folder, stack))
        _follow(run, listener(console))
    except KeyboardInterrupt:
        return
    except (ConfigError, JournalError) as error:
        raise RefusedError(str(error)) from None
    except ClusterError as error:
        raise click.ClickException(str(error)) from None
    except EngineError as error:
        raise (RefusedError if error.usage else click.ClickException)(str(error)) from None


def _running(folder: Path, stack: str) -> Reader | None:
    """Return the journal of a run that goes on, None without one."""
    path = newest(folder, stack)
    reader = Reader(path) if path else None
    return reader if reader and reader.open else None


def _scene(run: Reader) -> Scene:
    return scene_of(Course(run.new()), time.time())


def _follow(run: Reader, view: Listener) -> None:
    with view:
        while True:
            goes_on = run.open  # asked before the last look: what is written in between is not missed
            for event in run.new():
                view(event)
            if not goes_on:
                return
            time.sleep(_LOOK_SECONDS)


def _polled(console: Console, poll: "_Poll", running: Callable[[], Reader | None]) -> Reader:
    """Show what the canaries do until a run begins, and return its journal."""
    table = console.is_terminal and not console.is_dumb_terminal
    with Live(console=console, auto_refresh=False) if table else nullcontext() as live:
        while True:
            scene = poll.scene()
            if live:
                live.update(scene, refresh=True)
            else:
                for text in _lines(scene):
                    console.print(text, markup=False, soft_wrap=True)
            until = time.monotonic() + _POLL_SECONDS
            while time.monotonic() < until:
                if run := running():
                    return run
                time.sleep(_LOOK_SECONDS)


class _Poll:
    """Looks at a stack without a run."""

    def __init__(self, stack: str, prometheus: str | None) -> None:
        self._stack = stack
        self._prometheus = prometheus
        self._read()

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        with suppress(
            ConfigError, EngineError, ClusterError
        ):  # half a file that is just being written; the next look tells
            if self._changed() != self._seen:
                self._read()
        project = self._project
        found = _look(project.settings, self._cluster, self._prometheus or project.settings.rollout.prometheus_url)
        title = f"{project.full_name}  no run  {time.strftime('%H:%M:%S')}, requests of the last minute"
        return Scene(title, found.rows, found.problems)

    def _read(self) -> None:
        self._seen = self._changed()
        self._project = opened(self._stack)
        self._cluster = LiveCluster(connect(self._project.provider), self._project.settings)

    def _changed(self) -> float | None:
        file = project_folder() / f"Pulumi.{self._stack.rpartition('/')[2]}.yaml"
        return file.stat().st_mtime if file.exists() else None


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look at a stack found; `problems` is what could not be asked, and why."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def _look(settings: Settings, cluster: LiveCluster, prometheus: str | None) -> _Found:
    problems: dict[str, None] = {}
    tracks: dict[tuple[str, str], TrackSample] = {}
    if prometheus is None:
        problems["nothing is measured: rollout.prometheusUrl is not set, and there is no --prometheus"] = None
    else:
        try:
            tracks = _measured(settings, prometheus)
        except PrometheusError as error:
            problems[f"nothing is measured: {shown(prometheus)} was asked, and {error}"] = None
    rows = []
    live: Mapping[str, LiveService] = {}
    try:
        live = cluster.read(monitoring=False)
    except ClusterError as error:
        problems[f"no weight is read back: {error}"] = None
    for name, service in settings.services.items():
        found = live.get(name, LiveService())
        weight = found.weight if found.split and found.split.canary else None
        if found.unreadable:
            problems[f"{name}: no weight is read back: {found.unreadable}"] = None
        problems |= dict.fromkeys(f"{name}: {each}" for each in found.misrouted)
        stable, canary = (
            tracks.get((settings.app_label_of(name, track), track)) for track in (Track.STABLE, Track.CANARY)
        )
        sample = Sample(
            service=name,
            at=time.time(),
            seconds=_WINDOW_SECONDS,
            counted_seconds=_WINDOW_SECONDS,
            weight=weight,
            stable=stable,
            canary=canary,
            aligned=AlignedSample(stable=stable.requests, canary=canary.requests)
            # Copies make no share.
            if stable and canary and not found.mirror
            else None,
        )
        declared = settings.canary_weight_of(name)[0] if service.canary else None
        rows.append(Row(name, declared, weight, sample))
    return _Found(tuple(rows), tuple(problems))


def _measured(settings: Settings, url: str) -> dict[tuple[str, str], TrackSample]:
    """Return what each track answered in the last minute, by the label of its service and its own.

    Raises:
        PrometheusError: there is no usable answer.
    """
    source = SOURCES[settings.monitoring.source]
    names = {settings.app_label_of(name, track) for name in settings.services for track in Track}
    scope = Scope(settings.namespace, tuple(sorted(names)))

    def asked(query: str) -> dict[str, float]:
        return instant(url, f'label_join({query}, "{_KEY}", "/", "{SERVICE}", "{TRACK}")', _KEY)

    rates = asked(track_rate(source, scope, _WINDOW))
    failed = asked(track_error_ratio(source, scope, _WINDOW))
    p95 = asked(track_latency(source, scope, _QUANTILE, _WINDOW))
    found = {}
    for key, rate in rates.items():
        service, _, track = key.partition("/")
        requests = rate * _WINDOW_SECONDS
        found[service, track] = TrackSample(
            requests=requests, failed=requests * failed.get(key, 0.0), p95_seconds=p95.get(key)
        )
    return found


def _lines(scene: Scene) -> Iterator[str]:
    yield scene.title
    for row in scene.rows:
        yield f"  {row.service}: " + ", ".join(_facts(row))
    yield from (f"  {problem}" for problem in scene.status)


def _facts(row: Row) -> Iterator[str]:
    if row.declared == row.read_back:
        yield "no canary" if row.declared is None else f"{row.declared} % declared and read back"
    else:
        yield f"{_percent(row.declared)} declared, {_percent(row.read_back)} read back"
    if row.sample:
        yield from measured(row.sample)


def _percent(weight: int | None) -> str:
    return "no canary" if weight is None else f"{weight} %"
