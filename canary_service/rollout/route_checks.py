"""Checks of how requests get to a canary by the annotations of ingress-nginx. No I/O.

What the controllers do with them was read in ingress-nginx v1.15.1 (internal/ingress/annotations/canary and parser,
mergeAlternativeBackends in internal/ingress/controller/controller.go, rootfs/etc/nginx/lua/balancer.lua) and
in Traefik 3.7 (pkg/provider/kubernetes/ingress-nginx).
"""

import re
from collections.abc import Iterator
from typing import Final

from canary_service.observability.recorded import SHARE
from canary_service.rollout.diagnosis import (
    UP,
    Case,
    Finding,
    annotation,
    annotations_of,
    backends_of,
    evidence,
    is_canary,
    listed,
    moment,
    requests_of,
)
from canary_service.rollout.split_checks import weight_in_force
from canary_service.routing.nginx import (
    AFFINITY,
    AFFINITY_CANARY_BEHAVIOR,
    ANNOTATION_PREFIX,
    CANARY,
    COOKIE,
    HEADER_NAME,
    HEADER_VALUE,
    WEIGHT,
)
from canary_service.routing.router import Manifest
from canary_service.routing.split import TOTAL_WEIGHT, Track
from canary_service.workload.labels import object_name
from canary_service.workload.live import OWNER_ANNOTATION

WEIGHT_TOTAL: Final = ANNOTATION_PREFIX + "canary-weight-total"
HEADER_PATTERN: Final = ANNOTATION_PREFIX + "canary-by-header-pattern"
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"

_SERVES: Final = "ingress-nginx"
"""Part of the controller's name in IngressClasses of ingress-nginx (k8s.io/ingress-nginx) and of what serves its
annotations in its place."""

_SERVE_NOT: Final = {
    "nginx.org/ingress-controller": "F5's NGINX Ingress Controller",
    "traefik.io/ingress-controller": "Traefik's provider of plain Ingresses, not that of ingress-nginx's annotations",
}
_PLAIN: Final = re.compile(r"[/\-._~a-zA-Z0-9:]*")
"""validators.go: spaces removed, a header or cookie annotation with other characters counts as empty."""
_PATTERN: Final = re.compile(r"[/\-._~a-zA-Z0-9:^$\[\](){}*+?|&=\\]*")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")  # Go's strconv.Atoi


def ingress_class(case: Case) -> Iterator[Finding]:
    """Check that there is the IngressClass, and its controller reads the annotations."""
    name = case.settings.ingress_class_name
    there = {found["metadata"]["name"]: found["spec"].get("controller", "") for found in case.facts.of("IngressClass")}
    if name not in there:
        serving = [each for each, controller in there.items() if _SERVES in controller]
        yield Finding(
            f"there is no IngressClass {name}, so that no controller takes the Ingresses",
            (evidence(f"IngressClass {name}", "metadata.name", f"missing; there are: {listed(there) or 'none'}"),),
            f"pulumi config set ingressClassName {serving[0]} && {UP}"
            if serving
            else "install a controller that serves ingress-nginx's annotations (README.md, Your own cluster)",
        )
        return
    controller = there[name]
    seen = (evidence(f"IngressClass {name}", "spec.controller", controller),)
    other = "choose the class of ingress-nginx, or of Traefik's ingress-nginx provider: kubectl get ingressclasses"
    if controller in _SERVE_NOT:
        cause = f"the class is that of {_SERVE_NOT[controller]}, which does not read {ANNOTATION_PREFIX}canary*"
        yield Finding(cause, seen, other)
    elif _SERVES not in controller:
        yield Finding(
            f"whether {controller} reads {ANNOTATION_PREFIX}canary* is not known here", seen, other, "unknown"
        )


def retired_controller(case: Case) -> Iterator[Finding]:
    """Check that the controller still gets fixes."""
    found = case.facts.named("IngressClass", case.settings.ingress_class_name)
    if found and found["spec"].get("controller") == "k8s.io/ingress-nginx":
        yield Finding(
            "ingress-nginx is retired since March 2026 and gets no more fixes; Traefik 3.7 serves its annotations",
            (evidence(found, "spec.controller", found["spec"]["controller"]),),
            "if ingress-nginx itself serves this class, let Traefik's provider kubernetesIngressNGINX take it over",
            "advice",
        )


