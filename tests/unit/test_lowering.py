"""Weights are lowered for all services together, by as few requests as that takes."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from lightkube import ApiError, Client

from canary_service.cluster.api import LOWERING_MANAGER
from canary_service.cluster.declared import Drift
from canary_service.cluster.errors import ClusterError, NotReadyError, UnknownKindError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.guards import RefusedError, transitions
from canary_service.routing.nginx import WEIGHT
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Feature, UnreadableRouteError
from canary_service.routing.split import Split, Track
from canary_service.workload.live import FIELD_MANAGER
from canary_service.workload.manifests import labels_of, service

NAMES = ("cart", "pay", "shop")


def settings(router: str = "nginx", weight: int = 50, mirror: int = 0) -> Settings:
    canary = {"image": "example/app:2.0", "mirrorPercent": mirror}
    services = {
        name: {"path": f"/{name}", "port": 8080, "image": "example/app:1.0", "canary": canary} for name in NAMES
    }
    raw = {"namespace": "shop", "host": "shop.example", "canaryWeight": str(weight), "services": json.dumps(services)}
    if router == "gateway":
        raw["gateway"] = json.dumps({"namespace": "gateways"})
    return load(raw | {"router": router, "monitoring": '{"enabled": false}'})


def kind_of(kind: Any) -> str:  # noqa: ANN401 - a class of lightkube
    name: str = kind._api_info.resource.kind  # noqa: SLF001 - lightkube has no other way to ask
    return name


def refusal(code: int, message: str) -> ApiError:
    request = httpx2.Request("GET", "https://api")
    status = {"kind": "Status", "code": code, "message": message}
    return ApiError(request=request, response=httpx2.Response(code, json=status, request=request))


class Api:
    """Holds the objects of routers in a namespace, as lightkube's client shows them; notes what it was asked for."""

    def __init__(self, *routers: str, weight: int = 50, mirror: int = 0) -> None:
        self.requests: list[str] = []
        self.forbidden: str | None = None
        self.deaf: str | None = None
        self.gateways: dict[str, list[str]] | None = {"gateways/gateway": ["web"]}
        self.unknown: frozenset[str] = frozenset()
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        for router in routers or ("nginx",):
            declared = settings(router, weight, mirror)
            for name in NAMES:
                for route in declared.router_of_stack().render(declared.split_of(name)):
                    metadata = route.manifest["metadata"]
                    labels = labels_of(declared, name, Track(metadata["labels"]["version"]), "shop")
                    metadata |= {"labels": labels, "managedFields": [{"manager": FIELD_MANAGER, "operation": "Apply"}]}
                    self.objects[route.manifest["kind"], metadata["name"]] = route.manifest

    def serve_services(self) -> None:
        """Have the Services too, and tell which API groups there are."""
        for made in (service(settings(), name, track, "shop") for name in NAMES for track in Track):
            self.objects["Service", made["metadata"]["name"]] = made
            made["metadata"]["managedFields"] = [{"manager": FIELD_MANAGER}]
        groups = {kind.api_version.partition("/")[0] for router in ROUTERS.values() for kind in router.kinds}
        answer = httpx2.Response(
            200,
            json={"groups": [{"name": group} for group in sorted(groups)], "resources": []},
            request=httpx2.Request("GET", "https://api"),
        )
        self._client = SimpleNamespace(_client=SimpleNamespace(get=lambda _: answer))

    @property
    def routes(self) -> dict[str, dict[str, Any]]:
        """Those of one router that has one kind."""
        return {name: found for (kind, name), found in self.objects.items() if kind != "Service"}

    def list(self, kind: Any, **_: object) -> list[Any]:  # noqa: ANN401 - a class of lightkube
        if kind_of(kind) in self.unknown:
            request = httpx2.Request("GET", "https://api")
            raise httpx2.HTTPStatusError("404", request=request, response=httpx2.Response(404, request=request))
        self.requests.append("list")
        return [kind.from_dict(found) for (each, _), found in self.objects.items() if each == kind_of(kind)]

    def get(self, kind: Any, name: str, *, namespace: str = "") -> Any:  # noqa: ANN401 - as above
        if kind_of(kind) != "Gateway":
            if (kind_of(kind), name) not in self.objects:
                raise refusal(404, f"{name} not found")
            return kind.from_dict(self.objects[kind_of(kind), name])
        if self.gateways is None:
            raise refusal(403, "gateways is forbidden")
        if f"{namespace}/{name}" not in self.gateways:
            raise refusal(404, f"gateways {name} not found")
        listeners = [{"name": each} for each in self.gateways[f"{namespace}/{name}"]]
        return kind.from_dict({"spec": {"listeners": listeners}})

    def patch(self, kind: Any, name: str, change: dict[str, Any], **__: object) -> None:  # noqa: ANN401 - as above
        self.requests.append(f"patch {name}")
        if name == self.forbidden:
            raise refusal(403, f"ingresses {name} is forbidden")
        if name != self.deaf:
            found = self.objects[kind_of(kind), name]
            found["metadata"].setdefault("annotations", {}).update(change["metadata"]["annotations"])
            found["spec"] |= change["spec"]

    def weights(self) -> dict[str, str]:
        return {name: self.routes[f"{name}-canary"]["metadata"]["annotations"][WEIGHT] for name in NAMES}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def cluster(api: Api) -> LiveCluster:
    return LiveCluster(cast("Client", api), settings())


