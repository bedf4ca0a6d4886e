"""`canary plan`: what an update would change for traffic."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from canary_service.cli import exit_codes, markdown, text
from canary_service.cli.progress import Progress
from canary_service.cli.project import project_folder, project_name, under
from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import ConfigError
from canary_service.config.settings import Settings
from canary_service.observability.queries import APPLICATION, SERVICE, request_rate
from canary_service.rollout.configuration import Configuration, configuration, named, project_of
from canary_service.rollout.engine_events import SECRET, EventStream, encrypted_values
from canary_service.rollout.plan import (
    Before,
    Outcome,
    Plan,
    Target,
    invalid,
    planned,
    removed_services,
    stack_of,
    state_before,
)
from canary_service.rollout.preview import EngineError, Preview, preview, selected_stack
from canary_service.rollout.prometheus import PrometheusError, instant, shown
from canary_service.rollout.redaction import without
from canary_service.rollout.update import observed
from canary_service.routing.split import Track

_EXIT_CODES: Final[dict[Outcome, int]] = {
    "unchanged": exit_codes.DONE,
    "changes": exit_codes.DONE,
    "invalid": exit_codes.USAGE,
    "refused": exit_codes.USAGE,
    "violated": exit_codes.CHECK_FAILED,
    "failed": exit_codes.CLUSTER,
}
_FOLDER: Final = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)


@click.command()
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("policy_packs", "--policy-pack", type=_FOLDER, multiple=True, help="Check with this policy pack.")
@click.option(
    "policy_configs", "--policy-pack-config", type=_FILE, multiple=True, help="Configure that policy pack by this file."
)
@click.option("--prometheus", metavar="URL", help="Say how many requests per second move, as this server counted them.")
@click.option("form", "--markdown", flag_value="markdown", help="Write a comment for a pull request.")
@click.option("form", "--json", flag_value="json", help="Write JSON (docs/plan.md has its schema).")
@click.pass_context
def plan(  # noqa: PLR0913, PLR0917 - click hands over each option
    context: click.Context,
    stack: str | None,
    policy_packs: tuple[Path, ...],
    policy_configs: tuple[Path, ...],
    prometheus: str | None,
    form: str | None,
) -> None:
    """Show what `pulumi up` would change for traffic. Changes nothing.

    Runs `pulumi preview`, reads the weights that are in force from the cluster, and says per service where requests
    will go, what else changes, and what is risky about it. No secret value is shown.

    \b
    canary plan                                         as text
    canary plan --markdown > plan.md                    for a pull request
    canary plan --json | jq '.services[].weight'        for a program
    canary plan --policy-pack policies --policy-pack-config policies/prod.json

    Exit codes: 0 an update may be done, or nothing changes; 1 the invocation or the configuration is wrong, or the
    change is refused; 4 engine or cluster failed; 6 a mandatory policy is violated.
    """  # noqa: D301 - \b tells click to keep lines
    if policy_configs and not policy_packs:
        raise click.UsageError("--policy-pack-config configures a --policy-pack, and there is none")
    folder = project_folder()
    packs = [part for pack in policy_packs for part in ("--policy-pack", str(pack))]
    packs += [part for file in policy_configs for part in ("--policy-pack-config", str(file))]
    try:
        # Paths in a kubeconfig's configuration count from there, as they do for the program.
        os.chdir(folder)
        project_of(folder)
        with Progress("pulumi preview") as progress:
            previewed = _previewed(
                folder, stack, packs, lambda resources: progress.show(f"{resources} resources compared")
            )
        stack = stack or stack_of(previewed.stream) or selected_stack(folder)
        found = _plan(stack, folder, previewed, prometheus)
    except EngineError as error:
        if form is None:
            click.echo(f"Error: {error}", err=True)
            context.exit(exit_codes.USAGE if error.usage else exit_codes.CLUSTER)
        outcome: Outcome = "invalid" if error.usage else "failed"
        found = Plan(stack=stack or "", outcome=outcome, errors=(str(error),))
    except OSError as error:
        raise click.ClickException(str(error)) from error
    rendered = {"markdown": markdown.render, "json": _json}.get(form or "", text.render)(found)
    click.echo(rendered, nl=False)
    context.exit(_EXIT_CODES[found.outcome])


def _previewed(folder: Path, stack: str | None, packs: Sequence[str], tick: Callable[[int], object]) -> Preview:
    try:
        return preview(folder, [*(("--stack", stack) if stack else ()), *packs], tick)
    except EngineError as error:
        raise named(error, folder, stack) from error


def _plan(stack: str, folder: Path, previewed: Preview, prometheus: str | None) -> Plan:
    stream = previewed.stream
    blinded = stream.config or {}
    is_plain = not any(SECRET in value for value in blinded.values())
    config = Configuration(blinded, ()) if is_plain else configuration(folder, stack)
    project = project_name(folder)
    secrets = list(encrypted_values(blinded, config.values))
    try:
        settings = config.settings(project)
    except ConfigError as error:
        return without(invalid(stack, error.problems), secrets)
    for name in settings.services:
        secrets += [text for track in Track for text in settings.secret_of(name, track).values()]
    before = _before(settings, under("kubernetes", config.values), stream, prometheus)
    return without(planned(Target(project, stack), stream, settings, before, failed=previewed.failed), secrets)


def _before(settings: Settings, provider: Mapping[str, str], stream: EventStream, prometheus: str | None) -> Before:
    try:
        found = observed(settings, provider)
        live, missing, refused = found.live, "", found.problems
    except ClusterError as error:
        live, missing, refused = state_before(settings, stream.steps), str(error), ()
    if prometheus is None:
        return Before(live, missing, refused)
    labels = {settings.app_label_of(name, track): name for name in settings.services for track in Track}
    labels |= {name: name for name in removed_services(settings, stream.steps)}
    rates: dict[str, float] = {}
    try:
        query = request_rate(APPLICATION, settings.namespace, sorted(labels))
        for label, rate in instant(prometheus, query, SERVICE).items():
            rates[labels[label]] = rates.get(labels[label], 0.0) + rate
    except PrometheusError as error:
        return Before(
            live, missing, refused, notes=(f"no requests per second: {shown(prometheus)} was asked, and {error}",)
        )
    uncounted = [name for name, found in live.items() if name not in rates and found.split]
    notes = (f"no requests per second of {', '.join(uncounted)}: nothing has counted them",) if uncounted else ()
    return Before(live, missing, refused, rates, notes)


def _json(plan: Plan) -> str:
    return plan.model_dump_json(by_alias=True, indent=2) + "\n"
