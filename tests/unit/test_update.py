"""An update, without a cluster."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import pytest

from canary_service.config.loader import load
from canary_service.rollout.guards import Transition
from canary_service.rollout.update import Update
from canary_service.routing.registry import ROUTERS
from canary_service.routing.split import Split
from canary_service.workload.live import LiveService

if TYPE_CHECKING:
    from canary_service.cluster.live_cluster import LiveCluster

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

    list(Update(load(RAW | {"router": "traefik"}), cast("LiveCluster", Lowering()), live, {"shop": change}).lower())

    assert pauses == [ROUTERS[slowest].sync_seconds]
