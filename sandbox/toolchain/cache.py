"""The folder outside the checkout that keeps what was built: where, under which key, and who may write."""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sandbox.toolchain.catalog import CATALOG, ON_DEMAND, PROJECT, Module
from sandbox.toolchain.errors import ToolchainError

# Flags of every build. Programs are stripped (catalog), so compiling debug information is left out, too: one ninth
# of the processor time and a sixth of the disk for the same program.
GO_FLAGS = ("-mod=readonly", "-modcacherw", "-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false")


_POLL = 0.2  # seconds between two attempts at the lock


def folder() -> Path:
    """Return `canary-service/toolchain` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is to be ignored: XDG Base Directory Specification.
    base = Path(home) if home.startswith("/") else Path("~/.cache").expanduser()
    return base / "canary-service" / "toolchain"


def sources(module: Module) -> list[Path]:
    """List what decides what a module builds, relative to its folder: go.mod, go.sum and Go sources."""
    found = []
    for path, folders, files in os.walk(module.folder):
        # Go leaves out the folders that begin with these, too.
        folders[:] = [name for name in folders if name != "testdata" and name[0] not in "._"]
        found += [
            Path(path, name).relative_to(module.folder)
            for name in files
            if name in {"go.mod", "go.sum"} or name.endswith(".go")
        ]
    return sorted(found)


def key(module: Module) -> str:
    """Name all that a module's binaries depend on: sources, build flags, operating system, architecture."""
    system = os.uname()
    digest = hashlib.sha256(repr((system.sysname, system.machine, GO_FLAGS, module.tags)).encode())
    for binary in module.binaries:
        digest.update(repr((binary.name, binary.package, binary.linker_flags)).encode())
    if module.files:
        digest.update(repr(module.files).encode())
    for source in sources(module):
        content = (module.folder / source).read_bytes()
        digest.update(f"{source} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def binaries(module: Module) -> Path:
    """Return the folder of a module's finished binaries."""
    return folder() / f"{module.name}-{key(module)}"


def unused() -> list[Path]:
    """List the folders of finished binaries that this checkout does not use: of other sources or build flags."""
    used = {binaries(module) for module in (*CATALOG, *ON_DEMAND)}
    folders = (path for path in folder().glob("*") if re.fullmatch(r".+-[0-9a-f]{16}", path.name))
    return sorted(set(folders) - used)


def workspace() -> Path:
    """Return the folder of the running or interrupted build: module cache, build cache, copied sources."""
    return folder() / "go"


def sources_copy(module: Module) -> Path:
    """Return the folder in which `go` runs for a module, so that the checkout stays clean."""
    return workspace() / "src" / module.name


def copy_sources(module: Module) -> Path:
    """Copy the files that the key stands for to that folder, and nothing else."""
    copy = sources_copy(module)
    shutil.rmtree(copy, ignore_errors=True)
    for source in sources(module):
        (copy / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module.folder / source, copy / source)
    return copy


def _discarded() -> Path:
    return folder() / "go.discarded"


def has_leftovers() -> bool:
    """Tell whether a removal of the build's caches was interrupted."""
    return os.access(_discarded(), os.F_OK)


def discard_leftovers(tick: Callable[[], None]) -> None:
    """Finish a removal that was interrupted, calling `tick` all the while."""
    for folder in _discarded().glob("*/*"):
        shutil.rmtree(folder, ignore_errors=True)
        tick()
    shutil.rmtree(_discarded(), ignore_errors=True)


def discard_workspace(tick: Callable[[], None]) -> None:
    """Remove the build's caches, calling `tick` all the while."""
    discard_leftovers(tick)
    # Renamed first: a half-removed module cache must not be taken for a whole one.
    workspace().rename(_discarded())
    discard_leftovers(tick)


def scratch() -> Path:
    """Return the folder for files that only one step needs."""
    return workspace() / "tmp"


def place(file: Path, target: Path) -> None:
    """Move a finished program into place, so that one is never seen half-written, not even after a power cut."""
    file.chmod(0o755)
    with file.open("rb") as content:
        os.fsync(content.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    file.replace(target)


def size(path: Path) -> int:
    """Sum up a folder's bytes on disk; 0 when it is not there."""
    total = 0
    for parent, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(Path(parent, name)).st_blocks * 512
            except FileNotFoundError:  # a program at work removes its own files
                continue
    return total


def check_space(needed: int) -> None:
    """Raise ToolchainError when the disk cannot take `needed` bytes beside what an interrupted build has left."""
    free = shutil.disk_usage(folder()).free
    if free < needed and free + size(workspace()) < needed:
        raise ToolchainError(
            f"Building needs {needed / 1e9:.1f} GB of disk, most of it for the time of the build; {folder()} has "
            f"{free / 1e9:.1f} GB.\n"
            "Free some space, or set XDG_CACHE_HOME to a folder on a larger disk, and run it again."
        )


@contextmanager
def exclusive(waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the right to build; while another process has it, `waiting` is called again and again with its name.

    The system gives the right back when a process ends, however it ends.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "lock").open("a+", encoding="utf-8") as lock:
        while not _lock(lock):
            lock.seek(0)
            waiting(lock.read() or "another process")
            time.sleep(_POLL)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} in {PROJECT}")
        lock.flush()
        yield


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
