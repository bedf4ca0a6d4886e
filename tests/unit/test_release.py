"""Which changes of the configuration are a shift, a promotion, an abort."""

import json
from functools import partial
from typing import Any

import pytest

from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.release import (
    Copy,
    ReleaseError,
    key_of,
    path_of,
    promotion,
    removal,
    weight_changes,
    withdrawal,
)

IMAGE = "example/app:2.0"


def settings(weight: int = 20, **canaries: dict[str, Any] | None) -> Settings:
    """Return services with these canaries; None is none."""
    services = {
        name: {"path": f"/{name}", "port": 8080, "image": "example/app:1.0"}
        | ({} if canary is None else {"canary": {"image": IMAGE} | canary})
        for name, canary in canaries.items()
    }
    raw = {"namespace": "n", "host": "example.com", "canaryWeight": str(weight), "services": json.dumps(services)}
    return load(raw)


def test_canaries_that_all_move_are_moved_by_the_common_weight() -> None:
    assert weight_changes(settings(a={}, b={}, c=None), ["a", "b"], 50) == {"canaryWeight": "50"}


def test_one_of_several_gets_a_weight_of_its_own() -> None:
    assert weight_changes(settings(a={}, b={}), ["a"], 50) == {"services.a.canary.weight": "50"}


def test_a_canary_with_a_weight_of_its_own_keeps_having_one() -> None:
    changed = weight_changes(settings(a={}, b={"weight": 5}, c={}), ["a", "b", "c"], 50)
    assert changed == {"canaryWeight": "50", "services.b.canary.weight": "50"}


def test_the_common_weight_moves_when_the_others_have_their_own() -> None:
    assert weight_changes(settings(a={}, b={"weight": 5}), ["a"], 50) == {"canaryWeight": "50"}


def test_what_has_the_weight_already_is_not_changed() -> None:
    assert weight_changes(settings(50, a={}, b={"weight": 5}), ["a", "b"], 50) == {"services.b.canary.weight": "50"}
    assert weight_changes(settings(50, a={}), ["a"], 50) == {}


def test_what_has_no_canary_cannot_be_moved() -> None:
    declared = settings(a=None, b={})
    for move in (partial(weight_changes, weight=5), promotion, removal):
        with pytest.raises(ReleaseError, match="no canary is declared for a"):
            move(declared, ["a"])


def test_stable_takes_over_image_and_differences_and_the_last_canary_leaves_weight_0() -> None:
    canary = {
        "replicas": 3,
        "header": {"name": "X-Canary", "value": "true"},
        "env": {"MODE": "new"},
        "configMap": {"data": {"app.yaml": "x"}},
        "secret": {"data": {"TOKEN": "y"}},
    }

    assert promotion(settings(a=canary, b=None), ["a"]) == {
        "services.a.image": Copy("services.a.canary.image"),
        "services.a.env.MODE": Copy("services.a.canary.env.MODE"),
        'services.a.configMap.data["app.yaml"]': Copy('services.a.canary.configMap.data["app.yaml"]'),
        "services.a.secret.data.TOKEN": Copy("services.a.canary.secret.data.TOKEN"),
        "services.a.canary": None,
        "canaryWeight": "0",
    }


def test_the_weight_stays_as_long_as_another_canary_is_there() -> None:
    assert removal(settings(a={}, b={}), ["a"]) == {"services.a.canary": None}
    assert "canaryWeight" not in promotion(settings(a={}, b={}), ["a"])
    assert removal(settings(a={}, b={}), ["a", "b"])["canaryWeight"] == "0"


def test_a_stable_that_something_else_owns_is_promoted_there() -> None:
    service = {"path": "/a", "port": 8080, "stable": "existing", "canary": {"image": IMAGE}}
    raw = {"namespace": "n", "host": "example.com", "services": json.dumps({"a": service})}
    with pytest.raises(ReleaseError, match=f"something else owns its stable. Deploy {IMAGE} there"):
        promotion(load(raw), ["a"])


@pytest.mark.parametrize("path", [("canaryWeight",), ("services", "a-b", "env", "A.B"), ("services", "a", "canary")])
def test_a_key_says_which_path_it_is(path: tuple[str, ...]) -> None:
    assert tuple(path_of(key_of(*path))) == path


def test_a_canary_that_is_taken_out_of_the_traffic_gets_no_copies_either() -> None:
    raw = {"namespace": "n", "host": "example.com", "canaryWeight": "20", "router": "traefik"}
    canary = {"image": IMAGE, "mirrorPercent": 20}
    service = {"path": "/a", "port": 80, "image": "example/app:1.0", "canary": canary}
    declared = load(raw | {"services": json.dumps({"a": service})})

    assert withdrawal(declared, ["a"]) == {"canaryWeight": "0", "services.a.canary.mirrorPercent": None}
    assert withdrawal(settings(a={}), ["a"]) == {"canaryWeight": "0"}
