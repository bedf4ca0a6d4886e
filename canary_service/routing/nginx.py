"""The annotations of ingress-nginx, which Traefik 3.7 and later serve too.

The canary has an Ingress of its own that repeats host, path and pathType of the stable one; the controller merges
it into the stable Service's upstream. Semantics: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from canary_service.routing.router import (
    Feature,
    HeaderSyntax,
    Manifest,
    Pending,
    RouteKind,
    RouteObject,
    UnreadableRouteError,
)
from canary_service.routing.split import Backend, CanaryBackend, Entry, Header, Match, SessionAffinity, Split, Track

ANNOTATION_PREFIX: Final = "nginx.ingress.kubernetes.io/"
CANARY: Final = ANNOTATION_PREFIX + "canary"
WEIGHT: Final = ANNOTATION_PREFIX + "canary-weight"
HEADER_NAME: Final = ANNOTATION_PREFIX + "canary-by-header"
HEADER_VALUE: Final = ANNOTATION_PREFIX + "canary-by-header-value"
COOKIE: Final = ANNOTATION_PREFIX + "canary-by-cookie"
AFFINITY: Final = ANNOTATION_PREFIX + "affinity"
AFFINITY_CANARY_BEHAVIOR: Final = ANNOTATION_PREFIX + "affinity-canary-behavior"
SESSION_COOKIE_NAME: Final = ANNOTATION_PREFIX + "session-cookie-name"
SESSION_COOKIE_MAX_AGE: Final = ANNOTATION_PREFIX + "session-cookie-max-age"
SESSION_COOKIE_PATH: Final = ANNOTATION_PREFIX + "session-cookie-path"
_OF_AFFINITY: Final = frozenset(
    {AFFINITY, AFFINITY_CANARY_BEHAVIOR, SESSION_COOKIE_NAME, SESSION_COOKIE_MAX_AGE, SESSION_COOKIE_PATH}
)

# What the controller calls the cookie when no annotation does.
DEFAULT_SESSION_COOKIE: Final = "INGRESSCOOKIE"


class Nginx:
    """Two Ingresses: `NAME` to the stable Service, `NAME-canary` with the canary annotations."""

    name = "nginx"
    features = frozenset(
        {
            Feature.WEIGHT,
            Feature.HEADER,
            Feature.COOKIE,
            Feature.AFFINITY,
            Feature.AFFINITY_OF_STABLE,
            Feature.ATTACH,
            Feature.TLS,
            Feature.IMPLEMENTATION_SPECIFIC,
        }
    )
    kinds = (RouteKind("networking.k8s.io/v1", "Ingress", "ingresses"),)
    # The controller drops a header annotation with other characters and only logs it
    # (internal/ingress/annotations/parser/validators.go, v1.15.1). Underscores in names are not passed on by nginx
    # unless `underscores_in_headers` is on.
    header_syntax = HeaderSyntax(
        name=re.compile(r"[A-Za-z0-9-]+"),
        value=re.compile(r"[A-Za-z0-9/._~:-]+"),
        rule="a name of letters, digits and '-', and a value of letters, digits and '/', '.', '_', '~', ':', '-' "
        "(router nginx silently ignores others)",
    )
    # `--sync-rate-limit` 0.3 per second, then a Lua timer of at most 1 s.
    sync_seconds = 1 / 0.3 + 1

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the stable Ingress and, when there is a canary, its Ingress."""
        stable = RouteObject(
            _ingress(split, Track.STABLE, split.stable, split.annotations | _affinity_annotations(split)),
            frozenset({split.stable.service}),
        )
        if split.canary is None:
            return (stable,)
        annotations = {CANARY: "true", WEIGHT: str(split.canary.weight)}
        if split.canary.header:
            annotations |= {HEADER_NAME: split.canary.header.name, HEADER_VALUE: split.canary.header.value}
        if split.canary.cookie:
            annotations[COOKIE] = split.canary.cookie
        if split.affinity:
            annotations[AFFINITY_CANARY_BEHAVIOR] = split.affinity.canary_behavior
        canary = RouteObject(
            _ingress(split, Track.CANARY, split.canary.backend, annotations),
            frozenset({split.stable.service, split.canary.backend.service}),
        )
        return stable, canary

    def pod_annotations(self, service: str, track: Track) -> dict[str, str]:  # noqa: ARG002 - the seam's
        """Return nothing: Services tell the pods apart."""
        return {}

    def pending(self, manifests: Sequence[Manifest]) -> Pending | None:  # noqa: ARG002 - the seam's
        """Return nothing: the objects do not say who obeys them."""
        return None

    def demands(self, split: Split) -> Mapping[Feature, frozenset[str]]:  # noqa: ARG002 - the seam's
        """Return nothing: the objects are not those of the Gateway API."""
        return {}

    def narrowed(self, manifests: Sequence[Manifest], match: Match) -> list[Manifest]:
        """Return the Ingresses that have this host, path and pathType, with nothing else in them."""
        found = []
        for manifest in manifests:
            rules = [
                {"host": rule.get("host"), "http": {"paths": [path]}}
                for rule, path in _paths(manifest)
                if (rule.get("host"), path.get("path"), path.get("pathType"))
                == (match.host, match.path, match.path_type)
            ]
            if rules:
                found.append(manifest | {"spec": manifest["spec"] | {"rules": rules}})
        return found

    def taken_along(self, manifests: Sequence[Manifest], split: Split) -> list[str]:
        """Return other hosts and paths of the stable Service: NGINX attaches a canary to the Service, not to a path.

        See mergeAlternativeBackends in internal/ingress/controller/controller.go (v1.15.1), and issues 4667 and 8689.
        """
        return [
            f"{rule.get('host', '*')}{path.get('path', '/')}"
            for manifest in manifests
            if _annotations(manifest).get(CANARY) != "true"
            for rule, path in _paths(manifest)
            if ((path.get("backend") or {}).get("service") or {}).get("name") == split.stable.service
            and (rule.get("host"), path.get("path")) != (split.match.host, split.match.path)
        ]

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one stable Ingress and at most one canary Ingress.

        Raises:
            UnreadableRouteError: there is no stable Ingress, more than one of a kind, an Ingress with other than one
                rule and path, a canary weight that is not a whole number from 0 to 100, or a cookie's age that is
                not a whole number.
        """
        canaries = [m for m in manifests if _annotations(m).get(CANARY) == "true"]
        stables = [m for m in manifests if m not in canaries]
        if len(stables) != 1 or len(canaries) > 1:
            raise UnreadableRouteError(
                f"expected one stable Ingress and at most one canary Ingress, found {len(stables)} and {len(canaries)}"
            )
        (stable,) = stables
        match, backend = _route(stable)
        metadata, spec = stable["metadata"], stable["spec"]
        annotations = _annotations(stable)
        affinity = _affinity(stable, *canaries)
        if affinity:
            annotations = {key: value for key, value in annotations.items() if key not in _OF_AFFINITY}
        return Split(
            name=metadata["name"],
            namespace=metadata["namespace"],
            match=match,
            stable=backend,
            canary=_canary(canaries[0]) if canaries else None,
            entries=(Entry(spec["ingressClassName"]),) if spec.get("ingressClassName") else (),
            # An entry without a Secret takes the controller's own certificate.
            tls_secret=spec["tls"][0].get("secretName") if spec.get("tls") else None,
            annotations=annotations,
            affinity=affinity,
        )


def _affinity_annotations(split: Split) -> dict[str, str]:
    if split.affinity is None:
        return {}
    annotations = {
        AFFINITY: "cookie",
        SESSION_COOKIE_NAME: split.affinity.cookie_name,
        # ingress-nginx does the same without it, but Traefik sets the cookie for the whole host, and services with the
        # same cookie name overwrite each other's.
        SESSION_COOKIE_PATH: split.match.path,
        # The controller reads it from the canary's Ingress only; here it says what the next canary will do.
        AFFINITY_CANARY_BEHAVIOR: split.affinity.canary_behavior,
    }
    if split.affinity.max_age is not None:
        annotations[SESSION_COOKIE_MAX_AGE] = str(split.affinity.max_age)
    return annotations


def _affinity(stable: Manifest, canary: Manifest | None = None) -> SessionAffinity | None:
    annotations = _annotations(stable)
    if annotations.get(AFFINITY) != "cookie":
        return None
    age = annotations.get(SESSION_COOKIE_MAX_AGE)
    try:
        max_age = None if age is None else int(age)
    except ValueError as error:
        raise UnreadableRouteError(
            f"Ingress {stable['metadata']['name']} has {SESSION_COOKIE_MAX_AGE}: {age!r}, not a whole number of seconds"
        ) from error
    decisive = _annotations(canary or stable)
    return SessionAffinity(
        annotations.get(SESSION_COOKIE_NAME, DEFAULT_SESSION_COOKIE),
        max_age,
        "legacy" if decisive.get(AFFINITY_CANARY_BEHAVIOR) == "legacy" else "sticky",
    )


def _ingress(split: Split, track: Track, backend: Backend, annotations: dict[str, str]) -> Manifest:
    suffix = "" if track is Track.STABLE else "-canary"
    path = {
        "path": split.match.path,
        "pathType": split.match.path_type,
        "backend": {
            "service": {
                "name": backend.service,
                "port": {"number" if isinstance(backend.port, int) else "name": backend.port},
            }
        },
    }
    spec: Manifest = {"ingressClassName": split.entries[0].name} if split.entries else {}
    spec["rules"] = [{"host": split.match.host, "http": {"paths": [path]}}]
    # The stable Ingress alone decides TLS for the host; on a canary it has no effect.
    if split.tls_secret and track is Track.STABLE:
        spec["tls"] = [{"hosts": [split.match.host], "secretName": split.tls_secret}]
    metadata: Manifest = {
        "name": split.name + suffix,
        "namespace": split.namespace,
        "labels": {"app": split.name, "version": str(track)},
        "annotations": dict(annotations),
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def _annotations(manifest: Manifest) -> dict[str, str]:
    return dict(manifest["metadata"].get("annotations") or {})


def _paths(manifest: Manifest) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each path of an Ingress with its rule."""
    return [
        (rule, path)
        for rule in manifest["spec"].get("rules") or ()
        for path in (rule.get("http") or {}).get("paths") or ()
    ]


def _route(manifest: Manifest) -> tuple[Match, Backend]:
    name = manifest["metadata"]["name"]
    try:
        (rule,) = manifest["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        service = path["backend"]["service"]
        return (
            Match(rule["host"], path["path"], path["pathType"]),
            Backend(service["name"], service["port"].get("number") or service["port"]["name"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableRouteError(
            f"Ingress {name} does not have exactly one host and path with a Service behind it"
        ) from error


def _canary(manifest: Manifest) -> CanaryBackend:
    annotations = _annotations(manifest)
    _, backend = _route(manifest)
    weight = annotations.get(WEIGHT, "0")
    try:
        name = annotations.get(HEADER_NAME)
        header = Header(name, annotations[HEADER_VALUE]) if name else None
        return CanaryBackend(backend, int(weight), header, annotations.get(COOKIE) or None)
    except KeyError as error:
        raise UnreadableRouteError(
            f"Ingress {manifest['metadata']['name']} lacks annotation {error.args[0]}"
        ) from error
    except ValueError as error:
        raise UnreadableRouteError(
            f"Ingress {manifest['metadata']['name']} has {WEIGHT}: {weight!r}, not a whole number from 0 to 100"
        ) from error
