"""Building, with a `go` that only pretends to compile."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.toolchain import cache
from sandbox.toolchain.catalog import CATALOG, ETCD, FROM_PYPI, LANGUAGE_HOST, ON_DEMAND, PROJECT, PROVIDER, PULUMI
from sandbox.toolchain.ensure import Toolchain, ensure
from sandbox.toolchain.errors import ToolchainError
from sandbox.toolchain.locate import locate
from tests.unit.toolchain.machine import Machine, alive

_ALL = [binary.package.rpartition("/")[2] for module in CATALOG for binary in module.binaries]
_UNAVAILABLE = "go: go.etcd.io/raft/v3@v3.6.0: reading https://proxy.example/v3.6.0.zip: 404 Not Found\n"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.01)


def _command(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.toolchain", *arguments],
        cwd=PROJECT,
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_is_missing_is_built_once(machine: Machine) -> None:
    first = ensure(io.StringIO())
    assert machine.built() == _ALL
    silent = io.StringIO()
    assert ensure(silent) == first
    assert machine.built() == []
    assert silent.getvalue() == ""


def test_what_only_tests_use_is_built_and_named_for_those_who_ask(machine: Machine) -> None:
    assert ensure(io.StringIO()).envoy_gateway is None
    assert machine.built() == _ALL
    asked = ensure(io.StringIO(), on_demand=True).envoy_gateway
    assert asked
    assert os.access(asked, os.X_OK)
    assert machine.built() == [binary.name for module in ON_DEMAND for binary in module.binaries]
    assert ensure(io.StringIO()).envoy_gateway is None
    assert not cache.unused()


def test_every_program_is_there_and_runs(machine: Machine) -> None:
    toolchain = ensure(io.StringIO())
    assert toolchain.kubernetes_provider_version == PROVIDER.pin.version
    provider = toolchain.kubernetes_provider / PROVIDER.name
    others = {"kubernetes_provider", "kubernetes_provider_version", "crds", "envoy_version", "envoy_gateway"}
    programs = [getattr(toolchain, name) for name in Toolchain.__slots__ if name not in others]
    assert len(programs) == len(_ALL) - 1 + len(FROM_PYPI)
    assert all(os.access(program, os.X_OK) for program in (*programs, provider))
    assert subprocess.run([provider], capture_output=True, text=True, check=True).stdout == "built\n"
    assert os.access(toolchain.pulumi_language_python.with_name(f"{LANGUAGE_HOST.name}-exec"), os.X_OK)
    assert machine.cache in provider.parents


def test_files_of_modules_are_placed_as_they_are_once(machine: Machine) -> None:
    placed = ensure(io.StringIO()).crds
    names = {Path(file.path).name for module in CATALOG for file in module.files}
    assert {file.name for file in placed.iterdir()} == names
    (placed / min(names)).unlink()
    stream = io.StringIO()
    assert ensure(stream).crds == placed
    assert stream.getvalue().startswith("Building crds, once.")
    machine.built()


def test_nothing_but_binaries_stays(machine: Machine) -> None:
    ensure(io.StringIO())
    folders = {cache.binaries(module) for module in CATALOG}
    assert set(machine.cache.iterdir()) == {*folders, machine.cache / "lock"}


def test_the_checkout_stays_as_it_is(machine: Machine) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (PROJECT / "sandbox" / "toolchain" / "modules").rglob("*")}

    before = state()
    ensure(io.StringIO())
    assert machine.built() == _ALL
    assert state() == before


def test_with_pulumi_installed_nothing_of_it_is_built(machine: Machine) -> None:
    machine.install_pulumi()
    machine.install_provider()
    ensure(io.StringIO())
    assert not {"pulumi", "language-host", "."} & set(machine.built())


def test_an_installed_pulumi_installs_the_provider(machine: Machine) -> None:
    machine.install_pulumi()
    plugin = machine.plugins / f"resource-kubernetes-v{PROVIDER.pin.version}"
    machine.program(
        machine.bin / PULUMI.name,
        f"""[ "$1" = version ] && echo v{PULUMI.pin.version} && exit
        [ "$*" = "plugin install resource kubernetes {PROVIDER.pin.version}" ] || exit 1
        /bin/mkdir -p {plugin} && /bin/cp "$0" {plugin}/{PROVIDER.name}""",
    )
    assert ensure(io.StringIO()).kubernetes_provider == plugin
    assert "." not in machine.built()


def test_the_provider_is_built_when_it_cannot_be_installed(machine: Machine) -> None:
    machine.install_pulumi()
    machine.program(
        machine.bin / PULUMI.name,
        f"[ $1 = version ] && echo v{PULUMI.pin.version} && exit\necho 'error: no such host' >&2; exit 1",
    )
    stream = io.StringIO()
    assert machine.cache in ensure(stream).kubernetes_provider.parents
    assert "error: no such host\nThe provider is built instead.\n" in stream.getvalue()
    assert "pulumi" not in machine.built()


def test_one_changed_module_is_rebuilt_alone(machine: Machine) -> None:
    ensure(io.StringIO())
    machine.built()
    next(machine.cache.glob("etcd-*")).rename(machine.cache / "etcd-of-another-go.sum")
    ensure(io.StringIO())
    assert machine.built() == [ETCD.package.rpartition("/")[2]]


def test_a_failed_step_names_itself_and_the_reason(machine: Machine) -> None:
    machine.fail("kube-apiserver", "# k8s.io/kubernetes\nmain.go:1:1: syntax error\n")
    with pytest.raises(ToolchainError, match=r"failed:\n    # k8s\.io/kubernetes\n    main\.go:1:1: syntax error\n"):
        ensure(io.StringIO())


def test_a_version_that_cannot_be_had_shows_before_anything_is_built(machine: Machine) -> None:
    machine.fail("v3", _UNAVAILABLE)
    with pytest.raises(ToolchainError, match=r"modules of etcd: go\.etcd\.io/raft/v3@v3\.6\.0 cannot be had any more"):
        ensure(io.StringIO())
    assert machine.built() == []


def test_without_go_it_says_which_go_is_needed(machine: Machine) -> None:
    (machine.bin / "go").unlink()
    with pytest.raises(ToolchainError, match=r"Go is not installed.*\nInstall Go 1\.26\.0 or newer") as caught:
        ensure(io.StringIO())
    assert not caught.value.retry_can_help


@pytest.mark.parametrize(("version", "toolchain"), [("go1.25.9", "local"), ("go1.25.9", "path"), ("go1.20", "")])
def test_a_go_that_is_too_old_is_refused(machine: Machine, version: str, toolchain: str) -> None:
    machine.settings(version, toolchain)
    with pytest.raises(ToolchainError, match=f"Go {version[2:]} is too old .*\nInstall Go"):
        ensure(io.StringIO())
    assert machine.built() == []


@pytest.mark.parametrize("toolchain", ["auto", "go1.24.0+auto"])
def test_an_older_go_that_may_fetch_a_newer_one_is_used(machine: Machine, toolchain: str) -> None:
    machine.settings("go1.24.0", toolchain)
    ensure(io.StringIO())
    assert machine.built() == _ALL


def test_a_cache_folder_that_cannot_be_written_is_said(machine: Machine) -> None:
    (machine.root / "cache").write_text("a file, not a folder")
    with pytest.raises(ToolchainError, match=r"cache folder .* cannot be used.*\nSet XDG_CACHE_HOME"):
        ensure(io.StringIO())


def test_a_removal_of_caches_that_was_interrupted_is_finished(machine: Machine) -> None:
    ensure(io.StringIO())
    (machine.cache / "go.discarded").mkdir()
    ensure(io.StringIO())
    assert not (machine.cache / "go.discarded").exists()


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_resumes(machine: Machine, order: signal.Signals) -> None:
    machine.hang("kube-scheduler")
    process = _command(machine)
    _until((machine.go / "hanging").exists)
    go, compiler = map(int, (machine.go / "hanging").read_text().split())
    process.send_signal(order)
    _, errors = process.communicate(timeout=60)
    _until(lambda: not alive(go))
    if order == signal.SIGINT:
        _until(lambda: not alive(compiler))
        assert process.returncode == 130
        assert errors.splitlines()[-1].endswith("kube-scheduler  interrupted after 0:00. Run it again to resume.")
    else:
        os.kill(compiler, signal.SIGKILL)
    assert machine.built() == ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert "kube-scheduler" not in locate(), "half a program was taken for a whole one"
    assert cache.workspace().exists(), "the caches are needed to resume"

    machine.go_on()
    process = _command(machine)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert machine.built() == _ALL[2:]
    assert not cache.workspace().exists()


def test_a_second_build_waits_for_the_first_and_uses_what_it_built(machine: Machine) -> None:
    machine.hang("kube-apiserver")
    first = _command(machine)
    _until((machine.go / "hanging").exists)
    stream = io.StringIO()
    second = threading.Thread(target=ensure, args=(stream,))
    second.start()
    _until(lambda: "Waiting" in stream.getvalue())
    assert stream.getvalue() == f"Waiting for the build by process {first.pid} in {PROJECT}\n"
    assert second.is_alive()
    _, compiler = map(int, (machine.go / "hanging").read_text().split())
    machine.go_on()
    os.kill(compiler, signal.SIGTERM)
    first.communicate(timeout=60)
    second.join(timeout=60)
    assert not second.is_alive()
    assert machine.built() == _ALL
    assert stream.getvalue().count("\n") == 1


def test_the_command_reports_where_each_program_is_from(machine: Machine) -> None:
    machine.install("etcd", f"etcd Version: {ETCD.pin.version}")
    process = _command(machine, "--json")
    output, errors = process.communicate(timeout=60)
    programs = json.loads(output)["programs"]
    assert process.returncode == 0, errors
    assert programs["etcd"] == {"path": str(machine.bin / "etcd"), "origin": "installed"}
    assert programs["kwok"]["origin"] == "built"
    assert programs["traefik"]["origin"] == "PyPI"


def test_the_command_tells_what_other_versions_have_left(machine: Machine) -> None:
    ensure(io.StringIO())
    assert "other versions" not in _command(machine).communicate(timeout=60)[0]
    old = machine.cache / "etcd-0123456789abcdef"
    old.mkdir()
    (old / "etcd").write_bytes(b"x" * 150_000_000)
    output, _ = _command(machine).communicate(timeout=60)
    assert "other versions of the sandbox, and only of use to those, 0.2 GB of disk" in output
    command = output.splitlines()[-1].split()
    assert command == ["rm", "-r", str(old)]
    assert cache.unused() == [old]


def test_a_dry_run_builds_nothing(machine: Machine) -> None:
    process = _command(machine, "--dry-run")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "To be built: kube-apiserver, kube-controller-manager" in output
    assert "GB of disk" in output
    assert machine.built() == []
    assert not machine.cache.exists()


def test_the_command_fails_with_the_message_alone(machine: Machine) -> None:
    (machine.bin / "go").unlink()
    process = _command(machine)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert output == ""
    assert errors.startswith("Go is not installed")


def test_a_usage_error_has_an_exit_code_of_its_own(machine: Machine) -> None:
    process = _command(machine, "--unknown")
    process.communicate(timeout=60)
    assert process.returncode == 1
