"""`canary status`: what is declared, what is in force, what was measured."""

from collections.abc import Sequence

import click

from canary_service.cli import status_text
from canary_service.cli.command import chosen, entered
from canary_service.cli.project import Project
from canary_service.cluster.connection import connect
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.rollout.events import AnyEvent
from canary_service.rollout.journal import JournalError, newest, read
from canary_service.rollout.look import look
from canary_service.rollout.status import status as status_of


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("services", "--service", metavar="NAME", multiple=True, help="Only this service; may be repeated.")
@click.option("--prometheus", metavar="URL", help="Who counts requests (default: rollout.prometheusUrl).")
@click.option("as_json", "--json", is_flag=True, help="Write JSON (docs/status.md has its schema).")
@click.pass_context
def status(
    context: click.Context,
    stack: str | None,
    services: tuple[str, ...],
    prometheus: str | None,
    as_json: bool,  # noqa: FBT001 - click hands it over like the others
) -> None:
    """Show each service's canary: declared weight, weight in force, measured share, pods, age. Changes nothing.

    A service whose parts disagree is marked with !, and what to do about it stands below. Shares are those of the last
    minute, as Prometheus counted them.

    \b
    canary status
    canary status --service auth-service --prometheus http://localhost:9090
    canary status --json | jq '.services[] | {name, declared, weight, problems}'

    Exit codes: 0 done, also when something disagrees (`canary verify` checks); 1 the invocation or the configuration
    is wrong; 4 engine or cluster failed.
    """  # noqa: D301 - \b tells click to keep lines
    with entered(context, stack) as project:
        names, settings = chosen(project, services), project.settings
        seen = look(LiveCluster(connect(project.provider), settings), settings, names, prometheus)
        found = status_of(settings, project.full_name, names, seen, _journal(project))
    click.echo(
        found.model_dump_json(by_alias=True, indent=2) + "\n" if as_json else status_text.render(found), nl=False
    )


def _journal(project: Project) -> Sequence[AnyEvent]:
    journal = newest(project.folder, project.stack)
    try:
        return read(journal) if journal else ()
    except JournalError as error:
        click.echo(f"Warning: {error}", err=True)
        return ()
