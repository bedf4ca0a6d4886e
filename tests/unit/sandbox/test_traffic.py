"""Counting requests: from the first good answer on, every one, and each failure with its reason."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sandbox.faults import FAULT_HEADER
from sandbox.traffic import Traffic

SECONDS = 30
POLL_SECONDS = 0.01
GOOD = 200
NO_ANSWER = 0
ERROR_BY_ORDER = 599


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], int]], str]]:
    """Serve by a function from a request's number to its status; the URL and the number of requests are returned."""
    servers: list[ThreadingHTTPServer] = []

    def start(status_of: Callable[[int], int]) -> str:
        numbers = itertools.count()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status = status_of(next(numbers))
                if status == NO_ANSWER:
                    self.close_connection = True
                    return
                body = json.dumps({"version": "stable", "image": "app:1"}).encode()
                self.send_response(500 if status == ERROR_BY_ORDER else status)
                if status == ERROR_BY_ORDER:
                    self.send_header(FAULT_HEADER, "error-rate")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_fails_before_the_first_good_answer_is_not_counted(serve: Callable[..., str]) -> None:
    url = serve(lambda number: 404 if number < 3 else GOOD)
    with Traffic(url, "host.example", {"app": "/"}, rate=400) as traffic:
        tally = traffic.measure(20)["app"].result(SECONDS)

    assert tally.by_version == {"stable": 20}
    assert traffic.failures == []


def test_a_request_that_gets_no_good_answer_fails_once_with_its_reason(serve: Callable[..., str]) -> None:
    answers = {10: 503, 20: NO_ANSWER}
    asked: list[int] = []

    def status(number: int) -> int:
        asked.append(number)
        return answers.get(number, GOOD)

    with Traffic(serve(status), "host.example", {"app": "/"}, rate=400) as traffic:
        traffic.measure(40)["app"].result(SECONDS)

    assert [failure.service for failure in traffic.failures] == ["app", "app"]
    refused, broken = (failure.reason for failure in traffic.failures)
    assert refused.startswith("status 503")
    assert broken.startswith("ServerDisconnectedError")
    total = traffic.total["app"]
    assert (total.failed, total.requests) == (2, len(asked) - 1)  # the first good answer begins the count; no retries


def test_many_senders_send_together_what_one_would_send(serve: Callable[..., str]) -> None:
    gate = threading.Barrier(4)

    def status(number: int) -> int:
        if number:
            gate.wait(SECONDS)  # falls when as many requests are in flight at once
        return GOOD

    with Traffic(serve(status), "host.example", {"app": "/"}, rate=400, senders=4) as traffic:
        traffic.measure(8)["app"].result(SECONDS)
        gate.abort()

    assert traffic.total["app"].requests >= 8


def test_errors_by_order_are_answers_and_counted_apart(serve: Callable[..., str]) -> None:
    url = serve(lambda number: ERROR_BY_ORDER if number % 4 == 3 else GOOD)
    with Traffic(url, "host.example", {"app": "/"}, rate=400) as traffic:
        tally = traffic.measure(20)["app"].result(SECONDS)

    assert (tally.by_version, tally.ordered_errors, tally.failed) == ({"stable": 20}, 5, 0)
    assert traffic.failures == []
