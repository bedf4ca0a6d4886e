"""A container's probes, run as a kubelet runs them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from lightkube.models.core_v1 import Container, Probe

from sandbox.answering import PROBE_USER_AGENT

_USER_AGENT = f"{PROBE_USER_AGENT}1.36"


@dataclass(frozen=True)
class Verdict:
    """What a probe says from now on: its thresholds are taken into account. `failure` is empty on success."""

    failure: str

    @property
    def success(self) -> bool:
        """Whether the probe counts as succeeding."""
        return not self.failure


class Thresholds:
    """How many equal results in a row it takes until they count."""

    def __init__(self, *, success: int, failure: int) -> None:
        self._needed = {True: success, False: failure}
        self._last: bool | None = None
        self._row = 0

    def met(self, *, success: bool) -> bool:
        """Take the next result in and say whether its row has just become long enough."""
        self._row = self._row + 1 if success is self._last else 1
        self._last = success
        return self._row == self._needed[success]


async def verdicts(
    probe: Probe, container: Container, address: str, session: aiohttp.ClientSession
) -> AsyncIterator[Verdict]:
    """Probe for ever; yield the verdict each time enough results in a row confirm or change it.

    Thresholds and times are those of the Pod API (core/v1 Probe), defaults included.
    """
    thresholds = Thresholds(success=probe.successThreshold or 1, failure=probe.failureThreshold or 3)
    await asyncio.sleep(probe.initialDelaySeconds or 0)
    while True:
        failure = await _attempt(probe, container, address, session)
        if thresholds.met(success=not failure):
            yield Verdict(failure)
        await asyncio.sleep(probe.periodSeconds or 10)


async def _attempt(probe: Probe, container: Container, address: str, session: aiohttp.ClientSession) -> str:
    """Probe once; return what failed, or nothing.

    Commands cannot run without a container and count as successes. Answering pods speak neither TLS nor gRPC, so an
    HTTPS probe is made over HTTP, and a gRPC probe asks for the connection only.
    """
    timeout = probe.timeoutSeconds or 1
    try:
        async with asyncio.timeout(timeout):
            if probe.httpGet is not None:
                port = _port(probe.httpGet.port, container)
                headers = {header.name: header.value for header in probe.httpGet.httpHeaders or ()}
                url = f"http://{probe.httpGet.host or address}:{port}{_path(probe.httpGet.path)}"
                return await _get(session, url, {"User-Agent": _USER_AGENT, **headers})
            connection = probe.tcpSocket or probe.grpc
            if connection is not None:
                _, writer = await asyncio.open_connection(address, _port(connection.port, container))
                writer.close()
    except TimeoutError:
        return f"no answer within {timeout} s"
    except (OSError, aiohttp.ClientError) as error:
        return str(error)
    except LookupError as error:
        return f"no port of the container is named {error}"
    return ""


async def _get(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> str:
    async with session.get(url, headers=headers, allow_redirects=False) as answer:
        # Below 400. Kubernetes says "greater than or equal to 200 and less than 400"; below 200 no answer is final.
        return "" if answer.ok else f"HTTP probe failed with statuscode: {answer.status}"


def _path(path: str | None) -> str:
    return "/" + (path or "").removeprefix("/")


def _port(port: int | str, container: Container) -> int:
    if isinstance(port, int) or port.isdigit():
        return int(port)
    return {p.name: p.containerPort for p in container.ports or () if p.name}[port]
