"""The pack reads the weights of what every router's module renders, and finds nothing wrong with it."""

from dataclasses import replace

import pytest

from canary_policies import routes, weights
from canary_policies.objects import Object, objects_of
from canary_policies.weights import shares
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Router
from canary_service.routing.split import Split
from tests.splits import CANARY, SPLITS, STABLE_ONLY, fitted, needs

routers = pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())


def objects(router: Router, split: Split) -> list[Object]:
    return [
        found
        for route in router.render(split)
        for found in objects_of(
            f"kubernetes:{route.manifest['apiVersion']}:{route.manifest['kind']}", split.name, route.manifest
        )
    ]


@routers
@pytest.mark.parametrize("weight", [0, 1, 20, 99, 100])
def test_the_canarys_weight_is_found_in_the_objects_of_every_router(router: Router, weight: int) -> None:
    split = fitted(router, replace(STABLE_ONLY, canary=replace(CANARY, weight=weight)))

    found = [percent for each in objects(router, split) for _, percent in shares(each, "(.*-)?canary")]

    assert max(found) == weight
    assert set(found) <= {0, weight}  # Traefik's route leads to its own service, which leads to the canary


@routers
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_what_is_rendered_breaks_no_rule_of_routes(router: Router, split: Split) -> None:
    fit = fitted(router, split)
    if needs(fit) <= router.features:
        found = objects(router, fit)
        for rule in (*weights.RULES, *routes.RULES):
            assert list(rule.findings(found, rule.configured({}))) == []
