"""Runs the `go` command: a fit one, with caches of the build's own."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from sandbox.toolchain import cache, failures, process
from sandbox.toolchain.catalog import DependencyFile, Module, numbers
from sandbox.toolchain.errors import ToolchainError

# The first release that fetches a newer one by itself where a go.mod asks for it (go.dev/doc/toolchain).
_SWITCHES = (1, 21, 0)

# Of the user's settings those hold that say where modules and Go itself come from, and none that changes what is
# built: `go help environment`.
_FETCHING = (
    "GOAUTH",
    "GOINSECURE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOTOOLCHAIN",
    "GOVCS",
)
_BUILD = ("GOAMD64", "GOARCH", "GOARM64", "GOEXPERIMENT", "GOFIPS140", "GOOS", "GO_EXTLINK_ENABLED")


def check(modules: Sequence[Module]) -> None:
    """Raise ToolchainError unless there is a `go` that can build these modules."""
    required = max((_go_line(module) for module in modules), key=numbers)
    remedy = f"Install Go {required} or newer (https://go.dev/dl) and run it again."
    if shutil.which("go") is None:
        raise ToolchainError(f"Go is not installed, and parts of the sandbox must be built.\n{remedy}")
    settings = _settings("GOVERSION", "GOTOOLCHAIN")
    version = settings["GOVERSION"].removeprefix("go")
    # Releases before 1.21 have no third number.
    if numbers(f"{version}.0") >= numbers(required):
        return
    choice = settings["GOTOOLCHAIN"]
    if numbers(f"{version}.0") < _SWITCHES or not (choice == "auto" or choice.endswith("+auto")):
        why = f" and may not fetch a newer one (GOTOOLCHAIN={choice})" if choice else ""
        raise ToolchainError(f"Go {version} is too old to build parts of the sandbox{why}.\n{remedy}")


def _settings(*names: str) -> dict[str, str]:
    """Return what is set for the user's `go`, in the environment or by `go env -w`."""
    # In a folder outside of any module `go` tells its own version, not one that a go.mod asks for.
    done = subprocess.run(
        ["go", "env", "-json", *names],  # noqa: S607 - the user's own Go is meant
        cwd=cache.folder(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolchainError(f"`go env` failed; repair it and run it again:\n{failures.relevant(done.stderr)}")
    return cast("dict[str, str]", json.loads(done.stdout))


def _go_line(module: Module) -> str:
    lines = (module.folder / "go.mod").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("go ")).removeprefix("go ")


def run(arguments: Sequence[str | Path], module: Module, step: str, tick: Callable[[], None]) -> str:
    """Run `go` in the copy of a module's sources and return what it printed, calling `tick` all the while.

    Raises ToolchainError, explained for `step`, when it fails.
    """
    workspace = cache.workspace()
    cache.scratch().mkdir(parents=True, exist_ok=True)
    tags = (f"-tags={module.tags}",) if module.tags else ()
    environment = {
        **os.environ,
        **_settings(*_FETCHING),
        **dict.fromkeys(_BUILD, ""),
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOCACHE": str(workspace / "build"),
        "GOENV": "off",  # an empty variable does not override `go env -w`
        "GOFLAGS": " ".join((*cache.GO_FLAGS, *tags)),
        "GOMODCACHE": str(workspace / "mod"),
        "GOTMPDIR": str(cache.scratch()),
        "GOWORK": "off",
    }
    finished = process.run(
        ["go", *arguments],
        folder=cache.sources_copy(module),
        environment=environment,
        tick=tick,
    )
    if finished.code:
        raise failures.explain(step, module, finished.errors)
    return finished.output


def dependency_file(file: DependencyFile, module: Module, step: str, tick: Callable[[], None]) -> Path:
    """Where a file of a dependency lies in the module cache, downloaded if need be."""
    description = json.loads(run(["mod", "download", "-json", file.module], module, step, tick))
    return Path(description["Dir"], file.path)
