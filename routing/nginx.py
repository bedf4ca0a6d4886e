"""The annotations of ingress-nginx, which Traefik 3.7 and later serve too.

The canary has an Ingress of its own that repeats host, path and pathType of the stable one; the controller merges
it into the stable Service's upstream. Semantics: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary
"""

import re
from collections.abc import Sequence
from typing import Final

from routing.router import Feature, HeaderSyntax, Manifest, RouteObject, UnreadableRouteError
from routing.split import Backend, CanaryBackend, Header, Match, Split, Track

ANNOTATION_PREFIX: Final = "nginx.ingress.kubernetes.io/"
CANARY: Final = ANNOTATION_PREFIX + "canary"
WEIGHT: Final = ANNOTATION_PREFIX + "canary-weight"
HEADER_NAME: Final = ANNOTATION_PREFIX + "canary-by-header"
HEADER_VALUE: Final = ANNOTATION_PREFIX + "canary-by-header-value"


class Nginx:
    """Two Ingresses: `NAME` to the stable Service, `NAME-canary` with the canary annotations."""

    name = "nginx"
    features = frozenset({Feature.WEIGHT, Feature.HEADER})
    # The controller drops a header annotation with other characters and only logs it
    # (internal/ingress/annotations/parser/validators.go, v1.15.1). Underscores in names are not passed on by nginx
    # unless `underscores_in_headers` is on.
    header_syntax = HeaderSyntax(
        name=re.compile(r"[A-Za-z0-9-]+"),
        value=re.compile(r"[A-Za-z0-9/._~:-]+"),
        rule="a name of letters, digits and '-', and a value of letters, digits and '/', '.', '_', '~', ':', '-'",
    )
    # `--sync-rate-limit` 0.3 per second, then a Lua timer of at most 1 s.
    sync_seconds = 1 / 0.3 + 1

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the stable Ingress and, when there is a canary, its Ingress."""
        stable = RouteObject(
            _ingress(split, Track.STABLE, split.stable, split.annotations), frozenset({split.stable.service})
        )
        if split.canary is None:
            return (stable,)
        annotations = {CANARY: "true", WEIGHT: str(split.canary.weight)}
        if split.canary.header:
            annotations |= {HEADER_NAME: split.canary.header.name, HEADER_VALUE: split.canary.header.value}
        canary = RouteObject(
            _ingress(split, Track.CANARY, split.canary.backend, annotations),
            frozenset({split.stable.service, split.canary.backend.service}),
        )
        return stable, canary

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one stable Ingress and at most one canary Ingress.

        Raises:
            UnreadableRouteError: there is no stable Ingress, more than one of a kind, an Ingress with other than one
                rule and path, or a canary weight that is not a whole number from 0 to 100.
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
        return Split(
            name=metadata["name"],
            namespace=metadata["namespace"],
            match=match,
            stable=backend,
            canary=_canary(canaries[0]) if canaries else None,
            ingress_class=spec.get("ingressClassName", ""),
            tls_secret=spec["tls"][0]["secretName"] if spec.get("tls") else None,
            annotations=_annotations(stable),
        )


def _ingress(split: Split, track: Track, backend: Backend, annotations: dict[str, str]) -> Manifest:
    suffix = "" if track is Track.STABLE else "-canary"
    path = {
        "path": split.match.path,
        "pathType": split.match.path_type,
        "backend": {"service": {"name": backend.service, "port": {"number": backend.port}}},
    }
    spec: Manifest = {
        "ingressClassName": split.ingress_class,
        "rules": [{"host": split.match.host, "http": {"paths": [path]}}],
    }
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


def _route(manifest: Manifest) -> tuple[Match, Backend]:
    name = manifest["metadata"]["name"]
    try:
        (rule,) = manifest["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        service = path["backend"]["service"]
        return (
            Match(rule["host"], path["path"], path["pathType"]),
            Backend(service["name"], service["port"]["number"]),
        )
    except (KeyError, TypeError, ValueError) as error:
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
        return CanaryBackend(backend, int(weight), header)
    except KeyError as error:
        raise UnreadableRouteError(f"Ingress {manifest['metadata']['name']} lacks annotation {error}") from error
    except ValueError as error:
        raise UnreadableRouteError(
            f"Ingress {manifest['metadata']['name']} has {WEIGHT}: {weight!r}, not a whole number from 0 to 100"
        ) from error
