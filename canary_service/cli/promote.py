"""`canary promote`: makes stable what the canary is."""

from collections.abc import Mapping
from typing import Any

import click

from canary_service.cli.project import Project, opened
from canary_service.cli.release import Move, Options, chosen, options, release, shown, weight_of
from canary_service.rollout.release import promotion
from canary_service.routing.split import TOTAL_WEIGHT
from canary_service.workload.live import LiveService


@click.command()
@options
@click.pass_context
def promote(context: click.Context, /, **given: Any) -> None:  # noqa: ANN401 - click hands over each option
    """Let stable run what the canary runs, and remove the canary: change the stack's file, update, read back.

    Stable takes over the canary's image and what its env, configMap and secret have otherwise; encrypted values stay
    encrypted. It has rolled out and is ready before the canary's route goes, so that no request is lost. Without a
    canary left, canaryWeight becomes 0: the next one starts there.

    \b
    canary promote
    canary promote --service auth-service --yes

    Exit codes: 0 stable's image was read back; 1 the invocation or the configuration is wrong, or the change is
    refused; 4 engine or cluster failed; 5 another update holds the lock; 6 a mandatory policy is violated.
    """  # noqa: D301 - \b tells click to keep lines

    def move(project: Project, live: Mapping[str, LiveService]) -> Move:
        declared = project.settings.services
        services = chosen(project, given["services"], [name for name, service in declared.items() if service.canary])
        images = {name: canary.image for name in services if (canary := declared[name].canary)}
        return Move(
            promotion(project.settings, services),
            [_says(name, declared[name].image, images[name], weight_of(live[name])) for name in services],
            dict.fromkeys(services),
            images,
        )

    release(context, Options(**given), opened, move)


def _says(name: str, before: str | None, after: str, weight: int | None) -> str:
    unproven = TOTAL_WEIGHT - (weight or 0)
    doubt = f"; {unproven} % of the requests have never met it" if unproven else ""
    return f"{name}: stable {before} → {after}, its canary goes ({shown(weight)}{doubt})"
