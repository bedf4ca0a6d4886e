"""Finds the programs that are there already: built before, installed, or in the project's virtual environment."""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandbox.toolchain import cache
from sandbox.toolchain.catalog import CATALOG, FROM_PYPI, LANGUAGE_HOST, ON_DEMAND, PROVIDER, PULUMI, Binary
from sandbox.toolchain.errors import ToolchainError

Origin = Literal["built", "installed", "PyPI", "Go module"]


@dataclass(frozen=True, slots=True)
class Found:
    """A program, or a folder of files, and where it is from."""

    path: Path
    origin: Origin


def _runs(path: Path) -> bool:
    return os.access(path, os.X_OK) and path.is_file()


def _version(command: Path, arguments: tuple[str, ...]) -> str | None:
    """Return the first version that the command prints; None when it prints none, fails or takes ten seconds."""
    import subprocess  # noqa: PLC0415 - only where something installed must be asked: the usual start stays fast

    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, timeout=10, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", done.stdout)
    return found[1] if found else None


def _on_path(binary: Binary) -> Path | None:
    """Return the first one on PATH, when its version is acceptable."""
    command = shutil.which(binary.name) if binary.version_command else None
    if command is None:
        return None
    version = _version(Path(command), binary.version_command)
    return Path(command) if version and binary.accepts(version, binary.pin.version) else None


def _engine() -> dict[str, Found]:
    """Find an installed CLI with the language host beside it: of one release only if from one place."""
    command = _on_path(PULUMI)
    if command is None:
        return {}
    for folder in (command.parent, command.resolve().parent):
        host = folder / LANGUAGE_HOST.name
        # The host starts programs through this script, which it looks for in its own folder.
        if _runs(host) and any(_runs(place / f"{host.name}-exec") for place in (folder, host.resolve().parent)):
            return {PULUMI.name: Found(command, "installed"), LANGUAGE_HOST.name: Found(host, "installed")}
    return {}


def _provider() -> dict[str, Found]:
    """Find the provider at the locked version among the plugins of the user's Pulumi."""
    home = Path(os.environ.get("PULUMI_HOME") or "~/.pulumi").expanduser()
    plugin = home / "plugins" / f"resource-kubernetes-v{PROVIDER.pin.version}"
    # The engine marks a plugin that is still being installed with this file.
    if plugin.with_name(f"{plugin.name}.partial").exists() or not _runs(plugin / PROVIDER.name):
        return {}
    return {PROVIDER.name: Found(plugin / PROVIDER.name, "installed")}


def _from_pypi(name: str) -> Found:
    for command in (str(Path(sys.prefix, "bin", name)), shutil.which(name) if name == "uv" else None):
        if command and _runs(Path(command)):
            return Found(Path(command), "PyPI" if command.startswith(sys.prefix) else "installed")
    raise ToolchainError(
        f"{name} is not in the virtual environment {sys.prefix}.\n"
        "Install what the lock file names, with `uv sync` or `make`, and run it again."
    )


def locate() -> dict[str, Found]:
    """Return all programs that are there, by name. What was built before comes first: nothing needs to be asked then.

    Raises ToolchainError when one that PyPI provides is missing: it is never built.
    """
    found = {name: _from_pypi(name) for name in FROM_PYPI}
    for module in (*CATALOG, *ON_DEMAND):
        folder = cache.binaries(module)
        found |= {
            binary.name: Found(folder / binary.name, "built")
            for binary in module.binaries
            if _runs(folder / binary.name)
        }
        if module.files and all((folder / Path(file.path).name).is_file() for file in module.files):
            found[module.name] = Found(folder, "Go module")
    if not {PULUMI.name, LANGUAGE_HOST.name} <= found.keys():
        # Of one place: an installed CLI never runs with a language host of ours.
        found |= _engine()
    if PROVIDER.name not in found:
        found |= _provider()
    for module in (*CATALOG, *ON_DEMAND):
        for binary in module.binaries:
            if binary.name not in found and binary is not PULUMI and (command := _on_path(binary)):
                found[binary.name] = Found(command, "installed")
    return found
