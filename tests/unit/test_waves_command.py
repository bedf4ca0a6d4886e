"""`canary run --wave` begins a run for each stack, hears what they tell, and ends them in order."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from canary_service.cli import run as command
from canary_service.cli.main import canary
from canary_service.cli.project import Project
from canary_service.cli.waves import Fleet, Member, members
from canary_service.config.loader import load
from canary_service.rollout.events import EVENTS, Sampled
from canary_service.rollout.samples import Sample
from canary_service.rollout.verdict import GateResult, Verdict
from demo.measurement import wait_for

# Stands for `canary run`: notes how it was called, and does what `orders` says for its stack and what it is for.
RUN = r"""
import json, os, signal, sys, time
from pathlib import Path

here = Path(sys.argv[1])
arguments = sys.argv[2:]
stack = arguments[arguments.index("--stack") + 1]
kind = "rollback" if "--roll-back" in arguments else "steps" if "--to" in arguments else "promotion"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
order = {"code": 2 if kind == "rollback" else 0, "reason": ""}
order |= json.loads((here / "orders").read_text()).get(f"{stack} {kind}", {})
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({"stack": stack, "for": kind, "folder": os.getcwd(), "arguments": arguments}) + "\n")

def tell(event, **fields):
    print(json.dumps({"event": event, "at": 1.0, "stack": f"example/{stack}", **fields}), flush=True)

while len((here / "calls").read_text().splitlines()) < order.get("after", 0):
    time.sleep(0.01)
tell("run-started", run="r", command="run", steps=[20], stepSeconds=1, sampleSeconds=1, services={})
if "line" in order:
    print(order["line"], flush=True)
print("a warning", file=sys.stderr, flush=True)
if order.get("waits"):
    order["code"] = 2 if signal.sigwait([signal.SIGTERM, signal.SIGUSR1]) == signal.SIGUSR1 else 130
