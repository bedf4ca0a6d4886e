"""What the commands on a stack have in common."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from canary_service.cli.exit_codes import CLUSTER, USAGE
from canary_service.cli.project import Project, opened
from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import ConfigError
from canary_service.rollout.preview import EngineError


@contextmanager
def entered(context: click.Context, stack: str | None) -> Iterator[Project]:
    """Give the project of a stack, in whose folder this then runs; what cannot be used ends the command, clearly.

    Raises:
        click.UsageError: there is no project.
    """
    try:
        project = opened(stack)
        # Paths in a kubeconfig's configuration count from there, as they do for the program.
        os.chdir(project.folder)
        yield project
    except ConfigError as error:
        message, code = str(error), USAGE
    except EngineError as error:
        message, code = str(error), USAGE if error.usage else CLUSTER
    except ClusterError as error:
        message, code = str(error), CLUSTER
    else:
        return
    click.echo(f"Error: {message}", err=True)
    context.exit(code)


def chosen(project: Project, names: Sequence[str]) -> tuple[str, ...]:
    """Return these services of a project, all without a name.

    Raises:
        click.UsageError: there is no such service.
    """
    services = project.settings.services
    if unknown := [name for name in names if name not in services]:
        raise click.UsageError(f"there is no service {', '.join(unknown)}; there are: {', '.join(services)}")
    return tuple(dict.fromkeys(names)) or tuple(services)