def test_all_are_lowered_between_two_looks(api: Api, cluster: LiveCluster) -> None:
    lowered = cluster.routes.lower(dict.fromkeys(NAMES, 0))
    assert {name: split.weight for name, split in lowered.items()} == dict.fromkeys(NAMES, 0)
    assert api.requests == ["list", *(f"patch {name}-canary" for name in NAMES), "list"]


@pytest.mark.parametrize("router", ROUTERS)
def test_behind_any_router_the_weight_falls_by_one_patch_of_each_service(router: str) -> None:
    api = Api(router)
    lowered = LiveCluster(cast("Client", api), settings(router)).routes.lower(dict.fromkeys(NAMES, 0))
    canary = "-canary" if Feature.ATTACH in ROUTERS[router].features else ""
    look = ["list"] * len(ROUTERS[router].kinds)
    assert {name: split.weight for name, split in lowered.items()} == dict.fromkeys(NAMES, 0)
    assert {split.canary.backend.service for split in lowered.values() if split.canary} == {
        f"{n}-canary" for n in NAMES
    }
    assert api.requests == [*look, *(f"patch {name}{canary}" for name in NAMES), *look]


def moving(weight: int = 50) -> tuple[Api, LiveCluster]:
    """Return what a move from nginx, whose canaries have 50 %, to Traefik was left as when it was interrupted."""
    api, declared = Api("nginx", "traefik"), settings("traefik", weight)
    api.serve_services()
    for name in NAMES:
        for route in declared.router_of_stack().render(declared.split_of(name)):
            api.objects[route.manifest["kind"], name]["spec"] = route.manifest["spec"]
    return api, LiveCluster(cast("Client", api), declared)


def test_while_two_routers_share_the_requests_the_greater_weight_is_in_force() -> None:
    _, cluster = moving(5)
    live = cluster.read()
    assert {(each.weight, each.former_routers) for each in live.values()} == {(50, ("nginx",))}
    assert cluster.routes.split("pay").weight == 50


@pytest.mark.parametrize(("accepted", "weight", "rises_from"), [(False, 45, 45), (True, 60, 45)])
def test_a_route_that_no_router_has_accepted_is_not_in_force_and_falls_nevertheless(
    weight: int, rises_from: int, *, accepted: bool
) -> None:
    api, declared = Api("nginx", weight=45), settings("gateway", 60)
    api.objects |= Api("gateway", weight=60).objects
    status = {"parents": [{"parentRef": PARENT, "conditions": [YES] if accepted else []}]}
    for name in NAMES:
        api.objects["HTTPRoute", name]["status"] = status
    api.serve_services()
    cluster = LiveCluster(cast("Client", api), declared)

    live = cluster.read()["pay"]

    assert (live.weight, live.rises_from, live.falls_from, live.unreadable) == (weight, rises_from, 60, "")
    with pytest.raises(RefusedError, match="at most 95 now: 45 % of cart are in force"):
        transitions(settings("gateway", 96), cluster.read(), "shop/dev")
    assert cluster.routes.lower({"pay": 50})["pay"].weight == 50
    assert api.weights()["pay"] == "45"


