"""Runs a program for which a folder of ours lies at a fixed path of the file system, where nothing is touched.

`python -m sandbox.reroot FOLDER PATH COMMAND ...`: Envoy Gateway reads its certificates from /certs, which is not a
setting. In a mount namespace of its own the program gets a root in which all is as it was but PATH, an entry of `/`.
"""

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWNS = 0x20000  # <linux/sched.h>
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000  # <linux/mount.h>

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Set up the root and become the command.

    Raises:
        OSError: the kernel refuses it.
    """
    folder, path, *command = sys.argv[1:]
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)  # nothing that follows shows outside
    root = Path(folder)  # as good a place as any: what it holds is seen through a descriptor
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _mount("tmpfs", root, "tmpfs")
    for entry in Path("/").iterdir():
        _show(entry, root / entry.name)
    target = root / Path(path).name
    target.mkdir(exist_ok=True)
    _mount(f"/proc/self/fd/{descriptor}", target, flags=_MS_BIND)
    os.close(descriptor)
    os.chroot(root)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def _show(entry: Path, place: Path) -> None:
    """Have an entry of the old root in the new one."""
    if entry.is_symlink():
        place.symlink_to(entry.readlink())
        return
    if entry.is_dir():
        place.mkdir()
    else:
        place.touch()
    _mount(str(entry), place, flags=_MS_BIND | _MS_REC)


def _mount(source: str, target: Path, kind: str = "", flags: int = 0) -> None:
    arguments = (source.encode(), bytes(target), kind.encode() or None, ctypes.c_ulong(flags), None)
    _checked(_libc.mount(*arguments), f"mount {source} on {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
