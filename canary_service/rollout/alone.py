"""At most one run of a stack at a time in a project's folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canary_service.rollout.journal import runs
from canary_service.rollout.stack import LockedError


@contextmanager
def alone(folder: Path, stack: str) -> Iterator[None]:
    """Keep other runs of the stack out until this is left, or the process ends in whatever way.

    Runs in other folders and on other machines are kept out by what they read back (docs/adr/0013-driver.md).

    Raises:
        LockedError: another run goes on.
    """
    place = runs(folder, stack)
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # a folder that cannot be written is no reason not to release: two runs still do not harm each other
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"another `canary run` of stack {stack} goes on in this folder") from None
        yield
    finally:
        os.close(lock)
