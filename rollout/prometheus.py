"""Asks a Prometheus server."""

import math
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

_TIMEOUT_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class PrometheusError(Exception):
    """The server cannot be asked, or gives no answer that can be used; a retry may help."""


def instant(url: str, query: str, label: str) -> dict[str, float]:
    """Return the present value of each series of a query, by the value of one of its labels.

    Series without a number (NaN, which is what a rate of nothing is) are left out.

    Args:
        url: where the server is, with the path it may be under; user and password in it are sent and never shown.
        query: in PromQL.
        label: tells the series apart.

    Raises:
        PrometheusError: there is no usable answer within 5 s.
    """
    try:
        parts = urlsplit(url)
        # As with kubectl, no proxy of the environment stands between a program and its own machine.
        with httpx2.Client(trust_env=parts.hostname not in _LOOPBACK, timeout=_TIMEOUT_SECONDS) as client:
            answer = client.get(url.rstrip("/") + "/api/v1/query", params={"query": query})
            answer.raise_for_status()
            return _values(answer.json(), label)
    except httpx2.HTTPStatusError as error:
        raise PrometheusError(f"it answered {error.response.status_code}") from None
    except httpx2.InvalidURL:
        raise PrometheusError("that is no URL") from None  # whose own text may quote a password
    except httpx2.HTTPError as error:
        raise PrometheusError(f"{type(error).__name__}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise PrometheusError("it did not answer as Prometheus does") from None


def shown(url: str) -> str:
    """Return a URL without user, password and query."""
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _values(answer: dict[str, Any], label: str) -> dict[str, float]:
    series = answer["data"]["result"]
    found = {each["metric"][label]: float(each["value"][1]) for each in series if label in each["metric"]}
    return {name: value for name, value in found.items() if math.isfinite(value)}
