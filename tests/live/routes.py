"""A router's objects in a cluster, without a stack around them."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import httpx2
from lightkube import Client
from lightkube.core.resource_registry import resource_registry
from lightkube.generic_resource import create_namespaced_resource

from canary_service.routing.router import Manifest, RouteKind, Router


def http(cluster: Client) -> httpx2.Client:
    """Return the API server's client: lightkube cannot ask for unknown fields to be refused."""
    client: httpx2.Client = cluster._client._client  # noqa: SLF001 - see above
    return client


def path(router: Router, manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    (plural,) = (each.plural for each in router.kinds if each.kind == manifest["kind"])
    return f"/apis/{manifest['apiVersion']}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def applied(cluster: Client, router: Router, manifest: Manifest) -> httpx2.Response:
    """Apply an object as the engine does, and have the API server refuse fields that it does not know."""
    return http(cluster).patch(
        path(router, manifest),
        params={"fieldManager": "test", "force": "true", "fieldValidation": "Strict"},
        content=json.dumps(manifest),
        headers={"Content-Type": "application/apply-patch+yaml"},
    )


def replaced(cluster: Client, router: Router, namespace: str, manifests: Sequence[Manifest]) -> None:
    """Have these objects of the router in a namespace and no others of the same names."""
    for manifest in manifests:
        done = applied(cluster, router, manifest)
        assert done.is_success, f"{manifest}: {done.text}"
    wanted = {path(router, manifest) for manifest in manifests}
    names = {manifest["metadata"]["name"] for manifest in manifests}
    for found in stored(cluster, router, namespace):
        name = found["metadata"]["name"]
        if path(router, found) not in wanted and name.removesuffix("-canary") in names:
            assert http(cluster).delete(path(router, found)).is_success


def stored(cluster: Client, router: Router, namespace: str) -> list[Manifest]:
    """Return the router's objects in a namespace."""
    return [
        found.to_dict() | {"apiVersion": kind.api_version, "kind": kind.kind}
        for kind in router.kinds
        for found in cluster.list(_resource(kind), namespace=namespace)
    ]


@cache
def _resource(kind: RouteKind) -> Any:  # noqa: ANN401 - a class of lightkube
    if kind.kind == "Ingress":
        return resource_registry.load(kind.api_version, kind.kind)
    group, _, version = kind.api_version.partition("/")
    return resource_registry.get(kind.api_version, kind.kind) or create_namespaced_resource(
        group, version, kind.kind, kind.plural
    )
