"""The conformance suite: every router, every case it has the features for."""

import copy
from dataclasses import replace

import pytest

from routing.registry import ROUTERS
from routing.router import Feature, Router, UnreadableRouteError
from routing.split import Backend, CanaryBackend, Header, Match, SessionAffinity, Split

STABLE_ONLY = Split(
    name="auth-service",
    namespace="macromind",
    match=Match("macromind.local", "/api/auth"),
    stable=Backend("auth-service", 8080),
)
CANARY = CanaryBackend(Backend("auth-service-canary", 8080), 20)
HEADER = Header("X-Canary", "true")
AFFINITY = SessionAffinity("pin", max_age=600)

SPLITS = {
    "stable only": STABLE_ONLY,
    **{f"weight {w}": replace(STABLE_ONLY, canary=replace(CANARY, weight=w)) for w in (0, 1, 20, 50, 99, 100)},
    "header at weight 0": replace(STABLE_ONLY, canary=replace(CANARY, weight=0, header=HEADER)),
    "header and weight": replace(STABLE_ONLY, canary=replace(CANARY, header=HEADER)),
    "cookie at weight 0": replace(STABLE_ONLY, canary=replace(CANARY, weight=0, cookie="canary")),
    "header and cookie": replace(STABLE_ONLY, canary=replace(CANARY, header=HEADER, cookie="canary")),
    "affinity": replace(STABLE_ONLY, canary=CANARY, affinity=AFFINITY),
    "affinity of stable alone": replace(STABLE_ONLY, affinity=replace(AFFINITY, canary_behavior="legacy")),
    "affinity for the session": replace(STABLE_ONLY, canary=CANARY, affinity=SessionAffinity("pin")),
    "affinity that evicts": replace(
        STABLE_ONLY, canary=CANARY, affinity=replace(AFFINITY, canary_behavior="legacy"), annotations={"a/b": "c"}
    ),
    "exact path": replace(STABLE_ONLY, match=Match("macromind.local", "/", "Exact"), canary=CANARY),
    "tls and annotations": replace(STABLE_ONLY, tls_secret="macromind-tls", annotations={"a/b": "c"}, canary=CANARY),  # noqa: S106 - the name of a Secret
    "other class": replace(STABLE_ONLY, ingress_class="internal", canary=CANARY),
}

routers = pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
splits = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())


def needs(split: Split) -> set[Feature]:
    asked: dict[Feature, object] = {Feature.AFFINITY: split.affinity}
    if split.canary:
        asked |= {
            Feature.WEIGHT: split.canary,
            Feature.HEADER: split.canary.header,
            Feature.COOKIE: split.canary.cookie,
        }
    return {feature for feature, value in asked.items() if value is not None}


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


def test_a_hand_made_route_with_the_controllers_own_certificate_is_read() -> None:
    (stable,) = ROUTERS["nginx"].render(STABLE_ONLY)
    stable.manifest["spec"]["tls"] = [{"hosts": [STABLE_ONLY.match.host]}]

    assert ROUTERS["nginx"].read([stable.manifest]).tls_secret is None


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


@routers
def test_a_router_that_attaches_keeps_the_canary_out_of_stables_objects(router: Router) -> None:
    if Feature.ATTACH in router.features:
        alone = [route.manifest for route in router.render(STABLE_ONLY)]
        with_canary = [route.manifest for route in router.render(SPLITS["header and cookie"])]

        assert with_canary[: len(alone)] == alone
        assert {m["metadata"]["name"] for m in with_canary[len(alone) :]} == {"auth-service-canary"}


def annotations(split: Split) -> list[dict[str, str]]:
    return [route.manifest["metadata"]["annotations"] for route in ROUTERS["nginx"].render(split)]


def test_nginx_sets_the_affinity_cookie_on_stables_ingress_and_the_canarys_behavior_on_its_own() -> None:
    stable, canary = annotations(SPLITS["affinity that evicts"])

    assert stable == {
        "a/b": "c",
        PREFIX + "affinity": "cookie",
        PREFIX + "affinity-canary-behavior": "legacy",
        PREFIX + "session-cookie-name": "pin",
        PREFIX + "session-cookie-max-age": "600",
        PREFIX + "session-cookie-path": "/api/auth",
    }
    assert canary == {
        PREFIX + "canary": "true",
        PREFIX + "canary-weight": "20",
        PREFIX + "affinity-canary-behavior": "legacy",
    }


def test_nginx_lets_a_cookie_of_the_users_decide_for_the_canary() -> None:
    _, canary = annotations(SPLITS["header and cookie"])

    assert canary[PREFIX + "canary-by-cookie"] == "canary"


def test_nginx_reads_the_behavior_that_the_controller_reads() -> None:
    manifests = [route.manifest for route in ROUTERS["nginx"].render(SPLITS["affinity"])]
    manifests[1]["metadata"]["annotations"][PREFIX + "affinity-canary-behavior"] = "legacy"

    assert ROUTERS["nginx"].read(manifests).affinity == replace(AFFINITY, canary_behavior="legacy")


def test_nginx_reads_an_affinity_without_a_name_as_the_controllers_default() -> None:
    (manifest,) = (route.manifest for route in ROUTERS["nginx"].render(STABLE_ONLY))
    manifest["metadata"]["annotations"][PREFIX + "affinity"] = "cookie"

    assert ROUTERS["nginx"].read([manifest]).affinity == SessionAffinity("INGRESSCOOKIE")


def test_nginx_does_not_guess_how_long_a_cookie_lives() -> None:
    (manifest,) = (route.manifest for route in ROUTERS["nginx"].render(SPLITS["affinity of stable alone"]))
    manifest["metadata"]["annotations"][PREFIX + "session-cookie-max-age"] = "an hour"

    with pytest.raises(UnreadableRouteError, match="session-cookie-max-age"):
        ROUTERS["nginx"].read([manifest])


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
