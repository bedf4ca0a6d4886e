"""`canary set`: gives canaries a weight."""

from collections.abc import Mapping
from typing import Any

import click

from canary_service.cli.project import Project, opened
from canary_service.cli.release import Move, Options, chosen, options, release, shown, weight_of
from canary_service.rollout.release import weight_changes
from canary_service.routing.split import TOTAL_WEIGHT
from canary_service.workload.live import LiveService


class _Percent(click.IntRange):
    name = f"whole number from 0 to {TOTAL_WEIGHT}"


@click.command("set")
@click.argument("weight", type=_Percent(0, TOTAL_WEIGHT))
@options
@click.pass_context
def set_weight(context: click.Context, /, weight: int, **given: Any) -> None:  # noqa: ANN401 - click hands over each option
    """Give canaries WEIGHT percent of the requests: change the stack's file, update, read back.

    It does what `pulumi config set canaryWeight WEIGHT && pulumi up` does, faster, and takes the change back from the
    file when the update is refused. All services with a canary move, or those that are named.

    \b
    canary set 20
    canary set 50 --service auth-service --policy-pack policies
    canary set 0 --yes --json | jq '.services[].readBack'

    Exit codes: 0 the weight was read back; 1 the invocation or the configuration is wrong, or the change is refused;
    4 engine or cluster failed; 5 another update holds the lock; 6 a mandatory policy is violated.
    """  # noqa: D301 - \b tells click to keep lines

    def move(project: Project, live: Mapping[str, LiveService]) -> Move:
        having = [name for name, service in project.settings.services.items() if service.canary]
        services = chosen(project, given["services"], having)
        return Move(
            weight_changes(project.settings, services, weight),
            [f"{name}: canary {shown(weight_of(live[name]))} → {weight} %" for name in services],
            dict.fromkeys(services, weight),
        )

    release(context, Options(**given), opened, move)
