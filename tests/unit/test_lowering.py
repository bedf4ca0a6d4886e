"""Weights are lowered for all services together, by as few requests as that takes."""

import json
from typing import Any, cast

import httpx2
import pytest
from lightkube import ApiError, Client

from canary_service.cluster.errors import ClusterError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.routing.nginx import WEIGHT
from canary_service.routing.split import Split, Track
from canary_service.workload.manifests import labels_of

NAMES = ("cart", "pay", "shop")


def settings(router: str = "nginx", *, mirror: int = 0) -> Settings:
    canary = {"image": "example/app:2.0", "mirrorPercent": mirror}
    services = {
        name: {"path": f"/{name}", "port": 8080, "image": "example/app:1.0", "canary": canary} for name in NAMES
    }
    weight = "0" if mirror else "50"
    raw = {"namespace": "shop", "host": "shop.example", "canaryWeight": weight, "services": json.dumps(services)}
    if router == "gateway":
        raw["gateway"] = json.dumps({"namespace": "gateways"})
    return load(raw | {"router": router})


class Api:
    """Holds the Ingresses of a namespace, as lightkube's client shows them; notes what it was asked for."""

    def __init__(self, router: str = "nginx", *, mirror: int = 0) -> None:
        self.requests: list[str] = []
        self.forbidden: str | None = None
        self.deaf: str | None = None
        declared = settings(router, mirror=mirror)
        self.routes: dict[str, dict[str, Any]] = {
            route.manifest["metadata"]["name"]: route.manifest
            for name in NAMES
            for route in declared.router_of_stack().render(declared.split_of(name))
        }
        for name, track in ((name, track) for name in NAMES for track in Track):
            if route := self.routes.get(name if track is Track.STABLE else f"{name}-canary"):
                route["metadata"]["labels"] = labels_of(declared, name, track, "shop")

    def list(self, kind: Any, **_: object) -> list[Any]:  # noqa: ANN401 - a class of lightkube
        self.requests.append("list")
        return [kind.from_dict(route) for route in self.routes.values()]

    def patch(self, _: object, name: str, change: dict[str, Any], **__: object) -> None:
        self.requests.append(f"patch {name}")
        if name == self.forbidden:
            refusal = {"kind": "Status", "code": 403, "message": f"ingresses {name} is forbidden"}
            request = httpx2.Request("PATCH", "https://api")
            raise ApiError(request=request, response=httpx2.Response(403, json=refusal, request=request))
        if name != self.deaf:
            self.routes[name]["metadata"].setdefault("annotations", {}).update(change["metadata"]["annotations"])
            self.routes[name]["spec"] |= change["spec"]

    def weights(self) -> dict[str, str]:
        return {name: self.routes[f"{name}-canary"]["metadata"]["annotations"][WEIGHT] for name in NAMES}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def cluster(api: Api) -> LiveCluster:
    return LiveCluster(cast("Client", api), settings())


def test_all_are_lowered_between_two_looks(api: Api, cluster: LiveCluster) -> None:
    lowered = cluster.lower(dict.fromkeys(NAMES, 0))
    assert {name: split.weight for name, split in lowered.items()} == dict.fromkeys(NAMES, 0)
    assert api.requests == ["list", *(f"patch {name}-canary" for name in NAMES), "list"]


@pytest.mark.parametrize("router", ["gateway", "linkerd", "istio"])
def test_where_both_tracks_are_in_one_object_the_weight_falls_there(router: str) -> None:
    api = Api(router)
    lowered = LiveCluster(cast("Client", api), settings(router)).lower(dict.fromkeys(NAMES, 0))
    assert {name: split.weight for name, split in lowered.items()} == dict.fromkeys(NAMES, 0)
    assert {split.canary.backend.service for split in lowered.values() if split.canary} == {
        f"{n}-canary" for n in NAMES
    }
    assert api.requests == ["list", *(f"patch {name}" for name in NAMES), "list"]


def test_one_that_is_refused_keeps_no_other_from_being_lowered(api: Api, cluster: LiveCluster) -> None:
    api.forbidden = "cart-canary"
    with pytest.raises(ClusterError, match=r"cart: the weight is not lowered: the API server refused: .*forbidden"):
        cluster.lower(dict.fromkeys(NAMES, 0))
    assert api.weights() == {"cart": "50", "pay": "0", "shop": "0"}


def test_a_weight_that_is_not_read_back_is_not_claimed(api: Api, cluster: LiveCluster) -> None:
    api.deaf = "pay-canary"
    with pytest.raises(ClusterError, match=r"^pay: the weight is not lowered: 0 was set, but 50 read back$"):
        cluster.lower(dict.fromkeys(NAMES, 0))


def test_a_route_that_is_no_split_is_told_and_the_others_are_lowered(api: Api, cluster: LiveCluster) -> None:
    api.routes["shop-canary"]["metadata"]["annotations"][WEIGHT] = "half"
    with pytest.raises(ClusterError, match=r"shop: the weight is not lowered: .*'half', not a whole number"):
        cluster.lower(dict.fromkeys(NAMES, 0))
    assert (api.weights()["cart"], api.weights()["pay"]) == ("0", "0")


def test_a_service_without_a_canary_is_left_as_it_is(api: Api, cluster: LiveCluster) -> None:
    del api.routes["pay-canary"]
    assert cluster.lower({"pay": 0, "shop": 0})["pay"].canary is None
    assert api.requests == ["list", "patch shop-canary", "list"]


@pytest.mark.parametrize("router", ["gateway", "istio"])
def test_a_canary_that_is_lowered_gets_no_copies_any_more(router: str) -> None:
    api = Api(router, mirror=20)
    cluster = LiveCluster(cast("Client", api), settings(router, mirror=20))
    assert {split.mirror for split in cluster.splits().values() if isinstance(split, Split)} == {20}

    lowered = cluster.lower({"pay": 0})

    assert (lowered["pay"].weight, lowered["pay"].mirror) == (0, 0)
    assert api.requests == ["list", "list", "patch pay", "list"]
