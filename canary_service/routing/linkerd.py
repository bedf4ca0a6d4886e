"""The HTTPRoute of a Service, which Linkerd's proxies in the clients' pods obey.

https://linkerd.io/2/reference/httproute/. ServiceProfiles and SMI's TrafficSplit, which it had before, are not
maintained any more; a ServiceProfile of the Service goes over the route.
"""

from canary_service.routing.gateway import HttpRoutes
from canary_service.routing.ordered import one
from canary_service.routing.router import Feature, Manifest, UnreadableRouteError
from canary_service.routing.split import Entry, Split


class Linkerd(HttpRoutes):
    """An HTTPRoute whose parent is the stable Service: it splits what meshed clients send there."""

    name = "linkerd"
    features = HttpRoutes.features | {Feature.MESH}

    def _place(self, split: Split) -> Manifest:
        # Of the core group; left out, group and kind would be those of a Gateway.
        parent = {"group": "", "kind": "Service", "name": split.stable.service, "port": split.stable.port}
        return {"parentRefs": [parent]}

    def _placed(self, spec: Manifest) -> tuple[str, tuple[Entry, ...]]:
        parent = one(spec["parentRefs"], "parents")
        if parent.get("kind") != "Service":
            raise UnreadableRouteError("its parent is no Service")
        return parent["name"], ()
