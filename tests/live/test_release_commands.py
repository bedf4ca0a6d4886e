"""`canary set`, `promote` and `abort` on a real engine and cluster: what they say is what is in force."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from lightkube import Client

from demo.stack import CHECKOUT
from sandbox.lifecycle import Sandbox
from tests.live.account import DEPLOY, Account, install
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, Scene

pytestmark = pytest.mark.live

SECONDS = 120
POLICIES = CHECKOUT / "policies"


@dataclass
class Commands:
    scene: Scene

    @property
    def file(self) -> Path:
        return self.scene.stack.folder / "Pulumi.dev.yaml"

    @property
    def service(self) -> dict[str, Any]:
        """The service as the stack's file declares it."""
        declared: dict[str, Any] = yaml.safe_load(self.file.read_text())["config"]["macromind:services"][NAME]
        return declared

    def begin(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command as a user does, without a terminal."""
        return subprocess.Popen(
            [CHECKOUT / "canary_service" / "cli" / "canary", *arguments, "--stack", self.scene.stack.name],
            cwd=self.scene.stack.folder,
            env={**self.scene.stack.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, exit_code: int = 0, **environment: str) -> dict[str, Any]:
        """Run a command to its end; return what it says in JSON."""
        with self.begin(*arguments, "--yes", "--json", **environment) as process:
            output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == exit_code, f"{process.returncode}\n{output}\n{errors}"
        assert "Traceback" not in output + errors
        result: dict[str, Any] = json.loads(output)
        return result

    def weights(self, result: dict[str, Any]) -> tuple[int | None, int | None]:
        """Return the weight before and the one read back, which has to be that in the cluster."""
        service = result["services"][NAME]
        assert service["readBack"] == self.scene.weight()
        return service["before"], service["readBack"]


@pytest.fixture
def commands(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Commands:
    """A service whose canary gets 20 percent."""
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.deploy(20)
    return Commands(scene)


@pytest.fixture
def engine(commands: Commands) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Begin a `pulumi up` that waits for pods; what it leaves behind when it is killed ends with the test."""
    environment = dict(commands.scene.stack.environment)

    def begin() -> subprocess.Popen[bytes]:
        never_ready(commands.scene)
        path = Path(environment["PATH"].partition(":")[0]) / "pulumi"
        process = subprocess.Popen(
            [path, "--non-interactive", "up", "--yes", "--skip-preview"],
            cwd=commands.scene.stack.folder,
            env=environment | {"PULUMI_STACK": commands.scene.stack.name},
            stdout=subprocess.DEVNULL,
        )
        eventually(lambda: rolls(commands.scene), SECONDS)
        return process

    yield begin
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PULUMI_BACKEND_URL") == environment["PULUMI_BACKEND_URL"]:
                process.kill()


def never_ready(scene: Scene) -> None:
    """Declare a canary whose new pods start so slowly that an update still waits when a test needs it to."""
    scene.configure(canary=GOOD_CANARY | {"env": {"SANDBOX_START_SECONDS": "100"}})


def rolls(scene: Scene) -> bool:
    """Tell whether the canary's new pods are there, and not ready."""
    status = scene.deployment(CANARY)["status"]
    return bool(status.get("updatedReplicas", 0) and status.get("unavailableReplicas", 0))


def lock_of(scene: Scene) -> list[Path]:
    return [each for each in (scene.stack.folder / "backend" / ".pulumi" / "locks").rglob("*.json") if each.is_file()]


def processes_of(commands: Commands) -> list[str]:
    backend = commands.scene.stack.environment["PULUMI_BACKEND_URL"]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PULUMI_BACKEND_URL") == backend:
                found.append(" ".join(process.cmdline()))
    return found


def test_a_canary_goes_from_shift_to_promotion_without_a_lost_request(commands: Commands, tmp_path: Path) -> None:
    scene = commands.scene
    before = commands.file.read_text().splitlines()
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"all": "advisory"}))
    packs = ("--policy-pack", str(POLICIES), "--policy-pack-config", str(rules))
    with scene.traffic():
        assert commands.weights(commands.run("set", "50", *packs)) == (20, 50)
        scene.settle()
        changed = [line for line in commands.file.read_text().splitlines() if line not in before]
        assert [line.strip() for line in changed if "encryptionsalt" not in line] == ["macromind:canaryWeight: '50'"]
        assert commands.run("set", "50")["outcome"] == "unchanged"
        assert commands.weights(commands.run("set", "100", "--service", NAME)) == (50, 100)
        scene.settle()
        result = commands.run("promote")

    assert commands.weights(result) == (100, None)
    assert result["services"][NAME]["stableImage"] == CANARY_IMAGE
    assert (commands.service["image"], "canary" in commands.service) == (CANARY_IMAGE, False)
    assert scene.stack.preview()["changeSummary"].keys() == {"same"}
    assert processes_of(commands) == []


def test_an_aborted_canary_gets_nothing_and_then_goes(commands: Commands) -> None:
    scene = commands.scene
    with scene.traffic() as traffic:
        result = commands.run("abort")
        assert commands.weights(result) == (20, 0)
        assert result["cutOffSeconds"] < result["seconds"]
        scene.settle()
        answered = traffic.total[NAME].by_version["canary"]
        assert commands.weights(commands.run("abort", "--remove")) == (0, None)
        assert traffic.total[NAME].by_version["canary"] == answered

    assert "canary" not in commands.service
    assert scene.stack.preview()["changeSummary"].keys() == {"same"}


