"""A sandbox starts fast, is entered easily, and leaves nothing behind however it ends."""

import contextlib
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from lightkube import Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Node
from lightkube.resources.networking_v1 import IngressClass

from sandbox.errors import SandboxError
from sandbox.lifecycle import Sandbox, running, start, stop
from sandbox.state import StateFolder
from sandbox.toolchain.ensure import Toolchain
from tests.live.application import eventually
from tests.live.conftest import Started

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The folder of a sandbox of the test's own, which is ended whatever happens."""
    folder = tmp_path / "own"
    yield folder
    stop(folder)


def command(state: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "sandbox", arguments[0], "--state", str(state), *arguments[1:]]


def run(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(state, *arguments), cwd=CHECKOUT, capture_output=True, text=True, check=False)


def supervisor(sandbox: Sandbox) -> int:
    return int(StateFolder(sandbox.state).lock.read_text())


def init(sandbox: Sandbox) -> int:
    """Return the id on the host of the sandbox's PID 1."""
    outer = supervisor(sandbox)
    return int(Path(f"/proc/{outer}/task/{outer}/children").read_text())


def traces(state: Path) -> list[str]:
    """Tell every process that has a file of the folder open or names it in its arguments, and the folder itself."""
    found = [str(path) for path in (state,) if path.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            mentions = [(process / "cmdline").read_bytes().decode(errors="replace")]
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    mentions.append(str(file.readlink()))
            found += [f"{process.name}: {text}" for text in mentions if str(state) in text]
    return found


def namespaces(process: int) -> set[str]:
    return {str(Path(f"/proc/{process}/ns/{kind}").readlink()) for kind in ("net", "pid")}


def processes_in(names: set[str]) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue  # has ended; its parent has not looked yet
            if namespaces(int(process.name)) & names:
                found.append(process.name)
    return found


def test_a_sandbox_starts_within_20_seconds(started: Started) -> None:
    assert started.seconds < 20
    assert len(started.steps) >= 2


def test_the_cluster_has_two_nodes_and_the_ingress_class_nginx(cluster: Client) -> None:
    assert len(list(cluster.list(Node))) == 2
    spec = cluster.get(IngressClass, "nginx").spec
    assert spec is not None
    assert spec.controller == "k8s.io/ingress-nginx"


def test_its_shell_finds_tools_cluster_proxy_and_provider(sandbox: Sandbox) -> None:
    script = (
        "for tool in pulumi kubectl promtool uv python; do command -v $tool; done; "
        "kubectl get nodes -o name && curl -sS $SANDBOX_PROXY && curl -sS $SANDBOX_PROMETHEUS/-/healthy"
    )
    inside = run(sandbox.state, "shell", "--", "sh", "-c", script)
    assert inside.returncode == 0, inside.stderr
    lines = inside.stdout.splitlines()
    assert lines[:4] == [str(sandbox.state / "bin" / tool) for tool in ("pulumi", "kubectl", "promtool", "uv")]
    assert lines[4] == str(Path(sys.executable).parent / "python")
    assert lines[5:7] == ["node/node-1", "node/node-2"]
    assert lines[7:] == ["404 page not found", "Prometheus Server is Healthy."]
    plugins = json.loads(run(sandbox.state, "shell", "--", "pulumi", "plugin", "ls", "--json").stdout)
    assert [plugin["name"] for plugin in plugins] == ["kubernetes"]


def test_the_exit_code_of_a_command_in_the_shell_is_the_shells(sandbox: Sandbox) -> None:
    assert run(sandbox.state, "shell", "--", "sh", "-c", "exit 7").returncode == 7
    missing = run(sandbox.state, "shell", "--", "no-such-command")
    assert (missing.returncode, missing.stderr) == (4, "Cannot run no-such-command: No such file or directory.\n")


def test_a_second_up_says_that_it_is_already_up(sandbox: Sandbox) -> None:
    again = run(sandbox.state, "up")
    assert again.returncode == 0
    assert again.stdout.startswith("The sandbox is already up.\n")
    assert sandbox.proxy_url in again.stdout


def test_status_tells_the_addresses(sandbox: Sandbox, tmp_path: Path) -> None:
    status = json.loads(run(sandbox.state, "status", "--json").stdout)
    assert status == {
        "up": True,
        "state": str(sandbox.state),
        "kubeconfig": str(sandbox.kubeconfig),
        "proxy_url": sandbox.proxy_url,
        "proxy_admin_url": sandbox.proxy_admin_url,
        "prometheus_url": sandbox.prometheus_url,
    }
    assert json.loads(run(tmp_path / "none", "status", "--json").stdout) == {"up": False}


def test_a_usage_error_exits_with_1() -> None:
    wrong = subprocess.run([sys.executable, "-m", "sandbox", "upp"], cwd=CHECKOUT, capture_output=True, check=False)
    assert wrong.returncode == 1
    assert b"Traceback" not in wrong.stderr


def test_down_leaves_nothing_and_says_so_once(state: Path, toolchain: Toolchain) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    sandbox = start(state, toolchain, lambda _: None)
    inside = namespaces(init(sandbox))
    assert len(processes_in(inside)) > 5
    down = run(state, "down")
    assert (down.returncode, down.stdout) == (0, "The sandbox has ended; nothing of it is left.\n")
    assert traces(state) == []
    assert processes_in(inside) == []
    assert Path("/proc/self/mounts").read_text() == mounts
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(sandbox.proxy_url, trust_env=False)
    again = run(state, "down")
    assert (again.returncode, again.stdout) == (0, "No sandbox is up.\n")


@pytest.mark.parametrize("victim", [supervisor, init], ids=["supervisor", "PID 1"])
def test_killing_a_process_that_holds_the_sandbox_ends_all_of_it(
    state: Path, toolchain: Toolchain, victim: Callable[[Sandbox], int]
) -> None:
    sandbox = start(state, toolchain, lambda _: None)
    inside = namespaces(init(sandbox))
    os.kill(victim(sandbox), signal.SIGKILL)
    eventually(lambda: processes_in(inside) == [])
    assert running(state) is None
    stop(state)
    eventually(lambda: traces(state) == [])


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_start_broken_off_leaves_nothing(
    state: Path, toolchain: Toolchain, steps: int, number: signal.Signals
) -> None:
    """The starter is hit as soon as it holds the folder, and after each step that it reports."""
    code = (
        "import sys, pickle; from pathlib import Path; from sandbox.lifecycle import start; "
        "start(Path(sys.argv[1]), pickle.load(sys.stdin.buffer), lambda step: print(step, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(state)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        starter.stdin.write(pickle.dumps(toolchain))
        starter.stdin.close()
        eventually(StateFolder(state).lock.exists)
        for _ in range(steps):
            assert starter.stdout.readline()
        starter.send_signal(number)
        starter.wait()
    if number == signal.SIGKILL:
        eventually(lambda: StateFolder(state).holder() is None)
        stop(state)
    eventually(lambda: traces(state) == [], seconds=1)


@pytest.mark.parametrize("component", ["traefik", "prometheus"])
def test_a_component_that_fails_is_named_with_the_end_of_its_log(
    state: Path, toolchain: Toolchain, tmp_path: Path, component: str
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    with_broken = {
        "traefik": dataclasses.replace(toolchain, traefik=broken),
        "prometheus": dataclasses.replace(toolchain, prometheus=broken),
    }
    with pytest.raises(SandboxError, match=rf"{component} ended while starting \(exit code 3\)(.|\n)*out of luck"):
        start(state, with_broken[component], lambda _: None)
    assert traces(state) == []


def test_two_sandboxes_do_not_meet(sandbox: Sandbox, state: Path, toolchain: Toolchain) -> None:
    other = start(state, toolchain, lambda _: None)
    here_urls, there_urls = ({it.proxy_url, it.proxy_admin_url, it.prometheus_url} for it in (sandbox, other))
    assert here_urls.isdisjoint(there_urls)
    there = Client(KubeConfig.from_file(other.kubeconfig), trust_env=False)
    there.create(Namespace(metadata=ObjectMeta(name="only-there")))
    here = Client(KubeConfig.from_file(sandbox.kubeconfig), trust_env=False)
    names = {namespace.metadata.name for namespace in here.list(Namespace) if namespace.metadata}
    assert "default" in names
    assert "only-there" not in names
    stop(state)
    assert httpx2.get(sandbox.proxy_url, trust_env=False).status_code == httpx2.codes.NOT_FOUND
