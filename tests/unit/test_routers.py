"""The conformance suite: every router, every case it has the features for."""

import copy
from dataclasses import replace

import pytest

from routing.registry import ROUTERS
from routing.router import Feature, Router, UnreadableRouteError
from routing.split import Backend, CanaryBackend, Header, Match, Split

STABLE_ONLY = Split(
    name="auth-service",
    namespace="macromind",
    match=Match("macromind.local", "/api/auth"),
    stable=Backend("auth-service", 8080),
)
CANARY = CanaryBackend(Backend("auth-service-canary", 8080), 20)
HEADER = Header("X-Canary", "true")

SPLITS = {
    "stable only": STABLE_ONLY,
    **{f"weight {w}": replace(STABLE_ONLY, canary=replace(CANARY, weight=w)) for w in (0, 1, 20, 50, 99, 100)},
    "header at weight 0": replace(STABLE_ONLY, canary=replace(CANARY, weight=0, header=HEADER)),
    "header and weight": replace(STABLE_ONLY, canary=replace(CANARY, header=HEADER)),
    "exact path": replace(STABLE_ONLY, match=Match("macromind.local", "/", "Exact"), canary=CANARY),
    "tls and annotations": replace(STABLE_ONLY, tls_secret="macromind-tls", annotations={"a/b": "c"}, canary=CANARY),  # noqa: S106 - the name of a Secret
    "other class": replace(STABLE_ONLY, ingress_class="internal", canary=CANARY),
}

routers = pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
splits = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())


def needs(split: Split) -> set[Feature]:
    if split.canary is None:
        return set()
    return {Feature.WEIGHT} | ({Feature.HEADER} if split.canary.header else set())


@routers
@splits
def test_what_is_rendered_is_read_back(router: Router, split: Split) -> None:
    if needs(split) <= router.features:
        assert router.read([route.manifest for route in router.render(split)]) == split


@routers
@splits
def test_reading_does_not_depend_on_the_order_of_the_objects(router: Router, split: Split) -> None:
    if needs(split) <= router.features:
        assert router.read([route.manifest for route in reversed(router.render(split))]) == split


@routers
@splits
def test_every_object_has_a_place_and_names_the_services_it_needs(router: Router, split: Split) -> None:
    if needs(split) <= router.features:
        services = {split.stable.service} | ({split.canary.backend.service} if split.canary else set())
        routes = router.render(split)
        assert set().union(*(route.services for route in routes)) == services
        for route in routes:
            assert route.manifest["metadata"]["namespace"] == split.namespace
            assert route.services <= services


@routers
def test_the_stable_route_does_not_wait_for_the_canary(router: Router) -> None:
    first = router.render(SPLITS["weight 20"])[0]

    if len(router.render(SPLITS["weight 20"])) > 1:
        assert first.services == {"auth-service"}


@routers
def test_rendering_gives_objects_of_its_own_each_time(router: Router) -> None:
    split = SPLITS["tls and annotations"]
    before = copy.deepcopy([route.manifest for route in router.render(split)])
    for route in router.render(split):
        route.manifest["metadata"]["labels"]["changed"] = "yes"

    assert [route.manifest for route in router.render(split)] == before


@routers
def test_objects_of_nobody_are_unreadable(router: Router) -> None:
    with pytest.raises(UnreadableRouteError):
        router.read([])


@pytest.mark.parametrize("weight", [-1, 101])
def test_there_is_no_split_outside_0_to_100_percent(weight: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 100"):
        CanaryBackend(Backend("auth-service-canary", 8080), weight)


PREFIX = "nginx.ingress.kubernetes.io/"


def test_nginx_renders_the_canary_ingress_of_the_documentation() -> None:
    _, canary = ROUTERS["nginx"].render(SPLITS["header and weight"])

    assert canary.manifest == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "auth-service-canary",
            "namespace": "macromind",
            "labels": {"app": "auth-service", "version": "canary"},
            "annotations": {
                PREFIX + "canary": "true",
                PREFIX + "canary-weight": "20",
                PREFIX + "canary-by-header": "X-Canary",
                PREFIX + "canary-by-header-value": "true",
            },
        },
        "spec": {
            "ingressClassName": "nginx",
            "rules": [
                {
                    "host": "macromind.local",
                    "http": {
                        "paths": [
                            {
                                "path": "/api/auth",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "auth-service-canary", "port": {"number": 8080}}},
                            }
                        ]
                    },
                }
            ],
        },
    }


def test_nginx_reads_a_weight_that_somebody_annotated_by_hand() -> None:
    manifests = [route.manifest for route in ROUTERS["nginx"].render(SPLITS["weight 20"])]
    manifests[1]["metadata"]["annotations"][PREFIX + "canary-weight"] = "70"

    assert ROUTERS["nginx"].read(manifests).weight == 70


@pytest.mark.parametrize("weight", ["seventy", "101", "-1", ""])
def test_nginx_does_not_guess_a_weight_it_cannot_read(weight: str) -> None:
    manifests = [route.manifest for route in ROUTERS["nginx"].render(SPLITS["weight 20"])]
    manifests[1]["metadata"]["annotations"][PREFIX + "canary-weight"] = weight

    with pytest.raises(UnreadableRouteError, match="auth-service-canary"):
        ROUTERS["nginx"].read(manifests)


def test_nginx_does_not_read_two_canaries_as_one() -> None:
    stable, canary = (route.manifest for route in ROUTERS["nginx"].render(SPLITS["weight 20"]))

    with pytest.raises(UnreadableRouteError, match="at most one canary"):
        ROUTERS["nginx"].read([stable, canary, canary | {"spec": stable["spec"]}])


def test_nginx_does_not_read_an_ingress_with_several_paths() -> None:
    (stable,) = (route.manifest for route in ROUTERS["nginx"].render(STABLE_ONLY))
    paths = stable["spec"]["rules"][0]["http"]["paths"]
    paths.append(paths[0] | {"path": "/other"})

    with pytest.raises(UnreadableRouteError, match="exactly one host and path"):
        ROUTERS["nginx"].read([stable])
