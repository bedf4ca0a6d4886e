"""Notifications reach a webhook, and whatever it does, a run goes on and its token stays secret."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from canary_service.rollout import notifications
from canary_service.rollout.events import AnyEvent
from canary_service.rollout.notifications import Notifier
from tests.unit.journals import rolled_back

TOKEN = "T0KEN"  # noqa: S105 - no real one
HELD = next(event for event in rolled_back() if event.event == "held")


@dataclass
class Webhook:
    """Answers each request with the next status, the last one for ever; `release` lets it answer at all."""

    statuses: list[int]
    received: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://user:{TOKEN}@127.0.0.1:{self.port}/services/{TOKEN}?key={TOKEN}"

    def status(self) -> int:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def webhook(*statuses: int, answers: bool = True) -> Iterator[Webhook]:
    found = Webhook(list(statuses))
    if answers:
        found.release.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found.release.wait()
            self.send_response(found.status())
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        found.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_PAUSES_SECONDS", (0.01, 0.01))


def told(url: str, *events: AnyEvent) -> list[str]:
    """Tell events to a webhook and return what was said about it."""
    said: list[str] = []
    with Notifier(url, said.append) as notifier:
        for event in events:
            notifier(event)
    assert TOKEN not in "".join(said)
    return said


def test_steps_holds_rollback_and_end_are_told_in_order_and_nothing_else() -> None:
    with webhook(200) as server:
        assert told(server.url, *rolled_back()) == []

    assert [each["event"]["event"] for each in server.received] == [
        "step-started",
        "held",
        "step-started",
        "rolled-back",
        "finished",
    ]
    assert server.received[-1]["text"] == "macromind/dev: rolled back at 20 % (exit code 2)"
    assert server.received[3]["event"]["seconds"] == 0.084


def test_a_text_cannot_wake_a_whole_channel() -> None:
    with webhook(200) as server:
        told(server.url, HELD.model_copy(update={"reason": "<!channel> & more"}))

    assert "held: &lt;!channel&gt; &amp; more" in server.received[0]["text"]


def test_an_error_that_may_pass_is_tried_again() -> None:
    with webhook(500, 429, 200) as server:
        assert told(server.url, HELD) == []

    assert len(server.received) == 3


def test_errors_that_stay_are_said_once_and_not_tried_for_ever() -> None:
    with webhook(500) as server:
        assert told(server.url, HELD, HELD) == ["the webhook at 127.0.0.1 misses notifications: it answered 500"]

    assert len(server.received) == 6


@pytest.mark.parametrize("status", [302, 307, 400, 404])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int) -> None:
    with webhook(status) as server:
        assert told(server.url, HELD) == [f"the webhook at 127.0.0.1 misses notifications: it answered {status}"]

    assert len(server.received) == 1


def test_a_refused_connection_is_said_with_the_host_alone() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/{TOKEN}"

        assert told(url, HELD) == ["the webhook at 127.0.0.1 misses notifications: ConnectError"]


@pytest.mark.parametrize("url", [f"http://[{TOKEN}", f"http://a\u0301..b/{TOKEN}", f"http:///{TOKEN}"])
def test_what_is_no_url_is_said_and_stops_nothing(url: str) -> None:
    (said,) = told(url, HELD)

    assert "misses notifications" in said


def test_a_webhook_that_never_answers_delays_neither_the_run_nor_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_END_SECONDS", 0.3)
    said: list[str] = []
    with webhook(200, answers=False) as server:
        began = time.monotonic()
        with Notifier(server.url, said.append) as notifier:
            for _ in range(200):
                notifier(HELD)
        took = time.monotonic() - began

    # Neither of them waited for an answer, which the webhook never gives.
    assert took < notifications._TIMEOUT_SECONDS  # noqa: SLF001 - the time that one request may take
    assert said == ["the webhook at 127.0.0.1 misses notifications: 100 notifications wait for it"]
    assert len(server.received) == 1
