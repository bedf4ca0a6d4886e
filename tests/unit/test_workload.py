"""Deployments and Services: what runs, under which labels, and how it ends."""

from typing import Any

import pytest

from config.settings import Settings
from routing.split import Track
from workload.labels import image_version, labels
from workload.manifests import deployment, merged, service

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


def test_pods_and_service_meet_at_the_named_port() -> None:
    assert container(Track.STABLE)["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    (port,) = service(settings(), "auth-service", Track.STABLE, "macromind")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8080, "http")


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
    ],
)
def test_a_patch_merges_maps_by_key_and_named_lists_by_name(
    base: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged(base, patch) == expected
