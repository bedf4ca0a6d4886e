"""An update, without a cluster."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from canary_service.cluster.errors import ClusterError, ForbiddenError, UnknownKindError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.guards import IDENTIFIER, OF_THE_STACK, RefusedError, Transition
from canary_service.rollout.update import Update, observed
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Pending
from canary_service.routing.split import Entry, Split
from canary_service.workload.live import LiveService

if TYPE_CHECKING:
    from lightkube import Client

SERVICE = {"path": "/", "port": 8080, "image": "example/app:1.0", "canary": {"image": "example/app:2.0"}}
RAW = {"namespace": "shop", "host": "shop.example", "canaryWeight": "5", "services": json.dumps({"shop": SERVICE})}


class Lowering:
    """Has what it is told at once."""

    def lower(self, weights: Mapping[str, int]) -> dict[str, Split]:
        return {name: load(RAW).split_of(name) for name in weights}


@pytest.mark.parametrize(("former", "slowest"), [((), "traefik"), (("istio",), "istio")])
def test_an_image_is_replaced_when_the_router_in_force_too_has_had_time_to_follow(
    monkeypatch: pytest.MonkeyPatch, former: tuple[str, ...], slowest: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("canary_service.rollout.update.time.sleep", pauses.append)
    live = {"shop": LiveService(former_routers=former)}
    change = Transition(lowers_to=5, replaces=True)
    assert ROUTERS["istio"].sync_seconds > ROUTERS["traefik"].sync_seconds

    list(Update(load(RAW | {"router": "traefik"}), behind(Lowering()), live, {"shop": change}).lower())

    assert pauses == [ROUTERS[slowest].sync_seconds]


class Refusing:
    """Lowers nothing whose route it cannot read."""

    def lower(self, weights: Mapping[str, int]) -> dict[str, Split]:
        raise ClusterError(f"{', '.join(weights)}: the weight is not lowered: two rules")


def behind(routes: object) -> LiveCluster:
    return cast("LiveCluster", SimpleNamespace(routes=routes))


def test_an_update_that_puts_an_unreadable_route_back_goes_on_when_that_cannot_be_done_ahead() -> None:
    live = {"shop": LiveService(unreadable="two rules")}
    update = Update(load(RAW), behind(Refusing()), live, {"shop": Transition(lowers_to=0)})

    assert list(update.lower()) == ["shop: the weight is not lowered: two rules. The update itself sets 0 %"]


class Gateways:
    """Has a Gateway whose implementation lists these features; None is that who asks may not see it."""

    def __init__(self, listed: frozenset[str] | None) -> None:
        self.api = self.gateways = self.routes = self
        self._listed = listed

    def take_the_place_of_the_cluster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("canary_service.rollout.update.connect", lambda _: None)
        monkeypatch.setattr("canary_service.rollout.update.LiveCluster", lambda *_: self)

    def supported_features(self, _: Entry) -> frozenset[str]:
        if self._listed is None:
            raise ForbiddenError("gateways is forbidden")
        return self._listed

    def has_namespace(self) -> bool:
        return True

    def read(self) -> dict[str, LiveService]:
        return {}

    def refuse_unknown_kinds(self) -> None:
        pass


def behind_a_gateway(service: Mapping[str, object], weight: int) -> Settings:
    raw = RAW | {"router": "gateway", "canaryWeight": str(weight), "services": json.dumps({"shop": service})}
    return load(raw)


EVERY, PART = "HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror"


@pytest.mark.parametrize(
    ("percent", "weight", "listed", "said"),
    [
        (0, 0, [], ""),
        (20, 0, [EVERY, PART], ""),
        (100, 0, [EVERY], ""),
        (20, 0, [EVERY], f"does not have {PART}"),
        (20, 0, [], f"does not have {EVERY}, {PART}"),
        (20, 5, [], f"does not have {EVERY}, {PART}"),  # told before the way down depends on it
        (20, 0, None, "gateways is forbidden"),
    ],
)
def test_a_mirror_is_refused_unless_the_gateway_is_known_to_carry_it_out(
    monkeypatch: pytest.MonkeyPatch, percent: int, weight: int, listed: list[str] | None, said: str
) -> None:
    Gateways(None if listed is None else frozenset(listed)).take_the_place_of_the_cluster(monkeypatch)
    service = SERVICE | {"canary": {"image": "example/app:2.0", "mirrorPercent": percent}}

    found = observed(behind_a_gateway(service, weight), {}).problems

    assert [problem.key for problem in found] == (["services.shop.canary.mirrorPercent"] if said else [])
    assert all(said in problem.allowed and problem.value == str(percent) for problem in found)


@pytest.mark.parametrize(
    ("declared", "key", "fix"),
    [
        ({"name": "pubic", "namespace": "gateways"}, "gateway.name", "set --path gateway.name public"),
        ({"name": "public", "namespace": "gateway"}, "gateway.namespace", "set --path gateway.namespace gateways"),
        (
            {"name": "public", "namespace": "gateways", "listener": "no"},
            "gateway.listener",
            "rm --path gateway.listener",
        ),
        ({"name": "public", "namespace": "gateways"}, "", ""),
        ({"name": "forbidden"}, "", ""),
    ],
)
def test_requests_that_a_gateway_takes_are_not_given_to_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, str], key: str, fix: str
) -> None:
    there = load(RAW | {"router": "gateway", "gateway": '{"name": "public", "namespace": "gateways"}'}).split_of("shop")
    asked: list[Entry] = []

    class Cluster(Gateways):
        served = LiveService(split=there)

        def read(self) -> dict[str, LiveService]:
            return {"shop": self.served}

        def lacking(self, gateway: Entry) -> str:
            asked.append(gateway)
            return "" if gateway.name == "forbidden" else f"Gateway {gateway} is not there"

    cluster = Cluster(None)
    cluster.take_the_place_of_the_cluster(monkeypatch)
    settings = load(RAW | {"router": "gateway", "gateway": json.dumps(declared)})

    problems = observed(settings, {}).problems

    assert [problem.key for problem in problems] == ([key] if key else [])
    assert all(fix in each.fix and "would get status 404" in each.allowed for each in problems)
    assert len(asked) == (there.entries != settings.split_of("shop").entries)
    cluster.served = LiveService(split=there, pending=Pending("no controller has answered"))
    assert observed(settings, {}).problems == ()  # it serves nobody: the Gateway may come later


def test_a_router_whose_objects_the_cluster_does_not_know_keeps_any_update_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cluster(Gateways):
        def read(self) -> dict[str, LiveService]:
            raise UnknownKindError("router gateway needs HTTPRoute, which the cluster does not know")

    Cluster(None).take_the_place_of_the_cluster(monkeypatch)
    with pytest.raises(RefusedError, match=r"router = gateway\n    allowed: .*needs HTTPRoute.*\n.*set router nginx"):
        Update.compared(behind_a_gateway(SERVICE, 0), {}, "shop/dev")


@pytest.mark.parametrize(
    ("provider", "refused"),
    [
        ({}, False),
        ({"context": "other"}, False),
        ({"kubeconfig": "./kubeconfig"}, True),
        ({"kubeconfig": "./kubeconfig", IDENTIFIER: ""}, True),
        ({"kubeconfig": "./kubeconfig", IDENTIFIER: "any"}, False),
    ],
)
def test_a_kubeconfig_is_refused_where_another_address_in_it_would_be_another_cluster(
    monkeypatch: pytest.MonkeyPatch, provider: dict[str, str], *, refused: bool
) -> None:
    Gateways(None).take_the_place_of_the_cluster(monkeypatch)

    problems = observed(load(RAW), provider).problems

    assert [problem.key for problem in problems] == ([f"kubernetes:{IDENTIFIER}"] if refused else [])


def test_the_stacks_of_this_project_have_the_identifier_that_the_providers_of_components_have() -> None:
    project = yaml.safe_load((Path(__file__).parents[2] / "Pulumi.yaml").read_text())

    assert project["config"][f"kubernetes:{IDENTIFIER}"] == OF_THE_STACK


RULE, BACKEND = "HTTPRouteResponseHeaderModification", "HTTPRouteBackendRequestHeaderModification"


@pytest.mark.parametrize(("listed", "lacking"), [([RULE, BACKEND], ""), ([RULE], BACKEND), ([], f"{BACKEND}, {RULE}")])
def test_a_session_cookie_is_refused_unless_the_gateway_changes_headers_of_one_backend(
    monkeypatch: pytest.MonkeyPatch, listed: list[str], lacking: str
) -> None:
    Gateways(frozenset(listed)).take_the_place_of_the_cluster(monkeypatch)

    found = observed(behind_a_gateway(SERVICE | {"sessionAffinity": {"cookieName": "pin"}}, 5), {}).problems

    assert [problem.key for problem in found] == (["services.shop.sessionAffinity"] if lacking else [])
    assert all(f"does not have {lacking}" in problem.allowed for problem in found)


class Classes:
    """Has one Gateway, of one class: that of this controller, with this status."""

    def __init__(self, controller: str, status: Mapping[str, object]) -> None:
        self._class = {"spec": {"controllerName": controller}, "status": status}

    def get(self, kind: Any, name: str, **_: object) -> Any:  # noqa: ANN401 - classes of lightkube
        if kind.__name__ == "Gateway":
            assert name == "public"
            return kind.from_dict({"spec": {"gatewayClassName": "one"}})
        assert name == "one"
        return kind.from_dict(self._class)


ENVOY = "gateway.envoyproxy.io/gatewayclass-controller"


@pytest.mark.parametrize(
    ("controller", "status", "known"),
    [
        ("traefik.io/gateway-controller", {"supportedFeatures": [{"name": EVERY}]}, {EVERY}),
        ("traefik.io/gateway-controller", {}, set()),
        (ENVOY, {}, {EVERY, PART, RULE, BACKEND}),
        (ENVOY, {"supportedFeatures": [{"name": EVERY}]}, {EVERY}),
    ],
)
def test_what_a_gateway_supports_is_what_its_class_lists_or_a_silent_controller_is_known_for(
    controller: str, status: Mapping[str, object], known: set[str]
) -> None:
    cluster = LiveCluster(cast("Client", Classes(controller, status)), behind_a_gateway(SERVICE, 5))

    assert cluster.gateways.supported_features(Entry("public", "gateways")) == known