def ingress_present(case: Case) -> Iterator[Finding]:
    """Check that each track has its Ingress."""
    for track in case.tracks:
        if case.ingress(track):
            continue
        match, name = case.settings.split_of(case.name).match, object_name(case.name, track)
        if case.takes_over(track):
            asked = f"{match.host}{match.path} ({match.path_type})"
            yield Finding(
                f"no Ingress of stable matches {asked}, which the canary is attached to",
                (evidence("Ingress", "spec.rules", f"none with {asked}"),),
                f"{case.kubectl} get ingresses --output wide",
            )
        else:
            lost = "all requests" if track is Track.STABLE else f"the canary's {case.weight} %"
            cause = f"Ingress {name} is not there: nothing routes {lost}"
            yield Finding(cause, (evidence(f"Ingress {name}", "metadata.name", "missing"),), UP)


def ingress_route_class(case: Case) -> Iterator[Finding]:
    """Check that the Ingresses are of the declared class."""
    wanted = case.settings.ingress_class_name
    for track, found in _ingresses(case):
        if case.takes_over(track):
            continue
        given = found["spec"].get("ingressClassName") or "none"
        if given != wanted:
            cause = f"the {track} Ingress is of class {given}, so that another controller or none takes it"
            yield Finding(cause, (evidence(found, "spec.ingressClassName", f"{given}, not {wanted}"),), UP)
        old = annotations_of(found).get(CLASS_ANNOTATION)
        if old not in {None, wanted}:
            yield Finding(
                f"the {track} Ingress names class {old} in the annotation of old, beside {given}",
                (evidence(found, annotation(CLASS_ANNOTATION), old),),
                f"{case.kubectl} annotate ingress {found['metadata']['name']} {CLASS_ANNOTATION}-",
            )


