"""A run's journal: what is written can be read, whatever ends the writer, and nothing about it stops a run."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from canary_service.rollout.events import AnyEvent, Finished, Held, Troubled
from canary_service.rollout.journal import Journal, JournalError, Reader, journals, newest, read

STACK = "macromind/dev"
CHECKOUT = Path(__file__).parents[2]


def held(number: int) -> AnyEvent:
    return Held(at=float(number), stack=STACK, services=("cart",), reason=f"reason {number}")


def unexpected(text: str) -> None:
    raise AssertionError(text)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writes beyond a file size fail, as those on a full disk do: with part of them written."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    events = (held(1), held(2), Finished(at=3, stack=STACK, outcome="done", exit_code=0, text="promoted"))

    with Journal(tmp_path, "dev", unexpected) as journal:
        for event in events:
            journal(event)

    assert read(journal.path) == events
    assert journal.path == newest(tmp_path, "dev") == newest(tmp_path, "organization/macromind/dev")
    assert journal.path.is_relative_to(tmp_path / ".canary" / "runs" / "dev")


def test_git_ignores_journals(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)  # noqa: S607 - git of the PATH
    Journal(tmp_path, "dev", unexpected).close()

    status = subprocess.run(["git", "status", "--porcelain"], check=True, cwd=tmp_path, capture_output=True)  # noqa: S607 - likewise

    assert status.stdout == b""


def test_the_newest_journal_is_that_of_the_last_run_of_the_stack(tmp_path: Path) -> None:
    assert newest(tmp_path, "dev") is None
    folder = tmp_path / ".canary" / "runs" / "dev"
    folder.mkdir(parents=True)
    for name in ("20261123T090000Z-ffff.jsonl", "20261123T100000Z-0000.jsonl", "20261123T100000Z-0000.html"):
        (folder / name).touch()
    Journal(tmp_path, "prod", unexpected).close()

    assert [path.stem for path in journals(tmp_path, "dev")] == ["20261123T090000Z-ffff", "20261123T100000Z-0000"]
    assert newest(tmp_path, "dev") == folder / "20261123T100000Z-0000.jsonl"


def test_a_cut_last_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(tmp_path, "dev", unexpected) as journal:
        journal(held(1))
        journal(held(2))
    content = journal.path.read_bytes()
    path.write_bytes(content[:-5])
    reader = Reader(path)

    assert reader.new() == (held(1),)
    path.write_bytes(content)
    assert reader.new() == (held(2),)
    assert reader.new() == ()


def test_fields_and_events_of_newer_versions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(
        '{"event": "held", "at": 1, "stack": "macromind/dev", "services": ["cart"], "reason": "reason 1", "new": {}}\n'
        '{"event": "paused", "at": 2, "stack": "macromind/dev"}\n'
    )

    assert read(path) == (held(1),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not JSON", "line 2 is no event of a run: Invalid JSON"),
        ('{"event": "held", "at": "noon"}', "line 2 is no event of a run: held.at: Input should be a valid number"),
        ("{}", "line 2 is no event of a run: Unable to extract tag"),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"event": "troubled", "at": 1, "stack": "a/b", "text": ""}}\n{line}\n')

    with pytest.raises(JournalError, match=message):
        read(path)


def test_a_journal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"none\.jsonl cannot be read: No such file"):
        read(tmp_path / "none.jsonl")


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ".canary").write_text("in the way")
    said: list[str] = []

    with Journal(tmp_path, "dev", said.append) as journal:
        journal(held(1))
        journal(held(2))

    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert str(journal.path) in said[0]


def test_a_full_disk_is_said_once_and_leaves_whole_lines(tmp_path: Path) -> None:
    said: list[str] = []
    big: AnyEvent = Troubled(at=1, stack=STACK, text="x" * 4000)

    with Journal(tmp_path, "dev", said.append) as journal:
        with files_of_at_most(1000):
            journal(held(1))
            journal(big)
            journal(big)
            journal(held(2))
        journal(big)

    assert read(journal.path) == (held(1), held(2), big)
    assert len(said) == 1
    assert "File too large" in said[0]


def test_a_journal_is_open_until_its_writer_ends_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from canary_service.rollout.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]), 'dev', print)\n"
        "print(journal.path, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        reader = Reader(Path(process.stdout.readline().strip()))
        assert reader.open
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    assert not reader.open
