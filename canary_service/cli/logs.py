"""`canary logs`: what the pods of a canary and of its stable write."""

import asyncio
import os
import re
import sys
from typing import Final, Literal

import click

from canary_service.cli.command import chosen, entered
from canary_service.cli.project import Project
from canary_service.cluster.connection import connect_async
from canary_service.cluster.logs import Container, Logs, Wanted
from canary_service.rollout.model import Record
from canary_service.rollout.redaction import without
from canary_service.routing.split import Track

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TAIL: Final = 20
_TRACK_WIDTH: Final = max(map(len, Track))
_COLOURS: Final = {Track.STABLE: "blue", Track.CANARY: "yellow"}


class Line(Record):
    """A line that a pod has written."""

    service: str
    track: Literal["stable", "canary"]
    pod: str
    text: str


class _Duration(click.ParamType[int]):
    name = "duration"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if match := re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", str(value)):
            return int(match[1]) * _SECONDS[match[2]]
        return self.fail(f"{value!r} is no duration: a whole number and s, m, h or d, such as 10m", parameter, context)


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("services", "--service", metavar="NAME", multiple=True, help="Only this service; may be repeated.")
@click.option("--track", type=click.Choice(["canary", "stable", "both"]), default="both", show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written, also by pods that come later.")
@click.option("--since", type=_Duration(), metavar="TIME", help="Only what is at most so old: 90s, 10m, 2h, 1d.")
@click.option(
    "--tail",
    metavar="N",
    type=click.IntRange(0),
    help=f"Only the last lines of each pod (default: {_TAIL}, all with --since).",
)
@click.option("as_json", "--json", is_flag=True, help="Write a JSON object per line: service, track, pod, text.")
@click.pass_context
def logs(  # noqa: PLR0913, PLR0917 - click hands over each option
    context: click.Context,
    stack: str | None,
    services: tuple[str, ...],
    track: str,
    follow: bool,  # noqa: FBT001 - click hands it over like the others
    since: int | None,
    tail: int | None,
    as_json: bool,  # noqa: FBT001 - likewise
) -> None:
    """Show what pods write, several at once: each line after its service, track and the end of its pod's name.

    What the secrets of the configuration hold is not shown.

    \b
    canary logs --track canary --follow                 of all canaries, also of pods that come later
    canary logs --service auth-service --since 10m      of both tracks, one pod after another
    canary logs --track canary --json | jq -r .text

    Exit codes: 0 done; 1 the invocation or the configuration is wrong; 4 engine or cluster failed; 130 interrupted.
    """  # noqa: D301 - \b tells click to keep lines
    tracks = tuple(Track) if track == "both" else (Track(track),)
    with entered(context, stack) as project:
        names = chosen(project, services)
        wanted = Wanted(names, tracks, follow, since, _TAIL if tail is None and since is None else tail)
        printer = _Printer(project, max(map(len, names)), as_json=as_json)
        client = connect_async(project.provider)
        try:
            asyncio.run(Logs(client, project.settings, wanted, printer.write, printer.note).read())
        except BrokenPipeError:
            # Who read along has seen enough. At exit Python would try once more to write what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Printer:
    def __init__(self, project: Project, width: int, *, as_json: bool) -> None:
        settings = project.settings
        self._secrets = [
            text for name in settings.services for track in Track for text in settings.secret_of(name, track).values()
        ]
        self._width = width
        self._as_json = as_json

    def write(self, container: Container, text: str) -> None:
        """Write a line that a container has written."""
        line = Line(service=container.service, track=container.track.value, pod=container.pod, text=text)
        line = without(line, self._secrets)
        if self._as_json:
            click.echo(line.model_dump_json(by_alias=True))
            return
        who = f"{line.service:<{self._width}} {line.track:<{_TRACK_WIDTH}} {line.pod.rpartition('-')[2]}"
        click.echo(f"{click.style(who, fg=_COLOURS[container.track])}  {line.text}")

    def note(self, text: str) -> None:
        """Write what is no log."""
        click.echo(text, err=True)
