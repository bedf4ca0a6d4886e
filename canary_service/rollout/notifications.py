"""Tells a webhook what happens in a run, while the run goes on."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import urlsplit

import httpx2

from canary_service.rollout.event_words import line
from canary_service.rollout.events import AnyEvent, Finished, Held, Promoted, RolledBack, StepStarted

_TOLD: Final = (StepStarted, Held, RolledBack, Promoted, Finished)
_TIMEOUT_SECONDS: Final = 3.0
_PAUSES_SECONDS: Final = (1.0, 2.0)
"""Between one attempt and the next."""

_END_SECONDS: Final = 5.0
_WAITING: Final = 100
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500


class Notifier:
    """Call it with each event; it tells those that a person may want to know, in order, from a thread of its own.

    Nothing that the webhook does delays or fails a run. Its URL may hold a token, so only the host is ever shown.
    """

    def __init__(self, url: str, say: Callable[[str], object]) -> None:
        """Begin.

        Args:
            url: takes JSON by POST; `text` is what Slack and its like show, `event` the event (docs/journal.md).
            say: is told once, in a sentence, that something could not be delivered; from another thread.
        """
        self._url = url
        try:
            self._host = urlsplit(url).hostname or ""
        except ValueError:
            self._host = ""  # a request to it will tell
        self._say: Callable[[str], object] | None = say
        self._events: queue.Queue[AnyEvent | None] = queue.Queue(_WAITING)
        # A proxy of the environment has no business between a program and its own machine.
        self._client = httpx2.Client(trust_env=self._host not in _LOOPBACK, timeout=_TIMEOUT_SECONDS)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="notifications", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is on its way, for 5 s at most."""
        until = time.monotonic() + _END_SECONDS
        self._ending.set()
        self._put(None)
        self._thread.join(max(until - time.monotonic(), 0))
        if self._thread.is_alive():
            self._failed(f"no answer within {_END_SECONDS:.0f} s")

    def __call__(self, event: AnyEvent) -> None:
        """Take in an event."""
        if isinstance(event, _TOLD):
            self._put(event)

    def _put(self, event: AnyEvent | None) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._failed(f"{_WAITING} notifications wait for it")

    def _deliver(self) -> None:
        with self._client:
            while (event := self._events.get()) is not None:
                problem = self._told(event)
                if problem:
                    self._failed(problem)

    def _told(self, event: AnyEvent) -> str | None:
        """Tell an event, if need be several times; return why that failed."""
        problem, again = self._post(event)
        for pause in _PAUSES_SECONDS:
            if not again:
                return problem
            # At the end there is no time to be patient.
            self._ending.wait(pause)
            problem, again = self._post(event)
        return problem

    def _post(self, event: AnyEvent) -> tuple[str | None, bool]:
        """Tell an event once; return why that failed, and whether it may help to try again."""
        message = {
            "text": _escaped(f"{event.stack}: {line(event)}"),
            "event": event.model_dump(mode="json", by_alias=True),
        }
        try:
            # Its answer is the status: of a body that never ends nothing is read.
            with self._client.stream("POST", self._url, json=message) as answer:
                status = answer.status_code
                if answer.is_success:
                    return None, False
        except httpx2.TransportError as error:
            return type(error).__name__, True  # the text of an error may quote the URL
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            return type(error).__name__, False
        return f"it answered {status}", status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS

    def _failed(self, problem: str) -> None:
        say, self._say = self._say, None
        if say:
            say(f"the webhook at {self._host} misses notifications: {problem}")


def _escaped(text: str) -> str:
    """Return a text in which nothing has a meaning for Slack: `<!channel>` would wake everyone."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
