"""The conformance suite: every router, every case it has the features for."""

import copy
import random
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from canary_service.routing.ordered import Cookie, cookie_pattern
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Feature, Router, UnreadableRouteError
from canary_service.routing.split import Backend, CanaryBackend, Entry, Match, SessionAffinity, Split, Track
from tests.splits import AFFINITY, CANARY, ENTRIES, SPLITS, STABLE_ONLY, drawn, fitted, needs

routers = pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
splits = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())


@routers
@splits
def test_what_is_rendered_is_read_back(router: Router, split: Split) -> None:
    fit = fitted(router, split)
    if needs(fit) <= router.features:
        assert router.read([route.manifest for route in router.render(fit)]) == fit


@routers
def test_whatever_split_is_rendered_is_read_back(router: Router) -> None:
    seed = secrets.randbits(32)
    draw = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    for _ in range(500):
        split = drawn(draw)
        least = 1 if router.name in ("nginx", "gateway") else 0
        fit = fitted(router, split, ENTRIES.get(router.name, ())[: draw.randint(least, 2)])
        lacking = needs(fit) - router.features
        if lacking & {Feature.AFFINITY, Feature.AFFINITY_OF_STABLE}:
            fit = replace(fit, affinity=None)
        if Feature.MIRROR in lacking and fit.canary:
            fit = replace(fit, canary=replace(fit.canary, mirror=0))
        if Feature.TLS in lacking:
            fit = replace(fit, tls_secret=None)

        assert needs(fit) <= router.features
        assert router.read([route.manifest for route in router.render(fit)]) == fit, f"seed {seed}"


@routers
@splits
def test_reading_does_not_depend_on_the_order_of_the_objects(router: Router, split: Split) -> None:
    fit = fitted(router, split)
    if needs(fit) <= router.features:
        assert router.read([route.manifest for route in reversed(router.render(fit))]) == fit


@routers
@splits
def test_every_object_has_a_place_and_names_the_services_it_needs(router: Router, split: Split) -> None:
    fit = fitted(router, split)
    if needs(fit) <= router.features:
        services = {split.stable.service} | ({split.canary.backend.service} if split.canary else set())
        routes = router.render(fit)
        assert set().union(*(route.services for route in routes)) == services
        for route in routes:
            assert route.manifest["metadata"]["namespace"] == split.namespace
            assert route.services <= services


@routers
def test_a_route_of_stable_alone_does_not_wait_for_the_canary(router: Router) -> None:
    first = router.render(SPLITS["weight 20"])[0]

    if Feature.ATTACH in router.features:
        assert first.services == {"auth-service"}


@routers
@splits
def test_every_object_is_of_a_kind_that_is_read_back(router: Router, split: Split) -> None:
    fit = fitted(router, split)
    if needs(fit) <= router.features:
        found = {(route.manifest["apiVersion"], route.manifest["kind"]) for route in router.render(fit)}
        assert found <= {(kind.api_version, kind.kind) for kind in router.kinds}


@routers
def test_rendering_gives_objects_of_its_own_each_time(router: Router) -> None:
    split = fitted(router, SPLITS["tls and annotations"])
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
    with pytest.raises(ValueError, match="from 0 to 100"):
        CanaryBackend(Backend("auth-service-canary", 8080), 0, mirror=weight)


def test_nothing_is_mirrored_to_a_canary_that_gets_requests() -> None:
    with pytest.raises(ValueError, match="mirror must be 0 at weight 5"):
        CanaryBackend(Backend("auth-service-canary", 8080), 5, mirror=20)


PREFIX = "nginx.ingress.kubernetes.io/"


def test_nginx_renders_the_canary_ingress_of_the_documentation() -> None:
    _, canary = ROUTERS["nginx"].render(replace(SPLITS["header and weight"], entries=(Entry("nginx"),)))

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


COOKIE_PATTERN = r"^(.*;\s*)?canary={}(\s*;.*)?$"


def manifests_of(router: str, split: Split) -> list[dict[str, Any]]:
    return [route.manifest for route in ROUTERS[router].render(fitted(ROUTERS[router], split))]


