"""`canary plan` as a command: what it runs, prints and exits with. A small script stands in for the `pulumi` CLI."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from canary_service.rollout.engine_events import SECRET
from demo.measurement import wait_for
from tests.unit.commands import Fake, Result

RECORDED = Path(__file__).parent / "data" / "plan"

# Writes the events it was given to the event log, says what it was called with, and ends as it was told.
PULUMI = """#!/bin/sh
printf '%s\\n' "$*" >> "$FAKE/calls"
if [ "$4" = config ]; then cat "$FAKE/config"; exit 0; fi
left=$(cat "$FAKE/tenths")
while [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
[ -f "$FAKE/events" ] && cp "$FAKE/events" "$6"
cat "$FAKE/errors" >&2
exit "$(cat "$FAKE/code")"
"""


class Previews(Fake):
    def prepare(self, recording: str = "", *, code: int = 0, errors: str = "", tenths: int = 0) -> None:
        for name, content in {"code": code, "errors": errors, "tenths": tenths}.items():
            (self.folder / name).write_text(str(content))
        if recording:
            shutil.copy(RECORDED / f"{recording}.jsonl", self.folder / "events")

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Previews:
    """A project without a cluster, in which this runs, and a CLI that has recorded previews."""
    fake = Previews(monkeypatch, capsys, tmp_path)
    fake.begin(PULUMI, "name: macromind\n")
    (tmp_path / "project" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "below")
    return fake


@pytest.mark.parametrize(
    ("recording", "code", "exit_code"),
    [("nothing", 0, 0), ("shift", 0, 0), ("violated", 1, 6), ("failed", 1, 4), ("invalid", 1, 1)],
)
@pytest.mark.parametrize("form", [(), ("--markdown",), ("--json",)])
def test_the_exit_code_says_how_it_is_in_every_form(
    fake: Previews,
    recording: str,
    code: int,
    exit_code: int,
    form: tuple[str, ...],
) -> None:
    fake.prepare(recording, code=code)

    done = fake.run("plan", *form)
    assert done.code == exit_code
    assert done.err == ""
    if form == ("--json",):
        assert json.loads(done.out)["stack"] == "dev"
    else:
        assert done.out.startswith("<!-- canary-plan:dev -->\n" if form else "dev: ")


def test_options_reach_the_engine_with_paths_that_hold_in_the_project(fake: Previews) -> None:
    fake.prepare("shift")
    Path("pack").mkdir()
    Path("prod.json").touch()

    assert fake.run("plan", "-s", "dev", "--policy-pack", "pack", "--policy-pack-config", "prod.json").code == 0
    (call,) = fake.calls
    here = fake.folder / "project" / "below"
    assert call.startswith("--non-interactive --color never preview --event-log ")
    assert call.endswith(f" --stack dev --policy-pack {here}/pack --policy-pack-config {here}/prod.json")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_program_that_takes_its_services_from_elsewhere_is_told_apart_from_one_that_lacks_them(
    fake: Previews, form: tuple[str, ...]
) -> None:
    fake.prepare("nothing")
    events = fake.folder / "events"
    prelude, *rest = events.read_text().splitlines()
    begun = json.loads(prelude)
    begun["preludeEvent"]["config"] = {"macromind:namespace": "shop", "macromind:weight": "20"}
    events.write_text("\n".join([json.dumps(begun), *rest]))

    done = fake.run("plan", *form)

    assert done.code == 1
    assert "this stack's configuration has no services" in done.out + done.err
    assert "pulumi config set" not in done.out + done.err


def test_what_is_encrypted_is_asked_for_once_and_shown_nowhere(fake: Previews) -> None:
    fake.prepare("secret")
    config = json.loads((fake.folder / "events").read_text().splitlines()[0])["preludeEvent"]["config"]
    shown = {
        key: {"value": value.replace(SECRET, "a-5ecret"), "secret": SECRET in value} for key, value in config.items()
    }
    (fake.folder / "config").write_text(json.dumps(shown))

    for form in ((), ("--markdown",), ("--json",)):
        done = fake.run("plan", "--stack", "dev", *form)
        assert done.code == 0
        assert "5ecret" not in done.out + done.err
        assert "header X-Canary: " in done.out
    assert fake.calls[1] == "--non-interactive --color never config --json --show-secrets --stack dev"


@pytest.mark.parametrize(
    ("code", "errors", "exit_code"),
    [
        (6, "error: no stack named 'dev' found\n", 1),
        (1, "error: validating stack config: Stack 'dev' is missing configuration value 'host'\n", 1),
        (1, "error: getting stack configuration: get stack secrets manager: incorrect passphrase\n", 4),
        (255, "", 4),
    ],
)
def test_an_engine_that_does_not_begin_is_one_clear_message(
    fake: Previews,
    code: int,
    errors: str,
    exit_code: int,
) -> None:
    fake.prepare(code=code, errors=errors)
    message = errors.strip().removeprefix("error: ") or "`pulumi preview` ended with exit code 255"

    assert fake.run("plan") == Result(exit_code, "", f"Error: {message}\n")
    done = fake.run("plan", "--stack", "dev", "--markdown")
    assert done.code == exit_code
    assert message in done.out


def test_without_the_cli_or_a_project_it_says_what_is_missing(fake: Previews) -> None:
    fake.prepare("shift")
    (fake.folder / "bin" / "pulumi").unlink()
    done = fake.run("plan")
    assert done.code == 4
    assert "pulumi cannot be run: No such file or directory" in done.err

    fake.monkeypatch.chdir(fake.folder)
    done = fake.run("plan")
    assert done.code == 1
    assert "there is no Pulumi.yaml in" in done.err


@pytest.mark.parametrize(
    "arguments",
    [("--nonsense",), ("plan", "--nonsense"), ("plan", "--policy-pack", "missing")],
)
def test_a_wrong_invocation_is_told_before_anything_runs(fake: Previews, arguments: tuple[str, ...]) -> None:
    done = fake.run(*arguments)
    assert done.code == 1
    assert "Error: " in done.err
    assert not (fake.folder / "calls").exists()


def test_a_preview_that_takes_its_time_gives_a_sign_of_life(fake: Previews) -> None:
    fake.prepare("shift", tenths=23)

    done = fake.run("plan", "--json")
    assert done.code == 0
    assert done.err == "pulumi preview: 0 resources compared, 2 s\n"
    assert json.loads(done.out)["outcome"] == "changes"


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_engine_too(fake: Previews, order: signal.Signals) -> None:
    fake.prepare("shift", tenths=600)
    program = Path(__file__).parents[2] / "canary_service/cli/canary"
    with subprocess.Popen([program, "plan"], stderr=subprocess.PIPE, text=True) as process:
        assert wait_for((fake.folder / "calls").exists, bool, 20)
        (engine,) = psutil.Process(process.pid).children()
        process.send_signal(order)
        _, errors = process.communicate(timeout=20)

    assert (process.returncode, errors.strip()) == (130, "Interrupted.")
    assert not engine.is_running()


def test_a_metrics_server_that_does_not_answer_is_said_and_stops_nothing(fake: Previews) -> None:
    fake.prepare("shift")

    done = fake.run("plan", "--prometheus", "http://me:5ecret@127.0.0.1:1")
    assert done.code == 0
    printed = done.out
    assert "no requests per second: http://127.0.0.1:1 was asked, and ConnectError: " in printed
    assert "5ecret" not in printed


def test_a_terminal_without_arrows_is_no_reason_to_fail(fake: Previews) -> None:
    fake.prepare("shift")
    program = Path(__file__).parents[2] / "canary_service/cli/canary"
    done = subprocess.run(
        [program, "plan"],
        env={**os.environ, "PYTHONIOENCODING": "iso-8859-1"},
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "cart: canary 20 % ? 50 %" in done.stdout


def test_help_teaches(fake: Previews) -> None:
    done = fake.run("plan", "--help")
    assert done.code == 0
    printed = " ".join(done.out.split())

    assert "canary plan --markdown > plan.md" in printed
    assert "Exit codes: 0" in printed
