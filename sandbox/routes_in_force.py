"""What the proxy routes by at this moment, which follows the API server with a delay."""

import json
import urllib.error
import urllib.request
from typing import Any, cast

_PROVIDER = "kubernetesingressnginx"
_NOT_FOUND = 404
_TIMEOUT_SECONDS = 5

# The proxy is on the loopback interface, where no HTTP proxy of the user's environment leads.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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


def reloads(proxy_admin_url: str) -> int:
    """Return how often Traefik has taken over a new configuration; each time its round robins begin anew.

    Raises:
        OSError: the proxy does not answer; a retry may help.
    """
    with _direct.open(f"{proxy_admin_url}/metrics", timeout=_TIMEOUT_SECONDS) as response:
        lines = response.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("traefik_config_reloads_total"))


def _get(url: str) -> dict[str, Any] | None:
    try:
        with _direct.open(url, timeout=_TIMEOUT_SECONDS) as response:
            return cast("dict[str, Any]", json.load(response))
    except urllib.error.HTTPError as error:
        if error.code == _NOT_FOUND:
            return None
        raise
