"""What counts as there already."""

import subprocess
import sys

import pytest

from sandbox.toolchain.catalog import (
    CATALOG,
    ETCD,
    FROM_PYPI,
    KUBECTL,
    LANGUAGE_HOST,
    MODULES,
    PROJECT,
    PROVIDER,
    PULUMI,
    Pin,
    numbers,
)
from sandbox.toolchain.errors import ToolchainError
from sandbox.toolchain.locate import Found, locate
from tests.unit.toolchain.machine import Machine

_MAJOR, _MINOR, _ = numbers(PULUMI.pin.version)
_SERVER_MINOR = numbers(KUBECTL.pin.version)[1]


def test_engine_and_sdk_are_locked_at_one_version() -> None:
    engine = MODULES / "pulumi" / "go.mod"
    assert Pin(engine, "github.com/pulumi/pulumi/pkg/v3").version == PULUMI.pin.version
    assert Pin(engine, "github.com/pulumi/pulumi/sdk/v3").version == PULUMI.pin.version


def test_a_pin_that_is_not_there_is_an_error_of_ours() -> None:
    with pytest.raises(LookupError, match=r"uv\.lock locks no version of nothing"):
        _ = Pin(PROJECT / "uv.lock", "nothing").version


def test_an_empty_machine_has_what_the_virtual_environment_has(machine: Machine) -> None:
    venv = machine.root / "venv" / "bin"
    assert locate() == {name: Found(venv / name, "PyPI") for name in FROM_PYPI}


def test_without_traefik_it_says_what_to_do(machine: Machine) -> None:
    (machine.root / "venv" / "bin" / "traefik").unlink()
    with pytest.raises(ToolchainError, match=r"traefik is not in the virtual environment .*\n.*uv sync"):
        locate()


def test_an_installed_uv_serves_as_well(machine: Machine) -> None:
    (machine.root / "venv" / "bin" / "uv").unlink()
    command = machine.install("uv", "uv 0.9.0")
    assert locate()["uv"] == Found(command, "installed")


@pytest.mark.parametrize("version", [f"v{PULUMI.pin.version}", f"v{_MAJOR}.{_MINOR + 40}.1", f"v{_MAJOR}.999.0-alpha"])
def test_an_installed_pulumi_is_used(machine: Machine, version: str) -> None:
    command = machine.install_pulumi(version)
    provider = machine.install_provider()
    found = locate()
    assert found[PULUMI.name] == Found(command, "installed")
    assert found[LANGUAGE_HOST.name] == Found(command.parent / LANGUAGE_HOST.name, "installed")
    assert found[PROVIDER.name] == Found(provider / PROVIDER.name, "installed")


def test_an_installed_pulumi_is_found_behind_a_link(machine: Machine) -> None:
    machine.install_pulumi()
    opt = machine.root / "opt"
    machine.bin.rename(opt)
    machine.bin.mkdir()
    (machine.bin / "pulumi").symlink_to(opt / "pulumi")
    assert locate()[LANGUAGE_HOST.name].path == opt / LANGUAGE_HOST.name


@pytest.mark.parametrize("version", [f"v{_MAJOR}.{_MINOR - 1}.9", f"v{_MAJOR + 1}.999.0", "unknown", ""])
def test_a_pulumi_that_does_not_fit_the_sdk_is_refused(machine: Machine, version: str) -> None:
    machine.install_pulumi(version)
    assert not {PULUMI.name, LANGUAGE_HOST.name} & locate().keys()


@pytest.mark.parametrize("absent", [LANGUAGE_HOST.name, f"{LANGUAGE_HOST.name}-exec"])
def test_a_pulumi_without_its_language_host_is_refused(machine: Machine, absent: str) -> None:
    machine.install_pulumi()
    (machine.bin / absent).unlink()
    assert not {PULUMI.name, LANGUAGE_HOST.name} & locate().keys()


def test_a_language_host_without_its_pulumi_is_refused(machine: Machine) -> None:
    machine.install_pulumi()
    (machine.bin / PULUMI.name).unlink()
    assert LANGUAGE_HOST.name not in locate()


def test_a_provider_of_another_version_is_refused(machine: Machine) -> None:
    machine.install_provider("4.24.9")
    assert PROVIDER.name not in locate()


def test_a_provider_that_is_still_being_installed_is_refused(machine: Machine) -> None:
    plugin = machine.install_provider()
    plugin.with_name(f"{plugin.name}.partial").touch()
    assert PROVIDER.name not in locate()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("kube-apiserver", f"Kubernetes v{KUBECTL.pin.version}"),
        ("kwok", "kwok version v0.8.0 go1.26.8 (linux/amd64)"),
        ("etcd", f"etcd Version: {ETCD.pin.version}\nGit SHA: Not provided\nGo Version: go1.26.8"),
    ],
)
def test_an_installed_program_of_exactly_the_locked_version_is_used(machine: Machine, name: str, says: str) -> None:
    assert locate().keys() == set(FROM_PYPI)
    assert locate() | {name: Found(machine.install(name, says), "installed")} == locate()


@pytest.mark.parametrize("says", [f"etcd Version: {ETCD.pin.version}0", "etcd Version: 3.6.1", "etcd", ""])
def test_an_installed_program_of_another_version_is_refused(machine: Machine, says: str) -> None:
    machine.install("etcd", says)
    assert "etcd" not in locate()


def test_an_installed_program_that_fails_is_refused(machine: Machine) -> None:
    machine.program(machine.bin / "etcd", f"echo 'etcd Version: {ETCD.pin.version}'; exit 1")
    assert "etcd" not in locate()


@pytest.mark.parametrize(("skew", "used"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_kubectl_is_used_within_one_minor_version(machine: Machine, skew: int, used: bool) -> None:  # noqa: FBT001 - a parameter of the test
    machine.install("kubectl", f"Client Version: v1.{_SERVER_MINOR + skew}.4-dispatcher\nKustomize Version: v5.5.0")
    assert ("kubectl" in locate()) is used


@pytest.mark.parametrize(
    ("version", "used"), [("2.39.2", False), ("2.40.0", True), ("2.42.0+ds", True), ("3.13.5", True), ("4.0.0", True)]
)
@pytest.mark.parametrize("name", ["prometheus", "promtool"])
def test_prometheus_is_used_from_2_40_on(machine: Machine, name: str, version: str, used: bool) -> None:  # noqa: FBT001 - a parameter of the test
    machine.install(name, f"{name}, version {version} (branch: debian/sid, revision: {version}-5)")
    assert (name in locate()) is used


def test_prometheus_is_built_at_the_version_of_its_release() -> None:
    module = Pin(MODULES / "prometheus" / "go.mod", "github.com/prometheus/prometheus").version
    (prometheus, _) = next(module.binaries for module in CATALOG if module.name == "prometheus")
    major, minor, patch = numbers(prometheus.pin.version)
    assert module == f"0.{major}{minor:02}.{patch}"
    assert f"version.Version={prometheus.pin.version}" in prometheus.linker_flags


def test_the_usual_start_loads_no_builder() -> None:
    check = "import sys, sandbox.toolchain.ensure; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "sandbox.toolchain.locate" in done.stdout.split()
    assert not {"argparse", "json", "sandbox.toolchain.build", "subprocess", "tempfile"} & set(done.stdout.split())
