"""A sign of life on standard error for commands that take longer."""

import sys
import time
from typing import Final, Self

_AFTER_SECONDS: Final = 2.0
_EVERY_SECONDS: Final = 10.0


class Progress:
    """Shows how far something is, once it takes longer; a context manager that leaves nothing on a terminal."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._next = _AFTER_SECONDS
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            sys.stderr.write("\r\033[K")

    def show(self, text: str) -> None:
        """Say how far it is: on a terminal always anew in one line, elsewhere a line from time to time."""
        elapsed = time.monotonic() - self._begin
        line = f"{text}, {elapsed:.0f} s"
        if elapsed >= _AFTER_SECONDS and sys.stderr.isatty():
            sys.stderr.write(f"\r{line}\033[K")
            self._drawn = True
        elif elapsed >= self._next:
            sys.stderr.write(f"{line}\n")
            self._next += _EVERY_SECONDS
        sys.stderr.flush()
