"""A router as small as one can be: what somebody who adds one has to write."""

from collections.abc import Sequence

from canary_service.routing.ordered import HEADER_SYNTAX, SharedObjects, metadata, only, services
from canary_service.routing.router import Feature, HeaderSyntax, Manifest, RouteKind, RouteObject, UnreadableRouteError
from canary_service.routing.split import Backend, CanaryBackend, Match, Split


class Plain(SharedObjects):
    """One object that names both Services and the canary's percent."""

    name = "plain"
    features = frozenset({Feature.WEIGHT})
    kinds = (RouteKind("plain.example/v1", "Share", "shares"),)
    header_syntax: HeaderSyntax = HEADER_SYNTAX
    sync_seconds = 1.0

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the object."""
        spec: Manifest = {"host": split.match.host, "path": split.match.path, "port": split.stable.port}
        if split.canary:
            spec["percent"] = split.canary.weight
        manifest = {"apiVersion": "plain.example/v1", "kind": "Share", "metadata": metadata(split), "spec": spec}
        return (RouteObject(manifest, services(split)),)

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one object."""
        share = only(manifests, "Share")
        own, spec = share["metadata"], share["spec"]
        try:
            canary = (
                CanaryBackend(Backend(f"{own['name']}-canary", spec["port"]), spec["percent"])
                if "percent" in spec
                else None
            )
            match, stable = Match(spec["host"], spec["path"]), Backend(own["name"], spec["port"])
        except (KeyError, ValueError) as error:
            raise UnreadableRouteError(f"Share {own['name']}: {error}") from error
        return Split(own["name"], own["namespace"], match, stable, canary)