def test_where_the_router_that_serves_cannot_be_read_an_unaccepted_route_says_nothing_of_the_weight() -> None:
    api = Api("nginx", weight=45)
    api.objects |= Api("gateway", weight=60).objects
    api.serve_services()
    api.objects["Ingress", "pay-canary"]["metadata"]["annotations"][WEIGHT] = "half"
    live = LiveCluster(cast("Client", api), settings("gateway", 60)).read()["pay"]
    assert (live.rises_from, live.falls_from) == (0, 60)
    assert "'half'" in live.unreadable


def test_while_two_routers_share_the_requests_the_weight_falls_in_both() -> None:
    api, cluster = moving()
    cluster.read()
    assert {each.weight for each in cluster.routes.lower(dict.fromkeys(NAMES, 0)).values()} == {0}
    assert set(api.weights().values()) == {"0"}
    services = [api.objects["TraefikService", name]["spec"]["weighted"]["services"] for name in NAMES]
    assert {weighted[1]["weight"] for weighted in services} == {0}


def test_no_router_gets_more_when_the_other_is_lowered() -> None:
    api, cluster = moving(5)
    cluster.read()
    assert cluster.routes.lower({"pay": 20})["pay"].weight == 20
    assert api.weights()["pay"] == "20"
    assert api.objects["TraefikService", "pay"]["spec"]["weighted"]["services"][1]["weight"] == 5


def test_what_only_the_former_router_routes_is_about_to_move() -> None:
    api, cluster = moving()
    for kind in ("TraefikService", "IngressRoute"):
        del api.objects[kind, "pay"]
    found = cluster.read()["pay"]
    assert (found.weight, found.former_routers, found.unreadable) == (50, ("nginx",), "")


@pytest.mark.parametrize("router", ["gateway", "linkerd"])
def test_of_two_routers_that_have_a_kind_in_common_the_one_that_reads_an_object_has_it(router: str) -> None:
    api = Api(router)
    api.serve_services()
    live = LiveCluster(cast("Client", api), settings("traefik")).read()
    assert {(each.weight, each.former_routers) for each in live.values()} == {(50, (router,))}


