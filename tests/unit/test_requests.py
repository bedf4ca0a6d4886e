"""What is sent, where to, and what is made of the answers."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from canary_service.rollout.counting import Count
from canary_service.rollout.requests import Target, send
from canary_service.routing.split import Track

TARGET = Target("shop.example", "/api", {"X-Canary": "true"})


class Server(ThreadingHTTPServer):
    """Answers with each status in turn, and keeps what came and over which connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = [200]
        self.location = ""
        self.version: str | None = None
        self.seen: list[tuple[str, str | None, str | None]] = []
        self.connections: set[tuple[str, int]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"], self.headers["X-Canary"]))
        self.server.connections.add(self.client_address)
        self.send_response(self.server.statuses[len(self.server.seen) % len(self.server.statuses)])
        self.send_header("Content-Length", "0")
        if self.server.location:
            self.send_header("Location", self.server.location)
        if self.server.version is not None:
            self.send_header("X-Version", self.server.version)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with Server() as one, Server() as other:
        threads = [Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}) for each in (one, other)]
        for thread in threads:
            thread.start()
        yield one, other
        for server in (one, other):
            server.shutdown()
        for thread in threads:
            thread.join()


def test_as_many_are_sent_as_asked_for_with_the_host_of_the_stack(servers: tuple[Server, Server]) -> None:
    server, _ = servers
    sent = send(f"{server.url}/", {"cart": TARGET}, 30)["cart"]
    assert (sent.requests, dict(sent.failures), dict(sent.refusals), sent.answered) == (30, {}, {}, None)
    assert server.seen == [("/api", "shop.example", "true")] * 30
    assert 15 < len(server.connections) < 30  # every second one has a connection of its own, the others share some


def test_nothing_goes_to_where_an_answer_leads(servers: tuple[Server, Server]) -> None:
    server, other = servers
    server.statuses, server.location = [302], other.url
    sent = send(server.url, {"cart": TARGET}, 10)["cart"]
    assert (dict(sent.failures), dict(sent.refusals)) == ({}, {"status 302": 10})
    assert other.seen == []


def test_what_fails_is_counted_by_reason_and_not_sent_again(servers: tuple[Server, Server]) -> None:
    server, _ = servers
    server.statuses = [200, 502, 404, 200]
    sent = send(server.url, {"cart": TARGET}, 40)["cart"]
    assert (dict(sent.failures), dict(sent.refusals), sent.failed) == ({"status 502": 10}, {"status 404": 10}, 10)
    assert len(server.seen) == 40
    nobody = send("http://127.0.0.1:1", {"cart": TARGET}, 3)["cart"]
    assert dict(nobody.failures) == {"ConnectError": 3}


@pytest.mark.parametrize(
    ("version", "answered"),
    [("stable", Count(4, 0)), ("2.0", Count(0, 4)), ("3.0", Count(0, 0)), (None, Count(0, 0))],
)
def test_answers_tell_their_version_by_a_header(
    servers: tuple[Server, Server], version: str | None, answered: Count
) -> None:
    server, _ = servers
    server.version = version
    versions = {Track.STABLE: ("stable", "1.0"), Track.CANARY: ("canary", "2.0")}
    target = Target("shop.example", "/api", {}, "x-version", versions)
    sent = send(server.url, {"cart": target}, 4)["cart"]
    assert sent.answered == answered
    unknown = {} if answered.total else {"no x-version of either version": 4}
    assert dict(sent.refusals) == unknown
