"""How long a run pauses before it tries again what has failed. No I/O."""

from collections.abc import Iterator
from typing import Final

BEFORE_UPDATES: Final = (5.0, 15.0, 30.0)
"""Seconds before each further attempt of an update that failed."""

SHORTEST: Final = 0.5
"""Seconds for which the API server is left alone after it has failed once."""

_LONGEST: Final = 5.0


def growing() -> Iterator[float]:
    """Yield the seconds before each further attempt to reach the API server."""
    pause = SHORTEST
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST)