def test_what_is_refused_leaves_file_and_weight_as_they_were(commands: Commands, tmp_path: Path) -> None:
    file = commands.file.read_bytes()
    refused = commands.run("set", "90", exit_code=1)
    assert (refused["outcome"], commands.weights(refused)) == ("refused", (20, 20))
    assert "at most 70 now" in refused["error"]
    assert commands.file.read_bytes() == file

    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"all": "disabled", "max-weight": {"enforcementLevel": "mandatory", "maxWeight": 30}}))
    packs = ("--policy-pack", str(POLICIES), "--policy-pack-config", str(rules))
    violated = commands.run("set", "40", *packs, exit_code=6)
    assert (violated["outcome"], commands.weights(violated)) == ("violated", (20, 20))
    assert f"{CANARY}: max-weight: " in violated["error"]
    assert commands.file.read_bytes() == file


def test_what_is_encrypted_stays_so_when_it_is_promoted(commands: Commands) -> None:
    scene = commands.scene
    for key in ("canary.secret.data.TOKEN", "canary.env.KEY", "env.OLD"):
        scene.stack.run("config", "set", "--secret", "--path", f"services.{NAME}.{key}", f"{key}-5ecret")
    scene.stack.set(f"services.{NAME}.canary.env.COUNT", "7")
    scene.stack.run("config", "set", "--path", "--type", "string", f"services.{NAME}.canary.env.SIGNED", "--", "+5")
    scene.stack.set(f"services.{NAME}.canary.env.OLD", "plain")
    commands.run("promote")

    assert "5ecret" not in commands.file.read_text()
    container = scene.deployment(NAME)["spec"]["template"]["spec"]["containers"][0]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables | {"KEY": "canary.env.KEY-5ecret", "COUNT": "7", "SIGNED": "+5", "OLD": "plain"} == variables
    assert json.loads(scene.stack.run("config", "--json", "--show-secrets"))["macromind:services"]["value"].count(
        "canary.secret.data.TOKEN-5ecret"
    )


def test_a_canary_is_cut_off_while_another_update_holds_the_lock(
    commands: Commands, engine: Callable[[], subprocess.Popen[bytes]]
) -> None:
    other = engine()
    result = commands.run("abort", exit_code=5)

    assert (result["outcome"], commands.weights(result)) == ("locked", (20, 0))
    assert "is locked by " in result["error"]
    assert yaml.safe_load(commands.file.read_text())["config"]["macromind:canaryWeight"] == "0"
    assert other.poll() is None
    refused = commands.run("set", "30", exit_code=5)
    assert "The stack's file is as it was" in refused["error"]
    other.kill()
    other.wait()
    assert "has ended without releasing it: `pulumi cancel` does" in commands.run("set", "30", exit_code=5)["error"]
    assert lock_of(commands.scene)


def test_a_canary_is_cut_off_without_an_engine(commands: Commands) -> None:
    result = commands.run("abort", exit_code=4, PULUMI_BACKEND_URL="file:///nowhere/at/all")
    assert (result["outcome"], commands.weights(result)) == ("failed", (20, 0))
    assert result["error"]


def test_an_interrupt_ends_program_and_engine_and_releases_the_lock(commands: Commands) -> None:
    scene = commands.scene
    never_ready(scene)
    for order in (signal.SIGINT, signal.SIGTERM):
        with commands.begin("set", "30", "--yes") as process:
            eventually(lambda: rolls(scene) and lock_of(scene), SECONDS)
            process.send_signal(order)
            output, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, "Interrupted." in errors) == (130, True), output + errors
        assert scene.weight() == 20
        assert lock_of(scene) == []
        eventually(lambda: processes_of(commands) == [])
    scene.configure(canary=GOOD_CANARY)
    assert commands.weights(commands.run("set", "40")) == (20, 40)


def test_a_killed_command_takes_program_and_engine_with_it(commands: Commands) -> None:
    scene = commands.scene
    never_ready(scene)
    with commands.begin("set", "30", "--yes") as process:
        eventually(lambda: rolls(scene) and lock_of(scene), SECONDS)
        process.kill()
        process.communicate(timeout=SECONDS)
    eventually(lambda: processes_of(commands) == [])
    assert lock_of(scene) == []
    assert scene.weight() == 20
    scene.configure(canary=GOOD_CANARY)
    assert commands.weights(commands.run("set", "40")) == (20, 40)


def test_it_asks_before_it_does_anything(commands: Commands) -> None:
    with commands.begin("abort") as process:
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert f"{NAME}: canary 20 % → 0 %" in output
    assert "say --yes" in errors
    assert commands.scene.weight() == 20


def test_a_weight_that_is_not_in_force_is_not_claimed(commands: Commands) -> None:
    commands.scene.mutate("canary_service/routing/nginx.py", "WEIGHT: str(split.canary.weight)", 'WEIGHT: "7"')
    result = commands.run("set", "40", exit_code=4)

    assert (result["outcome"], commands.weights(result)) == ("failed", (20, 7))
    assert result["error"] == f"{NAME}: 40 % was declared, but 7 % read back"


def test_the_deploy_role_is_enough(commands: Commands, tmp_path: Path) -> None:
    install(commands.scene, tmp_path)
    account = Account.of(commands.scene, DEPLOY, tmp_path)
    under = Commands(account.scene)
    assert under.weights(under.run("set", "40")) == (20, 40)
    assert under.weights(under.run("abort")) == (40, 0)
    assert under.weights(under.run("promote")) == (0, None)
    assert account.used(allowed=False) <= {("", "namespaces", "get"), ("", "events", "list")}
