"""`canary gate`: the verdicts on recorded samples, offline."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import yaml

from canary_service.cli import exit_codes
from canary_service.cli.project import opened
from canary_service.config.loader import ConfigError, load_rollout
from canary_service.config.settings import GateSettings
from canary_service.rollout.preview import EngineError
from canary_service.rollout.replay import Replayed, ReplayError, Step, replayed, steps
from canary_service.rollout.verdict import Outcome

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_KEY: Final = ":rollout"


@click.command()
@click.option("source", "--from", type=_FILE, required=True, help="A run's journal, or lines that each are a sample.")
@click.option("--stack", "-s", metavar="NAME", help="Judge by the gates of this stack (default: the selected one).")
@click.option("--config", type=_FILE, help="Judge by the gates of this stack file instead; needs no engine.")
@click.option("services", "--service", metavar="NAME", multiple=True, help="Judge this service alone; may be repeated.")
@click.option("as_json", "--json", is_flag=True, help="Write JSON (docs/gates.md has its schema).")
@click.pass_context
def gate(  # noqa: PLR0913, PLR0917 - click hands over each option
    context: click.Context,
    source: Path,
    stack: str | None,
    config: Path | None,
    services: tuple[str, ...],
    as_json: bool,  # noqa: FBT001 - a flag
) -> None:
    """Judge recorded samples again, by the gates of a stack or of a file. Asks no cluster and no Prometheus.

    For each service and step it says what the verdict is and after how many samples it fell, so that limits can be
    tried on what a run has seen.

    \b
    canary gate --from .canary/runs/dev/20260102T030405Z-ab12.jsonl
    canary gate --from run.jsonl --config Pulumi.strict.yaml    with other limits
    canary gate --from run.jsonl --json | jq '.[].verdict.outcome'

    Exit codes: 0 every step passes; 1 the invocation or a file is wrong; 3 none fails, but at least one is
    inconclusive; 4 the engine failed; 6 a step fails.
    """  # noqa: D301 - \b tells click to keep lines
    if stack and config:
        raise click.UsageError("--stack and --config both say which gates to use; give one of them")
    try:
        found = _chosen(_read(source), services)
        gates = _of_file(config) if config else opened(stack).settings.rollout.gates
    except (ConfigError, EngineError) as error:
        click.echo(f"Error: {error}", err=True)
        usage = isinstance(error, ConfigError) or error.usage
        context.exit(exit_codes.USAGE if usage else exit_codes.CLUSTER)
    verdicts = [replayed(step, gates) for step in found]
    click.echo(_json(verdicts) if as_json else "\n".join(_lines(verdicts)))
    context.exit(_exit_code({each.verdict.outcome for each in verdicts}))


def _read(source: Path) -> list[Step]:
    try:
        with source.open(encoding="utf-8") as lines:
            found = steps(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{source} cannot be read: {error}") from error
    except ReplayError as error:
        raise click.UsageError(f"{source}: {error}") from error
    if not found:
        raise click.UsageError(f"there is no sample in {source}")
    return found


def _chosen(found: Sequence[Step], services: Sequence[str]) -> list[Step]:
    known = dict.fromkeys(step.service for step in found)
    unknown = [name for name in services if name not in known]
    if unknown:
        raise click.UsageError(f"no sample of {', '.join(unknown)}; there are those of {', '.join(known)}")
    return [step for step in found if not services or step.service in services]


def _of_file(path: Path) -> GateSettings:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.UsageError(f"{path} cannot be read: {type(error).__name__}") from error
    values = content.get("config") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise click.UsageError(f"{path} is no stack file: it has no map `config`")
    rollout: dict[str, Any] = {key: value for key, value in values.items() if str(key).endswith(_KEY)}
    if not rollout:
        return GateSettings()
    (key, value), *others = rollout.items()
    if others:
        raise click.UsageError(f"{path} has {' and '.join(rollout)}; one is allowed")
    if isinstance(value, dict) and set(value) == {"secure"}:
        raise click.UsageError(f"{path}: {key} is encrypted; --stack lets the engine read it")
    return load_rollout(_decoded(value)).gates


def _decoded(value: object) -> object:
    """Return what `pulumi config set rollout '{…}'` stored as text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _lines(verdicts: Sequence[Replayed]) -> Iterator[str]:
    for each in verdicts:
        weight = "weight not known" if each.weight is None else f"{each.weight} %"
        looks = f"sample {each.looks} of {each.samples}, {each.seconds:.0f} s"
        yield f"{each.service} at {weight}: {each.verdict.outcome} ({looks})"
        yield from (f"  {result.outcome:<12}  {result.gate}: {result.text}" for result in each.verdict.gates)


def _json(verdicts: Sequence[Replayed]) -> str:
    return json.dumps([each.model_dump(mode="json", by_alias=True) for each in verdicts], indent=2)


def _exit_code(outcomes: set[Outcome]) -> int:
    if "fail" in outcomes:
        return exit_codes.CHECK_FAILED
    return exit_codes.HELD if "inconclusive" in outcomes else exit_codes.DONE
