"""`canary run` refuses what it cannot do before it does anything, and asks a person as little as possible."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import pytest

from canary_service.cli import run as command
from canary_service.cli.main import canary, main
from canary_service.cli.project import Project
from canary_service.cli.terminal import Terminal
from canary_service.config.loader import load
from canary_service.rollout.alone import alone
from canary_service.rollout.driver import Start
from canary_service.rollout.stack import LockedError
from tests.unit.worlds import World


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    service = {"path": "/a", "port": 8080, "image": "example/a:1", "canary": {"image": "example/a:2"}}
    rollout = {"approvals": [20], "prometheusUrl": "http://prometheus.example"}
    raw = {"namespace": "n", "host": "h.example", "services": {"a": service}, "rollout": rollout}
    settings = load({key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()})
    found = Project(tmp_path, "macromind", "dev", settings, {})
    monkeypatch.setattr(command, "opened", lambda _stack: found)
    monkeypatch.chdir(tmp_path)
    return found


def refused(*arguments: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        canary.main(["run", *arguments], standalone_mode=False)
    return str(caught.value)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--service", "b"], "no service is called b; stack dev has a"),
        (["--to", "30"], "--to 30 is none of rollout.steps: 5, 20, 50 and 100"),
        (["--approve", "50"], "--approve 50 is none of rollout.approvals: 20"),
        (["--policy-pack-config", __file__], "--policy-pack-config configures a --policy-pack, and there is none"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_choices(arguments: list[str], told: str) -> None:
    assert refused(*arguments) == told


def test_without_a_prometheus_server_a_run_is_refused_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = project.settings.rollout.model_copy(update={"prometheus_url": None})
    blind = replace(project, settings=project.settings.model_copy(update={"rollout": rollout}))
    monkeypatch.setattr(command, "opened", lambda _stack: blind)
    assert "rollout.prometheusUrl" in refused()


def test_a_second_run_in_the_same_folder_ends_with_exit_code_5(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(project.folder, "dev"):
        assert canary.main(["run"], standalone_mode=False) == 5
    assert "another `canary run` of stack dev" in capsys.readouterr().err


def finished(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    out, err = capsys.readouterr()
    assert err == ""
    event: dict[str, object] = json.loads(out)
    assert event.pop("event") == "finished"
    return event


def test_with_json_a_run_that_cannot_begin_is_an_event_too(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary.main(["run", "--json", "--service", "b"], standalone_mode=False) == 1
    event = finished(capsys)
    assert (event["stack"], event["outcome"], event["exitCode"]) == ("macromind/dev", "refused", 1)
    assert event["text"] == "no service is called b; stack dev has a"
    with alone(project.folder, "dev"):
        assert canary.main(["run", "--json"], standalone_mode=False) == 5
    event = finished(capsys)
    assert (event["stack"], event["outcome"], event["exitCode"]) == ("macromind/dev", "locked", 5)


def test_without_a_project_the_event_has_the_stack_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert canary.main(["run", "--json", "--stack", "prod"], standalone_mode=False) == 1
    event = finished(capsys)
    assert event["stack"] == "prod"
    assert str(event["text"]).startswith("there is no Pulumi.yaml in ")


def test_a_run_that_would_commit_changes_of_others_does_not_begin(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.folder / "Pulumi.yaml").write_text("name: macromind\nruntime: python\n")
    (project.folder / "Pulumi.dev.yaml").touch()
    subprocess.run(["git", "init", "--quiet"], cwd=project.folder, check=True)  # noqa: S607 - from PATH
    assert canary.main(["run", "--yes", "--commit"], standalone_mode=False) == 1
    assert capsys.readouterr().err.startswith("Error: Pulumi.dev.yaml has changes that are not committed")


def test_a_message_that_is_not_about_usage_does_not_begin_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["canary", "run"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"Error: there is no Pulumi.yaml in {tmp_path} or above\n"


def test_runs_of_other_stacks_and_later_ones_are_not_kept_out(tmp_path: Path) -> None:
    with alone(tmp_path, "dev"), alone(tmp_path, "prod"):
        pass
    with alone(tmp_path, "dev"):
        pass


def test_what_goes_wrong_in_a_run_is_not_taken_for_another_run(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), alone(tmp_path, "dev"):
        raise BlockingIOError
    with alone(tmp_path, "dev"), pytest.raises(LockedError), alone(tmp_path, "dev"):
        pytest.fail("two at a time")


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("go on\n", "go on"), ("G\n", "go on"), ("s\n", "stop"), ("roll\n", "roll back"), ("", "stop")],
)
def test_an_answer_may_be_as_short_as_its_first_letter(
    typed: str, answer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "typed").write_text(typed)
    paused: list[str] = []

    @contextmanager
    def quiet() -> Iterator[None]:
        paused.append("begin")
        yield
        paused.append("end")

    with (tmp_path / "typed").open() as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard)
        person = Terminal(quiet)
        person.ask("Passed.", ("go on", "stop", "roll back"))
        assert paused == ["begin"]
        assert person.answer() == answer
    assert paused == ["begin", "end"]


def test_a_question_that_nobody_answers_ends_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    @contextmanager
    def quiet() -> Iterator[None]:
        yield
        shown.append("drawn")

    with Terminal(quiet) as person:
        person.ask("Passed.", ("go on",))
        person.ask("Interrupted.", ("stop",))
    assert capsys.readouterr().err == "Passed. [g]o on: \nInterrupted. [s]top: \n"
    assert shown == ["drawn"], "before the run says how it ended, not after it"


def test_what_is_no_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "typed").write_text("perhaps\n\nstop\n")
    with (tmp_path / "typed").open() as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard)

        @contextmanager
        def quiet() -> Iterator[None]:
            yield

        person = Terminal(quiet)
        person.ask("Passed.", ("go on", "stop"))
        assert [person.answer() for _ in range(3)] == [None, None, "stop"]
    assert capsys.readouterr().err.count("Passed. [g]o on, [s]top: ") == 3


@pytest.mark.parametrize(
    ("weight", "returning", "told"),
    [
        (0, (), "a: example/a:2, 0 % → 5 % → 20 % → 50 % → 100 %, then promoted"),
        (20, (), "a: example/a:2, 20 % (watched first) → 50 % → 100 %, then promoted"),
        (0, ("a",), "a: 0 % → 0 %: rolled back before (--again tries it again)"),
    ],
)
def test_it_is_announced_what_is_about_to_happen(
    weight: int, returning: tuple[str, ...], told: str, project: Project
) -> None:
    start = Start(project.settings, World.of("a").at(weight).read(), ("a",), (), returning)
    assert next(command.announcement(start, None, None)).strip() == told
