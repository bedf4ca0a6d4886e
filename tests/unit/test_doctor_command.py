"""`canary doctor` as a command: what it exits with and prints, with recorded facts in place of a cluster."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from canary_service.cli import doctor
from canary_service.cli.project import Project
from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import load
from canary_service.rollout.engine_events import SECRET
from canary_service.rollout.preview import EngineError
from canary_service.routing.nginx import WEIGHT
from canary_service.workload.facts import Facts, Log
from tests.unit.commands import Commands, Result
from tests.unit.recorded_cluster import World, crash, settings


@dataclass
class Command(Commands):
    world: World

    def run(self, *arguments: str) -> Result:
        return super().run("doctor", *arguments)

    def fails(self, part: str, error: Exception) -> None:
        def failing(*_: object) -> None:
            raise error

        self.monkeypatch.setattr(doctor, part, failing)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    world = World()

    def opened(stack: str | None) -> Project:
        return Project(tmp_path, "macromind", stack or "dev", world.settings, {})

    def gathered(_: object) -> Facts:
        return Facts(world.at, world.objects, world.unread, world.logs)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "opened", opened)
    monkeypatch.setattr(doctor, "connect", lambda _: None)
    monkeypatch.setattr(doctor, "gathered", gathered)
    return Command(monkeypatch, capsys, world)


def test_without_a_problem_it_is_done(command: Command) -> None:
    done = command.run()

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("macromind/dev: no problem found, 1 not known, 1 to consider; ")
    assert "no share was measured: rollout.prometheusUrl is not set" in done.out


def test_a_problem_is_a_failed_check_in_both_forms(command: Command) -> None:
    command.world.annotate("app-canary", WEIGHT, "70")

    assert command.run().code == 6
    done = command.run("--json", "--stack", "dev")
    assert (done.code, done.err) == (6, "")
    content = json.loads(done.out)
    assert (content["schemaVersion"], content["stack"]) == (1, "macromind/dev")
    (found,) = [each for each in content["diagnoses"] if each["state"] == "problem"]
    assert found == {
        "check": "weight",
        "service": "app",
        "state": "problem",
        "cause": "70 % are in force, and canaryWeight declares 20 %",
        "evidence": [
            {"object": "Ingress app-canary", "field": f"metadata.annotations[{WEIGHT}]", "value": "70, not 20"}
        ],
        "fix": "pulumi up",
    }


def test_other_services_are_left_out(command: Command) -> None:
    command.world.annotate("app-canary", WEIGHT, "70")

    assert command.run("--service", "web").code == 0


def test_what_is_ok_is_named_on_demand(command: Command) -> None:
    assert "\n  endpoints: app, web\n" in command.run("--all").out


def test_an_unknown_service_is_told_with_those_there_are(command: Command) -> None:
    done = command.run("--service", "cart")

    assert done.code == 1
    assert "there is no service cart; there are: app, web" in done.err


@pytest.mark.parametrize(
    ("part", "error", "code"),
    [
        ("opened", EngineError("no stack named 'x' found", usage=True), 1),
        ("opened", EngineError("incorrect passphrase"), 4),
        ("connect", ClusterError("no cluster to talk to"), 4),
        ("gathered", ClusterError("the API server cannot be asked"), 4),
    ],
)
def test_what_cannot_be_examined_is_one_clear_message(command: Command, part: str, error: Exception, code: int) -> None:
    command.fails(part, error)

    assert command.run() == Result(code, "", f"Error: {error}\n")


def test_a_configuration_that_cannot_be_used_is_told_with_its_fix(command: Command) -> None:
    def opened(_: object) -> Any:  # noqa: ANN401 - it never returns
        return load({"namespace": "shop"})

    command.monkeypatch.setattr(doctor, "opened", opened)
    done = command.run()

    assert done.code == 1
    assert "pulumi config set host macromind.local" in done.err


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_secret_in_the_last_lines_of_a_container_is_not_shown(command: Command, form: tuple[str, ...]) -> None:
    command.world.settings = settings(secret={"data": {"TOKEN": "a-5ecret"}})
    crash(command.world)
    command.world.logs[command.world.pod["metadata"]["name"], "app"] = Log(("token a-5ecret is refused",))

    printed = command.run(*form).out
    assert "5ecret" not in printed
    assert f"token {SECRET} is refused" in printed


def test_a_stack_that_takes_its_time_gives_a_sign_of_life(command: Command) -> None:
    shown = threading.Event()
    echo = click.echo

    def opened(_: object) -> Project:
        assert shown.wait(20)
        return Project(Path.cwd(), "macromind", "dev", command.world.settings, {})

    def told(text: str, **options: Any) -> None:  # noqa: ANN401 - those of click
        echo(text, **options)
        shown.set()

    command.monkeypatch.setattr(doctor, "_PROGRESS_AFTER_SECONDS", 0.0)
    command.monkeypatch.setattr(doctor, "opened", opened)
    command.monkeypatch.setattr(click, "echo", told)

    done = command.run("--json")
    assert (done.code, done.err) == (0, "Reading the stack's configuration, then its cluster …\n")
    assert json.loads(done.out)["stack"] == "macromind/dev"


def test_help_teaches(command: Command) -> None:
    printed = " ".join(command.run("--help").out.split())

    assert "canary doctor --service cart --all" in printed
    assert "Exit codes: 0 no problem was found" in printed
