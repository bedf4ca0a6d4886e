"""Real HTTP requests, sent all the while, and who answered them."""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import uvloop

from sandbox.faults import FAULT_HEADER

REQUEST_TIMEOUT_SECONDS = 10.0

# Every so many requests of a sender one comes over a connection of its own, as clients without keep-alive send them.
FRESH_CONNECTION_EVERY = 2

_FIRST_ANSWER_POLL_SECONDS = 0.05
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a good answer. Times are seconds since the epoch, as in the logs of proxy and cluster."""

    service: str
    sent: float
    ended: float
    fresh: bool
    """Whether the connection was opened for this request."""
    reason: str


@dataclass(slots=True)
class Tally:
    """Answers of one service: how many by each version and image, how long they took, and what failed.

    An error that a pod was ordered to answer with is an answer, too.
    """

    by_version: Counter[str] = field(default_factory=Counter)
    by_image: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Time to each answer."""
    ordered_errors: int = 0
    """How many of the answers were errors by order."""
    last_answers: dict[str, float] = field(default_factory=dict)
    """When each version answered last, in seconds since the epoch."""
    failures: Counter[str] = field(default_factory=Counter)
    """How many requests failed, by reason."""

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


class _Answer(NamedTuple):
    version: str
    image: str
    ordered_error: bool


@dataclass(slots=True)
class _Window:
    wanted: int
    tally: Tally
    done: Future[Tally]


class Traffic:
    """Sends requests to every service until it is left, at a steady rate.

    A context manager; the requests are sent by a thread of its own. A service's requests begin with its first good
    answer: before that there is no route, which is no failure. From then on any status but 200 and any broken
    connection is one, errors by order apart, and nothing is retried.

    Args:
        proxy_url: where the proxy listens.
        host: value of the Host header.
        paths: path of each service, by the service's name.
        rate: requests per second and service.
        senders: how many share a service's requests, each sending one after the other. With one, a service's answers
            are counted in the order in which the proxy has routed them.
    """

    def __init__(self, proxy_url: str, host: str, paths: Mapping[str, str], rate: float, senders: int = 1) -> None:
        self._proxy_url = proxy_url
        self._host = host
        self._paths = dict(paths)
        self._interval = senders / rate
        self._senders = senders
        self.total = {service: Tally() for service in paths}
        self.failures: list[Failure] = []
        self._windows: dict[str, list[_Window]] = {service: [] for service in paths}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

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

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._send_all())

    async def _send_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as kept,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0, force_close=True)) as fresh,
        ):
            for session in (kept, fresh):
                # aiohttp sends an idempotent request once more when its connection breaks, which would hide a failure.
                session._retry_connection = False  # noqa: SLF001 - there is no public switch
            await asyncio.gather(*(self._send_to(service, kept, fresh) for service in self._paths))

    async def _send_to(self, service: str, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession) -> None:
        url = self._proxy_url + self._paths[service]
        while not self._stop.is_set():
            answer, _ = await self._request(kept, url)
            if answer is not None:
                break
            await asyncio.sleep(_FIRST_ANSWER_POLL_SECONDS)
        begin = time.monotonic()
        offset = self._interval / self._senders
        senders = (self._send(service, url, begin + number * offset, kept, fresh) for number in range(self._senders))
        await asyncio.gather(*senders)

    async def _send(
        self, service: str, url: str, due: float, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession
    ) -> None:
        for number in itertools.count():
            due = max(due, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            if self._stop.is_set():
                return
            is_fresh = number % FRESH_CONNECTION_EVERY == 0
            sent = time.time()
            answer, reason = await self._request(fresh if is_fresh else kept, url)
            ended = time.time()
            if answer is None:
                self.failures.append(Failure(service, sent, ended, is_fresh, reason))
            self._count(service, answer, ended - sent, reason)
            due += self._interval

    def _count(self, service: str, answer: _Answer | None, seconds: float, reason: str) -> None:
        windows = list(self._windows[service])
        for tally in (self.total[service], *(window.tally for window in windows)):
            if answer is None:
                tally.failures[reason] += 1
            else:
                tally.by_version[answer.version] += 1
                tally.by_image[answer.image] += 1
                tally.ordered_errors += answer.ordered_error
                tally.last_answers[answer.version] = time.time()
                tally.seconds.append(seconds)
        for window in windows:
            if window.tally.requests >= window.wanted:
                self._windows[service].remove(window)
                window.done.set_result(window.tally)

    async def _request(self, session: aiohttp.ClientSession, url: str) -> tuple[_Answer | None, str]:
        """Send one request; return what the pod says of itself, or what failed."""
        try:
            async with session.get(url, headers={"Host": self._host}) as response:
                body = await response.text()
                ordered_error = FAULT_HEADER in response.headers
                if response.status != 200 and not ordered_error:  # noqa: PLR2004 - OK
                    return None, f"status {response.status}: {body.strip()[:_SHOWN_CHARACTERS]}"
                answer: dict[str, str] = json.loads(body)
                return _Answer(answer["version"], answer["image"], ordered_error), ""
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            return None, f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
