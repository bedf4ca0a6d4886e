"""What a container writes to its standard output, kept and read as a kubelet does."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

KEPT_LINES: Final = 1000
"""So many of the last lines of each run of a container are kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line and when it was written."""

    at: datetime
    text: str


class ContainerLog:
    """The last lines of one run of a container, from its start to its end."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._written = 0
        self._ended = False
        self._news = asyncio.Event()

    def write(self, text: str) -> None:
        """Add a line."""
        self._lines.append(Line(datetime.now(UTC), text))
        self._written += 1
        self._tell()

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._tell()

    def lines(self) -> list[Line]:
        """Return the lines that are kept, the oldest first."""
        return list(self._lines)

    @property
    def written(self) -> int:
        """How many lines have been written."""
        return self._written

    async def following(self, seen: int) -> AsyncIterator[Line]:
        """Yield every line after the first `seen` ones, until the end; what was not fetched in time is left out."""
        while True:
            news = self._news
            missed = min(self._written - seen, len(self._lines))
            seen = self._written
            for line in list(self._lines)[len(self._lines) - missed :]:
                yield line
            if self._ended and seen == self._written:
                return
            await news.wait()  # over at once when something came meanwhile

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for (PodLogOptions, core/v1); None is no limit."""

    previous: bool = False
    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """Read the query of a request to `/containerLogs`.

        Raises:
            ValueError: a value is none.
        """
        since = datetime.fromisoformat(query["sinceTime"]) if query.get("sinceTime") else None
        if query.get("sinceSeconds"):
            since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
        return cls(
            previous=query.get("previous") == "true",
            follow=query.get("follow") == "true",
            timestamps=query.get("timestamps") == "true",
            tail=int(query["tailLines"]) if query.get("tailLines") else None,
            since=since,
            limit_bytes=int(query["limitBytes"]) if query.get("limitBytes") else None,
        )

    async def of(self, log: ContainerLog) -> AsyncIterator[bytes]:
        """Yield what is asked for, a line at a time."""
        left = self.limit_bytes
        async for line in self._lines(log):
            content = f"{line.at.isoformat().replace('+00:00', 'Z')} " if self.timestamps else ""
            encoded = f"{content}{line.text}\n".encode()[:left]
            yield encoded
            if left is not None:
                left -= len(encoded)
                if left <= 0:
                    return

    async def _lines(self, log: ContainerLog) -> AsyncIterator[Line]:
        seen = log.written
        kept = [line for line in log.lines() if self.since is None or line.at >= self.since]
        for line in kept if self.tail is None else kept[len(kept) - min(self.tail, len(kept)) :]:
            yield line
        if self.follow:
            async for line in log.following(seen):
                yield line