def ingress_status(case: Case) -> Iterator[Finding]:
    """Check that a controller has taken the Ingresses: it writes its address into their status, the same into both."""
    addresses: dict[Track, str] = {}
    for track, found in _ingresses(case):
        entries = ((found.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        addresses[track] = listed(entry.get("ip") or entry.get("hostname") or "" for entry in entries)
        if not addresses[track]:
            yield Finding(
                f"no controller has written its address into the {track} Ingress: it was not taken, or refused",
                (evidence(found, "status.loadBalancer.ingress", "empty"),),
                f"{case.kubectl} describe ingress {found['metadata']['name']}, and look for it in the controller's log",
            )
    if len(set(addresses.values())) > 1 and all(addresses.values()):
        yield Finding(
            "stable and canary Ingress have the addresses of different controllers: one of the two is stale",
            tuple(evidence(found, "status.loadBalancer.ingress", addresses[t]) for t, found in _ingresses(case)),
            f"{case.kubectl} get ingresses --output wide, then restart the controller whose address is out of date",
        )


def route_match(case: Case) -> Iterator[Finding]:
    """Check that stable and canary Ingress match the same requests, those that are declared."""
    match = case.settings.split_of(case.name).match
    wanted = (match.host, match.path, match.path_type)
    for track, found in _ingresses(case):
        requests = requests_of(found)
        wrong = [each for each in requests if each != wanted] if track is Track.CANARY else []
        if wanted in requests and not wrong:
            continue
        paths = "spec.rules[0].http.paths[0]"
        fields = ("spec.rules[0].host", f"{paths}.path", f"{paths}.pathType")
        given = (wrong or requests or [("none", "none", "none")])[0]
        seen = tuple(
            evidence(found, field, f"{there}, not {value}")
            for field, there, value in zip(fields, given, wanted, strict=True)
            if there != value
        )
        cause = f"the stable Ingress does not match {match.host}{match.path} ({match.path_type})"
        if track is Track.CANARY:
            cause = "the canary's host, path or pathType is not exactly stable's, so that it is attached to nothing"
        yield Finding(cause, seen, UP)


def route_backend(case: Case) -> Iterator[Finding]:
    """Check that the Ingresses lead to their track's Service, by a port that it has."""
    for track, found in _ingresses(case):
        wanted = case.service_name(track)
        for number, (service, port) in enumerate(backends_of(found)):
            field = f"spec.rules[{number}].http.paths[0].backend.service"
            if service != wanted:
                cause = f"the {track} Ingress leads to Service {service or 'none'} instead of {wanted}"
                yield Finding(cause, (evidence(found, f"{field}.name", f"{service}, not {wanted}"),), UP)
                continue
            exposed = case.facts.named("Service", service)
            ports = (exposed["spec"].get("ports") or ()) if exposed else ()
            if exposed and port not in {known for each in ports for known in (each["port"], each.get("name"))}:
                has = listed(str(each["port"]) for each in ports)
                yield Finding(
                    f"the {track} Ingress leads to port {port} of Service {service}, which has {has or 'none'}",
                    (evidence(found, f"{field}.port", port), evidence(exposed, "spec.ports", has)),
                    UP if not case.takes_over(track) else f"{case.kubectl} edit ingress {found['metadata']['name']}",
                )


def canary_annotations(case: Case) -> Iterator[Finding]:
    """Check that the controller takes each canary annotation for what it says, and does not drop it without a word."""
    found = case.ingress(Track.CANARY)
    if not found:
        return
    given = annotations_of(found)
    name = found["metadata"]["name"]
    mark, weight = given.get(CANARY, "missing"), given.get(WEIGHT)
    if mark.lower() != "true":
        cause = "the canary's Ingress is not marked as one, so that it is a second Ingress of the same path"
        if is_canary(found):
            cause = f"the canary's Ingress is marked by {mark!r}, which Traefik does not take for true"
        yield Finding(cause, (evidence(found, annotation(CANARY), mark),), UP)
    if weight is not None and not _NUMBER.fullmatch(weight):
        yield Finding(
            f"weight {weight!r} is no whole number, so that the controller takes 0",
            (evidence(found, annotation(WEIGHT), weight),),
            UP,
        )
    dropped = {HEADER_NAME: _PLAIN, HEADER_VALUE: _PLAIN, HEADER_PATTERN: _PATTERN, COOKIE: _PLAIN}
    for key, allowed in dropped.items():
        text = given.get(key)
        if text is not None and not (text and allowed.fullmatch(text.replace(" ", ""))):
            cause = (
                f"the controller drops {key.removeprefix(ANNOTATION_PREFIX)}: {text!r} is empty or has other characters"
            )
            yield Finding(cause, (evidence(found, annotation(key), text),), _removed(case, name, key))
    for key in (HEADER_VALUE, HEADER_PATTERN):
        if key in given and HEADER_NAME not in given:
            cause = f"{key.removeprefix(ANNOTATION_PREFIX)} has no effect without canary-by-header"
            yield Finding(cause, (evidence(found, annotation(key), given[key]),), _removed(case, name, key))
    if HEADER_VALUE in given and HEADER_PATTERN in given:
        yield Finding(
            "canary-by-header-pattern has no effect beside canary-by-header-value",
            (evidence(found, annotation(HEADER_PATTERN), given[HEADER_PATTERN]),),
            _removed(case, name, HEADER_PATTERN),
        )


def weight_total(case: Case) -> Iterator[Finding]:
    """Check that weights are percent: no canary-weight-total changes what they are parts of."""
    found = case.ingress(Track.CANARY)
    total = annotations_of(found).get(WEIGHT_TOTAL) if found else None
    if not found or total is None or total == str(TOTAL_WEIGHT):
        return
    counts = int(total) if _NUMBER.fullmatch(total) and int(total) > TOTAL_WEIGHT else TOTAL_WEIGHT
    cause = f"weights are parts of {counts}, not percent"
    if counts == TOTAL_WEIGHT:
        cause = f"canary-weight-total {total} has no effect: at most {TOTAL_WEIGHT}, it counts as {TOTAL_WEIGHT}"
    seen = (evidence(found, annotation(WEIGHT_TOTAL), total),)
    yield Finding(cause, seen, _removed(case, found["metadata"]["name"], WEIGHT_TOTAL))


def weight(case: Case) -> Iterator[Finding]:
    """Check that the weight in the cluster is the declared one."""
    found = case.ingress(Track.CANARY)
    if not found:
        return
    given = annotations_of(found).get(WEIGHT, "0")
    if _NUMBER.fullmatch(given) and int(given) != case.weight:
        _, key = case.settings.canary_weight_of(case.name)
        cause = f"{given} % are in force, and {key} declares {case.weight} %"
        yield Finding(cause, (evidence(found, annotation(WEIGHT), f"{given}, not {case.weight}"),), UP)


def undeclared_annotations(case: Case) -> Iterator[Finding]:
    """Check that no annotation that decides about the split was added beside the declared ones."""
    rendered = {
        route.manifest["metadata"]["name"]: annotations_of(route.manifest)
        for route in case.settings.router_of_stack().render(case.settings.split_of(case.name))
    }
    for track, found in _ingresses(case):
        if case.takes_over(track):
            continue
        name = found["metadata"]["name"]
        deciding = {
            key
            for key in annotations_of(found)
            if key.startswith(ANNOTATION_PREFIX + "canary") or key in {AFFINITY, AFFINITY_CANARY_BEHAVIOR}
        }
        for key in sorted(deciding - rendered.get(name, {}).keys() - {WEIGHT_TOTAL}):
            keeps = "keeps clients on their pod" if key == AFFINITY else "decides who reaches the canary"
            yield Finding(
                f"{key.removeprefix(ANNOTATION_PREFIX)} was added by hand, and {keeps} at every weight",
                (evidence(found, annotation(key), annotations_of(found)[key]),),
                _removed(case, name, key),
            )


def kept_clients(case: Case) -> Iterator[Finding]:
    """Check that at weight 0 nothing else leads to the canary."""
    canary, affinity = case.declared.canary, case.declared.session_affinity
    found = case.ingress(Track.CANARY)
    if not canary or case.weight or not found:
        return
    given = annotations_of(found)
    kept = [(HEADER_NAME, "canary.header")] if canary.header else []
    kept += [(COOKIE, "canary.cookie")] if canary.cookie else []
    kept += [(AFFINITY_CANARY_BEHAVIOR, "sessionAffinity")] if affinity and affinity.canary_behavior == "sticky" else []
    for key, setting in kept:
        yield Finding(
            f"clients reach the canary at weight 0 by {setting} (docs/reference.md, Who stays on which track)",
            (evidence(found, annotation(key), given.get(key, "missing")),),
            f"pulumi config rm --path services.{case.name}.{setting} && {UP}",
            "advice",
        )


def header_priority(case: Case) -> Iterator[Finding]:
    """Check that no longer path of the host goes to the canary by its header or cookie.

    Traefik gives the canary's header router a longer rule, and so a higher priority, than a longer path's (its issue
    13785); ingress-nginx keeps to the longest path.
    """
    found, match = case.ingress(Track.CANARY), case.settings.split_of(case.name).match
    keys = [key for key in (HEADER_NAME, COOKIE) if found and key in annotations_of(found)]
    if not found or not keys or match.path_type == "Exact":
        return
    below = match.path.rstrip("/") + "/"
    for other in _ordinary(case):
        longer = [path for host, path, _ in requests_of(other) if host == match.host and path.startswith(below)]
        longer = [path for path in longer if path != match.path]
        if longer:
            yield Finding(
                f"Traefik sends requests with the canary's header or cookie for {listed(longer)} to this canary",
                (
                    evidence(found, annotation(keys[0]), annotations_of(found)[keys[0]]),
                    evidence(other, "spec.rules", listed(longer)),
                ),
                "with Traefik as router, give this service a path of its own or another header name",
                "advice",
            )


def one_canary(case: Case) -> Iterator[Finding]:
    """Check that no canary but the declared one is attached to the same requests or to the same Service."""
    mine = case.ingress(Track.CANARY) if case.has_canary else None
    match, own = case.settings.split_of(case.name).match, object_name(case.name, Track.CANARY)
    attached = {(match.host, match.path)} | {
        request for found in _ordinary(case) for request in _led_to(found, case.service_name(Track.STABLE))
    }
    for found in case.facts.of("Ingress"):
        name = found["metadata"]["name"]
        declared = case.has_canary and name == own
        if declared or not is_canary(found) or not attached & {(host, path) for host, path, _ in requests_of(found)}:
            continue
        owner = annotations_of(found).get(OWNER_ANNOTATION)
        cause = f"Ingress {name} is a canary of the service's requests, and none is declared"
        if case.has_canary:
            first = name if mine is None or _made(found) < _made(mine) else own
            cause = (
                f"Ingress {name} is a second canary of the same requests; the router uses one of the two, here {first}"
            )
        fix = f"remove it in stack {owner}" if owner else f"{case.kubectl} delete ingress {name}"
        yield Finding(
            cause,
            (
                evidence(found, annotation(CANARY), annotations_of(found)[CANARY]),
                evidence(found, annotation(OWNER_ANNOTATION), owner or "missing: made by hand"),
            ),
            UP if owner == case.stack and name == own else fix,
        )


def shared_service(case: Case) -> Iterator[Finding]:
    """Check that no other Ingress leads to these Services: a canary is attached to a Service, not to a path."""
    if not case.has_canary:
        return
    match = case.settings.split_of(case.name).match
    for found in _ordinary(case):
        name, service = found["metadata"]["name"], case.service_name(Track.STABLE)
        others = [host + path for host, path in _led_to(found, service) if (host, path) != (match.host, match.path)]
        if not others:
            continue
        yield Finding(
            f"the canary gets its share of {listed(others)} too: Ingress {name} leads to the same Service",
            (evidence(found, "spec.rules", listed(others)),),
            f"{case.kubectl} expose service {service} --name {name}-{service}, and let Ingress {name} lead to that",
            "advice" if case.takes_over(Track.STABLE) else "problem",
        )
    for found in _ordinary(case):
        name, service = found["metadata"]["name"], case.service_name(Track.CANARY)
        if not _led_to(found, service):
            continue
        yield Finding(
            f"Ingress {name}, which is no canary, leads to the canary's Service: one of the two gets no requests",
            (evidence(found, "spec.rules", f"backend {service}"),),
            f"{case.kubectl} expose service {service} --name {name}-{service}, and let Ingress {name} lead to that",
        )


def share(case: Case) -> Iterator[Finding]:
    """Check that the measured share is the weight."""
    if not case.has_canary or case.declared.session_affinity or case.settings.mirror_of(case.name):
        # With a session cookie the share follows the weight only as far as new clients come; copies make no share.
        return
    measured, accepted = case.facts.shares.get(case.name), case.settings.rollout.gates.weight_difference
    if measured is None:
        yield Finding(
            f"no share was measured: {case.facts.unmeasured}",
            (),
            "docs/doctor.md, What it knows, and from where",
            "unknown",
        )
        return
    # A weight that somebody has changed is told by its own check; here the question is whether the router follows it.
    given = weight_in_force(case)
    lately = [measured.least, measured.most, *([] if given is None else [given])]
    if not min(lately) - accepted <= measured.percent <= max(lately) + accepted:
        weights = " to ".join(dict.fromkeys((f"{min(lately):g}", f"{max(lately):g}")))
        service = f"Service {case.service_name(Track.CANARY)}"
        yield Finding(
            f"the canary answers {measured.percent:.1f} % of the requests at weight {weights}: the router does not "
            "follow, or something reaches pods past it",
            (evidence(service, SHARE, f"{measured.percent:.1f}, not {weights}"),),
            f"canary verify --service {case.name}, then look for its objects in the router's log",
        )


def _ingresses(case: Case) -> list[tuple[Track, Manifest]]:
    return [(track, found) for track in case.tracks if (found := case.ingress(track))]


def _ordinary(case: Case) -> list[Manifest]:
    """Return the Ingresses that are no canary, without the canary's own, whatever it is marked as."""
    own = object_name(case.name, Track.CANARY)
    return [found for found in case.facts.of("Ingress") if not is_canary(found) and found["metadata"]["name"] != own]


def _led_to(ingress: Manifest, service: str) -> list[tuple[str, str]]:
    """Return host and path of what an Ingress leads to a Service."""
    paths = zip(requests_of(ingress), backends_of(ingress), strict=True)
    return [(host, path) for (host, path, _), (name, _) in paths if name == service]


def _removed(case: Case, ingress: str, key: str) -> str:
    return f"{case.kubectl} annotate ingress {ingress} {key}- && {UP}"


def _made(found: Manifest) -> tuple[float, str]:
    return moment(found["metadata"].get("creationTimestamp")), found["metadata"]["name"]
