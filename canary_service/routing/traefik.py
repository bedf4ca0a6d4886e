"""Traefik's own resources (https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/crd/http/ingressroute/)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from canary_service.routing.ordered import (
    COOKIE_HEADER,
    HEADER_SYNTAX,
    Condition,
    Mirror,
    SharedObjects,
    backends_of,
    by_element,
    cookie_of,
    cookie_pattern,
    match_of,
    metadata,
    one,
    only,
    reading,
    rules,
    services,
    shares,
)
from canary_service.routing.router import Feature, HeaderSyntax, Manifest, RouteKind, RouteObject, UnreadableRouteError
from canary_service.routing.split import Backend, Entry, Header, Match, SessionAffinity, Split, Track

_API_VERSION: Final = "traefik.io/v1alpha1"
_SERVICE: Final = "TraefikService"
_ROUTE: Final = "IngressRoute"
_POD_COOKIE: Final = "-pod"
"""Follows the name of the cookie that keeps a client on its track: a second one keeps it on its pod."""

_MATCHERS: Final = {"exact": "Path", "prefix": "PathPrefix"}
_ONE_LABEL: Final = "^[^.]+"
_RULE: Final = re.compile(
    r"Host(?P<wild>Regexp)?\(`(?P<host>[^`]+)`\) && \(?(?P<path>[^()]+\(`[^`]+`\)(?: \|\| [^()]+\(`[^`]+`\))*)\)?"
    r"(?: && Header(?P<pattern>Regexp)?\(`(?P<name>[^`]+)`, `(?P<value>[^`]+)`\))?"
)
_PATH: Final = re.compile(r"(\w+)\(`([^`]+)`\)")


class Traefik(SharedObjects):
    """An IngressRoute with the rules, and a TraefikService with the weights; for a mirror one more, around it.

    Needs Traefik's `providers.kubernetesCRD.allowEmptyServices`, as its Helm chart sets it: without it, a canary whose
    pods are all gone takes the whole route with it.
    """

    name = "traefik"
    features = frozenset(
        {Feature.WEIGHT, Feature.HEADER, Feature.COOKIE, Feature.AFFINITY, Feature.MIRROR, Feature.TLS}
    )
    kinds = (
        RouteKind(_API_VERSION, _SERVICE, "traefikservices"),
        RouteKind(_API_VERSION, _ROUTE, "ingressroutes"),
    )
    header_syntax: HeaderSyntax = HEADER_SYNTAX
    # `providers.providersThrottleDuration` is 2 s; a change that comes right after another waits for it.
    sync_seconds = 2.0

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the TraefikServices and the IngressRoute."""
        *chosen, (_, weight) = rules(split.canary)
        weighted: Manifest = {"services": [_service(*share) for share in shares(split, weight)]}
        if split.affinity:
            for service in weighted["services"]:
                service["sticky"] = _sticky(split, split.affinity, _POD_COOKIE)
            weighted["sticky"] = _sticky(split, split.affinity, "")
        # Without a number, the length of a rule is its priority: the header of a short path would go over a long one.
        priority = 10 * len(split.match.path) + (5 if split.match.path_type == "Exact" else 0)
        spec: Manifest = {"entryPoints": [entry.name for entry in split.entries]} if split.entries else {}
        spec["routes"] = [
            *(
                {
                    "kind": "Rule",
                    "match": _rule(split.match, condition),
                    "priority": priority + len(chosen) - place,
                    "services": [_service(*share) for share in shares(split, percent)],
                }
                for place, (condition, percent) in enumerate(chosen)
            ),
            {
                "kind": "Rule",
                "match": _rule(split.match, None),
                "priority": priority,
                "services": [{"kind": _SERVICE, "name": _mirror_name(split.name) if split.mirror else split.name}],
            },
        ]
        if split.tls_secret:
            spec["tls"] = {"secretName": split.tls_secret}
        manifests = [_object(_SERVICE, metadata(split, {}), {"weighted": weighted})]
        if split.canary and split.mirror:
            # Not in place of the weights: a field that `Routes.lower` has written would outlive its removal.
            copies = {"name": split.canary.backend.service, "port": split.canary.backend.port}
            mirrors = [{"kind": "Service"} | copies | {"percent": split.mirror}]
            mirroring = {"kind": _SERVICE, "name": split.name, "mirrors": mirrors}
            of_canary = metadata(split, {}) | {
                "name": _mirror_name(split.name),
                "labels": {"app": split.name, "version": str(Track.CANARY)},
            }
            manifests.append(_object(_SERVICE, of_canary, {"mirroring": mirroring}))
        manifests.append(_object(_ROUTE, metadata(split), spec))
        return [RouteObject(manifest, services(split)) for manifest in manifests]

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one IngressRoute and its TraefikServices.

        Raises:
            UnreadableRouteError: one is missing, there is more than one, or they are not those of one split.
        """
        route = only(manifests, _ROUTE)
        name = route["metadata"]["name"]
        by_name = [(each["metadata"]["name"], each) for each in manifests if each["kind"] == _SERVICE]
        shared = only([each for named, each in by_name if named != _mirror_name(name)], _SERVICE)
        with reading(f"{_SERVICE} {name}"):
            weighted = shared["spec"]["weighted"]
            parts = [_share(each) for each in weighted["services"]]
            cookie = (weighted.get("sticky") or {}).get("cookie")
            affinity = SessionAffinity(cookie["name"], cookie.get("maxAge")) if cookie else None
        with reading(f"{_ROUTE} {name}"):
            spec = route["spec"]
            if not spec["routes"]:
                raise UnreadableRouteError("it has no rules")
            *chosen, last = spec["routes"]
            match, _ = _read_rule(last["match"])
            found = [(_condition(match, each), [_share(each) for each in each["services"]]) for each in chosen]
            mirror = _mirror(name, last, dict(by_name))
            stable, canary = backends_of([*found, (None, parts)], mirror)
            return Split(
                name=name,
                namespace=route["metadata"]["namespace"],
                match=match,
                stable=stable,
                canary=canary,
                entries=tuple(map(Entry, spec.get("entryPoints") or ())),
                tls_secret=(spec.get("tls") or {}).get("secretName"),
                annotations=dict(route["metadata"].get("annotations") or {}),
                affinity=affinity,
            )


def _object(kind: str, described: Manifest, spec: Manifest) -> Manifest:
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": described, "spec": spec}


def _mirror_name(name: str) -> str:
    # No service of the stack has the name of another one's canary.
    return f"{name}-{Track.CANARY}"


def _mirror(name: str, last: Manifest, by_name: Mapping[str, Manifest]) -> Mirror | None:
    """Return where the last route sends copies, None where it leads to the weights alone."""
    leads_to = [(each["kind"], each["name"]) for each in last["services"]]
    if leads_to == [(_SERVICE, name)]:
        return None
    if leads_to != [(_SERVICE, _mirror_name(name))]:
        raise UnreadableRouteError(f"its last route does not lead to {_SERVICE} {name}")
    around = f"{_SERVICE} {_mirror_name(name)}"
    if _mirror_name(name) not in by_name:
        raise UnreadableRouteError(f"{around}, to which its last route leads, is missing")
    with reading(around):
        mirroring = by_name[_mirror_name(name)]["spec"]["mirroring"]
        if (mirroring["kind"], mirroring["name"]) != (_SERVICE, name):
            raise UnreadableRouteError(f"it does not lead to {_SERVICE} {name}")
        copies = one(mirroring["mirrors"], "mirrors")
        return Backend(copies["name"], copies["port"]), copies["percent"]


def _service(backend: Backend, weight: int) -> Manifest:
    return {"kind": "Service", "name": backend.service, "port": backend.port, "weight": weight}


def _sticky(split: Split, affinity: SessionAffinity, suffix: str) -> Manifest:
    # Two services of a host that share a cookie's name would overwrite each other's.
    cookie: Manifest = {"name": affinity.cookie_name + suffix, "path": split.match.path, "httpOnly": True}
    return {"cookie": cookie if affinity.max_age is None else cookie | {"maxAge": affinity.max_age}}


def _rule(match: Match, condition: Condition | None) -> str:
    host = f"Host(`{match.host}`)"
    if match.host.startswith("*"):
        host = f"HostRegexp(`{_ONE_LABEL}{re.escape(match.host[1:])}$`)"
    paths = " || ".join(f"{_MATCHERS[how]}(`{path}`)" for how, path in by_element(match))
    rule = f"{host} && ({paths})" if " || " in paths else f"{host} && {paths}"
    if isinstance(condition, Header):
        return f"{rule} && Header(`{condition.name}`, `{condition.value}`)"
    return f"{rule} && HeaderRegexp(`{COOKIE_HEADER}`, `{cookie_pattern(condition)}`)" if condition else rule


def _read_rule(rule: str) -> tuple[Match, Condition | None]:
    found = _RULE.fullmatch(rule)
    if not found:
        raise UnreadableRouteError(f"its rule {rule} is not one of host, path and header")
    host = found["host"]
    if found["wild"]:
        host = "*" + host.removeprefix(_ONE_LABEL).removesuffix("$").replace("\\", "")
    names = {matcher: how for how, matcher in _MATCHERS.items()}
    match = match_of(host, [(names[matcher], path) for matcher, path in _PATH.findall(found["path"])])
    condition: Condition | None = None
    if found["pattern"]:
        condition = cookie_of(found["value"])
    elif found["name"]:
        condition = Header(found["name"], found["value"])
    if _rule(match, condition) != rule:
        raise UnreadableRouteError(f"its rule {rule} is not one of host, path and header")
    return match, condition


def _condition(match: Match, route: Manifest) -> Condition | None:
    own, condition = _read_rule(route["match"])
    if own != match:
        raise UnreadableRouteError("its routes match different requests")
    return condition


def _share(service: Manifest) -> tuple[Backend, Any]:
    return Backend(service["name"], service["port"]), service.get("weight", 1)
