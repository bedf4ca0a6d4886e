"""`canary doctor`: what is wrong with a stack in its cluster."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import click

from canary_service.cli import exit_codes, findings
from canary_service.cli.project import Project, opened
from canary_service.cluster.connection import connect
from canary_service.cluster.errors import ClusterError
from canary_service.cluster.facts import gathered
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import ConfigError
from canary_service.rollout.diagnosis import Examination
from canary_service.rollout.doctor import diagnose
from canary_service.rollout.preview import EngineError
from canary_service.rollout.redaction import without
from canary_service.rollout.shares import measured_shares
from canary_service.routing.split import Track

_PROGRESS_AFTER_SECONDS: Final = 2.0


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("services", "--service", metavar="NAME", multiple=True, help="Only this service; may be repeated.")
@click.option("--prometheus", metavar="URL", help="Compare weights with the shares recorded there.")
@click.option("everything", "--all", is_flag=True, help="Name also what is ok.")
@click.option("as_json", "--json", is_flag=True, help="Write JSON (docs/doctor.md has its schema).")
@click.pass_context
def doctor(  # noqa: PLR0913, PLR0917 - click hands over each option
    context: click.Context,
    stack: str | None,
    services: tuple[str, ...],
    prometheus: str | None,
    everything: bool,  # noqa: FBT001 - click hands it over like the others
    as_json: bool,  # noqa: FBT001 - likewise
) -> None:
    """Look for what is wrong with a stack in its cluster, and say how to mend it. Changes nothing.

    Each check knows one cause: why a canary gets no traffic, why traffic is not split as declared, why pods are not
    healthy. Begin with the first problem; others may follow from it. What the account may not read is not known, never
    ok. docs/doctor.md has all checks, docs/rbac.md the rights.

    \b
    canary doctor                                       problems, and how many checks are ok
    canary doctor --service cart --all                  one service, with what is ok
    canary doctor --json | jq '.diagnoses[] | select(.state == "problem")'

    Exit codes: 0 no problem was found; 1 the invocation or the configuration is wrong; 4 engine or cluster failed;
    6 there is a problem.
    """  # noqa: D301 - \b tells click to keep lines
    try:
        with _sign_of_life():
            project = opened(stack)
            if unknown := [name for name in services if name not in project.settings.services]:
                choices = ", ".join(project.settings.services)
                raise click.UsageError(f"there is no service {', '.join(unknown)}; there are: {choices}")
            # Paths in a kubeconfig's configuration count from there, as they do for the program.
            os.chdir(project.folder)
            found = _examined(project, services, prometheus)
    except (ConfigError, EngineError, ClusterError) as error:
        click.echo(f"Error: {error}", err=True)
        wrong = isinstance(error, ConfigError) or (isinstance(error, EngineError) and error.usage)
        context.exit(exit_codes.USAGE if wrong else exit_codes.CLUSTER)
    shown = found.model_dump_json(by_alias=True, indent=2) + "\n" if as_json else ""
    click.echo(shown or findings.render(found, everything=everything), nl=False)
    context.exit(exit_codes.CHECK_FAILED if found.having("problem") else exit_codes.DONE)


def _examined(project: Project, services: tuple[str, ...], prometheus: str | None) -> Examination:
    settings = project.settings
    facts = gathered(LiveCluster(connect(project.provider), settings))
    shares, unmeasured = measured_shares(settings, prometheus or settings.rollout.prometheus_url)
    facts = replace(facts, shares=shares, unmeasured=unmeasured)
    diagnoses = diagnose(settings, project.full_name, facts, services)
    # What a container wrote before it crashed may have what it was given.
    secrets = [
        text for name in settings.services for track in Track for text in settings.secret_of(name, track).values()
    ]
    return without(Examination(stack=project.full_name, diagnoses=diagnoses), secrets)


@contextmanager
def _sign_of_life() -> Iterator[None]:
    """Say on standard error what takes so long, once it does."""
    line = "Reading the stack's configuration, then its cluster …"
    timer = threading.Timer(_PROGRESS_AFTER_SECONDS, lambda: click.echo(line, err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