def test_gateway_renders_one_route_whose_rules_go_from_header_to_cookie_to_weight() -> None:
    (route,) = manifests_of("gateway", SPLITS["header and cookie"])
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    path = {"path": {"type": "PathPrefix", "value": "/api/auth"}}
    cookie = {"type": "RegularExpression", "name": "Cookie"}

    def backends(stable: int, canary: int) -> list[dict[str, Any]]:
        service = {"group": "", "kind": "Service", "port": 8080}
        return [
            service | {"name": "auth-service", "weight": stable},
            service | {"name": "auth-service-canary", "weight": canary},
        ]

    assert route["spec"] == {
        "parentRefs": [
            gateway | {"name": "public", "namespace": "gateways", "sectionName": "https"},
            gateway | {"name": "own"},
        ],
        "hostnames": ["macromind.local"],
        "rules": [
            {
                "matches": [path | {"headers": [{"type": "Exact", "name": "X-Canary", "value": "true"}]}],
                "backendRefs": backends(0, 100),
            },
            {
                "matches": [path | {"headers": [cookie | {"value": COOKIE_PATTERN.format("always")}]}],
                "backendRefs": backends(0, 100),
            },
            {
                "matches": [path | {"headers": [cookie | {"value": COOKIE_PATTERN.format("never")}]}],
                "backendRefs": backends(100, 0),
            },
            {"matches": [path], "backendRefs": backends(80, 20)},
        ],
    }


def test_linkerd_renders_the_route_of_the_service_that_clients_call() -> None:
    (route,) = manifests_of("linkerd", SPLITS["weight 20"])

    assert route["spec"]["parentRefs"] == [{"group": "", "kind": "Service", "name": "auth-service", "port": 8080}]
    assert "hostnames" not in route["spec"]
    assert [match for rule in route["spec"]["rules"] for match in rule["matches"]] == [
        {"path": {"type": "PathPrefix", "value": "/"}}
    ]


def test_traefik_renders_weights_in_a_service_and_what_tells_requests_apart_in_a_route() -> None:
    service, route = manifests_of("traefik", SPLITS["header and weight"])
    rule = "Host(`macromind.local`) && (Path(`/api/auth`) || PathPrefix(`/api/auth/`))"

    def services(stable: int, canary: int) -> list[dict[str, Any]]:
        one = {"kind": "Service", "port": 8080}
        return [
            one | {"name": "auth-service", "weight": stable},
            one | {"name": "auth-service-canary", "weight": canary},
        ]

    assert (service["kind"], service["spec"]) == ("TraefikService", {"weighted": {"services": services(80, 20)}})
    assert route["kind"] == "IngressRoute"
    assert route["spec"] == {
        "entryPoints": ["web", "websecure"],
        "routes": [
            {
                "kind": "Rule",
                "match": f"{rule} && Header(`X-Canary`, `true`)",
                "priority": 91,
                "services": services(0, 100),
            },
            {
                "kind": "Rule",
                "match": rule,
                "priority": 90,
                "services": [{"kind": "TraefikService", "name": "auth-service"}],
            },
        ],
    }


def test_traefiks_header_of_a_short_path_does_not_go_over_a_longer_path() -> None:
    split = SPLITS["header and cookie"]
    of_every, of_exact = (
        [route["priority"] for route in manifests_of("traefik", replace(split, match=match))[1]["spec"]["routes"]]
        for match in (Match("h", "/"), Match("h", "/a", "Exact"))
    )

    assert max(of_every) < min(of_exact)


def test_istio_renders_a_virtual_service_of_the_gateways() -> None:
    (route,) = manifests_of("istio", SPLITS["header and weight"])
    paths = [{"uri": {"exact": "/api/auth"}}, {"uri": {"prefix": "/api/auth/"}}]

    def destinations(stable: int, canary: int) -> list[dict[str, Any]]:
        return [
            {"destination": {"host": "auth-service", "port": {"number": 8080}}, "weight": stable},
            {"destination": {"host": "auth-service-canary", "port": {"number": 8080}}, "weight": canary},
        ]

    assert route["spec"] == {
        "gateways": ["istio-system/public"],
        "hosts": ["macromind.local"],
        "http": [
            {
                "match": [path | {"headers": {"x-canary": {"exact": "true"}}} for path in paths],
                "route": destinations(0, 100),
            },
            {"match": paths, "route": destinations(80, 20)},
        ],
    }


