"""Splits of all shapes, and each as the configuration makes it for a router."""

import random
from dataclasses import replace
from typing import TypeVar

from canary_service.routing.router import Feature, Router
from canary_service.routing.split import Backend, CanaryBackend, Entry, Header, Match, SessionAffinity, Split

Drawn = TypeVar("Drawn")

STABLE_ONLY = Split(
    name="auth-service",
    namespace="macromind",
    match=Match("macromind.local", "/api/auth"),
    stable=Backend("auth-service", 8080),
)
CANARY = CanaryBackend(Backend("auth-service-canary", 8080), 20)
MIRRORED = replace(CANARY, weight=0, mirror=20)
HEADER = Header("X-Canary", "true")
AFFINITY = SessionAffinity("pin", max_age=600)

SPLITS = {
    "stable only": STABLE_ONLY,
    **{f"weight {w}": replace(STABLE_ONLY, canary=replace(CANARY, weight=w)) for w in (0, 1, 20, 50, 99, 100)},
    "header at weight 0": replace(STABLE_ONLY, canary=replace(CANARY, weight=0, header=HEADER)),
    "header and weight": replace(STABLE_ONLY, canary=replace(CANARY, header=HEADER)),
    "cookie at weight 0": replace(STABLE_ONLY, canary=replace(CANARY, weight=0, cookie="canary")),
    "header and cookie": replace(STABLE_ONLY, canary=replace(CANARY, header=HEADER, cookie="canary")),
    "affinity": replace(STABLE_ONLY, canary=CANARY, affinity=AFFINITY),
    "affinity of stable alone": replace(STABLE_ONLY, affinity=replace(AFFINITY, canary_behavior="legacy")),
    "affinity for the session": replace(STABLE_ONLY, canary=CANARY, affinity=SessionAffinity("pin")),
    "affinity that evicts": replace(
        STABLE_ONLY, canary=CANARY, affinity=replace(AFFINITY, canary_behavior="legacy"), annotations={"a/b": "c"}
    ),
    "mirror": replace(STABLE_ONLY, canary=MIRRORED),
    "mirror of all, header and cookie": replace(
        STABLE_ONLY, canary=replace(MIRRORED, mirror=100, header=HEADER, cookie="canary")
    ),
    "mirror and affinity": replace(STABLE_ONLY, canary=MIRRORED, affinity=AFFINITY),
    "exact path": replace(STABLE_ONLY, match=Match("macromind.local", "/", "Exact"), canary=CANARY),
    "tls and annotations": replace(STABLE_ONLY, tls_secret="macromind-tls", annotations={"a/b": "c"}, canary=CANARY),  # noqa: S106 - the name of a Secret
    "path with a slash at its end": replace(STABLE_ONLY, match=Match("macromind.local", "/api/"), canary=CANARY),
    "every path": replace(STABLE_ONLY, match=Match("macromind.local", "/"), canary=CANARY),
    "any host below": replace(STABLE_ONLY, match=Match("*.macromind.local", "/api"), canary=CANARY),
    "paths of the controller's": replace(STABLE_ONLY, match=Match("a.b", "/api", "ImplementationSpecific")),
}

ENTRIES = {
    "nginx": (Entry("internal"),),
    "gateway": (Entry("public", "gateways", "https"), Entry("own")),
    "traefik": (Entry("web"), Entry("websecure")),
    "istio": (Entry("public", "istio-system"),),
}


def fitted(router: Router, split: Split, entries: tuple[Entry, ...] | None = None) -> Split:
    """Return a split as the configuration makes it for this router."""
    entries = ENTRIES.get(router.name, ()) if entries is None else entries
    match = Match(split.name, "/") if Feature.MESH in router.features and not entries else split.match
    canary = split.canary
    if canary and canary.header and not router.header_syntax.name.fullmatch(canary.header.name):
        canary = replace(canary, header=replace(canary.header, name=canary.header.name.lower()))
    return replace(split, entries=entries, match=match, canary=canary)


def needs(split: Split) -> set[Feature]:
    legacy = split.affinity is not None and split.affinity.canary_behavior == "legacy"
    asked: dict[Feature, object] = {
        Feature.AFFINITY: split.affinity,
        Feature.AFFINITY_OF_STABLE: legacy or None,
        Feature.TLS: split.tls_secret,
        Feature.IMPLEMENTATION_SPECIFIC: split.match.path_type == "ImplementationSpecific" or None,
    }
    if split.canary:
        asked |= {
            Feature.WEIGHT: split.canary,
            Feature.HEADER: split.canary.header,
            Feature.COOKIE: split.canary.cookie,
            Feature.MIRROR: split.mirror or None,
        }
    return {feature for feature, value in asked.items() if value is not None}


def drawn(draw: random.Random) -> Split:
    """Return any split that a configuration can ask for."""
    letters = "abcdefghijklmnopqrstuvwxyz"

    def text(alphabet: str, most: int) -> str:
        return "".join(draw.choices(alphabet, k=draw.randint(1, most)))

    def maybe(value: Drawn) -> Drawn | None:
        return draw.choice((value, None))

    name = draw.choice(letters) + text(letters + "0123456789-", 40) + "x"
    path = "/" + "/".join(text(letters + "ABC019._-", 6) for _ in range(draw.randint(0, 3)))
    path = draw.choice((path, path.rstrip("/") + "/"))
    host = draw.choice(("", "*.")) + f"{text(letters, 9)}.{text(letters, 9)}"
    visible = "".join(map(chr, range(0x21, 0x7F))).replace("`", "")
    header = Header(text(letters + "X0-_!#$%&'*+.^|~", 20), text(visible, 30))
    port = draw.randint(1, 65535)
    cookie = maybe(text(letters + "A0_-", 12))
    weight = draw.choice((0, draw.randint(0, 100)))
    mirror = 0 if weight else draw.randint(0, 100)
    canary = CanaryBackend(Backend(f"{name}-canary", port), weight, maybe(header), cookie, mirror)
    # Not the name of the other cookie, which a configuration may not have.
    pinned = SessionAffinity(
        f"{cookie or ''}{text(letters, 9)}", maybe(draw.randint(1, 10_000)), draw.choice(("sticky", "legacy"))
    )
    return Split(
        name=name,
        namespace=text(letters, 20),
        match=Match(host, path, draw.choice(("Prefix", "Exact"))),
        stable=Backend(name, port),
        canary=maybe(canary),
        tls_secret=maybe(text(letters, 9)),
        annotations={f"{text(letters, 9)}/{text(letters, 9)}": text(visible, 9) for _ in range(draw.randint(0, 2))},
        affinity=maybe(pinned),
    )
