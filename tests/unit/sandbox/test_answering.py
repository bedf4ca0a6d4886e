"""The answering server on the machine's own loopback."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from lightkube.models.core_v1 import Container, ContainerPort, HTTPGetAction, Probe, TCPSocketAction

from sandbox.answering import AnsweringServer, Identity
from sandbox.faults import FAULT_HEADER, Faults
from sandbox.probes import Thresholds, verdicts

IDENTITY = Identity(pod="app-1", app="app", version="canary", image="app:2")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Served:
    def __init__(self) -> None:
        self.port = free_port()
        self.faults = Faults()
        self.lines: list[str] = []
        self.asked_for_faults = asyncio.Event()  # which the server does once it has a request in hand
        self.server = AnsweringServer("127.0.0.1", [self.port], IDENTITY, self._current_faults, self.lines.append)
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}")

    def _current_faults(self) -> Faults:
        self.asked_for_faults.set()
        return self.faults

    async def status(self, path: str = "/", **headers: str) -> int:
        async with self.session.get(path, headers=headers) as answer:
            return answer.status

    async def metrics(self) -> list[str]:
        async with self.session.get("/metrics") as answer:
            return (await answer.text()).splitlines()


def serve(test: Callable[[Served], Awaitable[None]]) -> None:
    async def main() -> None:
        served = Served()
        await served.server.listen()
        try:
            await test(served)
        finally:
            await served.session.close()
            served.server.reset()

    asyncio.run(main())


def test_it_answers_any_path_with_its_identity() -> None:
    async def test(served: Served) -> None:
        async with served.session.post("/any/path", data=b"x" * 1_000_000) as answer:
            assert answer.status == 200
            assert (answer.headers["X-Pod"], answer.headers["X-Service"]) == ("app-1", "app")
            assert answer.headers["X-Version"] == "canary"
            assert json.loads(await answer.read()) == {
                "pod": "app-1",
                "service": "app",
                "version": "canary",
                "image": "app:2",
                "path": "/any/path",
            }

    serve(test)


def test_it_counts_requests_but_neither_probes_nor_scrapes() -> None:
    async def test(served: Served) -> None:
        for _ in range(3):
            await served.status()
        await served.status(**{"User-Agent": "kube-probe/1.36"})
        await served.metrics()
        lines = await served.metrics()
        assert 'http_requests_total{app="app",status="200",version="canary"} 3.0' in lines
        assert 'http_requests_total{app="app",status="500",version="canary"} 0.0' in lines
        assert 'http_request_duration_seconds_count{app="app",version="canary"} 3.0' in lines

    serve(test)


def test_errors_spare_probes_and_scrapes() -> None:
    async def test(served: Served) -> None:
        served.faults = Faults(error_rate=1)
        async with served.session.get("/") as answer:
            assert (answer.status, answer.headers[FAULT_HEADER]) == (500, "error-rate")
        assert await served.status(**{"User-Agent": "kube-probe/1.36"}) == 200
        assert await served.status("/metrics") == 200

    serve(test)


def test_closing_finishes_what_is_in_flight_and_refuses_the_rest() -> None:
    async def test(served: Served) -> None:
        await served.status()  # leaves an idle connection
        served.asked_for_faults.clear()
        served.faults = Faults(latency_seconds=0.3)
        busy = asyncio.create_task(served.status())
        await served.asked_for_faults.wait()
        begin = asyncio.get_running_loop().time()
        await served.server.close(grace=10)
        assert asyncio.get_running_loop().time() - begin < 1
        assert await busy == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await served.status()

    serve(test)


def test_closing_resets_what_takes_longer_than_the_grace() -> None:
    async def test(served: Served) -> None:
        served.faults = Faults(latency_seconds=30)
        answer, request = await asyncio.open_connection("127.0.0.1", served.port)
        request.write(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        await served.asked_for_faults.wait()
        await served.server.close(grace=0.1)
        with pytest.raises(ConnectionResetError):
            await answer.read()

    serve(test)


def test_a_reset_server_can_listen_again() -> None:
    async def test(served: Served) -> None:
        served.server.reset()
        assert not served.server.listening
        with pytest.raises(aiohttp.ClientConnectorError):
            await served.status()
        await served.server.listen()
        assert await served.status() == 200

    serve(test)


def container(port: int) -> Container:
    return Container(name="app", ports=[ContainerPort(containerPort=port, name="http")])


def first_failure(served: Served, **probe: HTTPGetAction | TCPSocketAction) -> Awaitable[str]:
    async def probed() -> str:
        checked = Probe(failureThreshold=1, **probe)  # type: ignore[arg-type]  # no other field is given
        async with aiohttp.ClientSession() as session:
            return (await anext(verdicts(checked, container(served.port), "127.0.0.1", session))).failure

    return probed()


def test_an_http_probe_wants_an_answer_below_400() -> None:
    async def test(served: Served) -> None:
        assert await first_failure(served, httpGet=HTTPGetAction(port="http", path="healthz")) == ""
        served.server.reset()
        assert "Cannot connect" in await first_failure(served, httpGet=HTTPGetAction(port=served.port))

    serve(test)


def test_a_tcp_probe_wants_a_listener_and_a_name_that_exists() -> None:
    async def test(served: Served) -> None:
        assert await first_failure(served, tcpSocket=TCPSocketAction(port="http")) == ""
        missing = await first_failure(served, tcpSocket=TCPSocketAction(port="grpc"))
        assert missing == "no port of the container is named 'grpc'"
        served.server.reset()
        assert "Connect call failed" in await first_failure(served, tcpSocket=TCPSocketAction(port=served.port))

    serve(test)


def test_results_count_once_enough_of_them_come_in_a_row() -> None:
    thresholds = Thresholds(success=2, failure=3)
    results = [True, True, True, False, False, True, False, False, False, False]
    assert [thresholds.met(success=result) for result in results] == [
        *(False, True, False),
        *(False, False),
        False,
        *(False, False, True, False),
    ]