if order.get("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
if order["code"] == 2:
    tell("rolled-back", services=["a"], reason=order["reason"], seconds=0.1)
if order["code"] == 0 and kind == "promotion":
    tell("promoted", services=["a"])
tell("finished", outcome="done", exitCode=order["code"], text="over")
sys.exit(order["code"])
"""


def project(folder: Path, stack: str, **rollout: Any) -> Project:  # noqa: ANN401 - values of any key
    service = {"path": "/a", "port": 8080, "image": "example/a:1", "canary": {"image": "example/a:2"}}
    raw = {"namespace": "n", "host": "h.example", "services": {"a": service}, "rollout": {"steps": [20]} | rollout}
    settings = load({key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()})
    return Project(folder, "example", stack, settings, {})


class Runs:
    """A fleet whose runs do as they are ordered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "run.py").write_text(RUN)
        (folder / "calls").touch()
        self.command = [sys.executable, folder / "run.py", folder]

    def release(self, *waves: str, orders: dict[str, Any] | None = None, **fleet: Any) -> int:  # noqa: ANN401 - as Fleet has them
        (self.folder / "orders").write_text(json.dumps(orders or {}))
        stacks = [[Member(name, project(self.folder, name, approvals=[20])) for name in wave] for wave in waves]
        return Fleet(**({"options": [], "command": self.command} | fleet)).release(stacks)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def called(self, kind: str) -> list[str]:
        return [call["stack"] for call in self.calls if call["for"] == kind]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_a_wave_begins_when_the_one_before_is_promoted(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.release("a", "bc") == 0
    kinds = [(call["stack"], call["for"]) for call in runs.calls]
    assert kinds[0] == ("a", "promotion")
    assert set(kinds[1:3]) == {("b", "steps"), ("c", "steps")}
    assert set(kinds[3:]) == {("b", "promotion"), ("c", "promotion")}
    said = capsys.readouterr().out
    assert "Wave 2 of 2: b, c" in said
    assert "Promoted: a, " in said


def test_each_run_is_given_its_stack_its_folder_and_what_the_fleet_was_asked_for(runs: Runs) -> None:
    runs.release("ab", options=["--commit"], approved=[20, 50])
    call = next(call for call in runs.calls if call["stack"] == "a" and call["for"] == "steps")
    assert call["folder"] == str(runs.folder)
    given = ["--stack", "a", "--yes", "--json", "--commit", "--to", "20", "--approve", "20"]
    assert call["arguments"] == given, "50 is no step that this stack asks approval for"


def test_one_that_fails_takes_back_those_that_run_and_those_that_have_passed(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = {"a steps": {"after": 3, "code": 2, "reason": "too many errors"}, "b steps": {"waits": True}}
    assert runs.release("pab", "c", orders=orders) == 2
    (call,) = [call for call in runs.calls if call["for"] == "rollback"]
    assert (call["stack"], call["arguments"][-1]) == ("p", "a, of the same wave: too many errors")
    assert runs.called("promotion") == []
    assert "Not begun: c" in capsys.readouterr().out


def test_a_gate_that_fails_takes_back_the_others_although_its_own_run_cannot_roll_back(runs: Runs) -> None:
    gate = GateResult(gate="error-rate", outcome="fail", text="too many errors")
    sampled = Sampled(
        at=1,
        stack="example/a",
        sample=Sample(service="a", at=1, seconds=1, weight=20),
        verdict=Verdict(service="a", outcome="fail", gates=(gate,)),
        remaining_seconds=1,
    )
    failing = {"after": 2, "code": 4, "line": EVENTS.dump_json(sampled, by_alias=True).decode()}
    assert runs.release("ab", orders={"a steps": failing, "b steps": {"waits": True}}) == 2
    assert runs.called("rollback") == ["a"], "it is tried again, and b went back by itself"


def test_those_promoted_before_are_named(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    orders = {"b promotion": {"code": 2, "reason": "slow"}, "a rollback": {"code": 0}}
    assert runs.release("ab", orders=orders, parallel=1) == 2
    assert "Promoted before, and so left: a" in capsys.readouterr().out


def test_what_was_not_rolled_back_is_said_loudly(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    orders = {"b steps": {"code": 2, "reason": "slow"}, "a rollback": {"code": 4}}
    assert runs.release("ab", orders=orders, parallel=1) == 4
    assert "NOT ROLLED BACK: a. " in capsys.readouterr().out


def test_a_held_stack_holds_its_wave(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.release("ab", "c", orders={"a steps": {"code": 3}}) == 3
    assert sorted(runs.called("steps")) == ["a", "b"]
    assert runs.called("promotion") == []
    assert "is held" in capsys.readouterr().out


def test_a_run_that_is_killed_ends_the_others_where_they_are(runs: Runs) -> None:
    orders = {"a steps": {"killed": True}, "b steps": {"waits": True}}
    assert runs.release("ab", "c", orders=orders) == 4
    assert runs.called("rollback") == runs.called("promotion") == []


def test_a_run_that_cannot_be_begun_counts_as_failed(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.release("a", command=[runs.folder / "missing"]) == 4
    assert "a  Error: `canary run` cannot be begun: No such file or directory" in capsys.readouterr().err


def test_an_output_that_nobody_reads_any_more_does_not_leave_the_runs_alone(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as unread:
        monkeypatch.setattr("sys.stdout", unread)
        assert runs.release("ab", orders={"a steps": {"code": 2}}) == 2
        monkeypatch.undo()
        with suppress(OSError):
            unread.close()
    assert runs.called("rollback") == ["b"]


def test_an_interrupt_ends_every_run_in_order(runs: Runs) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def interrupt() -> None:
        wait_for(lambda: len(runs.calls), lambda begun: begun == 2, 30)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    waiting = {f"{stack} steps": {"waits": True} for stack in "ab"}
    assert runs.release("ab", "c", orders=waiting) == 130
    thread.join()
    assert sorted(runs.called("steps")) == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_json_is_what_the_runs_write_and_all_else_goes_to_standard_error(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.release("a", as_json=True)
    said = capsys.readouterr()
    assert [json.loads(line)["event"] for line in said.out.splitlines()] == ["run-started", "promoted", "finished"]
    assert "Wave 1 of 1: a" in said.err
    assert "a  a warning" in said.err


STACK = """
config:
  example:namespace: n
  example:host: h.example
  example:services:
    a: {path: /a, port: 8080, image: "example/a:1", canary: {image: "example/a:2"}}
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two projects beside each other, with the working directory in the first."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Pulumi.yaml").write_text("name: example\nruntime: python\n")
        for stack in ("dev", "prod"):
            (tmp_path / name / f"Pulumi.{stack}.yaml").write_text(STACK)
    monkeypatch.chdir(tmp_path / "first")
    return tmp_path


def test_a_wave_names_stacks_of_this_project_and_of_others(fleet: Path) -> None:
    found = members(["dev", "prod,../second:prod"])
    places = [[(each.project.folder, each.project.stack) for each in wave] for wave in found]
    assert places == [[(fleet / "first", "dev")], [(fleet / "first", "prod"), (fleet / "second", "prod")]]


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("waves", "told"),
    [
        (["dev", "dev"], "dev is named twice"),
        (["dev", "../first:dev"], "../first:dev is named twice"),
        (["../third:dev"], "../third:dev: there is no Pulumi.yaml in "),
        (["dev,"], "a name is missing"),
    ],
)
def test_a_wave_that_cannot_be_is_refused_before_any_begins(waves: list[str], told: str) -> None:
    with pytest.raises(click.UsageError, match=told.replace(".", r"\.")):
        members(waves)


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--wave", "dev", "--to", "20"], "--to cannot be combined with --wave"),
        (["--wave", "dev", "--stack", "dev", "--pr"], "--stack and --pr cannot be combined"),
        (["--wave", "dev"], "dev: without a Prometheus server"),
        (["--wave", "dev", "--prometheus", "http://p.example", "--approve", "20"], "--approve 20 is none of"),
        (["--wave", "dev", "--prometheus", "http://p.example"], "say --yes"),
        (["--parallel", "2"], "--parallel is for the stacks of a --wave"),
        (["--roll-back", "a reason", "--to", "20"], "--roll-back ends at 0 %"),
    ],
)
def test_what_makes_no_sense_with_waves_is_refused(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        with pytest.raises(click.UsageError, match=told):
            canary.main(["run", *arguments], standalone_mode=False)


def test_waves_that_would_commit_changes_of_others_do_not_begin(fleet: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=fleet, check=True)  # noqa: S607 - from PATH
    with pytest.raises(click.UsageError, match=r"Pulumi\.dev\.yaml has changes that are not committed"):
        canary.main(["run", "--wave", "dev", "--prometheus", "http://p.example", "--commit"], standalone_mode=False)


@pytest.mark.usefixtures("fleet")
def test_the_options_of_a_run_are_passed_on_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Fleet] = []
    monkeypatch.setattr(command, "require_committed", lambda _file: None)

    def release(self: Fleet, _waves: object) -> int:
        made.append(self)
        return 0

    monkeypatch.setattr(Fleet, "release", release)
    arguments = ["--wave", "dev", "--wave", "prod", "--prometheus", "http://p.example", "--again", "--commit", "--yes"]
    assert canary.main(["run", *arguments, "--parallel", "7"], standalone_mode=False) == 0
    assert made[0].options == ["--prometheus", "http://p.example", "--again", "--commit"]
    assert made[0].parallel == 7