def test_istio_without_gateways_splits_what_the_mesh_sends_to_the_service() -> None:
    (route,) = (r.manifest for r in ROUTERS["istio"].render(fitted(ROUTERS["istio"], SPLITS["weight 20"], ())))

    assert "gateways" not in route["spec"]
    assert route["spec"]["hosts"] == ["auth-service"]
    assert [set(each) for each in route["spec"]["http"]] == [{"route"}]


def test_consul_renders_subsets_of_one_service_of_which_pods_say_the_track() -> None:
    defaults, resolver, splitter, router = manifests_of("consul", SPLITS["header and weight"])

    assert {m["metadata"]["name"] for m in (defaults, resolver, splitter, router)} == {"auth-service"}
    assert defaults["spec"] == {"protocol": "http"}
    assert resolver["spec"] == {
        "defaultSubset": "stable",
        "subsets": {
            "stable": {"filter": "Service.Meta.version == stable"},
            "canary": {"filter": "Service.Meta.version == canary"},
        },
    }
    assert splitter["spec"] == {
        "splits": [{"weight": 80, "serviceSubset": "stable"}, {"weight": 20, "serviceSubset": "canary"}]
    }
    assert router["spec"] == {
        "routes": [
            {
                "match": {"http": {"header": [{"name": "X-Canary", "exact": "true"}]}},
                "destination": {"service": "auth-service", "serviceSubset": "canary"},
            }
        ]
    }
    assert ROUTERS["consul"].pod_annotations("auth-service", Track.CANARY) == {
        "consul.hashicorp.com/connect-inject": "true",
        "consul.hashicorp.com/connect-service": "auth-service",
        "consul.hashicorp.com/service-meta-version": "canary",
    }


@pytest.mark.parametrize("weight", range(101))
def test_consuls_weights_are_whole_and_together_100(weight: int) -> None:
    split = replace(STABLE_ONLY, canary=replace(CANARY, weight=weight))
    splits = manifests_of("consul", split)[2]["spec"]["splits"]

    assert [type(each["weight"]) for each in splits] == [int, int]
    assert sum(each["weight"] for each in splits) == 100


@pytest.mark.parametrize(
    ("header", "reached"),
    [
        ("canary=always", True),
        ("a=1; canary=always", True),
        ("canary=always; b=2", True),
        ("a=1;canary=always;b=2", True),
        ("xcanary=always", False),
        ("canary=alwaysx", False),
        ("canary=never", False),
    ],
)
def test_a_cookie_is_found_whole_wherever_it_stands(header: str, reached: bool) -> None:  # noqa: FBT001 - a case
    pattern = cookie_pattern(Cookie("canary", "always"))

    assert bool(re.search(pattern, header)) is bool(re.fullmatch(pattern, header)) is reached


def test_a_mirror_is_what_each_routers_definitions_call_it() -> None:
    (route,) = manifests_of("gateway", SPLITS["mirror"])
    assert route["spec"]["rules"][-1]["filters"] == [
        {
            "type": "RequestMirror",
            "requestMirror": {
                "backendRef": {"group": "", "kind": "Service", "name": "auth-service-canary", "port": 8080},
                "percent": 20,
            },
        }
    ]
    weighted, mirror, route = manifests_of("traefik", SPLITS["mirror"])
    assert mirror["metadata"]["name"] == "auth-service-canary"
    assert mirror["metadata"]["labels"] == {"app": "auth-service", "version": "canary"}
    copies = {"kind": "Service", "name": "auth-service-canary", "port": 8080, "percent": 20}
    assert mirror["spec"] == {"mirroring": {"kind": "TraefikService", "name": "auth-service", "mirrors": [copies]}}
    assert [each["weight"] for each in weighted["spec"]["weighted"]["services"]] == [100, 0]
    assert route["spec"]["routes"][-1]["services"] == [{"kind": "TraefikService", "name": "auth-service-canary"}]
    (route,) = manifests_of("istio", SPLITS["mirror"])
    assert route["spec"]["http"][-1]["mirrors"] == [
        {"destination": {"host": "auth-service-canary", "port": {"number": 8080}}, "percentage": {"value": 20}}
    ]


