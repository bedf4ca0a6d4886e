"""Deployments and Services: what runs, under which labels, and how it ends."""

import json
from base64 import b64decode
from typing import Any

import pytest

from canary_service.config.settings import Settings
from canary_service.routing.split import Track
from canary_service.workload.labels import image_version, labels
from canary_service.workload.manifests import (
    autoscaler,
    configurations,
    configurations_used,
    deployment,
    disruption_budget,
    merged,
    service,
)

SERVICE: dict[str, Any] = {"path": "/api/auth", "port": 8080, "replicas": 4, "image": "macromind/auth-service:1.4.2"}


def settings(**changes: object) -> Settings:
    services = {"auth-service": SERVICE | {"canary": {"image": "macromind/auth-service:1.5.0"}} | changes}
    values = {"namespace": "macromind", "host": "macromind.local", "canaryWeight": "20", "services": services}
    return Settings.model_validate(values)


def container(track: Track, **changes: object) -> dict[str, Any]:
    pod = deployment(settings(**changes), "auth-service", track, "macromind")["spec"]["template"]["spec"]
    result: dict[str, Any] = pod["containers"][0]
    return result


@pytest.mark.parametrize(("track", "name"), [(Track.STABLE, "auth-service"), (Track.CANARY, "auth-service-canary")])
def test_each_track_selects_its_own_pods_only(track: Track, name: str) -> None:
    pods = deployment(settings(), "auth-service", track, "macromind")
    exposed = service(settings(), "auth-service", track, "macromind")
    selector = {"app": "auth-service", "version": str(track)}

    assert pods["metadata"]["name"] == exposed["metadata"]["name"] == name
    assert pods["spec"]["selector"]["matchLabels"] == exposed["spec"]["selector"] == selector
    assert selector.items() <= pods["spec"]["template"]["metadata"]["labels"].items()


def test_objects_carry_the_recommended_labels() -> None:
    assert labels("auth-service", Track.CANARY, "macromind/auth-service:1.5.0", "macromind") == {
        "app": "auth-service",
        "version": "canary",
        "app.kubernetes.io/name": "auth-service",
        "app.kubernetes.io/instance": "auth-service-canary",
        "app.kubernetes.io/version": "1.5.0",
        "app.kubernetes.io/component": "canary",
        "app.kubernetes.io/part-of": "macromind",
        "app.kubernetes.io/managed-by": "pulumi",
    }


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("app:1.4.2", "1.4.2"),
        ("registry:5000/app", "latest"),
        ("registry:5000/app:v2", "v2"),
        ("app@sha256:" + "0123456789ab" + "0" * 52, "0123456789ab"),
        ("app:1.0@sha256:" + "0" * 64, "1.0"),
        ("app:" + "a" * 62 + "-b", "a" * 62),
        ("app:_", ""),
        ("app:_1.0", "1.0"),
    ],
)
def test_the_version_label_is_the_tag_as_kubernetes_takes_it(image: str, version: str) -> None:
    assert image_version(image) == version


def test_pods_and_service_meet_at_the_port_whatever_its_name() -> None:
    assert container(Track.STABLE)["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    (port,) = service(settings(), "auth-service", Track.STABLE, "macromind")["spec"]["ports"]
    assert port == {"port": 8080, "targetPort": 8080, "protocol": "TCP"}


def test_a_service_may_offer_another_port_than_the_container_and_the_route_leads_there() -> None:
    declared = settings(servicePort=80)
    (port,) = service(declared, "auth-service", Track.STABLE, "macromind")["spec"]["ports"]

    assert (port["port"], port["targetPort"]) == (80, 8080)
    assert declared.split_of("auth-service").stable.port == 80


def test_a_rollout_never_has_fewer_ready_pods_than_declared() -> None:
    strategy = deployment(settings(), "auth-service", Track.STABLE, "macromind")["spec"]["strategy"]

    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_a_pod_serves_on_for_the_drain_and_has_time_to_finish_after_it() -> None:
    pod = deployment(settings(drainSeconds=12), "auth-service", Track.STABLE, "macromind")["spec"]["template"]["spec"]

    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 12}}}
    assert pod["terminationGracePeriodSeconds"] == 42


def test_pods_are_restricted_by_default() -> None:
    pod = deployment(settings(), "auth-service", Track.CANARY, "macromind")["spec"]["template"]["spec"]

    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_named_service_account_gets_its_token() -> None:
    template = deployment(settings(serviceAccountName="auth"), "auth-service", Track.STABLE, "macromind")["spec"][
        "template"
    ]

    assert template["spec"]["serviceAccountName"] == "auth"
    assert template["spec"]["automountServiceAccountToken"] is True


