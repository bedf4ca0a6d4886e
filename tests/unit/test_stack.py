"""Updates of a stack: how the program is served, and what is made of what the engine says.

A small script stands in for the `pulumi` CLI.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped] # has no types of its own
import pytest
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped] # likewise
from pulumi.runtime.proto import language_pb2_grpc

import canary_service.rollout.stack
from canary_service.cluster.errors import ClusterError
from canary_service.cluster.workloads import _not_ready
from canary_service.config.loader import ConfigError, Problem
from canary_service.rollout import engine
from canary_service.rollout.configuration import stored
from canary_service.rollout.engine import EngineError
from canary_service.rollout.guards import RefusedError
from canary_service.rollout.release import Copy
from canary_service.rollout.stack import LockedError, PodsError, PolicyError, Stack
from canary_service.routing.split import Track
from canary_service.workload.readiness import Readiness
from demo.measurement import wait_for

RECORDED = Path(__file__).parent / "data" / "plan"

# Says what it was called with, writes the events it was given to the event log, changes a configuration file as it was
# told, and ends as it was told.
PULUMI = """#!/bin/sh
printf '%s\\n' "$*" >> "$FAKE/calls"
shift 3
command=$1
while [ $# -gt 0 ]; do
    case $1 in
        --event-log) cp "$FAKE/events" "$2" ;;
        --config-file) printf '# %s\\n' "$command" >> "$2" ;;
        --client) echo "$2" > "$FAKE/address" ;;
        --show-secrets) cat "$FAKE/decrypted" ;;
    esac
    shift
done
[ "$command" = config ] && [ ! -f "$FAKE/config-too" ] && exit 0
cat "$FAKE/errors" >&2
exit "$(cat "$FAKE/code")"
"""
STACK = """\
config:
  shop:namespace: shop
  shop:services:
    cart:
      port: 8080
      env: {OLD: {secure: v1:old}}
      canary:
        image: example/cart:2.0
        env: {NEW: {secure: v1:new}, COUNT: "+5"}
