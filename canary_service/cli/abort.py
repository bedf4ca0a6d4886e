"""`canary abort`: takes canaries out of the traffic."""

from collections.abc import Mapping
from typing import Any

import click

from canary_service.cli.project import Project, opened_without_engine
from canary_service.cli.release import Move, Options, chosen, in_force, options, release, weight_of
from canary_service.rollout.release import removal, withdrawal
from canary_service.workload.live import LiveService


@click.command()
@click.option("--remove", is_flag=True, help="Remove the canary too, with its pods.")
@options
@click.pass_context
def abort(context: click.Context, /, *, remove: bool, **given: Any) -> None:  # noqa: ANN401 - click hands over each option
    """Take canaries out of the traffic: at once by the API server, then for good by stack file and update.

    The weight is 0 within milliseconds, before the engine is even started, and also when it cannot be: while another
    update holds the lock, or its backend is down. What the file then says is 0, whatever fails. Mirroring ends too.

    \b
    canary abort                                        weight 0, the pods stay for a look at them
    canary abort --remove --service auth-service        without the canary
    canary abort --yes                                  does not ask

    Exit codes: 0 weight 0 was read back and is declared; 1 the invocation or the configuration is wrong; 4 engine or
    cluster failed; 5 another update holds the lock; 6 a mandatory policy is violated.
    """  # noqa: D301 - \b tells click to keep lines

    def move(project: Project, live: Mapping[str, LiveService]) -> Move:
        settings = project.settings
        declared = [name for name, service in settings.services.items() if service.canary]
        routed = [name for name, each in live.items() if weight_of(each) is not None or each.unreadable]
        services = chosen(project, given["services"], [name for name in settings.services if name in declared + routed])
        concerned = [name for name in services if name in declared]
        then = ", then removed" if remove else ""
        return Move(
            removal(settings, concerned) if remove else withdrawal(settings, concerned),
            [f"{name}: canary {in_force(live[name])} → 0 %{then}" for name in services],
            {name: 0 if name in concerned and not remove else None for name in services},
            cut_off=tuple(n for n in services if weight_of(live[n]) or live[n].mirror or live[n].unreadable),
            stays=True,
        )

    release(context, Options(**given), opened_without_engine, move, down=True)
