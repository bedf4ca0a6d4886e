"""Where binaries are kept and under which key."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandbox.toolchain import cache
from sandbox.toolchain.catalog import CATALOG, Module
from sandbox.toolchain.errors import ToolchainError
from tests.unit.toolchain.machine import Machine

_PULUMI = next(module for module in CATALOG if module.name == "pulumi")


@pytest.fixture
def module(tmp_path: Path) -> Module:
    return replace(_PULUMI, folder=Path(shutil.copytree(_PULUMI.folder, tmp_path / "clone" / "pulumi")))


def _write(name: str) -> Callable[[Module], Module]:
    def change(module: Module) -> Module:
        file = module.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(file.read_text() + "\n" if file.exists() else "new")
        return module

    return change


def test_a_fresh_clone_has_the_key_of_the_first(module: Module) -> None:
    assert cache.key(module) == cache.key(_PULUMI)


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "language-host/main.go", "language-host/new.go", "new/new.go"])
def test_the_key_changes_with_what_is_compiled(module: Module, name: str) -> None:
    assert cache.key(_write(name)(module)) != cache.key(_PULUMI)


@pytest.mark.parametrize("name", ["README.md", "schema.json", "testdata/new.go"])
def test_the_key_stays_when_something_else_changes(module: Module, name: str) -> None:
    assert cache.key(_write(name)(module)) == cache.key(_PULUMI)


def test_the_key_changes_with_the_build_flags(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = replace(module.binaries[0], symbols=("main.version=1",))
    before = cache.key(module)
    assert cache.key(replace(module, tags="another")) != before
    assert cache.key(replace(module, binaries=(renamed, *module.binaries[1:]))) != before
    monkeypatch.setattr(cache, "GO_FLAGS", ())
    assert cache.key(module) != before


def test_each_module_has_a_folder_of_its_own(machine: Machine) -> None:
    folders = [cache.binaries(module) for module in CATALOG]
    assert len(set(folders)) == len(CATALOG)
    assert {folder.parent for folder in folders} == {machine.cache}


@pytest.mark.parametrize("home", ["", "relative/cache"])
def test_the_cache_is_in_the_home_folder_by_default(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert cache.folder() == machine.root / ".cache" / "canary-service" / "toolchain"


def _free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_a_disk_without_room_is_refused_with_both_numbers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _free(monkeypatch, 3_000_000_000)
    cache.check_space(3_000_000_000)
    with pytest.raises(ToolchainError, match=rf"needs 3\.1 GB .*{machine.cache} has 3\.0 GB\.\nFree some space"):
        cache.check_space(3_100_000_000)


@pytest.mark.usefixtures("machine")
def test_what_an_interrupted_build_has_left_counts_as_room(monkeypatch: pytest.MonkeyPatch) -> None:
    _free(monkeypatch, 3_000_000)
    with pytest.raises(ToolchainError):
        cache.check_space(4_000_000)
    cache.workspace().mkdir(parents=True)
    (cache.workspace() / "kept").write_bytes(b"x" * 1_000_000)
    cache.check_space(4_000_000)
