"""What the cluster really says: a split is read back, never assumed."""

from typing import Any, cast

from lightkube import Client
from lightkube.core.resource_registry import resource_registry

from config.settings import Settings
from routing.router import Manifest
from routing.split import Split


def read_split(client: Client, settings: Settings, service: str) -> Split:
    """Return the split that the router's objects in the cluster describe.

    Raises:
        UnreadableRouteError: the objects are missing or were changed into something that is no split.
        httpx2.HTTPError, lightkube.ApiError: the API server cannot be asked; a retry may help.
    """
    router = settings.router_of_stack()
    routes = router.render(settings.split_of(service))
    kinds = {(route.manifest["apiVersion"], route.manifest["kind"]) for route in routes}
    manifests = [
        _without_engine_annotations(found.to_dict())
        for api_version, kind in sorted(kinds)
        for found in client.list(
            cast("Any", resource_registry.load(api_version, kind)),
            namespace=settings.namespace,
            labels={"app": service},
        )
    ]
    return router.read(manifests)


def _without_engine_annotations(manifest: Manifest) -> Manifest:
    """Leave out what the component adds for the engine, which is no part of a split."""
    metadata = manifest["metadata"]
    kept = {k: v for k, v in (metadata.get("annotations") or {}).items() if not k.startswith("pulumi.com/")}
    return manifest | {"metadata": metadata | {"annotations": kept}}
