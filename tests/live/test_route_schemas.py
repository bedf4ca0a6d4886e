"""A real API server with the routers' real CustomResourceDefinitions takes what is rendered, and gives it back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import Client
from lightkube.codecs import from_dict

from canary_service.routing.istio import VERSIONS, Istio
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Manifest, Router
from canary_service.routing.split import Split
from sandbox.lifecycle import Sandbox
from sandbox.toolchain.ensure import Toolchain
from tests.live.application import eventually
from tests.live.routes import applied, http, path, replaced, stored
from tests.live.scene import GOOD_CANARY, NAME, Scene
from tests.splits import CANARY, HEADER, SPLITS, STABLE_ONLY, fitted, needs

DEFINED = {name: ROUTERS[name] for name in ("nginx", "gateway", "traefik", "istio", "linkerd")}
DEFINED["istio v1beta1"] = Istio("v1beta1")
"""Consul's definitions cannot be had as a package; tests/unit/test_routers.py holds its objects to a model of them."""

ISTIO = "virtualservices.networking.istio.io"


@pytest.fixture(scope="module", autouse=True)
def _istio(cluster: Client, toolchain: Toolchain) -> None:
    """Define VirtualService, which the sandbox has no use for."""
    (file,) = toolchain.crds.glob("customresourcedefinitions.gen.yaml")
    (text,) = (each for each in file.read_text().split("\n---\n") if f"  name: {ISTIO}\n" in each)
    cluster.apply(from_dict(yaml.load(text, yaml.CSafeLoader)), field_manager="test", force=True)
    for version in VERSIONS:
        eventually(lambda version=version: served(cluster, f"networking.istio.io/{version}", "virtualservices"))  # type: ignore[misc]


def served(cluster: Client, version: str, plural: str) -> bool:
    return bool(http(cluster).get(f"/apis/{version}/{plural}?limit=1").is_success)


def rendered(router: Router, split: Split, namespace: str) -> list[Manifest]:
    return [route.manifest for route in router.render(replace(fitted(router, split), namespace=namespace))]


def life() -> list[Split]:
    """Return what a service is from its first deployment to the promotion of a canary, and every other shape."""
    weights = [
        replace(STABLE_ONLY, canary=replace(CANARY, weight=weight, header=HEADER))
        for weight in (*range(0, 101, 10), 1, 99)
    ]
    return [STABLE_ONLY, *weights, *SPLITS.values(), STABLE_ONLY]


@pytest.mark.parametrize("name", DEFINED)
def test_every_split_is_taken_given_back_and_removed(cluster: Client, namespace: str, name: str) -> None:
    router = DEFINED[name]
    for split in life():
        fit = replace(fitted(router, split), namespace=namespace)
        if not needs(fit) <= router.features:
            continue
        manifests = rendered(router, split, namespace)
        replaced(cluster, router, namespace, manifests)
        assert router.read(stored(cluster, router, namespace)) == fit

    for found in stored(cluster, router, namespace):
        assert http(cluster).delete(path(router, found)).is_success
    assert stored(cluster, router, namespace) == []


def broken(name: str, manifests: list[Manifest], field: str) -> None:
    """Put what is wrong into the first of the objects."""
    spec = manifests[0]["spec"]
    weighted: dict[str, Any] = {
        "gateway": lambda: spec["rules"][-1]["backendRefs"][0],
        "linkerd": lambda: spec["rules"][-1]["backendRefs"][0],
        "istio": lambda: spec["http"][-1]["route"][0],
        "traefik": lambda: spec["weighted"]["services"][0],
        "nginx": lambda: spec["rules"][0]["http"]["paths"][0],
    }
    weighted[name]()[field] = "heavy"


@pytest.mark.parametrize("field", ["weight", "wieght"])
@pytest.mark.parametrize("name", DEFINED)
def test_what_the_definitions_do_not_know_is_refused(cluster: Client, namespace: str, name: str, field: str) -> None:
    router = DEFINED[name]
    manifests = rendered(router, SPLITS["weight 20"], namespace)
    broken(router.name, manifests, field)

    done = applied(cluster, router, manifests[0])

    assert not done.is_success
    assert field in done.text


def test_in_another_version_a_virtual_service_is_the_same_object(
    sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path
) -> None:
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.route_by("istio", {"istio": {"apiVersion": "v1beta1"}})
    scene.configure(weight=20, canary=GOOD_CANARY)
    scene.up()
    uid = scene.kubectl("get", ISTIO, NAME, "--output", "jsonpath={.metadata.uid}")

    scene.route_by("istio", {"istio": {"apiVersion": "v1"}})
    scene.up()

    assert scene.kubectl("get", ISTIO, NAME, "--output", "jsonpath={.metadata.uid}") == uid
    scene.stack.run("preview", "--expect-no-changes")