def test_objects_that_somebody_else_has_made_are_no_move() -> None:
    api, cluster = moving()
    for name in NAMES:
        for track in ("", "-canary"):
            api.objects["Ingress", name + track]["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert {each.former_routers for each in cluster.read().values()} == {()}


def test_a_route_that_changes_hands_within_its_kind_moves_too() -> None:
    api = Api("linkerd")
    api.serve_services()
    live = LiveCluster(cast("Client", api), settings("gateway")).read()
    assert {(each.weight, each.former_routers) for each in live.values()} == {(50, ("linkerd",))}


NO = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no such namespace"}
YES = {"type": "Accepted", "status": "True", "reason": "Accepted"}
PARENT = {"kind": "Gateway", "name": "gateway", "namespace": "gateways"}


def answered(*conditions: dict[str, str], gateways: dict[str, list[str]] | None = None) -> LiveCluster:
    api = Api("gateway")
    api.gateways = gateways
    for route in api.routes.values():
        route["status"] = {"parents": [{"parentRef": PARENT, "controllerName": "a.b/c", "conditions": [*conditions]}]}
    api.serve_services()
    return LiveCluster(cast("Client", api), settings("gateway"))


def test_a_route_that_a_controller_refuses_ends_the_update_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_service.cluster.routes.STUCK_SECONDS", 0.0)
    with pytest.raises(NotReadyError, match="HTTPRoute pay: NotAllowedByListeners: no such namespace\nNo request"):
        answered(NO).routes.wait_until_routed("pay")


def test_a_controller_that_does_not_answer_is_told_and_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_service.cluster.routes.STUCK_SECONDS", 0.0)
    assert "no controller has answered for Gateway gateways/gateway" in answered().routes.wait_until_routed("pay")


def test_a_route_that_is_accepted_is_not_waited_for() -> None:
    assert answered(YES).routes.wait_until_routed("pay") == ""


@pytest.mark.parametrize(
    ("gateways", "said"),
    [
        ({}, "HTTPRoute pay: Gateway gateways/gateway is not there"),
        ({"gateways/gateway": ["web"]}, ""),
        (None, ""),  # who may not ask takes the status for true
    ],
)
def test_what_was_accepted_by_a_gateway_that_is_gone_is_not_in_force(
    monkeypatch: pytest.MonkeyPatch, gateways: dict[str, list[str]] | None, said: str
) -> None:
    monkeypatch.setattr("canary_service.cluster.routes.STUCK_SECONDS", 0.0)
    cluster = answered(YES, gateways=gateways)

    pending = cluster.read()["pay"].pending

    assert (pending.reason if pending else "") == said
    assert cluster.routes.wait_until_routed("pay") == said


def test_a_controller_has_time_to_follow_before_its_answer_is_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api("gateway")
    status = {"parents": [{"parentRef": PARENT, "conditions": [YES | {"observedGeneration": 1}]}]}
    for route in api.routes.values():
        route["metadata"]["generation"] = 2
        route["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:00Z"
        route["status"] = status
    api.serve_services()
    written = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

    def pending(seconds: float) -> str:
        monkeypatch.setattr("canary_service.cluster.routes.time.time", lambda: written + seconds)
        found = LiveCluster(cast("Client", api), settings("gateway")).read()["pay"].pending
        return found.reason if found else ""

    assert pending(ROUTERS["gateway"].sync_seconds - 1) == ""
    assert "its status is of a former state of it" in pending(ROUTERS["gateway"].sync_seconds + 1)


def test_a_refusal_says_more_than_that_the_gateway_is_gone() -> None:
    pending = answered(NO, gateways={}).read()["pay"].pending
    assert pending
    assert pending.refused


def test_one_that_is_refused_keeps_no_other_from_being_lowered(api: Api, cluster: LiveCluster) -> None:
    api.forbidden = "cart-canary"
    with pytest.raises(ClusterError, match=r"cart: the weight is not lowered: the API server refused: .*forbidden"):
        cluster.routes.lower(dict.fromkeys(NAMES, 0))
    assert api.weights() == {"cart": "50", "pay": "0", "shop": "0"}


def test_a_weight_that_is_not_read_back_is_not_claimed(api: Api, cluster: LiveCluster) -> None:
    api.deaf = "pay-canary"
    with pytest.raises(ClusterError, match=r"^pay: the weight is not lowered: 0 was set, but 50 read back$"):
        cluster.routes.lower(dict.fromkeys(NAMES, 0))


def test_a_route_that_is_no_split_is_told_and_the_others_are_lowered(api: Api, cluster: LiveCluster) -> None:
    api.routes["shop-canary"]["metadata"]["annotations"][WEIGHT] = "half"
    with pytest.raises(ClusterError, match=r"shop: the weight is not lowered: .*'half', not a whole number"):
        cluster.routes.lower(dict.fromkeys(NAMES, 20))
    assert api.weights() == {"cart": "20", "pay": "20", "shop": "half"}


def test_a_route_that_is_no_split_is_put_back_as_declared_with_weight_0(api: Api, cluster: LiveCluster) -> None:
    api.serve_services()
    api.routes["shop-canary"]["metadata"]["annotations"][WEIGHT] = "half"
    assert cluster.routes.lower({"shop": 0})["shop"].weight == 0
    assert api.weights() == {"cart": "50", "pay": "50", "shop": "0"}


def changed_by_hand() -> tuple[Api, LiveCluster]:
    """Return Traefik's objects, with weight 50, of which one rule is none that this program makes."""
    api = Api("traefik")
    api.serve_services()
    api.objects["IngressRoute", "pay"]["spec"]["routes"][-1]["match"] += " && Method(`GET`)"
    return api, LiveCluster(cast("Client", api), settings("traefik"))


def test_a_weight_falls_to_0_although_a_rule_beside_it_was_changed_by_hand() -> None:
    api, cluster = changed_by_hand()
    assert cluster.read()["pay"].unreadable
    assert cluster.routes.lower({"pay": 0})["pay"].weight == 0
    weighted = api.objects["TraefikService", "pay"]["spec"]["weighted"]["services"]
    assert [share["weight"] for share in weighted] == [100, 0]
    assert cluster.read()["pay"].unreadable == ""


def exchanged(value: Any, names: dict[str, str]) -> Any:  # noqa: ANN401 - a part of a manifest
    """Return a value in which texts stand in the places of others, but for those by what requests come in."""
    if isinstance(value, dict):
        return {key: each if key in {"hosts", "parentRefs"} else exchanged(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [exchanged(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("both", [True, False])
def test_a_route_that_leads_to_other_services_is_not_known_and_put_back(router: str, both: bool) -> None:  # noqa: FBT001 - a case
    stable, canary = ("stable", "canary") if router == "consul" else ("pay", "pay-canary")
    api = Api(router)
    api.serve_services()
    own = [found for (kind, name), found in api.objects.items() if name in {"pay", "pay-canary"} and kind != "Service"]
    for found in own:
        found["spec"] = exchanged(found["spec"], {stable: canary} | ({canary: stable} if both else {}))
    cluster = LiveCluster(cast("Client", api), settings(router))
    assert cluster.read()["pay"].unreadable
    assert cluster.routes.lower({"pay": 0})["pay"].weight == 0
    declared = settings(router, 0)
    rendered = [route.manifest for route in declared.router_of_stack().render(declared.split_of("pay"))]
    assert [found["spec"] for found in own] == [manifest["spec"] for manifest in rendered]


@pytest.mark.parametrize(
    ("router", "kind", "entry"),
    [
        ("gateway", "HTTPRoute", {"parentRefs": [{"name": "edge", "namespace": "infra"}]}),
        ("traefik", "IngressRoute", {"entryPoints": ["internal"]}),
        ("istio", "VirtualService", {"gateways": ["edge"]}),
        ("nginx", "Ingress", {"ingressClassName": "internal"}),
    ],
)
def test_a_route_is_put_back_where_requests_come_in_now(router: str, kind: str, entry: dict[str, Any]) -> None:
    api = Api(router)
    api.serve_services()
    for name in {"pay", "pay-canary"} & {name for each, name in api.objects if each == kind}:
        api.objects[kind, name]["spec"] = exchanged(api.objects[kind, name]["spec"], {"pay": "pay-canary"}) | entry
    cluster = LiveCluster(cast("Client", api), settings(router))
    cluster.routes.lower({"pay": 0})
    assert api.objects[kind, "pay"]["spec"].items() >= entry.items()


def test_a_route_that_cannot_be_put_back_is_not_claimed_to_be_at_0() -> None:
    api, cluster = changed_by_hand()
    api.deaf = "pay"
    with pytest.raises(ClusterError, match=r"^pay: the weight is not lowered: IngressRoute pay: .*Method"):
        cluster.routes.lower({"pay": 0})
    assert cluster.read()["pay"].unreadable


def test_a_route_is_put_back_without_a_canary_whose_service_is_not_there() -> None:
    api, cluster = changed_by_hand()
    del api.objects["Service", "pay-canary"]
    assert cluster.routes.lower({"pay": 0})["pay"].canary is None


def test_a_canary_falls_although_somebody_has_deleted_the_route_of_stable(api: Api, cluster: LiveCluster) -> None:
    del api.objects["Ingress", "pay"]
    assert cluster.routes.lower({"pay": 0})["pay"].weight == 0
    assert api.weights()["pay"] == "0"


def test_a_route_that_changes_hands_within_its_kind_falls_where_it_is() -> None:
    api = Api("linkerd")
    api.serve_services()
    cluster = LiveCluster(cast("Client", api), settings("gateway"))
    cluster.read()
    assert cluster.routes.lower({"pay": 0})["pay"].weight == 0
    assert [each["kind"] for each in api.objects["HTTPRoute", "pay"]["spec"]["parentRefs"]] == ["Service"]


@pytest.mark.parametrize(("kind", "wrong"), [("Ingress", {"rules": []}), ("IngressRoute", {"routes": []})])
def test_while_two_routers_share_the_requests_what_one_does_has_to_be_known(kind: str, wrong: dict[str, Any]) -> None:
    api, cluster = moving(0)
    for name in NAMES:
        api.objects["Ingress", f"{name}-canary"]["metadata"]["annotations"][WEIGHT] = "0"
    api.objects[kind, "pay"]["spec"] |= wrong
    found = cluster.read()
    assert (bool(found["pay"].unreadable), found["shop"].unreadable) == (True, "")
    with pytest.raises(UnreadableRouteError):
        cluster.routes.split("pay")


def lacking() -> tuple[Api, LiveCluster]:
    """Return a stack behind nginx that declares a router whose kinds the cluster does not know."""
    api = Api("nginx")
    api.serve_services()
    api.unknown = frozenset({"TraefikService", "IngressRoute"})
    return api, LiveCluster(cast("Client", api), settings("traefik"))


def test_what_serves_is_read_where_the_declared_router_cannot_be() -> None:
    _, cluster = lacking()
    found = cluster.read()["pay"]
    assert (found.weight, found.former_routers, found.unreadable) == (50, ("nginx",), "")
    assert "router traefik needs TraefikService (traefik.io/v1alpha1), which the cluster" in found.misrouted[-1]
    with pytest.raises(UnknownKindError, match="router traefik needs TraefikService"):
        cluster.routes.refuse_unknown_kinds()


def test_what_serves_is_lowered_where_the_declared_router_cannot_be_read() -> None:
    api, cluster = lacking()
    cluster.read()
    assert {split.weight for split in cluster.routes.lower(dict.fromkeys(NAMES, 0)).values()} == {0}
    assert set(api.weights().values()) == {"0"}


def test_where_nothing_serves_a_router_that_cannot_be_read_is_an_error() -> None:
    api, cluster = lacking()
    for name in NAMES:
        del api.objects["Ingress", name], api.objects["Ingress", f"{name}-canary"]
    with pytest.raises(UnknownKindError, match="install its CustomResourceDefinitions"):
        cluster.read()


@pytest.mark.parametrize(
    ("managers", "told"),
    [
        ([LOWERING_MANAGER], "was lowered ahead of an update that did not end"),
        ([LOWERING_MANAGER, "kubectl-edit"], "was changed by kubectl-edit"),
    ],
)
def test_what_was_lowered_is_not_said_to_be_changed_by_others(
    api: Api, cluster: LiveCluster, managers: list[str], told: str
) -> None:
    api.serve_services()
    metadata = api.routes["pay-canary"]["metadata"]
    metadata["resourceVersion"] = "7"
    written = {"operation": "Update", "time": "2026-01-01T00:00:00Z"}
    own = written | {
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "fieldsV1": {"f:spec": {}},
    }  # no annotations any more
    metadata["managedFields"] = [own, *(written | {"manager": each} for each in managers)]
    cluster.read()
    declared = settings(weight=20)
    manifest = declared.router_of_stack().render(declared.split_of("pay"))[-1].manifest
    assert cluster.declared.drift(manifest) == Drift(told, "7")


def test_a_service_without_a_canary_is_left_as_it_is(api: Api, cluster: LiveCluster) -> None:
    del api.objects["Ingress", "pay-canary"]
    assert cluster.routes.lower({"pay": 0, "shop": 0})["pay"].canary is None
    assert api.requests == ["list", "patch shop-canary", "list"]


def test_what_a_mirror_needs_is_missing_only_once_there_is_a_mirror() -> None:
    declared = settings("traefik", 0, 20)
    (mirror,) = (
        route.manifest
        for route in declared.router_of_stack().render(declared.split_of("pay"))
        if "mirroring" in route.manifest["spec"]
    )
    mirror["metadata"]["labels"] = labels_of(declared, "pay", Track.STABLE, "shop")
    for mirrored in (0, 20):
        api = Api("traefik", weight=0, mirror=mirrored)
        api.serve_services()
        api.objects.pop(("TraefikService", "pay-canary"), None)
        cluster = LiveCluster(cast("Client", api), declared)
        cluster.read()
        assert cluster.declared.lost(mirror) is bool(mirrored)


@pytest.mark.parametrize("router", ["gateway", "istio"])
def test_a_canary_that_is_lowered_gets_no_copies_any_more(router: str) -> None:
    api = Api(router, weight=0, mirror=20)
    cluster = LiveCluster(cast("Client", api), settings(router, 0, 20))
    assert {split.mirror for split in cluster.routes.splits().values() if isinstance(split, Split)} == {20}

    lowered = cluster.routes.lower({"pay": 0})

    assert (lowered["pay"].weight, lowered["pay"].mirror) == (0, 0)
    assert api.requests == ["list", "list", "patch pay", "list"]