def test_without_one_the_default_service_account_is_named_so_that_a_former_one_goes() -> None:
    template = deployment(settings(), "auth-service", Track.STABLE, "macromind")["spec"]["template"]

    assert template["spec"]["serviceAccountName"] == "default"
    assert template["spec"]["automountServiceAccountToken"] is False


def test_probes_connect_by_default_and_ask_a_path_when_one_is_given() -> None:
    default = container(Track.STABLE)
    asked = container(Track.STABLE, probes={"readiness": {"path": "/healthz", "periodSeconds": 1}})

    assert default["readinessProbe"]["tcpSocket"] == {"port": "http"}
    assert asked["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert asked["readinessProbe"]["periodSeconds"] == 1
    assert asked["livenessProbe"]["tcpSocket"] == {"port": "http"}


def test_the_canarys_env_holds_differences_from_stable_only() -> None:
    canary = {"image": "app:2", "env": {"MODEL": "new"}}

    env = container(Track.CANARY, env={"MODEL": "old", "REGION": "eu"}, canary=canary)["env"]

    assert env == [{"name": "MODEL", "value": "new"}, {"name": "REGION", "value": "eu"}]
    assert {"name": "MODEL", "value": "old"} in container(Track.STABLE, env={"MODEL": "old"}, canary=canary)["env"]


def test_pod_settings_reach_the_pod() -> None:
    template = deployment(
        settings(
            nodeSelector={"disk": "ssd"},
            imagePullSecrets=["registry"],
            envFrom=[{"configMapRef": {"name": "shared"}}, {"secretRef": {"name": "token"}}],
            resources={"requests": {"cpu": "1"}, "limits": {}},
        ),
        "auth-service",
        Track.STABLE,
        "macromind",
    )["spec"]["template"]["spec"]

    assert template["nodeSelector"] == {"disk": "ssd"}
    assert template["imagePullSecrets"] == [{"name": "registry"}]
    assert template["containers"][0]["envFrom"] == [
        {"configMapRef": {"name": "shared"}},
        {"secretRef": {"name": "token"}},
    ]
    assert template["containers"][0]["resources"] == {"requests": {"cpu": "1"}, "limits": {}}


def test_a_pod_template_patch_adds_a_volume_to_the_container_that_is_there() -> None:
    patch = {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {
            "volumes": [{"name": "cache", "emptyDir": {}}],
            "containers": [{"name": "auth-service", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}],
        },
    }

    template = deployment(settings(podTemplatePatch=patch), "auth-service", Track.STABLE, "macromind")["spec"][
        "template"
    ]

    (patched,) = template["spec"]["containers"]
    assert patched["image"] == "macromind/auth-service:1.4.2"
    assert patched["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert template["spec"]["volumes"] == [{"name": "cache", "emptyDir": {}}]
    assert template["metadata"]["labels"]["version"] == "stable"


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({"args": ["a"]}, {"args": ["b", "c"]}, {"args": ["b", "c"]}),
        ({"c": [{"name": "x", "v": 1}]}, {"c": [{"name": "y"}]}, {"c": [{"name": "x", "v": 1}, {"name": "y"}]}),
        (
            {"c": [{"name": "x"}]},
            {"c": [{"name": "y", "v": 1}, {"name": "y", "v": 2}]},
            {"c": [{"name": "x"}, {"name": "y", "v": 1}, {"name": "y", "v": 2}]},
        ),
    ],
)
def test_a_patch_merges_maps_by_key_and_named_lists_by_name(
    base: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged(base, patch) == expected


CONTENT: dict[str, Any] = {"configMap": {"data": {"MODEL": "old"}}, "secret": {"data": {"TOKEN": "hunter2 ü"}}}
tracks = pytest.mark.parametrize("track", list(Track))


def contents(track: Track, **changes: object) -> dict[str, dict[str, Any]]:
    found = configurations(settings(**(CONTENT | changes)), "auth-service", track, "macromind")
    return {manifest["kind"]: manifest for manifest in found}


def test_without_content_there_is_no_configmap_and_no_secret() -> None:
    assert configurations(settings(), "auth-service", Track.STABLE, "macromind") == []
    assert {"envFrom", "volumeMounts"}.isdisjoint(container(Track.STABLE))


@tracks
def test_configuration_is_immutable_and_declared_as_the_api_server_keeps_it(track: Track) -> None:
    found = contents(track)

    assert found["ConfigMap"]["data"] == {"MODEL": "old"}
    assert {key: b64decode(value).decode() for key, value in found["Secret"]["data"].items()} == {"TOKEN": "hunter2 ü"}
    assert "hunter2" not in json.dumps(found)
    assert [manifest["immutable"] for manifest in found.values()] == [True, True]


@tracks
@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_the_name_follows_the_content_and_nothing_else(kind: str, track: Track) -> None:
    key = {"ConfigMap": "configMap", "Secret": "secret"}[kind]

    def name(data: dict[str, str], **changes: object) -> str:
        found: str = contents(track, **{key: {"data": data}}, **changes)[kind]["metadata"]["name"]
        return found

    same = {name({"A": "1", "B": "2"}), name({"B": "2", "A": "1"}), name({"A": "1", "B": "2"}, image="app:9")}
    others = {name({"A": "1"}), name({"A": "2", "B": "1"}), name({"A": "1", "B": ""}), name({"A": "12", "B": ""})}

    assert len(same) == 1
    assert len(others | same) == 5
    owner = "auth-service" if track is Track.STABLE else "auth-service-canary"
    for found in same | others:
        prefix, _, digits = found.rpartition("-")
        assert prefix == owner
        assert len(digits) == 10
        assert int(digits, 16) >= 0


def test_a_change_of_the_canarys_configuration_rolls_the_canary_alone() -> None:
    def templates(model: str) -> list[Any]:
        canary = {"image": "app:2", "configMap": {"data": {"MODEL": model}}}
        declared = settings(**CONTENT, canary=canary)
        return [deployment(declared, "auth-service", track, "macromind")["spec"]["template"] for track in Track]

    (stable, canary), (other_stable, other_canary) = templates("new"), templates("newer")

    assert stable == other_stable
    assert canary != other_canary


@tracks
def test_without_a_folder_pods_find_their_configuration_in_the_environment(track: Track) -> None:
    names = {kind: manifest["metadata"]["name"] for kind, manifest in contents(track).items()}

    found = container(track, **CONTENT, envFrom=[{"configMapRef": {"name": "shared"}}])

    assert found["envFrom"] == [
        {"configMapRef": {"name": "shared"}},
        {"configMapRef": {"name": names["ConfigMap"]}},
        {"secretRef": {"name": names["Secret"]}},
    ]
    assert "volumeMounts" not in found


@tracks
def test_with_a_folder_they_find_it_there_and_cannot_write_to_it(track: Track) -> None:
    changes = {key: content | {"mountPath": f"/etc/{key}"} for key, content in CONTENT.items()}
    names = {kind: manifest["metadata"]["name"] for kind, manifest in contents(track, **changes).items()}

    pod = deployment(settings(**changes), "auth-service", track, "macromind")["spec"]["template"]["spec"]

    assert "envFrom" not in pod["containers"][0]
    volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {
        "/etc/configMap": {"configMap": {"name": names["ConfigMap"]}},
        "/etc/secret": {"secret": {"secretName": names["Secret"]}},
    }
    assert all(mount["readOnly"] for mount in pod["containers"][0]["volumeMounts"])


@tracks
@pytest.mark.parametrize("folder", [{}, {"mountPath": "/etc/app"}], ids=["variables", "files"])
def test_pods_tell_which_of_our_configuration_they_use_and_nothing_of_others(
    track: Track, folder: dict[str, str]
) -> None:
    changes: dict[str, Any] = {key: content | folder for key, content in CONTENT.items()}
    changes["configMap"] = CONTENT["configMap"]
    shared = [{"configMapRef": {"name": "shared"}}, {"secretRef": {"name": "auth-service-canary-settings"}}]
    replica_set = deployment(settings(**changes, envFrom=shared), "auth-service", track, "macromind")

    owner = "auth-service" if track is Track.STABLE else "auth-service-canary"
    ours = {(kind, manifest["metadata"]["name"]) for kind, manifest in contents(track, **changes).items()}
    assert configurations_used(replica_set, owner) == ours
    assert configurations_used(replica_set, "auth") == set()


def test_the_canary_mounts_its_differences_where_stable_mounts_its_own() -> None:
    canary = {"image": "app:2", "configMap": {"data": {"MODEL": "new"}}}
    config = {"data": {"MODEL": "old"}, "mountPath": "/etc/app"}

    (mount,) = container(Track.CANARY, configMap=config, canary=canary)["volumeMounts"]

    assert mount["mountPath"] == "/etc/app"
    assert contents(Track.CANARY, configMap=config, canary=canary)["ConfigMap"]["data"] == {"MODEL": "new"}


def test_a_patch_mounts_one_volume_twice_beside_ours() -> None:
    mounts = [
        {"name": "cache", "mountPath": "/a", "subPath": "a"},
        {"name": "cache", "mountPath": "/b", "subPath": "b"},
    ]
    patch = {"spec": {"containers": [{"name": "auth-service", "volumeMounts": mounts}]}}
    config = {"data": {"MODEL": "old"}, "mountPath": "/etc/app"}

    found = container(Track.STABLE, configMap=config, podTemplatePatch=patch)["volumeMounts"]

    assert [mount["mountPath"] for mount in found] == ["/etc/app", "/a", "/b"]


AUTOSCALED: dict[str, Any] = {key: value for key, value in SERVICE.items() if key != "replicas"} | {
    "autoscaling": {"minReplicas": 4, "maxReplicas": 10}
}


def autoscaled(weight: int | None = None, **changes: object) -> Settings:
    """Return settings with an autoscaler, and a canary at this weight if one is given."""
    canary = {} if weight is None else {"canary": {"image": "macromind/auth-service:1.5.0", "weight": weight}}
    services = {"auth-service": AUTOSCALED | canary | changes}
    return Settings.model_validate({"namespace": "macromind", "host": "macromind.local", "services": services})


def scaler(declared: Settings, track: Track) -> dict[str, Any]:
    found = autoscaler(declared, "auth-service", track, "macromind")
    assert found
    spec: dict[str, Any] = found["spec"]
    return spec


def test_without_autoscaling_and_budget_there_is_neither() -> None:
    for track in Track:
        assert autoscaler(settings(), "auth-service", track, "macromind") is None
        assert disruption_budget(settings(), "auth-service", track, "macromind") is None


@tracks
def test_an_autoscaler_scales_the_deployment_of_its_track_by_cpu(track: Track) -> None:
    spec = scaler(autoscaled(20), track)

    target = deployment(autoscaled(20), "auth-service", track, "macromind")
    assert spec["scaleTargetRef"] == {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": target["metadata"]["name"],
    }
    (metric,) = spec["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}


@pytest.mark.parametrize(("weight", "least"), [(0, 1), (1, 1), (25, 1), (26, 2), (50, 2), (76, 4), (100, 4)])
def test_the_canarys_autoscaler_begins_at_its_share_and_may_take_everything(weight: int, least: int) -> None:
    spec = scaler(autoscaled(weight), Track.CANARY)

    assert (spec["minReplicas"], spec["maxReplicas"]) == (least, 10)
    stable = scaler(autoscaled(weight), Track.STABLE)
    assert (stable["minReplicas"], stable["maxReplicas"]) == (4, 10)


@pytest.mark.parametrize("weight", [0, 50, 100])
def test_stable_does_not_shrink_while_a_canary_takes_its_load(weight: int) -> None:
    assert scaler(autoscaled(weight), Track.STABLE)["behavior"] == {"scaleDown": {"selectPolicy": "Disabled"}}
    assert "behavior" not in scaler(autoscaled(weight), Track.CANARY)


def test_without_a_canary_stable_shrinks_one_pod_a_minute() -> None:
    scale_down = scaler(autoscaled(), Track.STABLE)["behavior"]["scaleDown"]

    assert scale_down == {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}


@tracks
def test_an_autoscaled_deployment_begins_with_the_fewest_its_autoscaler_allows(track: Track) -> None:
    declared = autoscaled(30)

    assert (
        deployment(declared, "auth-service", track, "macromind")["spec"]["replicas"]
        == scaler(declared, track)["minReplicas"]
    )


@tracks
@pytest.mark.parametrize("allowed", [1, "25%"])
def test_a_disruption_budget_counts_the_pods_of_its_track(track: Track, allowed: int | str) -> None:
    declared = settings(disruptionBudget={"maxUnavailable": allowed})

    budget = disruption_budget(declared, "auth-service", track, "macromind")

    assert budget
    pods = deployment(declared, "auth-service", track, "macromind")
    assert budget["spec"]["selector"] == pods["spec"]["selector"]
    assert budget["spec"]["maxUnavailable"] == allowed
    assert budget["metadata"]["name"] == pods["metadata"]["name"]


def test_a_deployment_that_is_not_ready_in_time_is_given_up() -> None:
    spec = deployment(settings(readyTimeoutSeconds=40), "auth-service", Track.STABLE, "macromind")["spec"]

    assert spec["progressDeadlineSeconds"] == 40 + spec["minReadySeconds"]


def test_no_selector_of_an_existing_stable_finds_the_canarys_pods() -> None:
    declared = settings(stable="existing", **CONTENT, disruptionBudget={"maxUnavailable": 1})
    made = [
        deployment(declared, "auth-service", Track.CANARY, "macromind"),
        service(declared, "auth-service", Track.CANARY, "macromind"),
        *configurations(declared, "auth-service", Track.CANARY, "macromind"),
    ]

    pods, exposed = made[0], made[1]
    labelled = pods["spec"]["template"]["metadata"]["labels"]
    assert "auth-service" not in labelled.values()
    assert pods["spec"]["selector"]["matchLabels"] == exposed["spec"]["selector"]
    assert exposed["spec"]["selector"].items() <= labelled.items()
    assert {manifest["metadata"]["labels"]["app"] for manifest in made} == {"auth-service-canary"}


def test_an_existing_stable_of_unknown_image_has_no_version_label() -> None:
    assert "app.kubernetes.io/version" not in labels("auth-service", Track.STABLE, None, "macromind")
