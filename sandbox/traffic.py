"""Real HTTP requests, sent all the while, and who answered them."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp

REQUEST_TIMEOUT_SECONDS = 10.0

# Every so many requests one comes over a connection of its own, as clients without keep-alive send them.
FRESH_CONNECTION_EVERY = 5


@dataclass(slots=True)
class Tally:
    """Answers of one service: how many by each version and image, and what failed (reason to count)."""

    by_version: Counter[str] = field(default_factory=Counter)
    by_image: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """All requests, failed ones included."""
        return self.by_version.total() + self.failures.total()

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return self.failures.total()

    def share(self, version: str) -> float:
        """Percent of the answered requests that this version answered; 0 when there was none."""
        answered = self.by_version.total()
        return 100 * self.by_version[version] / answered if answered else 0.0


@dataclass(slots=True)
class _Window:
    wanted: int
    tally: Tally
    done: Future[Tally]


class Traffic:
    """Sends requests to every service until it is left, each service one after the other at a steady rate.

    A context manager; the requests are sent by a thread of its own. Any status but 200 and any broken connection is a
    failure: nothing is retried.

    Args:
        proxy_url: where the proxy listens.
        host: value of the Host header.
        paths: path of each service, by the service's name.
        rate: requests per second and service.
    """

    def __init__(self, proxy_url: str, host: str, paths: Mapping[str, str], rate: float) -> None:
        self._proxy_url = proxy_url
        self._host = host
        self._paths = dict(paths)
        self._interval = 1 / rate
        self.total = {service: Tally() for service in paths}
        self._windows: dict[str, list[_Window]] = {service: [] for service in paths}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()), name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def measure(self, requests: int) -> dict[str, Future[Tally]]:
        """Count the next so many requests of each service from now on; each future gives its tally."""
        windows = {service: _Window(requests, Tally(), Future()) for service in self._paths}
        for service, window in windows.items():
            self._windows[service].append(window)
        return {service: window.done for service, window in windows.items()}

    async def _send_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as kept,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as fresh,
        ):
            for session in (kept, fresh):
                # aiohttp sends an idempotent request once more when its connection breaks, which would hide a failure.
                session._retry_connection = False  # noqa: SLF001 - there is no public switch
            await asyncio.gather(*(self._send(service, kept, fresh) for service in self._paths))

    async def _send(self, service: str, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession) -> None:
        url = self._proxy_url + self._paths[service]
        due = time.monotonic()
        while not self._stop.is_set():
            windows = list(self._windows[service])
            session = fresh if self.total[service].requests % FRESH_CONNECTION_EVERY == 0 else kept
            answer, failure = await self._request(session, url)
            for tally in (self.total[service], *(window.tally for window in windows)):
                if failure:
                    tally.failures[failure] += 1
                else:
                    tally.by_version[answer["version"]] += 1
                    tally.by_image[answer["image"]] += 1
            for window in windows:
                if window.tally.requests >= window.wanted:
                    self._windows[service].remove(window)
                    window.done.set_result(window.tally)
            due = max(due + self._interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _request(self, session: aiohttp.ClientSession, url: str) -> tuple[dict[str, str], str]:
        """Send one request; return what the pod says of itself, and what failed."""
        try:
            async with session.get(url, headers={"Host": self._host}) as response:
                body = await response.text()
                if response.status != 200:  # noqa: PLR2004 - OK
                    return {}, f"status {response.status}"
                answer: dict[str, str] = json.loads(body)
                return {key: answer[key] for key in ("version", "image")}, ""
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            return {}, type(error).__name__
