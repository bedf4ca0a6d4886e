"""Asks a Prometheus server."""

import json
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2

TIMEOUT_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MOST_BYTES: Final = 32 * 2**20
"""An answer that is larger is none of ours: tens of thousands of series fit in."""


class PrometheusError(Exception):
    """The server cannot be asked, or gives no answer that can be used; a retry may help."""


class NoAnswerError(PrometheusError):
    """There was no answer, or none in time: the next question would have to wait for as long."""


@dataclass(frozen=True, slots=True)
class Series:
    """The value of one series; `at` is for when it holds, in seconds since the epoch."""

    labels: Mapping[str, str]
    value: float
    at: float


def client(url: str) -> httpx2.Client:
    """Return a client that keeps its connection, for requests that may take `TIMEOUT_SECONDS`."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None  # a request to it will tell
    # As with kubectl, no proxy of the environment stands between a program and its own machine.
    return httpx2.Client(trust_env=host not in _LOOPBACK, timeout=TIMEOUT_SECONDS, verify=_certificates())


@cache
def _certificates() -> ssl.SSLContext:
    """Read the authorities that are trusted, once: that takes longer than a request."""
    return httpx2.create_ssl_context()


class Prometheus:
    """One server, over connections that are kept.

    `url` is where it is, with the path it may be under; user and password in it are sent and never shown.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = client(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def vector(self, query: str, at: float | None = None) -> list[Series]:
        """Return the value of each series of a query; those without a number (NaN, infinite) are left out.

        Args:
            query: in PromQL; its result is a vector or a scalar.
            at: the time of evaluation, in seconds since the epoch; None is now.

        Raises:
            PrometheusError: there is no usable answer within 5 s.
        """
        moment = {} if at is None else {"time": f"{at:.3f}"}
        return self._asked("query", {"query": query, **moment})

    def course(self, query: str, begin: float, end: float, step: float) -> list[Series]:
        """Return the values of each series of a query from `begin` to `end`, every `step` seconds.

        Raises:
            PrometheusError: there is no usable answer within 5 s.
        """
        times = {"start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return self._asked("query_range", {"query": query, **times})

    def _asked(self, what: str, parameters: Mapping[str, str]) -> list[Series]:
        try:
            return _values(json.loads(self._body(what, parameters)))
        except httpx2.HTTPStatusError as error:
            raise PrometheusError(f"it answered {error.response.status_code}") from None
        except httpx2.InvalidURL:
            raise PrometheusError("that is no URL") from None  # whose own text may quote a password
        except httpx2.TimeoutException:
            raise NoAnswerError(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
        except httpx2.HTTPError as error:
            raise NoAnswerError(f"{type(error).__name__}: {error}") from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise PrometheusError("it did not answer as Prometheus does") from None

    def _body(self, what: str, parameters: Mapping[str, str]) -> bytes:
        end = time.monotonic() + TIMEOUT_SECONDS
        body = bytearray()
        url = f"{self._url.rstrip('/')}/api/v1/{what}"
        with self._client.stream("GET", url, params=dict(parameters)) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                body += part
                if time.monotonic() > end:  # each part in time, but never the last
                    raise NoAnswerError(f"no whole answer within {TIMEOUT_SECONDS:.0f} s")
                if len(body) > _MOST_BYTES:
                    raise PrometheusError(f"its answer has more than {_MOST_BYTES // 2**20} MiB")
        return bytes(body)


def instant(url: str, query: str, label: str) -> dict[str, float]:
    """Return the present value of each series of a query, by the value of one of its labels.

    Series without a number (NaN, which is what a rate of nothing is) or without that label are left out.

    Args:
        url: where the server is, as for `Prometheus`.
        query: in PromQL.
        label: tells the series apart.

    Raises:
        PrometheusError: there is no usable answer within 5 s.
    """
    with Prometheus(url) as server:
        return {found.labels[label]: found.value for found in server.vector(query) if label in found.labels}


def shown(url: str) -> str:
    """Return a URL without user, password and query."""
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _values(answer: dict[str, Any]) -> list[Series]:
    if answer["status"] != "success":
        raise ValueError(answer["status"])
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    found = [({}, result)] if kind == "scalar" else _points(result)
    series = [
        Series({name: str(text) for name, text in labels.items()}, float(value), float(at))
        for labels, (at, value) in found
    ]
    return [each for each in series if math.isfinite(each.value)]


def _points(result: list[dict[str, Any]]) -> list[tuple[dict[str, str], Any]]:
    return [(one["metric"], point) for one in result for point in one.get("values") or [one["value"]]]
