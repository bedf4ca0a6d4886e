"""What the proxy routes by at this moment, which follows the API server with a delay."""

import json
import urllib.error
import urllib.request
from typing import Any, cast

_PROVIDER = "kubernetesingressnginx"
_NOT_FOUND = 404
_TIMEOUT_SECONDS = 5


def canary_weight(proxy_admin_url: str, namespace: str, ingress: str) -> int | None:
    """Return the percent that Traefik sends to the canary of an Ingress's first path, or None without a route.

    Raises:
        OSError: the proxy does not answer; a retry may help.
    """
    router = _get(f"{proxy_admin_url}/api/http/routers/{namespace}-{ingress}-rule-0-path-0@{_PROVIDER}")
    if router is None:
        return None
    service = _get(f"{proxy_admin_url}/api/http/services/{router['service']}@{_PROVIDER}")
    if service is None:
        return None
    weights = {part["name"]: part["weight"] for part in service.get("weighted", {}).get("services", ())}
    return next((weight for name, weight in weights.items() if name.endswith("-canary")), 0)


def _get(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - the sandbox's own loopback address
            return cast("dict[str, Any]", json.load(response))
    except urllib.error.HTTPError as error:
        if error.code == _NOT_FOUND:
            return None
        raise
