"""`canary report` and `canary watch` on journals, as commands."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from canary_service.cli.main import main
from canary_service.cli.report import write, write_after
from canary_service.rollout.events import EVENTS, AnyEvent
from canary_service.rollout.journal import Journal
from tests.unit.journals import promoted, rolled_back, unfinished

CHECKOUT = Path(__file__).parents[2]
Run = Callable[..., tuple[object, str, str]]


def unexpected(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: macromind\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def called(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["canary", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, *capsys.readouterr()

    return called


def written(project: Path, name: str, events: Iterable[AnyEvent]) -> Path:
    path = project / ".canary" / "runs" / "dev" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(EVENTS.dump_json(event, by_alias=True) + b"\n" for event in events))
    return path


def test_a_report_is_written_beside_the_last_journal(project: Path, run: Run) -> None:
    written(project, "20261117T000000Z-0000", promoted())
    path = written(project, "20261118T000000Z-0000", rolled_back())

    code, out, _ = run("report", "--stack", "dev")

    assert (code, out) == (0, f"{path.with_suffix('.html')}\n")
    assert "✗ rolled back" in path.with_suffix(".html").read_text()


def test_a_run_is_chosen_by_name_by_its_beginning_and_by_file(project: Path, run: Run) -> None:
    path = written(project, "20261117T000000Z-0000", promoted())
    written(project, "20261118T000000Z-0000", rolled_back())
    elsewhere = shutil.copy(path, project / "mine.jsonl")

    for name in (path.stem, "20261117", str(elsewhere)):
        code, out, _ = run("report", "--stack", "dev", name, "--json")

        assert (code, json.loads(out)["outcome"]) == (0, "done")


def test_a_file_needs_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    path = written(tmp_path, "one", promoted())
    monkeypatch.chdir("/")

    assert run("report", str(path), "--output", "-")[1].startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2027"], "no run and no file is called or begins with 2027; the last ones are 20261118T00"),
        (["2026"], "more than one run begins with 2026; the last ones are 20261118T00"),
        (["--stack", "prod"], "there is no run of this stack here"),
        (["broken.jsonl"], "broken.jsonl, line 1 is no event of a run: Invalid JSON"),
        (["empty.jsonl"], "empty.jsonl: there is no event of a run that has begun"),
        (["--output", "none/there.html"], "none/there.html cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_reported_is_named(project: Path, run: Run, arguments: list[str], message: str) -> None:
    written(project, "20261117T000000Z-0000", promoted())
    written(project, "20261118T000000Z-0000", rolled_back())
    (project / "broken.jsonl").write_text("no JSON\n")
    (project / "empty.jsonl").touch()

    code, out, err = run("report", "--stack", "dev", *arguments)

    assert (code, out) == (1, "")
    assert message in err


def test_runs_are_listed_the_last_one_first(project: Path, run: Run) -> None:
    written(project, "20261117T000000Z-0000", promoted())
    written(project, "20261118T000000Z-0000", rolled_back())
    written(project, "20261118T000000Z-1111", []).write_text("no JSON\n")

    code, out, err = run("report", "--stack", "dev", "--list")

    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["20261118T000000Z-0000", "20261117T000000Z-0000"]
    assert "✗ rolled back" in out
    assert "line 1 is no event" in err


def test_a_run_that_goes_on_is_listed_as_such(project: Path, run: Run) -> None:
    with Journal(project, "dev", unexpected) as journal:
        for event in unfinished():
            journal(event)
        assert "runs" in run("report", "--stack", "dev", "--list")[1]

    assert "not finished" in run("report", "--stack", "dev", "--list")[1]


def test_a_report_of_a_run_that_goes_on_can_be_written(project: Path) -> None:
    with Journal(project, "dev", unexpected) as journal:
        for event in unfinished():
            journal(event)

        assert "not finished" in write(journal.path).read_text()


def test_a_journal_that_could_not_be_begun_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".canary").touch()
    said: list[str] = []
    with Journal(tmp_path, "dev", said.append) as journal:
        journal(next(unfinished()))
    assert len(said) == 1
    assert write_after(journal.path) is None
    assert capsys.readouterr() == ("", "")


def test_a_report_that_cannot_be_written_is_a_warning(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(project, "20261117T000000Z-0000", [])
    assert write_after(path) is None
    assert capsys.readouterr().err.startswith("Warning: there is no report: ")


def test_a_run_of_another_process_is_watched_until_it_ends(project: Path) -> None:
    events = list(unfinished())
    with Journal(project, "dev", unexpected) as journal:
        for event in events[:10]:
            journal(event)
        with watch(project) as process:
            assert process.stdout
            before = [process.stdout.readline() for _ in range(10)]
            assert before[0].endswith("at 0 %)\n")
            for event in events[10:]:
                journal(event)
            journal.close()
            rest = process.stdout.read()

    assert len(rest.splitlines()) == len(events) - 10
    assert process.returncode == 0


def test_the_end_of_watching_is_no_error(project: Path) -> None:
    with Journal(project, "dev", unexpected) as journal:
        journal(next(unfinished()))
        with watch(project) as process:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0


def test_the_present_state_of_a_run_is_shown_once(project: Path, run: Run) -> None:
    with Journal(project, "dev", unexpected) as journal:
        for event in unfinished():
            journal(event)

        code, out, _ = run("watch", "--stack", "dev", "--once")

    assert code == 0
    assert "meal-planner-service" in out
    assert "watched at 20 %" in out


def watch(project: Path) -> subprocess.Popen[str]:
    program = (
        "import sys; sys.argv = ['canary', 'watch', '--stack', 'dev']; from canary_service.cli.main import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=project,
        env={"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", "PATH": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
