"""`canary verify`: whether requests go where the configuration says, measured."""

from typing import Final

import click

from canary_service.cli import exit_codes, verification_text
from canary_service.cli.command import chosen, entered
from canary_service.cli.progress import Progress
from canary_service.cluster.connection import connect
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.rollout.verification import Outcome
from canary_service.rollout.verifier import Sending, Verifier

_EXIT_CODES: Final[dict[Outcome, int]] = {
    "agrees": exit_codes.DONE,
    "unknown": exit_codes.HELD,
    "disagrees": exit_codes.CHECK_FAILED,
}


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("services", "--service", metavar="NAME", multiple=True, help="Only this service; may be repeated.")
@click.option("--url", metavar="URL", help="Where the router takes requests; they have the Host header of the stack.")
@click.option(
    "--requests", metavar="N", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Per check."
)
@click.option("--header", is_flag=True, help="Check also the canary's header, with its value and with another.")
@click.option(
    "--version-header", metavar="NAME", help="Header of answers that says their version, in place of Prometheus."
)
@click.option("--passive", is_flag=True, help="Send nothing: count the requests of others.")
@click.option(
    "--seconds", metavar="N", type=click.IntRange(1, 86_400), default=300, show_default=True, help="With --passive."
)
@click.option("--prometheus", metavar="URL", help="Who counts requests (default: rollout.prometheusUrl).")
@click.option("as_json", "--json", is_flag=True, help="Write JSON (docs/verify.md has its schema).")
@click.pass_context
def verify(  # noqa: PLR0913, PLR0917 - click hands over each option
    context: click.Context,
    stack: str | None,
    services: tuple[str, ...],
    url: str | None,
    requests: int,
    header: bool,  # noqa: FBT001 - click hands it over like the others
    version_header: str | None,
    passive: bool,  # noqa: FBT001 - likewise
    seconds: int,
    prometheus: str | None,
    as_json: bool,  # noqa: FBT001 - likewise
) -> None:
    """Check by requests that each canary gets its share: the weight in force, and the declared one.

    Sends GET requests to each service's path through the router, and asks Prometheus (monitoring.source) before and
    after which track has answered; or, with --version-header, the answers. Their value there is the track (stable,
    canary), the image, or its tag. The interval beside a share holds the true one with 99 % confidence.

    \b
    canary verify --url http://203.0.113.7 --prometheus http://localhost:9090
    canary verify --url https://shop.example.com --version-header X-Version --header
    canary verify --passive --seconds 600              of the live traffic, nothing is sent

    Exit codes: 0 requests go where they should; 1 the invocation or the configuration is wrong; 3 too little was
    counted to tell; 4 engine or cluster failed; 6 they go elsewhere, or the cluster has another weight than declared.
    """  # noqa: D301 - \b tells click to keep lines
    if passive and (url or header or version_header):
        raise click.UsageError("--passive sends nothing: --url, --header and --version-header are for requests")
    if not passive and not url:
        raise click.UsageError("--url says where to send requests, such as http://203.0.113.7; --passive sends none")
    with entered(context, stack) as project, Progress("verify") as progress:
        if url and project.settings.in_mesh:
            raise click.UsageError(
                f"router {project.settings.router} shares out what clients in the mesh send, and this is none: "
                "--passive looks at their requests"
            )
        prometheus = None if version_header else prometheus or project.settings.rollout.prometheus_url
        if not version_header and not prometheus:
            raise click.UsageError("who counts? --prometheus URL, rollout.prometheusUrl, or --version-header NAME")
        cluster = LiveCluster(connect(project.provider), project.settings)
        names = chosen(project, services)
        verifier = Verifier(project.settings, project.full_name, cluster, prometheus or "", progress.show)
        if url is None:
            found = verifier.counted(names, seconds)
        else:
            found = verifier.sent(names, Sending(url, requests, version_header, with_header=header))
    click.echo(
        found.model_dump_json(by_alias=True, indent=2) + "\n" if as_json else verification_text.render(found), nl=False
    )
    context.exit(_EXIT_CODES[found.outcome])
