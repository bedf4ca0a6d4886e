"""What a configuration means, and what is said about one that means nothing."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel

import canary_service.config.loader
from canary_service.config.loader import ConfigError, Location, Problem, load
from canary_service.config.settings import (
    ROUTERS_WITH_KEYS,
    CanarySettings,
    GateSettings,
    RolloutSettings,
    ServiceSettings,
)
from canary_service.routing.nginx import Nginx
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Feature
from canary_service.routing.split import Entry, Match, SessionAffinity, Track

SERVICE: dict[str, Any] = {"path": "/api/auth", "port": 8080, "image": "macromind/auth-service:1.4.2"}
CANARY: dict[str, Any] = {"image": "macromind/auth-service:1.5.0"}


def raw(services: dict[str, Any] | None = None, **scalars: str) -> dict[str, str]:
    """Write a configuration as the engine hands it to the program."""
    values = {"namespace": "macromind", "host": "macromind.local"} | scalars
    return values | {"services": json.dumps({"auth-service": SERVICE} if services is None else services)}


def problems(values: dict[str, str], encrypted: tuple[str | Location, ...] = ()) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load(values, encrypted)
    return {problem.key: problem for problem in caught.value.problems}


def refusals(values: dict[str, str]) -> Sequence[Problem]:
    try:
        load(values)
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize("weight", ["0", "1", "50", "99", "100"])
def test_a_weight_is_a_whole_number_of_percent(weight: str) -> None:
    assert load(raw(canaryWeight=weight)).canary_weight == int(weight)


@pytest.mark.parametrize("weight", ["101", "-1", "fifty", "12.5", "", "5e1", "050", "0x10", "true", "50%", " 50"])
def test_any_other_weight_is_refused_with_value_range_and_fix(weight: str) -> None:
    problem = problems(raw(canaryWeight=weight))["canaryWeight"]

    assert weight in problem.value
    assert problem.allowed == "a whole number of percent from 0 to 100"
    assert problem.fix == "pulumi config set canaryWeight 20"


@pytest.mark.parametrize("weight", [101, -1, "fifty", 12.5, True, None.__class__.__name__, [50]])
def test_the_weight_of_one_service_is_held_to_the_same_range(weight: object) -> None:
    service = SERVICE | {"canary": CANARY | {"weight": weight}}

    problem = problems(raw({"auth-service": service}))["services.auth-service.canary.weight"]

    assert problem.fix == "pulumi config set --path services.auth-service.canary.weight 10"


def test_a_missing_image_is_named_with_its_key() -> None:
    service = {key: value for key, value in SERVICE.items() if key != "image"}

    problem = problems(raw({"auth-service": service}))["services.auth-service.image"]

    assert problem.value == "(missing)"
    assert problem.fix.startswith("pulumi config set --path services.auth-service.image ")


@pytest.mark.parametrize("image", ["", "Upper/Case:1", "two words", "app:", "app@sha256:short", "https://registry/app"])
def test_an_image_that_no_registry_knows_is_refused(image: str) -> None:
    assert "services.auth-service.image" in problems(raw({"auth-service": SERVICE | {"image": image}}))


@pytest.mark.parametrize(
    "image",
    ["app", "app:1", "registry.example:5000/team/app:1.4.2", "a/b@sha256:" + "0" * 64, "ghcr.io/a/b_c:V1.0-rc.1"],
)
def test_image_references_with_registry_tag_and_digest_are_taken(image: str) -> None:
    assert load(raw({"auth-service": SERVICE | {"image": image}})).services["auth-service"].image == image


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    service = SERVICE | {"canary": CANARY | {"wieght": 10}}

    problem = problems(raw({"auth-service": service}, canaryWieght="5"))

    assert "did you mean canaryWeight?" in problem["canaryWieght"].allowed
    nested = problem["services.auth-service.canary.wieght"]
    assert "did you mean weight?" in nested.allowed
    assert nested.fix == (
        "pulumi config set --path services.auth-service.canary.weight 10"
        " && pulumi config rm --path services.auth-service.canary.wieght"
    )


def test_an_unknown_key_that_resembles_none_lists_those_there_are() -> None:
    assert "namespace, createNamespace, host" in problems(raw(zzz="1"))["zzz"].allowed


@pytest.mark.parametrize("other", ["/api/auth", "/api/auth/"])
def test_two_services_cannot_share_host_and_path(other: str) -> None:
    problem = problems(raw({"auth-service": SERVICE, "meal-planner": SERVICE | {"path": other}}))

    assert "auth-service has it already" in problem["services.meal-planner.path"].allowed


@pytest.mark.parametrize("name", ["Auth", "1auth", "auth_service", "auth-", "a" * 57, "auth.service", ""])
def test_a_service_name_that_kubernetes_refuses_is_refused(name: str) -> None:
    assert any(key.startswith("services") for key in problems(raw({name: SERVICE})))


@pytest.mark.parametrize(
    ("key", "value"),
    [("namespace", "Macro_Mind"), ("host", "MacroMind.local"), ("host", "http://macromind.local"), ("namespace", "")],
)
def test_names_that_kubernetes_refuses_are_refused(key: str, value: str) -> None:
    assert key in problems(raw() | {key: value})


@pytest.mark.parametrize("path", ["api", "", "/a//b", "/a/../b", "/a b", "/a;x", "/a?b"])
def test_a_path_that_a_router_would_drop_is_refused(path: str) -> None:
    assert "services.auth-service.path" in problems(raw({"auth-service": SERVICE | {"path": path}}))


def test_stable_keeps_at_least_one_pod() -> None:
    problem = problems(raw({"auth-service": SERVICE | {"replicas": 0}}))["services.auth-service.replicas"]

    assert "at least 1" in problem.allowed


def test_a_header_without_value_is_refused() -> None:
    service = SERVICE | {"canary": CANARY | {"header": {"name": "X-Canary"}}}

    assert problems(raw({"auth-service": service}))["services.auth-service.canary.header.value"].value == "(missing)"


@pytest.mark.parametrize("value", ["a b", "ü", "a,b", ""])
def test_a_header_value_that_nginx_would_silently_drop_is_refused(value: str) -> None:
    service = SERVICE | {"canary": CANARY | {"header": {"name": "X-Canary", "value": value}}}

    assert (
        "silently ignores"
        in problems(raw({"auth-service": service}))["services.auth-service.canary.header.value"].allowed
    )


def test_an_unknown_router_lists_those_there_are() -> None:
    allowed = problems(raw(router="haproxy"))["router"].allowed

    assert allowed == "one of nginx, gateway, traefik, istio, linkerd, consul"


OF_ROUTERS: dict[str, dict[str, Any]] = {
    "gateway": {"name": "public", "namespace": "gateways", "listener": "https"},
    "traefik": {"entryPoints": ["web"]},
    "istio": {"gateways": ["istio-system/public", "own"]},
}


@pytest.mark.parametrize(
    ("router", "entries"),
    [
        ("gateway", (Entry("public", "gateways", "https"),)),
        ("traefik", (Entry("web"),)),
        ("istio", (Entry("public", "istio-system"), Entry("own"))),
    ],
)
def test_a_router_takes_in_requests_where_its_own_key_says(router: str, entries: tuple[Entry, ...]) -> None:
    settings = load(raw(router=router) | {router: json.dumps(OF_ROUTERS[router])})

    assert settings.split_of("auth-service").entries == entries
    assert settings.split_of("auth-service").match == Match("macromind.local", "/api/auth")


@pytest.mark.parametrize("router", ["istio", "linkerd", "consul"])
def test_in_a_mesh_the_service_is_called_by_its_name(router: str) -> None:
    split = load(raw(router=router)).split_of("auth-service")

    assert (split.entries, split.match) == ((), Match("auth-service", "/"))


def test_every_router_that_has_keys_is_tried_with_them() -> None:
    assert set(OF_ROUTERS) == set(ROUTERS_WITH_KEYS)


@pytest.mark.parametrize("router", ROUTERS)
def test_what_is_set_for_another_router_is_refused(router: str) -> None:
    keys = {key: json.dumps(value) for key, value in OF_ROUTERS.items()}

    found = problems(raw(router=router, ingressClassName="internal") | keys | {"canaryWeight": "101"})

    assert set(found) - {"canaryWeight"} == {*OF_ROUTERS, "ingressClassName"} - {
        "ingressClassName" if router == "nginx" else router
    }
    assert all(found[key].fix == f"pulumi config rm {key}" for key in set(found) - {"canaryWeight"})


def test_istio_takes_header_names_in_lower_case_only() -> None:
    header = {"name": "X-Canary", "value": "true"}
    service = {"auth-service": SERVICE | {"canary": CANARY | {"header": header}}}

    problem = problems(raw(service, router="istio"))["services.auth-service.canary.header.name"]

    assert "lower case" in problem.allowed
    assert problem.fix == "pulumi config set --path services.auth-service.canary.header.name x-canary"


def test_a_service_named_like_anothers_canary_is_refused() -> None:
    services = {"auth-service": SERVICE | {"canary": CANARY}, "auth-service-canary": SERVICE | {"path": "/other"}}

    assert "services.auth-service-canary" in problems(raw(services))


def test_canary_annotations_belong_to_the_router() -> None:
    service = SERVICE | {"annotations": {"nginx.ingress.kubernetes.io/canary-weight": "70"}}

    assert "services.auth-service.annotations" in problems(raw({"auth-service": service}))


@pytest.mark.parametrize("services", ["not json", "[]", '"text"', "3"])
def test_services_that_are_no_map_are_refused(services: str) -> None:
    assert "services" in problems(raw() | {"services": services})


def test_all_problems_come_in_one_message() -> None:
    service = SERVICE | {"replicas": 0, "canary": {"header": {"name": "X Canary", "value": "true"}, "weight": 101}}

    found = problems(raw({"auth-service": service, "Bad": SERVICE}, router="haproxy", canaryWeight="fifty"))

    assert {
        "router",
        "canaryWeight",
        "services.Bad",
        "services.auth-service.replicas",
        "services.auth-service.canary.image",
        "services.auth-service.canary.weight",
    } == set(found)
    found = problems(raw({"auth-service": service}))
    assert "services.auth-service.canary.header.name" in found


def test_secret_values_reach_no_message() -> None:
    service = SERVICE | {"env": {"TOKEN": {"nested": "hunter2"}}, "tokn": "hunter2", "replicas": "hunter2"}
    service["canary"] = CANARY | {"header": {"name": "X-Canary", "value": "hunter2 !"}}

    with pytest.raises(ConfigError) as caught:
        load(raw({"auth-service": service}), ["services"])

    assert len(caught.value.problems) == 4
    assert "hunter2" not in str(caught.value)


def test_keys_that_need_quoting_are_quoted_in_the_fix() -> None:
    service = SERVICE | {"env": {"a.b c": "x"}}

    (problem,) = problems(raw({"auth-service": service})).values()

    assert problem.fix == "pulumi config rm --path 'services.auth-service.env[\"a.b c\"]'"


def test_a_weight_of_its_own_goes_over_the_global_one_and_is_named_as_source() -> None:
    services = {
        "auth-service": SERVICE | {"canary": CANARY | {"weight": 10}},
        "meal-planner": SERVICE | {"path": "/api/meals", "canary": CANARY},
    }

    settings = load(raw(services, canaryWeight="50"))

    assert settings.canary_weight_of("auth-service") == (10, "services.auth-service.canary.weight")
    assert settings.canary_weight_of("meal-planner") == (50, "canaryWeight")


@pytest.mark.parametrize(
    ("weight", "replicas", "expected"),
    [(0, 4, 1), (5, 4, 1), (25, 4, 1), (26, 4, 2), (50, 4, 2), (100, 4, 4), (50, 1, 1)],
)
def test_the_canarys_pods_follow_its_weight(weight: int, replicas: int, expected: int) -> None:
    service = SERVICE | {"replicas": replicas, "canary": CANARY | {"weight": weight}}

    assert load(raw({"auth-service": service})).replicas_of("auth-service", Track.CANARY) == expected


def test_declared_canary_pods_go_over_derived_ones() -> None:
    service = SERVICE | {"replicas": 4, "canary": CANARY | {"weight": 100, "replicas": 3}}

    assert load(raw({"auth-service": service})).replicas_of("auth-service", Track.CANARY) == 3


def test_what_pulumi_turned_into_numbers_and_booleans_is_text_again_for_kubernetes() -> None:
    service = SERVICE | {"env": {"PORT": 8080, "DEBUG": True}, "port": "8080"}

    settings = load(raw({"auth-service": service})).services["auth-service"]

    assert settings.env == {"PORT": "8080", "DEBUG": "true"}
    assert settings.port == 8080


def test_an_empty_tls_secret_means_none() -> None:
    assert load(raw(tlsSecretName="")).tls_secret_name is None


@pytest.mark.parametrize(
    "change",
    [
        {"resources": {"requests": {"memory": "1Gi"}}},
        {"resources": {"requests": {"me mory": "1Gi"}}},
        {"envFrom": [{}]},
        {"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]},
        {"serviceAccountName": "*.x"},
        {"imagePullSecrets": ["a b"]},
        {"nodeSelector": {"a b": "c"}},
        {"nodeSelector": {"a": "c!"}},
        {"annotations": {"a b!": "c"}},
        {"annotations": {"kubernetes.io/ingress.class": "other"}},
        {"replicas": 10**30},
        {"probes": {"readiness": {"periodSeconds": 10**12}}},
        {"canary": CANARY | {"header": {"name": "X-Canary", "value": 1e22}}},
        {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}},
        {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
        {"autoscaling": {"minReplicas": 2}},
        {"autoscaling": {"minReplicas": 2, "maxReplicas": 3, "targetCpuPercent": 0}},
        {"autoscaling": {"minReplicas": 2, "maxReplicas": 3, "targetCpuPercent": 1001}},
        {"configMap": {"data": {}}},
        {"configMap": {"mountPath": "/etc/app"}},
        {"configMap": {"data": {"KEY": {"nested": "x"}}}},
        *(
            {"configMap": {"data": {key: "x"}, "mountPath": "/etc/app"}}
            for key in (".", "..", "..a", "a b", "", "a" * 254)
        ),
        *(
            {"secret": {"data": {"KEY": "x"}, "mountPath": path}}
            for path in ("/", "etc", "/etc/", "/a/../b", "/a:b", "")
        ),
        {"canary": CANARY | {"configMap": {"data": {"KEY": "x"}, "mountPath": "/etc/app"}}},
        {"sessionAffinity": {"cookieName": "a b"}},
        {"sessionAffinity": {"cookieName": "pin", "maxAgeSeconds": 0}},
        {"sessionAffinity": {"cookieName": "pin", "canaryBehavior": "loose"}},
        {"canary": CANARY | {"cookie": "a=b"}},
        {"canary": CANARY | {"replaces": "two words"}},
        {"readyTimeoutSeconds": 0},
        {"stable": "elsewhere"},
        {"image": None},
    ],
)
def test_what_the_api_server_or_router_would_refuse_is_refused_before(change: dict[str, object]) -> None:
    assert problems(raw({"auth-service": SERVICE | change}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("monitoring.source", "datadog"),
        ("monitoring.objective", "100"),
        ("monitoring.objective", "99,9"),
        ("monitoring.canaryMaxAgeHours", "24h"),
        ("monitoring.metricsPort", "9090"),
        ("monitoring.metricsPath", "/metrics?all"),
        ("monitoring.dashboardTitle", ""),
        ("monitoring.runbookUrl", "https://wiki.example/{{.Page}}"),
        ("monitoring.runbookUrl", "https://wiki.example/page#part"),
        ("monitoring.enabled", "maybe"),
        ("rollout.gates.errorRateDifference", "5%"),
        ("rollout.gates.latencyRatio", "NaN"),
        ("rollout.gates.minRequests", "0"),
        ("rollout.gates.weightDifference", "100"),
    ],
)
def test_what_would_make_rules_wrong_is_refused_with_an_example(path: str, value: str) -> None:
    *parents, key = path.split(".")
    content: object = {key: value}
    for parent in reversed(parents[1:]):
        content = {parent: content}

    found = problems(raw() | {parents[0]: json.dumps(content)})

    assert found.keys() == {path}
    assert found[path].fix.startswith(f"pulumi config set --path {path} ")


@pytest.mark.parametrize(
    "labels", [{"rel ease": "x"}, {"release": "a b"}, {"release": "x" * 64}, {"app.kubernetes.io/instance": "x"}]
)
@pytest.mark.parametrize("key", ["labels", "dashboardLabels"])
def test_what_is_no_label_of_monitoring_objects_is_refused_with_what_is(key: str, labels: dict[str, str]) -> None:
    (problem,) = problems(raw() | {"monitoring": json.dumps({key: labels})}).values()

    assert "at most 63" in problem.allowed


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": None},
        {"metadata": None},
        {"metadata": {"labels": {"version": "canary"}}},
        {"metadata": {"labels": None}},
        {"spec": {"containers": None}},
        {"spec": {"containers": [{"image": "nameless"}]}},
        {"spec": {"containers": [{"name": ["x"]}]}},
        {"replicas": 3},
    ],
)
def test_a_patch_cannot_take_away_what_the_component_stands_on(patch: dict[str, object]) -> None:
    assert "services.auth-service.podTemplatePatch" in problems(
        raw({"auth-service": SERVICE | {"podTemplatePatch": patch}})
    )


@pytest.mark.parametrize("host", ["10.0.0.1", "a" * 64 + ".local", "a..b", "-a.b", "*"])
def test_a_host_that_is_no_dns_name_is_refused(host: str) -> None:
    assert "host" in problems(raw(host=host))


@pytest.mark.parametrize("services", ["{}", "fifty", "[" * 100_000])
def test_no_fix_takes_all_services_away(services: str) -> None:
    problem = problems(raw() | {"services": services})["services"]

    assert problem.fix.startswith("pulumi config set --path services.my-service.")


@pytest.mark.parametrize("name", ["canary", "probes", "resources", "services"])
def test_a_service_may_be_called_as_a_key_is(name: str) -> None:
    problem = problems(raw({name: SERVICE | {"env": {"port": None}, "weight": 5}}))

    assert problem[f"services.{name}.env.port"].allowed == "a map from environment variable name to value"
    assert "no such key" in problem[f"services.{name}.weight"].allowed


def test_a_fix_names_list_entries_and_negative_values_as_the_cli_reads_them() -> None:
    service = SERVICE | {"envFrom": [{"secretRef": {}}]}

    found = problems(raw({"auth-service": service}, canaryWieght="-5"))

    assert (
        "'services.auth-service.envFrom[0].secretRef.name' app-settings"
        in found["services.auth-service.envFrom[0].secretRef.name"].fix
    )
    assert found["canaryWieght"].fix == "pulumi config set -- canaryWeight -5 && pulumi config rm canaryWieght"


def test_an_empty_canary_key_is_no_removal() -> None:
    assert "services.auth-service.canary" in problems(raw({"auth-service": SERVICE | {"canary": None}}))


def test_under_a_name_that_cannot_stay_nothing_else_is_asked_for() -> None:
    assert set(problems(raw({"auth-service": SERVICE, "Bad_": {"image": "x y"}}))) == {"services.Bad_"}


def of(**changes: object) -> dict[str, str]:
    return raw({"auth-service": SERVICE | changes})


def test_an_autoscaler_sets_the_number_of_pods_and_nobody_else() -> None:
    autoscaling = {"minReplicas": 2, "maxReplicas": 5}

    found = problems(of(autoscaling=autoscaling, replicas=2, canary=CANARY | {"replicas": 1}))

    assert set(found) == {"services.auth-service.replicas", "services.auth-service.canary.replicas"}
    for key, problem in found.items():
        assert "autoscaler sets the number" in problem.allowed
        assert problem.fix == f"pulumi config rm --path {key}"
    assert load(of(autoscaling=autoscaling, canary=CANARY)).services["auth-service"].autoscaling


def test_an_autoscaler_needs_a_cpu_request_to_measure_against() -> None:
    autoscaling = {"minReplicas": 2, "maxReplicas": 5}

    found = problems(of(autoscaling=autoscaling, resources={"requests": {"memory": "128Mi"}}))

    assert found["services.auth-service.resources.requests.cpu"].fix.endswith("resources.requests.cpu 100m")
    assert load(of(autoscaling=autoscaling, resources={"requests": {}, "limits": {"cpu": "1"}})).services
    assert load(of(resources={"requests": {"memory": "128Mi"}})).services


@pytest.mark.parametrize("allowed", [1, "1", "1%", "99%", "100%"])
def test_a_disruption_budget_lets_at_least_one_pod_go(allowed: object) -> None:
    budget = load(of(disruptionBudget={"maxUnavailable": allowed})).services["auth-service"].disruption_budget

    assert budget
    assert budget.max_unavailable == (1 if allowed == "1" else allowed)


@pytest.mark.parametrize("refused", [0, "0", "0%", "101%", "01%", "half", "1.5", True, None, -1, 2**31])
def test_a_disruption_budget_that_could_block_every_eviction_is_refused(refused: object) -> None:
    problem = problems(of(disruptionBudget={"maxUnavailable": refused}))

    assert problem["services.auth-service.disruptionBudget.maxUnavailable"].fix.endswith("maxUnavailable 25%")


@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_keys_that_become_variables_have_names_of_variables(kind: str) -> None:
    bad, good = {"1ST": "x"}, {"KEY": "x", "app.yaml": "x"}

    found = problems(of(**{kind: {"data": bad | good}, "canary": CANARY | {kind: {"data": bad}}}))

    assert set(found) == {f"services.auth-service.{holder}{kind}.data.1ST" for holder in ("", "canary.")}
    files = {"data": bad | good, "mountPath": "/etc/app"}
    assert load(of(**{kind: files, "canary": CANARY | {kind: {"data": bad}}})).services


def test_two_folders_cannot_be_mounted_at_one_place() -> None:
    content = {"data": {"KEY": "x"}, "mountPath": "/etc/app"}

    assert set(problems(of(configMap=content, secret=content))) == {"services.auth-service.secret.mountPath"}
    assert load(of(configMap=content, secret=content | {"mountPath": "/etc/app-secret"})).services


def test_values_of_a_secret_reach_no_message_even_when_the_configuration_is_not_encrypted() -> None:
    nested: dict[str, Any] = {"data": {"TOKEN": {"nested": "hunter2"}}, "mountPath": "hunter2"}

    with pytest.raises(ConfigError) as caught:
        load(of(secret=nested, canary=CANARY | {"secret": {"data": {"OTHER": ["hunter2"]}}}))

    assert len(caught.value.problems) == 3
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(problems(of(secert={"data": {"TOKEN": "hunter2"}})))


def test_only_what_is_encrypted_is_hidden() -> None:
    service = SERVICE | {"env": {"TOKEN": ["hunter2"]}, "replicas": "many", "path": "hunter2"}
    values = raw({"auth-service": service, "Cart": SERVICE | {"env": {"TOKEN": "hunter2"}}}, canaryWeight="fifty")
    own = ("services", "auth-service")

    found = problems(values, ((*own, "env", "TOKEN"), (*own, "path"), ("services", "Cart", "env", "TOKEN")))

    assert {key: problem.value for key, problem in found.items()} == {
        "canaryWeight": "fifty",
        "services.Cart": "Cart",
        "services.auth-service.env.TOKEN": "(secret)",
        "services.auth-service.path": "(secret)",
        "services.auth-service.replicas": "many",
    }


def test_a_map_that_holds_something_encrypted_is_hidden() -> None:
    found = problems(of(replicas={"a": "hunter2"}), (("services", "auth-service", "replicas", "a"),))

    assert found["services.auth-service.replicas"].value == "(secret)"


def test_no_fix_repeats_what_is_encrypted() -> None:
    same = {"data": {"KEY": "x"}, "mountPath": "/hunter2"}
    clash = of(
        configMap=same, secret=same, sessionAffinity={"cookieName": "hunter2"}, canary=CANARY | {"cookie": "hunter2"}
    )

    found = problems(clash, ("services",))

    assert len(found) == 2
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("empty", ["autoscaling", "configMap", "secret", "sessionAffinity", "disruptionBudget"])
def test_an_empty_key_asks_for_nothing(empty: str) -> None:
    assert load(of(**{empty: None, "replicas": 3})) == load(of(replicas=3))


def test_the_canarys_configuration_is_stables_with_its_own_differences() -> None:
    settings = load(
        of(
            configMap={"data": {"MODEL": "old", "REGION": "eu"}},
            secret={"data": {"TOKEN": "a"}},
            canary=CANARY | {"configMap": {"data": {"MODEL": "new"}}, "secret": {"data": {"EXTRA": 1}}},
        )
    )

    assert settings.config_of("auth-service", Track.STABLE) == {"MODEL": "old", "REGION": "eu"}
    assert settings.config_of("auth-service", Track.CANARY) == {"MODEL": "new", "REGION": "eu"}
    assert settings.secret_of("auth-service", Track.STABLE) == {"TOKEN": "a"}
    assert settings.secret_of("auth-service", Track.CANARY) == {"TOKEN": "a", "EXTRA": "1"}


def test_cookie_and_affinity_reach_the_split() -> None:
    affinity = {"cookieName": "pin", "maxAgeSeconds": "600", "canaryBehavior": "legacy"}

    split = load(of(sessionAffinity=affinity, canary=CANARY | {"cookie": "canary_user"})).split_of("auth-service")

    assert split.affinity == SessionAffinity("pin", 600, "legacy")
    assert split.canary
    assert split.canary.cookie == "canary_user"


def test_the_cookie_that_chooses_is_not_the_one_that_keeps() -> None:
    found = problems(of(sessionAffinity={"cookieName": "pin"}, canary=CANARY | {"cookie": "PIN"}))

    assert set(found) == {"services.auth-service.canary.cookie"}


@pytest.mark.parametrize("name", ["affinity", "session-cookie-name", "affinity-canary-behavior", "canary-by-cookie"])
def test_annotations_that_other_keys_set_are_refused(name: str) -> None:
    assert problems(of(annotations={f"nginx.ingress.kubernetes.io/{name}": "x"}))


def test_annotations_of_a_session_cookie_that_no_key_sets_are_the_users() -> None:
    annotations = {"nginx.ingress.kubernetes.io/affinity-mode": "persistent"}

    assert load(of(annotations=annotations)).split_of("auth-service").annotations == annotations


EXISTING = {key: value for key, value in SERVICE.items() if key != "image"} | {"stable": "existing", "canary": CANARY}


def test_an_existing_stable_needs_no_image_and_is_not_ours_to_make() -> None:
    settings = load(raw({"auth-service": EXISTING}))

    assert settings.image_of("auth-service", Track.STABLE) is None
    assert settings.image_of("auth-service", Track.CANARY) == CANARY["image"]
    assert settings.tracks_of("auth-service") == (Track.CANARY,)


@pytest.mark.parametrize("service", [SERVICE, SERVICE | {"canary": CANARY}])
def test_a_managed_stable_is_made_with_or_without_canary(service: dict[str, Any]) -> None:
    tracks = load(raw({"auth-service": service})).tracks_of("auth-service")

    assert tracks == ((Track.STABLE, Track.CANARY) if "canary" in service else (Track.STABLE,))


def test_pods_beside_an_existing_stable_have_an_app_label_that_its_service_does_not_select() -> None:
    existing, managed = load(raw({"auth-service": EXISTING})), load(of(canary=CANARY))

    assert existing.app_label_of("auth-service", Track.STABLE) == "auth-service"
    assert existing.app_label_of("auth-service", Track.CANARY) == "auth-service-canary"
    assert managed.app_label_of("auth-service", Track.CANARY) == "auth-service"


def test_what_only_the_owner_of_an_existing_ingress_can_change_is_refused() -> None:
    service = EXISTING | {"annotations": {"a/b": "c"}, "sessionAffinity": {"cookieName": "pin"}}

    assert set(problems(raw({"auth-service": service}))) == {
        "services.auth-service.annotations",
        "services.auth-service.sessionAffinity",
    }


@pytest.mark.parametrize(
    ("missing", "change", "key"),
    [
        (Feature.HEADER, {"canary": CANARY | {"header": {"name": "X-Canary", "value": "true"}}}, "canary.header"),
        (Feature.COOKIE, {"canary": CANARY | {"cookie": "canary"}}, "canary.cookie"),
        (Feature.AFFINITY, {"sessionAffinity": {"cookieName": "pin"}}, "sessionAffinity"),
        (Feature.ATTACH, {"stable": "existing", "canary": CANARY}, "stable"),
        (Feature.IMPLEMENTATION_SPECIFIC, {"pathType": "ImplementationSpecific"}, "pathType"),
        (
            Feature.AFFINITY_OF_STABLE,
            {"sessionAffinity": {"cookieName": "pin", "canaryBehavior": "legacy"}},
            "sessionAffinity.canaryBehavior",
        ),
    ],
)
def test_what_a_router_cannot_do_is_refused_with_those_that_can(
    missing: Feature, change: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesser = Nginx()
    monkeypatch.setattr(lesser, "features", Nginx.features - {missing}, raising=False)
    monkeypatch.setattr(canary_service.config.loader, "ROUTERS", {"nginx": lesser, "able": Nginx()})

    found = problems(of(**change))

    assert set(found) == {f"services.auth-service.{key}"}
    assert "router nginx cannot" in found[f"services.auth-service.{key}"].allowed
    assert "able can" in found[f"services.auth-service.{key}"].allowed


@pytest.mark.parametrize("router", ["gateway", "istio", "linkerd", "consul"])
def test_a_certificate_is_refused_where_the_route_has_none(router: str) -> None:
    found = problems(raw(router=router, tlsSecretName="macromind-tls"))

    assert set(found) == {"tlsSecretName"}
    assert "nginx, traefik can" in found["tlsSecretName"].allowed


@pytest.mark.parametrize("step", [1, 30, 100])
def test_the_largest_step_of_an_update_is_a_number_of_percent_points(step: int) -> None:
    assert load(raw() | {"rollout": json.dumps({"maxStep": step})}).rollout.max_step == step
    assert load(raw()).rollout.max_step == 50


@pytest.mark.parametrize("rollout", ['{"maxStep": 0}', '{"maxStep": 101}', '{"maxStep": "half"}'])
def test_no_other_largest_step_is_taken(rollout: str) -> None:
    problem = problems(raw() | {"rollout": rollout})["rollout.maxStep"]

    assert problem.fix == "pulumi config set --path rollout.maxStep 50"


def test_a_rollout_that_is_no_map_is_removed_and_not_taken_for_services() -> None:
    assert problems(raw() | {"rollout": "fast"})["rollout"].fix == "pulumi config rm rollout"


def rollout(**keys: object) -> dict[str, str]:
    return raw() | {"rollout": json.dumps(keys)}


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ({"maxStep": 0, "steps": [5, 20]}, {"rollout.maxStep"}),
        ({"steps": [-60, 5]}, {"rollout.steps[0]"}),
        ({"stepSeconds": 0}, {"rollout.stepSeconds"}),
        ({"gates": {"queries": {"bad name": {"query": "up"}}}}, {'rollout.gates.queries["bad name"]'}),
    ],
)
def test_nothing_is_to_be_mended_because_of_what_is_refused_itself(keys: dict[str, object], refused: set[str]) -> None:
    assert set(problems(rollout(**keys))) == refused


def query(**keys: object) -> dict[str, str]:
    return rollout(gates={"queries": {"logins": keys}})


@pytest.mark.parametrize(
    ("values", "key", "value", "allowed", "fix"),
    [
        (
            rollout(steps=[5, 20, 20]),
            "rollout.steps[2]",
            "20",
            "a weight above rollout.steps[1] = 20: steps rise",
            "pulumi config rm --path 'rollout.steps[2]'",
        ),
        (
            rollout(steps=[0, 20]),
            "rollout.steps[0]",
            "0",
            "a weight above 0: steps rise",
            "pulumi config rm --path 'rollout.steps[0]'",
        ),
        (
            rollout(steps=["10", "80", "100"]),
            "rollout.steps[1]",
            "80",
            "a weight at most rollout.maxStep = 50 points above rollout.steps[0] = 10",
            "pulumi config set --path 'rollout.steps[1]' 60",
        ),
        (
            rollout(steps=[30], maxStep=20),
            "rollout.steps[0]",
            "30",
            "a weight at most rollout.maxStep = 20 points above 0",
            "pulumi config set --path 'rollout.steps[0]' 20",
        ),
        (
            rollout(sampleSeconds=60, stepSeconds="30"),
            "rollout.sampleSeconds",
            "60",
            "at most rollout.stepSeconds = 30: a step has to be looked at",
            "pulumi config set --path rollout.sampleSeconds 30",
        ),
        (
            rollout(stepSeconds=30),
            "rollout.sampleSeconds",
            "60",
            "at most rollout.stepSeconds = 30: a step has to be looked at",
            "pulumi config set --path rollout.sampleSeconds 30",
        ),
        (
            rollout(approvals=[20, 30]),
            "rollout.approvals[1]",
            "30",
            "one of rollout.steps, 5, 20, 50, 100",
            "pulumi config rm --path 'rollout.approvals[1]'",
        ),
        (
            query(query="up"),
            "rollout.gates.queries.logins.max",
            "(missing)",
            "a number, unless there is a min: without either, no value would be wrong",
            "pulumi config set --path rollout.gates.queries.logins.max 10",
        ),
        (
            query(query="up", min=3, max="2.5"),
            "rollout.gates.queries.logins.min",
            "3",
            "at most rollout.gates.queries.logins.max",
            "pulumi config rm --path rollout.gates.queries.logins.min",
        ),
        (
            rollout(gates={"maxCpuPercent": 90}),
            "services.auth-service.resources.limits.cpu",
            "(missing)",
            "a quantity: rollout.gates.maxCpuPercent is percent of it",
            "pulumi config set --path services.auth-service.resources.limits.cpu 500m",
        ),
    ],
)
def test_keys_of_a_rollout_that_contradict_each_other_are_named_one_by_one(
    values: dict[str, str], key: str, value: str, allowed: str, fix: str
) -> None:
    assert problems(values) == {key: Problem(key, value, allowed, fix)}


def test_a_rollout_within_its_limits_is_taken() -> None:
    declared = load(
        rollout(
            steps=["1", 50, 100],
            stepSeconds=60,
            sampleSeconds=60,
            approvals=[50],
            gates={"queries": {"logins": {"query": "up", "min": 2, "max": 2}}, "maxMemoryPercent": None},
        )
    ).rollout

    assert declared.steps == (1, 50, 100)
    assert declared.approvals == (50,)
    assert declared.gates.max_memory_percent is None
    assert load(rollout(maxStep=10)).rollout.steps == (5, 20, 50, 100)
    limited = {"resources": {"limits": {"cpu": "1"}}}
    for service in (limited, {"podTemplatePatch": {"spec": {"nodeName": "x"}}}):
        assert refusals(rollout(gates={"maxCpuPercent": 90}) | {"services": of(**service)["services"]}) == ()


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"steps": []}, "rollout.steps"),
        ({"steps": "5"}, "rollout.steps"),
        ({"steps": [5, 101]}, "rollout.steps[1]"),
        ({"steps": [5, "half"]}, "rollout.steps[1]"),
        ({"order": "random"}, "rollout.order"),
        ({"holdSeconds": -1}, "rollout.holdSeconds"),
        ({"prometheusUrl": "prometheus:9090"}, "rollout.prometheusUrl"),
        ({"gates": {"confidence": 100}}, "rollout.gates.confidence"),
        ({"gates": {"errorRateDifference": 0}}, "rollout.gates.errorRateDifference"),
        ({"gates": {"latencyRatio": 0.9}}, "rollout.gates.latencyRatio"),
        ({"gates": {"minRequests": 0}}, "rollout.gates.minRequests"),
        ({"gates": {"maxMemoryPercent": 101}}, "rollout.gates.maxMemoryPercent"),
        ({"gates": {"queries": {"a b": {"query": "up", "max": 1}}}}, 'rollout.gates.queries["a b"]'),
        ({"gates": {"queries": {"a": {"max": 1}}}}, "rollout.gates.queries.a.query"),
        ({"gates": {"queries": {"a": {"query": "up", "max": float("nan")}}}}, "rollout.gates.queries.a.max"),
        ({"gates": {"queries": {"a": {"query": "up", "max": "many"}}}}, "rollout.gates.queries.a.max"),
        ({"gates": {"webhookUrl": "gate"}}, "rollout.gates.webhookUrl"),
    ],
)
def test_values_of_a_rollout_that_mean_nothing_are_told_with_their_key(keys: dict[str, object], key: str) -> None:
    found = problems(rollout(**keys))

    assert key in found
    assert found[key].fix.startswith("pulumi config ")


def test_a_url_that_is_none_is_not_shown_because_it_may_hold_a_token() -> None:
    found = problems(rollout(webhookUrl="ftp://me:hunter2@host/T0KEN", prometheusUrl="hunter2"))

    assert set(found) == {"rollout.webhookUrl", "rollout.prometheusUrl"}
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "value", [None, True, 5, -1.5, "x", [], {}, [{}], [None], {"a": 5}, {"a": {}}, {"a": {"min": []}}]
)
def test_whatever_stands_under_a_key_of_a_rollout_is_taken_or_told_as_a_problem(value: object) -> None:
    for model, holder in ((RolloutSettings, ()), (GateSettings, ("gates",))):
        for field in model.model_fields.values():
            keys = {field.alias or "": value}
            nested = {"gates": keys} if holder else keys
            assert all(problem.fix.startswith("pulumi config ") for problem in refusals(rollout(**nested)))


def test_with_an_autoscaler_a_track_begins_with_the_fewest_it_may_have() -> None:
    settings = load(of(autoscaling={"minReplicas": 4, "maxReplicas": 9}, canary=CANARY | {"weight": 30}))

    assert settings.replicas_of("auth-service", Track.STABLE) == 4
    assert settings.replicas_of("auth-service", Track.CANARY) == 2


@pytest.mark.parametrize("model", [ServiceSettings, CanarySettings])
@pytest.mark.parametrize("value", [None, True, 5, 1.5, "x", [], {}, [{}], {"data": 5}, {"data": {"a b": []}}])
def test_whatever_stands_under_a_key_is_taken_or_told_as_a_problem(model: type[BaseModel], value: object) -> None:
    for field in model.model_fields.values():
        change = {field.alias or "": value}
        service = SERVICE | (change if model is ServiceSettings else {"canary": CANARY | change})
        assert all(problem.fix.startswith("pulumi config ") for problem in refusals(raw({"auth-service": service})))


MIRRORED = CANARY | {"mirrorPercent": 20}


@pytest.mark.parametrize("router", ["nginx", "linkerd", "consul"])
def test_a_mirror_is_refused_with_the_routers_that_have_one(router: str) -> None:
    found = problems(raw({"auth-service": SERVICE | {"canary": MIRRORED}}, router=router))

    (key,) = found
    assert key == "services.auth-service.canary.mirrorPercent"
    assert found[key].allowed == (
        f"absent: router {router} cannot copy requests to the canary; gateway, traefik, istio can"
    )
    without = load(raw({"auth-service": SERVICE | {"canary": CANARY | {"mirrorPercent": "0"}}}, router=router))
    assert without.split_of("auth-service").mirror == 0


@pytest.mark.parametrize(("weight", "mirror"), [(0, 20), (1, 0), (100, 0)])
def test_requests_are_mirrored_at_weight_0_alone(weight: int, mirror: int) -> None:
    service = SERVICE | {"canary": MIRRORED | {"weight": weight}}

    assert load(raw({"auth-service": service}, router="traefik")).split_of("auth-service").mirror == mirror


@pytest.mark.parametrize(("mirror", "pods"), [(0, 1), (20, 2), (100, 10)])
def test_the_canarys_pods_follow_what_is_mirrored_to_it(mirror: int, pods: int) -> None:
    service = SERVICE | {"replicas": 10, "canary": CANARY | {"mirrorPercent": mirror, "weight": 0}}

    assert load(raw({"auth-service": service}, router="traefik")).canary_replicas_of("auth-service") == pods
