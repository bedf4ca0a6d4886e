"""Requests per second are those that a Prometheus server tells, or none at all."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from canary_service.observability.queries import APPLICATION, request_rate
from canary_service.rollout.prometheus import PrometheusError, instant, shown


class Server(HTTPServer):
    """Answers every request with `status` and `body`, and keeps the last path and user."""

    status = 200
    body = ""
    path = ""
    user: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.path, self.server.user = self.path, self.headers["Authorization"]
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def vector(**values: str) -> str:
    series = ",".join(f'{{"metric":{{"app":"{app}"}},"value":[1,"{value}"]}}' for app, value in values.items())
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}'


def test_the_rate_of_both_tracks_is_asked_for_by_service_within_one_namespace() -> None:
    assert request_rate(APPLICATION, "shop", ["cart", "pay-api"]) == (
        'sum by (app) (rate(http_requests_total{namespace="shop",app=~"cart|pay-api"}[5m]))'
    )


def test_each_series_is_found_by_its_label_under_the_path_of_the_server(server: Server) -> None:
    server.body = vector(cart="12.5", pay="0")

    assert instant(f"{server.url}/prom/", "q{a=~'b|c'}", "app") == {"cart": 12.5, "pay": 0.0}
    assert urlsplit(server.path).path == "/prom/api/v1/query"
    assert parse_qs(urlsplit(server.path).query) == {"query": ["q{a=~'b|c'}"]}


def test_what_is_no_number_or_has_no_label_is_left_out(server: Server) -> None:
    server.body = vector(cart="NaN", pay="+Inf").replace('{"app":"pay"}', "{}")

    assert instant(server.url, "q", "app") == {}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, "", "it answered 500"),
        (400, '{"status":"error","error":"parse error"}', "it answered 400"),
        (200, "<html>", "it did not answer as Prometheus does"),
        (200, '{"data":[]}', "it did not answer as Prometheus does"),
        (200, '{"data":{"result":[{"metric":{"app":"a"},"value":[1]}]}}', "it did not answer as Prometheus does"),
        (200, "[]", "it did not answer as Prometheus does"),
    ],
)
def test_what_is_no_answer_is_an_error_in_words(server: Server, status: int, body: str, said: str) -> None:
    server.status, server.body = status, body

    with pytest.raises(PrometheusError, match=said):
        instant(server.url, "q", "app")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "http://[x", ""])
def test_an_address_where_nothing_answers_is_an_error_in_words(url: str) -> None:
    with pytest.raises(PrometheusError):
        instant(url, "q", "app")


def test_user_and_password_are_sent_and_never_shown(server: Server) -> None:
    url = server.url.replace("//", "//me:s3cret@")
    server.status = 401

    with pytest.raises(PrometheusError) as caught:
        instant(url, "q", "app")

    assert server.user
    assert "s3cret" not in str(caught.value)
    assert shown(url) == server.url
    assert shown("https://me:p@s/s@host/prom?token=x") == "https://host/prom"
    with pytest.raises(PrometheusError) as caught:
        instant("http://me:s3cret@[x", "q", "app")
    assert "s3cret" not in str(caught.value)
