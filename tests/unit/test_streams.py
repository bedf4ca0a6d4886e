"""A run goes on although nobody reads what it writes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from canary_service.cli.streams import unfailing

ROOT = Path(__file__).parents[2]

# All the ways in which a run writes: lines, JSON, the end of an update, a table that is drawn by a thread.
WRITES = """\
import sys
import click
from rich.console import Console
from canary_service.cli.progress import Progress
from canary_service.cli.streams import unfailing
from canary_service.cli.view import Lines, View
from tests.unit.journals import promoted

sys.stdin.read()
with unfailing():
    for view in (Lines(Console()), View(Console(force_terminal=True))):
        with view:
            for event in promoted():
                view(event)
    click.echo(b"{}")
    click.echo("Report", err=True)
    progress = Progress("pulumi up")
    progress._begin -= 60
    progress.show("updating")
    open(sys.argv[1], "w").close()
sys.exit(2)
"""


@pytest.mark.parametrize("also_errors", [False, True])
def test_what_is_written_to_a_closed_pipe_ends_nothing_and_changes_no_exit_code(
    *, also_errors: bool, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, tmp_path / "went-on"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=writer if also_errors else subprocess.PIPE,
    ) as run:
        os.close(writer)
        os.close(reader)
        _, errors = run.communicate(timeout=60)
    assert (tmp_path / "went-on").exists()
    assert run.returncode == 2
    assert errors in {None, b"Report\npulumi up: updating, 60 s\n"}


def test_a_full_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = [f"{number}\n" for number in range(50_000)]
    with (tmp_path / "read").open("wb") as read, subprocess.Popen(["cat"], stdin=reader, stdout=read) as cat:  # noqa: S607 - from PATH
        os.close(reader)
        with monkeypatch.context() as patched, os.fdopen(writer, "w", encoding="utf-8") as output:
            patched.setattr(sys, "stdout", output)
            with unfailing():
                sys.stdout.writelines(lines)
        cat.wait(60)
    assert (tmp_path / "read").read_text() == "".join(lines)


def test_a_stream_without_a_file_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    with unfailing():
        assert sys.stdout is written
