"""`canary report`: what happened in a run, as a page for a browser."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from canary_service.cli.project import project_folder
from canary_service.rollout.course import Course
from canary_service.rollout.event_words import SIGNS, duration, listed
from canary_service.rollout.journal import JournalError, Reader, journals, read
from canary_service.rollout.preview import EngineError, selected_stack
from canary_service.rollout.report import OUTCOMES, page
from canary_service.rollout.summary import RunSummary, summarised

_CHOICES_SHOWN: Final = 5
_STANDARD_OUTPUT: Final = "-"


def write(journal: Path, output: Path | None = None) -> Path:
    """Write the report of a run, beside its journal unless told otherwise, and return where it is.

    Raises:
        JournalError: the journal cannot be read, or nothing has begun in it.
        OSError: the report cannot be written.
    """
    output = output or journal.with_suffix(".html")
    output.write_text(_page(journal), encoding="utf-8")
    return output


@click.command()
@click.argument("run", required=False, metavar="[RUN|FILE]")
@click.option("--stack", "-s", metavar="NAME", help="The stack (default: the selected one).")
@click.option("--output", "-o", metavar="FILE", help="Write there; - is standard output (default: beside the journal).")
@click.option("form", "--list", flag_value="list", help="List the runs, the last one first.")
@click.option("form", "--json", flag_value="json", help="Write the run in numbers (docs/journal.md has the schema).")
def report(run: str | None, stack: str | None, output: str | None, form: str | None) -> None:
    """Make a page of a run: shares, errors, latency, verdicts and events over time.

    RUN is a name that --list shows, or its beginning; FILE is a journal. Without one it is the last run of the stack.
    The page needs no network and no script, so it can be mailed or kept as it is.

    \b
    canary report                       writes .canary/runs/STACK/RUN.html and says so
    canary report --list                which runs there are
    canary report -o - > release.html   to a file of another name
    canary report --json | jq .outcome  for a program

    Exit codes: 0 done; 1 there is no such run.
    """  # noqa: D301 - \b tells click to keep lines
    try:
        if form == "list":
            click.echo("".join(_list(_journals(stack))), nl=False)
            return
        journal = _journal(run, stack)
        if form == "json":
            click.echo(_summary(journal).model_dump_json(by_alias=True, indent=2))
        elif output == _STANDARD_OUTPUT:
            sys.stdout.write(_page(journal))
        else:
            click.echo(write(journal, Path(output) if output else None))
    except JournalError as error:
        raise click.UsageError(str(error)) from None
    except EngineError as error:
        raise (click.UsageError if error.usage else click.ClickException)(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"{error.filename or output} cannot be written: {error.strerror}") from None


def _page(journal: Path) -> str:
    try:
        return page(read(journal))
    except ValueError as error:
        raise JournalError(f"{journal}: {error}") from None


def _summary(journal: Path) -> RunSummary:
    summary = summarised(Course(read(journal)))
    if summary is None:
        raise JournalError(f"{journal}: no run has begun in it")
    return summary


def write_after(journal: Path) -> Path | None:
    """Write the page of a run that has ended, and return where; None, with a warning, where that fails."""
    if not journal.exists():
        return None  # the journal itself has said why
    try:
        return write(journal)
    # The release is over. Neither a full disk nor a mistake in the page may change the exit code that says how it went.
    except Exception as error:  # noqa: BLE001 - see above
        click.echo(f"Warning: there is no report: {type(error).__name__}: {error}", err=True)
        return None


def _journal(run: str | None, stack: str | None) -> Path:
    if run and Path(run).is_file():
        return Path(run)
    found = _journals(stack)
    if not found:
        raise click.UsageError("there is no run of this stack here; `canary run` makes one")
    chosen = [path for path in found if path.stem.startswith(run or "")]
    if not chosen or (run and len(chosen) > 1 and chosen[0].stem != run):
        names = ", ".join(path.stem for path in reversed((chosen or found)[-_CHOICES_SHOWN:]))
        problem = "more than one run begins" if chosen else "no run and no file is called or begins"
        raise click.UsageError(f"{problem} with {run}; the last ones are {names}")
    return chosen[-1]


def _journals(stack: str | None) -> list[Path]:
    folder = project_folder()
    return journals(folder, stack or selected_stack(folder))


def _list(found: Sequence[Path]) -> Iterator[str]:
    rows = [("run", "started (UTC)", "lasted", "outcome", "command", "services")]
    for path in reversed(found):
        try:
            run = _summary(path)
        except JournalError as error:
            click.echo(str(error), err=True)
            continue
        kind, words = OUTCOMES[run.outcome]
        outcome = "… runs" if run.outcome == "unfinished" and Reader(path).open else f"{SIGNS[kind]} {words}"
        rows.append(
            (
                path.stem,
                f"{datetime.fromtimestamp(run.started, UTC):%Y-%m-%d %H:%M}",
                duration(run.ended - run.started),
                outcome,
                run.command,
                listed(tuple(run.services)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if len(rows) > 1 else ():
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
