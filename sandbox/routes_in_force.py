"""What the proxy routes by at this moment, which follows the API server with a delay."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

_PROVIDERS = {"nginx": "kubernetesingressnginx", "gateway": "kubernetesgateway", "traefik": "kubernetescrd"}
# What the nginx provider calls a canary's service ends so; in the others a number comes after it.
_CANARY = re.compile(r"-canary(-\d+)?$")
_ALL = 10_000
_NOT_FOUND = 404
_TIMEOUT_SECONDS = 5

# The proxies are on the loopback interface, where no HTTP proxy of the user's environment leads.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def canary_weight(proxy_admin_url: str, namespace: str, service: str, router: str = "nginx") -> int | None:
    """Return the percent that Traefik sends to the canary of a service's first path, or None without a route.

    Args:
        proxy_admin_url: where Traefik answers questions about itself.
        namespace: that of the service.
        service: the name of its Ingress, HTTPRoute or IngressRoute.
        router: whose objects say it: nginx, gateway or traefik.

    Raises:
        OSError: the proxy does not answer; a retry may help.
    """
    found = _served(proxy_admin_url, namespace, service, _PROVIDERS[router])
    if found is None:
        return None
    if "mirroring" in found:  # at weight 0 alone
        return 0
    weights = {part["name"]: part["weight"] for part in found.get("weighted", {}).get("services", ())}
    return next((weight for name, weight in weights.items() if _CANARY.search(name)), 0)


def mirrored_percent(proxy_admin_url: str, namespace: str, service: str, router: str) -> int:
    """Return the percent of a route's requests of which Traefik sends copies to the canary.

    The arguments are those of `canary_weight`.

    Raises:
        OSError: the proxy does not answer; a retry may help.
    """
    found = _served(proxy_admin_url, namespace, service, _PROVIDERS[router]) or {}
    return sum(each["percent"] for each in found.get("mirroring", {}).get("mirrors", ()))


def _served(proxy_admin_url: str, namespace: str, service: str, provider: str) -> dict[str, Any] | None:
    """Return Traefik's service to which a route leads, None where no route does."""
    for leads_to in _leads_to(proxy_admin_url, namespace, service, provider):
        found: dict[str, Any] | None = _get(f"{proxy_admin_url}/api/http/services/{leads_to}@{provider}")
        if found and found.get("usedBy"):
            return found
    return None


def _leads_to(proxy_admin_url: str, namespace: str, service: str, provider: str) -> list[str]:
    """Return the names of Traefik's services to one of which a route's requests go that nothing else decides."""
    if provider == _PROVIDERS["nginx"]:
        router = _get(f"{proxy_admin_url}/api/http/routers/{namespace}-{service}-rule-0-path-0@{provider}")
        return [router["service"]] if router else []
    if provider == _PROVIDERS["traefik"]:
        return [f"{namespace}-{service}", f"{namespace}-{service}-canary"]
    # One for each rule, named by its number: the last one takes what the others leave.
    name = re.compile(rf"httproute-{namespace}-{service}-gw-.+-ep-.+-(\d+)-[0-9a-f]+@{provider}")
    routers = (
        _get(f"{proxy_admin_url}/api/http/routers?per_page={_ALL}&search=httproute-{namespace}-{service}-gw-") or ()
    )
    numbered = [(int(found[1]), router["service"]) for router in routers if (found := name.fullmatch(router["name"]))]
    return [max(numbered)[1]] if numbered else []


def reloads(proxy_admin_url: str) -> int:
    """Return how often Traefik has taken over a new configuration; each time its round robins begin anew.

    Raises:
        OSError: the proxy does not answer; a retry may help.
    """
    with direct.open(f"{proxy_admin_url}/metrics", timeout=_TIMEOUT_SECONDS) as response:
        lines = response.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("traefik_config_reloads_total"))


def _get(url: str) -> Any:  # noqa: ANN401 - whatever Traefik says in JSON; None is that there is no such thing
    try:
        with direct.open(url, timeout=_TIMEOUT_SECONDS) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == _NOT_FOUND:
            return None
        raise
