"""What Envoy routes by at this moment, as Envoy Gateway has told it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.routes_in_force import direct

_TIMEOUT_SECONDS = 5
_CONFIGURED = re.compile(r"^(?:.*\.config_reload|cluster\..*\.update_success): (\d+)$", re.MULTILINE)
_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
_CANARY = re.compile(r".*/backend/1|service/.*-canary/\d+(?:/.*)?")
"""The canary's backend, the second one of each rule (docs/adr/0014-routers.md); or its cluster, with mergeBackends."""


def canary_weight(admin_url: str, namespace: str, route: str) -> int | None:
    """Return the percent that Envoy sends to the canary of an HTTPRoute, or None without a route.

    A backend without pods has no share.

    Raises:
        OSError: Envoy does not answer; a retry may help.
    """
    parts, action = _last_rule(admin_url, namespace, route)
    if action is None:
        return None
    shares = _weighted(action) or _localities(parts, action.get("cluster", ""))
    total = sum(shares.values())
    return (
        round(100 * sum(weight for name, weight in shares.items() if _CANARY.fullmatch(name)) / total) if total else 0
    )


def mirrored_percent(admin_url: str, namespace: str, route: str) -> int:
    """Return the percent of an HTTPRoute's requests of which Envoy sends a copy somewhere; 0 without a route.

    Raises:
        OSError: Envoy does not answer; a retry may help.
    """
    _, action = _last_rule(admin_url, namespace, route)
    policies = (action or {}).get("request_mirror_policies") or [{"runtime_fraction": {"default_value": {}}}]
    fraction = policies[0].get("runtime_fraction", {}).get("default_value", {"numerator": 100})
    numerator: int = fraction.get("numerator", 0)
    return round(100 * numerator / _DENOMINATORS[fraction.get("denominator", "HUNDRED")])


def clusters(admin_url: str, namespace: str, route: str) -> int:
    """Return among how many clusters Envoy shares out the requests of an HTTPRoute that nothing else decides.

    Raises:
        OSError: Envoy does not answer; a retry may help.
    """
    _, action = _last_rule(admin_url, namespace, route)
    return 0 if action is None else len(_weighted(action)) or 1


def reloads(admin_url: str) -> int:
    """Return how often Envoy has been told something new of its routes and endpoints.

    Raises:
        OSError: Envoy does not answer; a retry may help.
    """
    return sum(map(int, _CONFIGURED.findall(_get(f"{admin_url}/stats?filter=config_reload|update_success"))))


def _last_rule(admin_url: str, namespace: str, route: str) -> tuple[list[Any], Mapping[str, Any] | None]:
    """Return Envoy's configuration and, of it, what is done with requests that no other rule takes."""
    parts: list[Any] = json.loads(_get(f"{admin_url}/config_dump?include_eds"))["configs"]
    name = re.compile(rf"httproute/{namespace}/{route}/rule/(\d+)/")
    rules = {int(found[1]): each for each in _routes(parts) if (found := name.match(each.get("name", "")))}
    return parts, rules[max(rules)].get("route", {}) if rules else None


def _routes(parts: list[Any]) -> Iterator[Mapping[str, Any]]:
    for part in parts:
        for configuration in part.get("dynamic_route_configs", ()):
            for host in configuration["route_config"].get("virtual_hosts", ()):
                yield from host.get("routes", ())


def _weighted(action: Mapping[str, Any]) -> dict[str, int]:
    return {each["name"]: each.get("weight", 0) for each in action.get("weighted_clusters", {}).get("clusters", ())}


def _localities(parts: list[Any], cluster: str) -> dict[str, int]:
    """Return the weights of the backends that are one cluster, each a locality of its own."""
    return {
        endpoints.get("locality", {}).get("region") or cluster: endpoints.get("load_balancing_weight", 0)
        for part in parts
        for found in part.get("dynamic_endpoint_configs", ())
        if found["endpoint_config"].get("cluster_name") == cluster
        for endpoints in found["endpoint_config"].get("endpoints", ())
    }


def _get(url: str) -> str:
    with direct.open(url, timeout=_TIMEOUT_SECONDS) as response:
        answer: bytes = response.read()
    return answer.decode()
