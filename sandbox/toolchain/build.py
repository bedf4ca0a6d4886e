"""Completes the toolchain: builds what is missing from the Go modules, in steps that can be interrupted."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sandbox.toolchain import cache, golang, process
from sandbox.toolchain.catalog import CATALOG, PROVIDER, PULUMI, Binary, DependencyFile, Module
from sandbox.toolchain.errors import ToolchainError
from sandbox.toolchain.locate import Found, locate
from sandbox.toolchain.progress import Estimate, Progress, Step, processors, roughly

_INSTALL_SECONDS = 120.0  # the plugin is 40 MB
_REMOVAL_SECONDS = 15.0

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Task:
    """A step and what does it."""

    step: Step
    work: Callable[[Tick], None]


def missing(found: Mapping[str, Found], wanted: Sequence[Module] = CATALOG) -> dict[str, list[str]]:
    """Return the names of what must be built or downloaded of the wanted modules, by the name of its module."""
    lists = {module.name: [name for name in module.products if name not in found] for module in wanted}
    return {name: products for name, products in lists.items() if products}


def tasks(found: Mapping[str, Found], wanted: Sequence[Module] = CATALOG) -> list[Task]:
    """Return all that a build has to do. Downloads come first: a version that cannot be had shows early."""
    lists = missing(found, wanted)
    modules = [module for module in wanted if module.name in lists]
    binaries = {
        module.name: [binary for binary in module.binaries if binary.name in lists[module.name]] for module in modules
    }
    targets = {module.name: cache.binaries(module) for module in modules}
    return [
        *(_download(module, binaries[module.name], targets[module.name]) for module in modules),
        *(_build(module, binary, targets[module.name]) for module in modules for binary in binaries[module.name]),
        Task(Step("remove the build's caches", "build", _REMOVAL_SECONDS), cache.discard_workspace),
    ]


def space(found: Mapping[str, Found], wanted: Sequence[Module] = CATALOG) -> int:
    """Return how many bytes of disk the build takes while it runs."""
    lists = missing(found, wanted)
    return sum(module.build_bytes for module in wanted if module.name in lists)


def _download(module: Module, binaries: list[Binary], target: Path) -> Task:
    name = f"download the modules of {module.name}"

    def work(tick: Tick) -> None:
        copy = cache.copy_sources(module)
        for file in module.embeds:
            shutil.copyfile(golang.dependency_file(file, module, name, tick), copy / Path(file.path).name)
        for file in module.files:
            _place_file(file, module, name, tick, target)
        if binaries:
            # Fetches what these packages import and nothing else, unlike `go mod download`.
            golang.run(["list", "-deps", *(binary.package for binary in binaries)], module, name, tick)

    return Task(Step(name, "download", module.download_seconds), work)


def _build(module: Module, binary: Binary, target: Path) -> Task:
    def work(tick: Tick) -> None:
        output = cache.scratch() / binary.name
        golang.run(["build", "-ldflags", binary.linker_flags, "-o", output, binary.package], module, binary.name, tick)
        for file in binary.beside:
            _place_file(file, module, binary.name, tick, target)
        if binary.tests:
            compiled = output.with_suffix(".test")
            golang.run(["test", "-c", "-o", compiled, binary.package], module, binary.name, tick)
            cache.place(compiled, target / compiled.name)
        cache.place(output, target / binary.name)

    return Task(Step(binary.name, "build", binary.seconds), work)


def _place_file(file: DependencyFile, module: Module, step: str, tick: Tick, target: Path) -> None:
    copied = cache.scratch() / "file"
    shutil.copyfile(golang.dependency_file(file, module, step, tick), copied)
    cache.place(copied, target / Path(file.path).name)


def complete(stream: TextIO, wanted: Sequence[Module] = CATALOG) -> None:
    """Install or build whatever is missing of the wanted modules, telling the progress on `stream`.

    One process builds at a time; others wait for it. Raises ToolchainError; after that, or after an interruption,
    the next call goes on where this one ended.
    """
    progress = Progress((), stream)
    try:
        with cache.exclusive(progress.wait):
            progress.clear()
            if cache.has_leftovers():
                progress.note("Removing what an interrupted removal of build caches has left")
                cache.discard_leftovers(lambda: None)
            # Another process may have built it meanwhile.
            found = locate()
            if PROVIDER.name not in found and PULUMI.name in found and found[PULUMI.name].origin == "installed":
                _install_provider(found[PULUMI.name].path, stream)
                found = locate()
            if missing(found, wanted):
                _build_missing(found, wanted, stream)
    except OSError as error:
        raise ToolchainError(
            f"The toolchain's cache folder {cache.folder()} cannot be used: {error}.\n"
            "Set XDG_CACHE_HOME to a folder that you can write and that has room, and run it again."
        ) from error


def _build_missing(found: Mapping[str, Found], wanted: Sequence[Module], stream: TextIO) -> None:
    names = missing(found, wanted)
    golang.check([module for module in wanted if module.name in names])
    cache.check_space(space(found, wanted))
    todo = tasks(found, wanted)
    steps = [task.step for task in todo]
    progress = Progress(steps, stream, resumed=cache.workspace().exists())
    progress.note(
        f"Building {', '.join(name for products in names.values() for name in products)}, once.\n"
        f"This takes about {roughly(Estimate(steps, processors()).remaining())}, and "
        f"{space(found, wanted) / 1e9:.1f} GB of disk meanwhile, in {cache.folder()}"
    )
    shutil.rmtree(cache.scratch(), ignore_errors=True)  # of steps that were interrupted: up to 1 GB each
    for task in todo:
        with progress.step():
            task.work(progress.tick)
    progress.end()


def _install_provider(pulumi: Path, stream: TextIO) -> None:
    """Let an installed Pulumi fetch the provider as it would for any program; where it cannot, it is built."""
    version = PROVIDER.pin.version
    progress = Progress([Step(f"pulumi plugin install resource kubernetes {version}", "download", 20)], stream)
    with progress.step():
        finished = process.run(
            [pulumi, "plugin", "install", "resource", "kubernetes", version],
            folder=cache.folder(),
            environment={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            tick=progress.tick,
            timeout=_INSTALL_SECONDS,
        )
    if finished.code:
        reason = (finished.errors.strip().splitlines() or ["no answer in two minutes"])[-1]
        progress.note(f"{reason}\nThe provider is built instead.")
