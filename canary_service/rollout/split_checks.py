"""Checks of objects that any router has, and of those that keep both tracks in the same ones: all but nginx. No I/O."""

from collections.abc import Iterator
from dataclasses import astuple

from canary_service.config.settings import ROUTERS_WITH_KEYS
from canary_service.rollout.diagnosis import UP, Case, Evidence, Finding, evidence, listed
from canary_service.routing.gateway import KIND
from canary_service.routing.router import Manifest, UnreadableRouteError
from canary_service.routing.split import Backend, Header, Match, SessionAffinity, Split, Track
from canary_service.workload.live import last_written, read_split, routes_of


def route_kinds(case: Case) -> Iterator[Finding]:
    """Check that the cluster knows the kinds of the router."""
    for kind in case.settings.router_of_stack().kinds:
        if kind.kind in case.facts.unserved:
            yield Finding(
                f"the cluster does not know {kind.kind}, which router {case.settings.router} needs",
                (evidence(f"CustomResourceDefinition {kind.plural}", "spec.versions", f"no {kind.api_version}"),),
                "install the router's CustomResourceDefinitions (docs/routers.md, What each needs)",
            )


def route_split(case: Case) -> Iterator[Finding]:
    """Check that the router's objects say the declared split: requests, entries, Services and weight."""
    router, routes = case.settings.router_of_stack(), _routes(case)
    objects = listed(f"{route['kind']} {case.name}" for route in routes)
    try:
        found = router.read(routes)
    except UnreadableRouteError as error:
        expected = listed(f"{kind.kind} {case.name}" for kind in router.kinds)
        there = evidence(expected, "metadata.name", f"there: {objects or 'none'}")
        yield Finding(f"no split can be read from the router's objects: {error}", (there,), UP)
        return
    declared = case.settings.split_of(case.name)
    if found.canary and declared.canary and found.weight != declared.weight:
        _, key = case.settings.canary_weight_of(case.name)
        cause = f"{found.weight} % are in force, and {key} declares {declared.weight} %"
        yield Finding(cause, (evidence(objects, "weight", f"{found.weight}, not {declared.weight}"),), UP)
    if other := {what: pair for what, pair in _parts(found, declared).items() if pair[0] != pair[1]}:
        seen = tuple(evidence(objects, what, " instead of ".join(map(_words, pair))) for what, pair in other.items())
        yield Finding(f"the router's objects say another split than declared: {listed(other)}", seen, UP)


def route_accepted(case: Case) -> Iterator[Finding]:
    """Check that the router has accepted its objects, where their status says so."""
    routes, router = _routes(case), case.settings.router_of_stack()
    try:
        pending = router.pending(routes)
    except UnreadableRouteError:
        return  # told by `route-split`
    if pending and pending.stale and case.facts.at - max(map(last_written, routes)) < router.sync_seconds:
        return  # it may still follow
    lacking = [case.facts.lacking.get(entry, "") for entry in case.settings.split_of(case.name).entries]
    cause = pending.reason if pending else ""
    if any(lacking) and not (pending and pending.refused):
        cause = f"{KIND} {case.name}: {', '.join(filter(None, lacking))}"
    if cause:
        yield Finding(cause, tuple(map(_answer, routes)), _correction(case))


def former_router(case: Case) -> Iterator[Finding]:
    """Check that no other router has objects of this stack: a move to the declared one has ended."""
    if case.takes_over(Track.STABLE):
        return
    for router, there in case.facts.of_others.items():
        if routes := routes_of(case.settings, case.name, there):
            yield Finding(
                f"objects of router {router} take its requests too: the move to {case.settings.router} has not ended",
                tuple(evidence(route, "metadata.name", "there") for route in routes),
                f"{UP}, which removes them once router {case.settings.router} has accepted its own",
            )


def weight_in_force(case: Case) -> int | None:
    """Return the percent of the requests that the router's objects give the canary, None where they do not say."""
    try:
        canary = read_split(case.settings, case.name, case.settings.router_of_stack(), _routes(case)).canary
    except UnreadableRouteError:
        return None
    return canary.weight if canary else None


def _routes(case: Case) -> list[Manifest]:
    kinds = case.settings.router_of_stack().kinds
    return routes_of(case.settings, case.name, [found for kind in kinds for found in case.facts.of(kind.kind)])


def _correction(case: Case) -> str:
    """Return how what a route is attached to is corrected; not every router has keys for it."""
    router = case.settings.router_of_stack()
    if router.name in ROUTERS_WITH_KEYS:
        return f"correct {router.name} in the configuration, or what it names, and {UP}"
    return f"correct what it names: {case.kubectl} get {router.kinds[0].plural} {case.name} --output yaml"


def _answer(route: Manifest) -> Evidence:
    """Return what controllers have answered for a route, shortly."""
    parents = (route.get("status") or {}).get("parents") or ()
    said = [
        f"{condition['type']}={condition['status']} {condition.get('reason') or ''} {condition.get('message') or ''}"
        for parent in parents
        for condition in parent.get("conditions") or ()
    ]
    return evidence(route, "status.parents", "; ".join(" ".join(each.split()) for each in said) or "empty")


def _parts(found: Split, declared: Split) -> dict[str, tuple[object, object]]:
    """Return what two splits say besides the weight and the user's annotations, by what it is called."""
    here, there = found.canary, declared.canary
    return {
        "requests": (found.match, declared.match),
        "entries": (found.entries, declared.entries),
        "stable's Service": (found.stable, declared.stable),
        "the canary's Service": (here and here.backend, there and there.backend),
        "header": (here and here.header, there and there.header),
        "cookie": (here and here.cookie, there and there.cookie),
        "percent of requests that are mirrored": (found.mirror, declared.mirror),
        "session cookie": (found.affinity, declared.affinity),
        "certificate": (found.tls_secret, declared.tls_secret),
    }


def _words(part: object) -> str:
    if part is None or part == ():
        return "none"
    if isinstance(part, tuple):
        return ", ".join(map(str, part))
    if isinstance(part, Match | Backend | Header | SessionAffinity):
        return " ".join(str(value) for value in astuple(part) if value is not None)
    return str(part)