MIRRORS = [name for name, router in ROUTERS.items() if Feature.MIRROR in router.features]


@pytest.mark.parametrize("router", MIRRORS)
def test_requests_that_header_or_cookie_decide_are_not_mirrored(router: str) -> None:
    decided = {"gateway": "rules", "traefik": "routes", "istio": "http"}[router]
    *chosen, rest = manifests_of(router, SPLITS["mirror of all, header and cookie"])[-1]["spec"][decided]
    *plain, plain_rest = manifests_of(router, SPLITS["header and cookie"])[-1]["spec"][decided]

    assert chosen == plain
    assert rest != plain_rest


@pytest.mark.parametrize("router", MIRRORS)
def test_a_weight_set_by_hand_beside_a_mirror_is_told_and_not_the_mirror(router: str) -> None:
    manifests = manifests_of(router, SPLITS["mirror"])
    for entry, weight in zip(weights(router, manifests), (30, 70), strict=True):
        entry["weight"] = weight

    found = ROUTERS[router].read(manifests)

    assert (found.weight, found.mirror) == (70, 0)


def copies_of(router: str, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the reference that says where copies go."""
    found: dict[str, Any] = {
        "gateway": lambda: manifests[0]["spec"]["rules"][-1]["filters"][0]["requestMirror"]["backendRef"],
        "istio": lambda: manifests[0]["spec"]["http"][-1]["mirrors"][0]["destination"],
        "traefik": lambda: manifests[1]["spec"]["mirroring"]["mirrors"][0],
    }
    reference: dict[str, Any] = found[router]()
    return reference


@pytest.mark.parametrize("router", MIRRORS)
def test_a_mirror_to_another_service_is_not_read_as_a_split(router: str) -> None:
    manifests = manifests_of(router, SPLITS["mirror"])
    copies_of(router, manifests)["host" if router == "istio" else "name"] = "other"

    with pytest.raises(UnreadableRouteError, match="Service other"):
        ROUTERS[router].read(manifests)


def test_a_gateway_has_to_know_mirrors_and_for_a_part_of_the_requests_percentages() -> None:
    def demanded(router: str, split: str) -> set[str]:
        return {name for names in ROUTERS[router].demands(SPLITS[split]).values() for name in names}

    every, part = {"HTTPRouteRequestMirror"}, {"HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror"}
    assert demanded("gateway", "weight 0") == set()
    assert demanded("gateway", "mirror of all, header and cookie") == every
    assert demanded("gateway", "mirror") == part
    assert demanded("traefik", "mirror") == set()


@pytest.mark.parametrize(
    ("split", "kept"),
    [("affinity", ["auth-service-canary", "auth-service"]), ("affinity at weight 0", []), ("affinity at 100", [])],
)
def test_a_session_is_kept_by_a_cookie_with_the_name_of_its_service_while_both_tracks_get_requests(
    split: str, kept: list[str]
) -> None:
    weight = {"affinity": 20, "affinity at weight 0": 0, "affinity at 100": 100}[split]
    affine = replace(SPLITS["affinity"], canary=replace(CANARY, weight=weight))
    (gateway,), (istio,) = (manifests_of(router, affine) for router in ("gateway", "istio"))

    def cookie(service: str) -> str:
        return f"pin={service}; Path=/api/auth; HttpOnly; Max-Age=600"

    def pattern(service: str) -> str:
        return rf"^(.*;\s*)?pin={service}(\s*;.*)?$"

    *sessions, rest = gateway["spec"]["rules"]
    assert [rule["matches"][0]["headers"][0]["value"] for rule in sessions] == [pattern(each) for each in kept]
    assert [[each["weight"] for each in rule["backendRefs"]] for rule in sessions] == [[0, 100], [100, 0]][: len(kept)]
    for reference in rest["backendRefs"]:
        added = [{"name": "Set-Cookie", "value": cookie(reference["name"])}]
        assert reference["filters"] == [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": added}}]
    *sessions, rest = istio["spec"]["http"]
    assert [route["match"][0]["headers"]["cookie"]["regex"] for route in sessions] == [pattern(each) for each in kept]
    for route in rest["route"]:
        assert route["headers"] == {"response": {"add": {"Set-Cookie": cookie(route["destination"]["host"])}}}


@pytest.mark.parametrize("router", ["gateway", "istio"])
@pytest.mark.parametrize(("before", "by_hand"), [(20, 0), (0, 20), (50, 90)])
def test_a_weight_set_by_hand_beside_sessions_is_read(router: str, before: int, by_hand: int) -> None:
    affine = replace(SPLITS["affinity"], canary=replace(CANARY, weight=before))
    manifests = manifests_of(router, affine)
    for entry, weight in zip(weights(router, manifests), (100 - by_hand, by_hand), strict=True):
        entry["weight"] = weight

    assert ROUTERS[router].read(manifests) == replace(
        fitted(ROUTERS[router], affine), canary=replace(CANARY, weight=by_hand)
    )


@pytest.mark.parametrize("value", ["pin=auth-service", "other=auth-service; Path=/api/auth; HttpOnly; Max-Age=600"])
def test_response_headers_that_are_no_session_cookie_are_not_read_as_one(value: str) -> None:
    (route,) = manifests_of("gateway", SPLITS["affinity"])
    reference = route["spec"]["rules"][-1]["backendRefs"][1]
    reference["filters"][0]["responseHeaderModifier"]["add"][0]["value"] = value

    with pytest.raises(UnreadableRouteError, match="cookie of a session"):
        ROUTERS["gateway"].read([route])


def weights(router: str, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries that hold the weights of the last rule."""
    found: dict[str, Any] = {
        "gateway": lambda: manifests[0]["spec"]["rules"][-1]["backendRefs"],
        "linkerd": lambda: manifests[0]["spec"]["rules"][-1]["backendRefs"],
        "istio": lambda: manifests[0]["spec"]["http"][-1]["route"],
        "traefik": lambda: manifests[0]["spec"]["weighted"]["services"],
        "consul": lambda: manifests[2]["spec"]["splits"],
    }
    return list(found[router]())


@pytest.mark.parametrize("router", ["gateway", "linkerd", "istio", "traefik", "consul"])
def test_weights_that_share_out_nothing_are_not_read_as_a_split(router: str) -> None:
    manifests = manifests_of(router, SPLITS["weight 20"])
    for entry in weights(router, manifests):
        entry["weight"] = 0

    with pytest.raises(UnreadableRouteError):
        ROUTERS[router].read(manifests)


@pytest.mark.parametrize("router", ["gateway", "linkerd", "istio", "traefik"])
@pytest.mark.parametrize(("stable", "canary", "percent"), [(4, 1, 20), (80, 70, 47), (1, 0, 0), (0, 3, 100)])
def test_weights_of_another_sum_are_read_as_whole_percent(router: str, stable: int, canary: int, percent: int) -> None:
    manifests = manifests_of(router, SPLITS["weight 20"])
    for entry, weight in zip(weights(router, manifests), (stable, canary), strict=True):
        entry["weight"] = weight

    assert ROUTERS[router].read(manifests).weight == percent


@pytest.mark.parametrize(("stable", "canary"), [(80, 70), (79.5, 20.5), (101, -1)])
def test_weights_that_consul_refuses_are_not_read_as_a_split(stable: float, canary: float) -> None:
    manifests = manifests_of("consul", SPLITS["weight 20"])
    for entry, weight in zip(weights("consul", manifests), (stable, canary), strict=True):
        entry["weight"] = weight

    with pytest.raises(UnreadableRouteError):
        ROUTERS["consul"].read(manifests)


FOREIGN: dict[str, tuple[str, Any]] = {
    "gateway": ("matches", [{"path": {"type": "PathPrefix", "value": "/other"}}]),
    "linkerd": ("filters", [{"type": "RequestMirror"}]),
    "istio": ("match", [{"uri": {"regex": ".*"}}]),
    "traefik": ("match", "Host(`macromind.local`) && Query(`a`, `b`)"),
}


@pytest.mark.parametrize("router", FOREIGN)
def test_a_rule_that_says_something_else_is_not_read_as_a_split(router: str) -> None:
    manifests = manifests_of(router, SPLITS["header and weight"])
    key, value = FOREIGN[router]
    spec = manifests[-1]["spec"]
    (spec.get("rules") or spec.get("http") or spec["routes"])[0][key] = value

    with pytest.raises(UnreadableRouteError, match="auth-service"):
        ROUTERS[router].read(manifests)


_OF_PYTHON = re.compile(
    r"not supported between|unpack|attribute '|object is not|NoneType|invalid literal|unhashable|indices|: '[\w-]+'$"
)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a manifest."""
    entries: Iterable[tuple[Any, object]] = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value) if isinstance(value, list) else entries:
        yield (*path, key)
        yield from places(each, (*path, key))


@pytest.mark.parametrize(
    ("router", "case"),
    [
        (router, case)
        for router in ROUTERS.values()
        for case in ("header and cookie", "mirror", "affinity")
        if needs(fitted(router, SPLITS[case])) <= router.features
    ],
)
def test_whatever_is_wrong_with_an_object_is_told_in_words(router: Router, case: str) -> None:
    sound = manifests_of(router.name, SPLITS[case])
    told = set()
    for number, manifest in enumerate(sound):
        known = [*places(manifest["spec"], ("spec",)), *places(manifest["metadata"], ("metadata",))]
        for *parents, key in (path for path in known if path[0] == "spec" or path[1] == "annotations"):
            # The API server takes no other types in its own kinds, nor in metadata.
            typed = router.name == "nginx" or parents[0] == "metadata"
            values: list[Any] = [...] if typed else [..., None, "half", -7, 1000, [], {}, [{}]]
            for wrong in values:
                changed = copy.deepcopy(sound)
                place = changed[number]
                for parent in parents:
                    place = place[parent]
                if wrong is ...:
                    del place[key]
                else:
                    place[key] = wrong
                try:
                    router.read(changed)
                except UnreadableRouteError as error:
                    told.add(str(error))
    assert told
    assert [text for text in told if _OF_PYTHON.search(text) or not re.search("auth-service|Ingress", text)] == []


@pytest.mark.parametrize(
    ("router", "change", "told"),
    [
        (
            "traefik",
            lambda objects: objects.pop(1),
            "IngressRoute auth-service: TraefikService auth-service-canary, to which its last route leads, is missing",
        ),
        (
            "traefik",
            lambda objects: objects[0]["spec"].pop("weighted"),
            "TraefikService auth-service: it lacks weighted",
        ),
        (
            "istio",
            lambda objects: objects[0]["spec"]["http"][-1]["route"][1].update(weight="half"),
            "VirtualService auth-service: weight half of Service auth-service-canary is not a number",
        ),
        (
            "gateway",
            lambda objects: objects[0]["spec"].update(hostnames=[]),
            "HTTPRoute auth-service: it has 0 hostnames instead of one",
        ),
    ],
)
def test_what_an_object_lacks_is_named(router: str, change: Callable[[list[Any]], object], told: str) -> None:
    objects = manifests_of(router, SPLITS["mirror"])
    change(objects)

    with pytest.raises(UnreadableRouteError) as caught:
        ROUTERS[router].read(objects)

    assert str(caught.value) == told


def fields(value: object, path: str = "") -> set[tuple[str, str]]:
    """Return the paths of all that a specification says, with the type of each; `*` is a key of the user's."""
    if isinstance(value, dict):
        named = {key: f"{path}.*" if path == "subsets" else f"{path}.{key}".lstrip(".") for key in value}
        return {found for key, each in value.items() for found in fields(each, named[key])}
    if isinstance(value, list):
        return {found for each in value for found in fields(each, f"{path}[]")}
    return {(path, type(value).__name__)}


# Of the CustomResourceDefinitions in control-plane/config/crd/bases of consul-k8s (v1alpha1), which cannot be had as a
# package: what they know of the fields that are used here.
CONSUL_FIELDS = {
    "ServiceDefaults": {("protocol", "str")},
    "ServiceResolver": {("defaultSubset", "str"), ("subsets.*.filter", "str")},
    "ServiceSplitter": {("splits[].weight", "int"), ("splits[].serviceSubset", "str")},
    "ServiceRouter": {
        ("routes[].match.http.header[].name", "str"),
        ("routes[].match.http.header[].exact", "str"),
        ("routes[].match.http.header[].regex", "str"),
        ("routes[].destination.service", "str"),
        ("routes[].destination.serviceSubset", "str"),
    },
}


def test_consuls_objects_say_nothing_that_its_definitions_do_not_know() -> None:
    seed = secrets.randbits(32)
    draw = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    said: dict[str, set[tuple[str, str]]] = {kind: set() for kind in CONSUL_FIELDS}
    for _ in range(200):
        for manifest in manifests_of("consul", drawn(draw)):
            assert manifest["apiVersion"] == "consul.hashicorp.com/v1alpha1"
            said[manifest["kind"]] |= fields(manifest["spec"])

    assert said == CONSUL_FIELDS, f"seed {seed}"


ACCEPTED = {"type": "Accepted", "status": "True", "reason": "Accepted"}
RESOLVED = {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs"}


OTHER_PARENT = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "former"}


@pytest.mark.parametrize(
    ("conditions", "said", "refused"),
    [
        ([], "no controller has answered for Gateway gateways/public, listener https", False),
        ([ACCEPTED | {"status": "Unknown", "reason": "Pending"}], "no controller has answered for", False),
        ([ACCEPTED, RESOLVED], "", False),
        ([ACCEPTED | {"status": "False", "reason": "NotAllowedByListeners"}, RESOLVED], "NotAllowedByListeners", True),
        ([ACCEPTED, RESOLVED | {"status": "False", "reason": "BackendNotFound"}], "BackendNotFound", True),
    ],
)
def test_a_route_is_in_force_when_its_parents_accept_it(
    conditions: list[dict[str, str]],
    said: str,
    refused: bool,  # noqa: FBT001 - a case
) -> None:
    (route,) = manifests_of("gateway", SPLITS["weight 20"])
    first, second = route["spec"]["parentRefs"]
    answers = [
        {"parentRef": OTHER_PARENT, "conditions": [ACCEPTED]},
        {"parentRef": first, "conditions": conditions},
        {"parentRef": second | {"namespace": "macromind"}, "conditions": [ACCEPTED]},
    ]

    pending = ROUTERS["gateway"].pending([route | {"status": {"parents": answers}}])

    assert (pending is not None) is bool(said)
    assert pending is None or (said in pending.reason and pending.refused is refused)


def test_what_another_parent_has_accepted_says_nothing_of_the_present_one() -> None:
    (route,) = manifests_of("gateway", SPLITS["weight 20"])
    answer = {"parentRef": OTHER_PARENT, "conditions": [ACCEPTED, RESOLVED]}

    assert ROUTERS["gateway"].pending([route])
    assert ROUTERS["gateway"].pending([route | {"status": {"parents": [answer]}}])


@pytest.mark.parametrize(("observed", "stale"), [(2, True), (3, False), (0, False)])
def test_an_answer_to_what_a_route_was_before_is_none(observed: int, *, stale: bool) -> None:
    (route,) = manifests_of("linkerd", SPLITS["weight 20"])
    route["metadata"]["generation"] = 3
    (parent,) = route["spec"]["parentRefs"]
    for status in ("True", "False"):
        condition = ACCEPTED | {"status": status} | ({"observedGeneration": observed} if observed else {})
        route["status"] = {"parents": [{"parentRef": parent, "conditions": [condition]}]}

        pending = ROUTERS["linkerd"].pending([route])

        assert (pending.stale if pending else False) is stale
        assert (pending is None) is (status == "True" and not stale)


@pytest.mark.parametrize("router", ["nginx", "traefik", "istio", "consul"])
def test_objects_without_a_status_are_taken_for_obeyed(router: str) -> None:
    assert ROUTERS[router].pending(manifests_of(router, SPLITS["weight 20"])) is None