"""
DECRYPTED = {
    "cart": {
        "port": 8080,
        "env": {"OLD": "old-5ecret"},
        "canary": {"image": "example/cart:2.0", "env": {"NEW": "new-5ecret", "COUNT": "+5"}},
    }
}


@dataclass
class Fake:
    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def file(self) -> Path:
        return self.project / "Pulumi.dev.yaml"

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def ends(self, code: int, errors: str = "", *, said: list[str] | None = None, recording: str = "shift") -> None:
        """Let the CLI end with this code, after events that were recorded, or in which this was said."""
        (self.folder / "code").write_text(str(code))
        (self.folder / "errors").write_text(errors)
        events: list[dict[str, Any]] = [{"preludeEvent": {"config": {}}}]
        events += [{"diagnosticEvent": {"severity": "error", "message": message}} for message in said or ()]
        if said is None:
            shutil.copy(RECORDED / f"{recording}.jsonl", self.folder / "events")
        else:
            (self.folder / "events").write_text("".join(f"{json.dumps(event)}\n" for event in events))

    def update(self) -> list[str]:
        """Update the stack, and return what was reported meanwhile."""
        reported: list[str] = []
        with Stack(self.project, "dev") as stack:
            stack.up(reported.append)
        return reported

    def failure(self) -> EngineError:
        with pytest.raises(EngineError) as caught:
            self.update()
        return caught.value


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pulumi").write_text(PULUMI)
    (tmp_path / "bin" / "pulumi").chmod(0o755)
    made.project.mkdir()
    (made.project / "Pulumi.yaml").write_text("name: shop\nruntime: python\nconfig:\n  router: {default: nginx}\n")
    (made.project / "__main__.py").write_text("import pulumi\n")
    made.file.write_text(STACK)
    (tmp_path / "decrypted").write_text(json.dumps({"shop:services": {"value": json.dumps(DECRYPTED)}}))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE", str(tmp_path))
    made.ends(0)
    return made


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class TestProgram:
    def test_it_answers_the_engine_as_a_language_host_as_long_as_an_update_runs(self, fake: Fake) -> None:
        ports = []
        with Stack(fake.project, "dev") as stack:
            for _ in range(2):
                with stack.program.serving() as address:
                    ports.append(int(address.rpartition(":")[2]))
                    with grpc.insecure_channel(address) as channel:
                        host = language_pb2_grpc.LanguageRuntimeStub(channel)
                        assert host.GetPluginInfo(Empty(), timeout=20) is not None
                assert wait_for(lambda: listens(ports[-1]), lambda found: not found, 20) is False
        assert len(set(ports)) == 2

    def test_it_ends_with_the_stack_also_when_an_update_is_left_by_an_error(self, fake: Fake) -> None:
        with pytest.raises(ZeroDivisionError), Stack(fake.project, "dev") as stack, stack.program.serving() as address:
            raise ZeroDivisionError
        assert not listens(int(address.rpartition(":")[2]))

    def test_it_begins_again_with_every_update(self, fake: Fake) -> None:
        (fake.project / "__main__.py").write_text("import counted\n")
        (fake.project / "counted.py").write_text("import sys; print('loaded', file=open('loads', 'a'))\n")
        with Stack(fake.project, "dev") as stack:
            for _ in range(2):
                stack.up(str)
        assert (fake.project / "loads").read_text() == "loaded\n"

    def test_a_python_that_cannot_run_it_is_told(self, fake: Fake) -> None:
        runtime = "runtime: {name: python, options: {virtualenv: nowhere}}\n"
        (fake.project / "Pulumi.yaml").write_text(f"name: shop\n{runtime}")
        failed = fake.failure()
        assert f"{fake.project}/nowhere/bin/python: No such file" in str(failed)
        assert failed.usage

    def test_a_python_without_the_sdk_is_told(self, fake: Fake) -> None:
        python = fake.project / "empty" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'grpc'\" >&2\nexit 1\n")
        python.chmod(0o755)
        runtime = "runtime: {name: python, options: {virtualenv: empty}}\n"
        (fake.project / "Pulumi.yaml").write_text(f"name: shop\n{runtime}")
        failed = fake.failure()
        assert str(failed) == "the program cannot be loaded: ModuleNotFoundError: No module named 'grpc'"


class TestEngine:
    def test_one_that_does_not_obey_is_asked_twice_and_then_killed(
        self, fake: Fake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pulumi = fake.folder / "bin" / "pulumi"
        pulumi.write_text(
            '#!/bin/sh\ntrap "echo INT >> $FAKE/asked" INT\ntouch $FAKE/begun\nwhile :; do sleep 0.01; done\n'
        )
        monkeypatch.setattr(
            engine, "_WAYS_TO_END", [(signal.SIGINT, 0.5), (signal.SIGINT, 0.5), (signal.SIGKILL, None)]
        )

        def interrupt() -> None:
            if (fake.folder / "begun").exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.run(fake.project, ["up"], interrupt)
        assert (fake.folder / "asked").read_text().split() == ["INT", "INT"]

    def test_updates_of_several_stacks_run_in_threads(self, fake: Fake) -> None:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: fake.update(), range(2)))
        assert len(fake.calls) == 2


class Loaded:
    """Stands in for the program, which takes a second to load."""

    def __init__(self, _: Path) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @contextmanager
    def serving(self) -> Iterator[str]:
        yield "127.0.0.1:1"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_service.rollout.stack, "Program", Loaded)


@pytest.mark.usefixtures("loaded")
class TestUpdate:
    def test_it_says_what_is_changed(self, fake: Fake) -> None:
        fake.ends(0, recording="shift")
        assert [text for text in fake.update() if text.startswith("updating Ingress ")]

    def test_the_engine_is_told_where_the_program_is(self, fake: Fake) -> None:
        fake.update()
        (call,) = fake.calls
        assert call.startswith("--non-interactive --color never up --yes --skip-preview --suppress-outputs --stack dev")
        assert (fake.folder / "address").read_text() == "127.0.0.1:1\n"

    @pytest.mark.parametrize(
        "error",
        [
            ConfigError([Problem("canaryWeight", "x", "a number", "pulumi config set canaryWeight 5")]),
            RefusedError([Problem("canaryWeight", "99", "at most 50", "pulumi config set canaryWeight 50")] * 2),
        ],
    )
    def test_what_the_program_refuses_is_for_the_user_to_mend(self, fake: Fake, error: Exception) -> None:
        fake.ends(255, said=[str(error), f"an unhandled error occurred: {error}", "update failed"])
        failed = fake.failure()
        assert (str(failed), failed.usage) == (str(error), True)

    def test_what_the_cluster_refuses_may_be_tried_again(self, fake: Fake) -> None:
        fake.ends(255, said=[str(ClusterError("the API server refused")), "update failed"])
        failed = fake.failure()
        assert (str(failed), failed.usage) == ("the API server refused", False)

    def test_pods_that_do_not_become_ready_are_told_once_and_apart_from_what_may_be_tried_again(
        self, fake: Fake
    ) -> None:
        pods = Readiness(0, 1, rolled_out=False, reasons=("cart-canary-1: ImagePullBackOff",))
        message = _not_ready("cart-canary", Track.CANARY, pods, 16)
        unhandled = f"an unhandled error occurred: {message}"
        fake.ends(255, said=[message, f"Exception calling application: {message}", unhandled, "update failed"])
        failed = fake.failure()
        assert isinstance(failed, PodsError)
        assert (str(failed), failed.usage) == (message, False)
        assert failed.cause == (
            "Deployment cart-canary: 0 of 1 pods take requests after 16 s.\n  cart-canary-1: ImagePullBackOff"
        )
        fake.ends(255, said=[message, "the API server refused"])
        assert not isinstance(fake.failure(), PodsError)

    def test_what_only_the_engine_and_the_provider_need_to_know_is_no_progress(self, fake: Fake) -> None:
        said = {"warning": "weight 0 does not evict", "info": "Found {.metadata.uid}", "info#err": "0 of 1 pods"}
        events = [{"diagnosticEvent": {"severity": each, "message": text}} for each, text in said.items()]
        fake.ends(0)
        (fake.folder / "events").write_text("".join(f"{json.dumps(event)}\n" for event in events))
        assert fake.update() == ["0 of 1 pods"]

    def test_a_mandatory_policy_is_named(self, fake: Fake) -> None:
        fake.ends(255, recording="violated")
        failed = fake.failure()
        assert isinstance(failed, PolicyError)
        assert "cart-canary: weight-limit: " in str(failed)

    def test_a_lock_of_somebody_else_says_whose_it_is(self, fake: Fake) -> None:
        lock = "file:///b/.pulumi/locks/x.json: created by ann@elsewhere (pid 7) at 2026-11-23T15:36:39Z"
        fake.ends(1, f"error: the stack is currently locked by 1 lock(s). Either wait … \n  {lock}\n", said=[])
        failed = fake.failure()
        assert isinstance(failed, LockedError)
        assert "locked by ann@elsewhere (process 7), since 2026-11-23T15:36:39Z. Wait until" in str(failed)

    def test_a_lock_whose_holder_has_died_says_what_releases_it(self, fake: Fake) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            ended.wait()
        lock = f"x.json: created by ann@{os.uname().nodename} (pid {ended.pid}) at 2026-11-23T15:36:39Z"
        fake.ends(1, f"error: the stack is currently locked by 1 lock(s). Either …\n  {lock}\n", said=[])
        assert "has ended without releasing it: `pulumi cancel` does" in str(fake.failure())

    def test_a_lock_of_pulumi_cloud_is_one_too(self, fake: Fake) -> None:
        fake.ends(255, "error: [409] Conflict: Another update is currently in progress.\n", said=[])
        failed = fake.failure()
        assert isinstance(failed, LockedError)
        assert str(failed) == "another update of the stack is in progress. Wait until it has ended"

    def test_an_unknown_stack_is_a_wrong_invocation(self, fake: Fake) -> None:
        fake.ends(6, "error: no stack named 'dev' found\n", said=[])
        failed = fake.failure()
        assert (str(failed), failed.usage) == ("no stack named 'dev' found", True)


@pytest.mark.usefixtures("loaded")
class TestConfiguration:
    def set(self, fake: Fake, **changes: str | Copy | None) -> None:
        Stack(fake.project, "dev").set({key.replace("__", "."): value for key, value in changes.items()})

    def test_all_plain_values_are_one_call(self, fake: Fake) -> None:
        self.set(fake, canaryWeight="50", services__cart__image="example/cart:2.0")
        (call,) = fake.calls
        assert (
            "config set-all --path --plaintext canaryWeight=50 --plaintext services.cart.image=example/cart:2.0" in call
        )

    def test_no_secret_is_on_a_command_line(self, fake: Fake) -> None:
        self.set(fake, services__cart__env__NEW=Copy("services.cart.canary.env.NEW"), services__cart__env__OLD="x")
        assert len([call for call in fake.calls if " --secret services.cart.env." in call]) == 2
        assert "5ecret" not in "".join(fake.calls)

    def test_a_text_that_the_cli_would_take_for_another_number_is_set_as_text(self, fake: Fake) -> None:
        self.set(fake, services__cart__env__COUNT=Copy("services.cart.canary.env.COUNT"))
        assert "set --path --raw --type string services.cart.env.COUNT" in fake.calls[-1]

    def test_services_that_are_encrypted_as_a_whole_are_not_replaced(self, fake: Fake) -> None:
        fake.file.write_text("config: {'shop:services': {secure: v1:all}}\n")
        with pytest.raises(EngineError, match="encrypted as a whole") as caught:
            self.set(fake, services__cart__canary=None)
        assert (caught.value.usage, fake.calls) == (True, [])

    def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(self, fake: Fake) -> None:
        fake.ends(255, "error: incorrect passphrase\n")
        (fake.folder / "config-too").touch()
        with pytest.raises(EngineError, match="incorrect passphrase"):
            self.set(fake, canaryWeight="50")
        assert fake.file.read_text() == STACK
        assert sorted(each.name for each in fake.project.iterdir()) == ["Pulumi.dev.yaml", "Pulumi.yaml", "__main__.py"]

    def test_what_somebody_else_writes_meanwhile_stays(self, fake: Fake) -> None:
        pulumi = fake.folder / "bin" / "pulumi"
        pulumi.write_text(f"#!/bin/sh\necho '# mine' >> {fake.file}\n")
        with pytest.raises(EngineError, match="was changed by somebody else meanwhile"):
            self.set(fake, canaryWeight="50")
        assert fake.file.read_text() == f"{STACK}# mine\n"

    def test_what_was_set_can_be_taken_back_until_an_update_has_done_it(self, fake: Fake) -> None:
        with Stack(fake.project, "dev") as stack:
            stack.set({"canaryWeight": "50"})
            stack.set({"services.cart.canary": None})
            assert fake.file.read_text() == f"{STACK}# config\n# config\n"
            assert stack.restore()
            assert fake.file.read_text() == STACK
            assert not stack.restore()
            stack.set({"canaryWeight": "50"})
            stack.up(str)
            assert not stack.restore()

    def test_the_file_tells_without_the_engine_all_but_what_is_encrypted(self, fake: Fake) -> None:
        found = stored(fake.project, "organization/shop/dev")
        assert (found["shop:namespace"], found["shop:router"]) == ("shop", "nginx")
        assert json.loads(found["shop:services"])["cart"]["env"] == {"OLD": "1"}
        assert fake.calls == []
        fake.file.write_text("config: {'shop:services': {secure: v1:all}}\n")
        with pytest.raises(LookupError, match="shop:services"):
            stored(fake.project, "dev")
