"""What is read from a cluster: what runs, how it is routed, and what others did to it."""

import json
from typing import Any

import pytest

from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.routing.nginx import WEIGHT
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.labels import selector
from canary_service.workload.live import (
    FIELD_MANAGER,
    LivePort,
    LiveService,
    Objects,
    changed_by_others,
    lacks,
    live_service,
)
from canary_service.workload.manifests import deployment, labels_of, service

NAME = "app"
CANARY = f"{NAME}-canary"
IMAGE = "example/app:2.0"


def settings(**changes: object) -> Settings:
    described = {"path": "/api", "port": 8080, "image": "example/app:1.0", "canary": {"image": IMAGE}} | changes
    services = json.dumps({NAME: {key: value for key, value in described.items() if value is not None}})
    return load({"namespace": "macromind", "host": "macromind.local", "canaryWeight": "20", "services": services})


def entry(fields: object, manager: str = FIELD_MANAGER, second: int = 10, **changes: object) -> dict[str, Any]:
    """Return an entry of managedFields, of this program unless a manager is named."""
    operation = "Apply" if manager == FIELD_MANAGER else "Update"
    time = f"2026-01-02T03:04:{second:02}Z"
    return {"manager": manager, "operation": operation, "time": time, "fieldsV1": fields} | changes


def fields_of(value: object) -> dict[str, Any]:
    """Return the fields that one owner of all of a value has, with lists of named things by their keys."""
    if isinstance(value, dict):
        return {f"f:{key}": fields_of(each) for key, each in value.items()}
    if isinstance(value, list) and all(isinstance(each, dict) and "name" in each for each in value):
        return {item("name", of=each): fields_of(each) for each in value}
    if isinstance(value, list) and all(isinstance(each, dict) and "protocol" in each for each in value):
        return {item("port", "protocol", of=each): fields_of(each) for each in value}
    return {}


def item(*keys: str, of: dict[str, Any]) -> str:
    return f"k:{json.dumps({key: of[key] for key in keys}, separators=(',', ':'))}"


def applied(manifest: Manifest, *others: dict[str, Any]) -> Manifest:
    """Return an object as this program has applied it, and others have written to since."""
    metadata = {key: manifest["metadata"][key] for key in ("labels", "annotations") if key in manifest["metadata"]}
    own = entry(fields_of({"metadata": metadata, "spec": manifest["spec"]}))
    return manifest | {"metadata": manifest["metadata"] | {"generation": 1, "managedFields": [own, *others]}}


def pods(track: Track = Track.CANARY) -> Manifest:
    return deployment(settings(), NAME, track, "macromind")


def routes(weight: str = "20") -> list[Manifest]:
    made = settings()
    found = [route.manifest for route in made.router_of_stack().render(made.split_of(NAME))]
    for route, track in zip(found, Track, strict=True):
        route["metadata"]["labels"] = labels_of(made, NAME, track, "macromind")
        route["metadata"]["annotations"] |= {"pulumi.com/patchForce": "true"}
    found[1]["metadata"]["annotations"][WEIGHT] = weight
    return found


def read(*, deployments: list[Manifest], found: list[Manifest]) -> LiveService:
    services = [service(settings(), NAME, track, "macromind") for track in Track]
    return live_service(settings(), NAME, Objects(by_name(deployments), by_name(services), found))


def by_name(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests}


class TestReading:
    def test_what_this_program_has_applied_is_read_back(self) -> None:
        live = read(deployments=[applied(pods(track)) for track in Track], found=routes("35"))

        assert live.weight == 35
        assert live.split
        assert live.split.annotations == {}
        assert live.canary_images == (IMAGE,)
        assert live.stable
        assert live.stable.declared_replicas == 2
        assert live.stable.overridden_version is None
        assert live.selector == live.stable.selector == selector(NAME, Track.STABLE)
        assert live.port == LivePort(8080, "", 8080)

    def test_a_canary_whose_stable_route_was_deleted_still_says_its_weight(self) -> None:
        _, canary = routes("70")

        live = read(deployments=[applied(pods(track)) for track in Track], found=[canary])

        assert live.weight == 70
        assert live.unreadable == ""

    def test_an_empty_namespace_has_nothing(self) -> None:
        live = live_service(settings(), NAME, Objects({}, {}))

        assert live == LiveService()
        assert (live.weight, live.canary_images) == (0, ())

    def test_a_route_that_is_no_split_is_no_error_and_said(self) -> None:
        live = read(deployments=[], found=routes("many"))

        assert live.split is None
        assert "'many'" in live.unreadable

    def test_routes_of_other_services_do_not_count(self) -> None:
        (stable, canary) = routes()
        other = stable | {"metadata": stable["metadata"] | {"name": "other"}}

        assert read(deployments=[], found=[other, stable, canary]).weight == 20

    def test_the_image_is_that_of_the_services_container(self) -> None:
        beside = pods()
        beside["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "example/proxy:1"})

        assert read(deployments=[beside], found=[]).canary_images == (IMAGE,)

    def test_an_image_set_by_hand_leaves_the_version_that_was_declared(self) -> None:
        by_hand = applied(pods())
        container = f'k:{{"name":"{NAME}"}}'
        own = by_hand["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
        del own[container]["f:image"]

        live = read(deployments=[by_hand], found=[])

        assert live.canary
        assert live.canary.overridden_version == "2.0"

    @pytest.mark.parametrize(
        "by_hand", [{"port": 9090}, {"targetPort": 9090}, {"name": "web"}], ids=["port", "target", "name"]
    )
    def test_a_port_that_something_else_set_does_not_count_and_the_service_is_still_ours(
        self, by_hand: dict[str, Any]
    ) -> None:
        found = applied(service(settings(), NAME, Track.STABLE, "macromind"))
        (port,) = found["spec"]["ports"]
        fields = found["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:ports"]
        if "targetPort" in by_hand:
            del fields[item("port", "protocol", of=port)]["f:targetPort"]
        found = found | {"spec": found["spec"] | {"ports": [port | by_hand]}}

        live = live_service(settings(), NAME, Objects({}, by_name([found])))

        assert live.port is None
        assert live.ours

    def test_the_port_of_a_service_made_by_hand_counts_and_it_is_not_ours(self) -> None:
        live = read(deployments=[pods(track) for track in Track], found=routes())

        assert live.port == LivePort(8080, "", 8080)
        assert not live.ours

    def test_an_image_that_does_not_start_is_not_what_serves(self) -> None:
        rolled = applied(pods())
        rolled["metadata"]["uid"] = "1"
        before = [
            {
                "metadata": {"ownerReferences": [{"uid": uid}]},
                "spec": {"template": {"spec": {"containers": [{"name": NAME, "image": image}]}}},
                "status": {"readyReplicas": ready},
            }
            for uid, image, ready in (("1", "example/app:1.9", 1), ("1", IMAGE, 0), ("2", "example/other:1", 3))
        ]

        live = live_service(settings(), NAME, Objects(by_name([rolled]), {}, replica_sets=before))

        assert live.canary_image == IMAGE
        assert live.canary_images == ("example/app:1.9",)

    def test_the_stack_is_read_back(self) -> None:
        mine = service(settings(), NAME, Track.STABLE, "macromind")
        mine["metadata"]["annotations"] = {"canary-service/stack": "macromind/dev"}

        assert live_service(settings(), NAME, Objects({}, by_name([mine]))).owner == "macromind/dev"

    def test_replicas_that_an_autoscaler_set_count(self) -> None:
        scaled = applied(pods(), entry({}, "kube-controller-manager", subresource="scale"))
        del scaled["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]

        live = read(deployments=[scaled], found=[])

        assert live.canary
        assert live.canary.declared_replicas == scaled["spec"]["replicas"]

    def test_replicas_that_something_else_set_are_not_declared(self) -> None:
        scaled = applied(pods())
        del scaled["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]

        live = read(deployments=[scaled], found=[])

        assert live.canary
        assert live.canary.declared_replicas is None


class TestWhoChanged:
    @pytest.mark.parametrize(
        ("other", "counts"),
        [
            (entry({}, "kubectl-annotate", 11), True),
            (entry({}, "kubectl-annotate", 10), True),  # times are full seconds: it may have been after ours
            (entry({}, "kubectl-annotate", 9), False),
            (entry({}, "kubectl", 0, subresource="scale", time=None), True),
            (entry({}, "traefik", 11, subresource="status"), False),
            (entry({}, "kube-controller-manager", 11), False),
            (entry({}, FIELD_MANAGER, 11, operation="Update"), True),
        ],
        ids=["later", "same second", "earlier", "scaled", "status", "controller", "our name, but no apply"],
    )
    def test_who_wrote_since_the_last_apply_counts(self, other: dict[str, Any], *, counts: bool) -> None:
        assert bool(changed_by_others(applied(pods(), other))) is counts

    def test_all_of_them_are_named(self) -> None:
        others = [entry({}, name, 11) for name in ("kubectl-annotate", "kubectl-label")]

        assert changed_by_others(applied(pods(), *others)) == {"kubectl-annotate", "kubectl-label"}

    def test_what_this_program_never_applied_is_others(self) -> None:
        by_hand = pods() | {"metadata": pods()["metadata"] | {"managedFields": [entry({}, "kubectl", 0)]}}

        assert changed_by_others(by_hand) == {"kubectl"}


class TestWhatIsLacking:
    def test_nothing_when_all_that_is_declared_is_owned(self) -> None:
        for track in Track:
            assert not lacks(applied(pods(track)), pods(track))

    @pytest.mark.parametrize(
        "path",
        [
            ("f:metadata", "f:labels", "f:version"),
            ("f:spec", "f:replicas"),
            ("f:spec", "f:template", "f:spec", "f:containers", f'k:{{"name":"{NAME}"}}', "f:readinessProbe"),
            ("f:spec", "f:template", "f:spec", "f:containers"),
            ("f:spec", "f:template", "f:spec", "f:securityContext", "f:runAsNonRoot"),
        ],
        ids=lambda path: path[-1],
    )
    def test_a_field_that_was_removed_by_hand_is(self, path: tuple[str, ...]) -> None:
        found = applied(pods())
        fields = found["metadata"]["managedFields"][0]["fieldsV1"]
        for key in path[:-1]:
            fields = fields[key]
        del fields[path[-1]]

        assert lacks(found, pods())

    def test_a_map_with_one_owner_as_a_whole_has_all_its_keys(self) -> None:
        found = applied(pods())
        found["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:selector"] = {}

        assert not lacks(found, pods())

    def test_what_the_api_server_fills_into_a_key_is_no_difference(self) -> None:
        found, declared = applied(pods()), pods()
        owned = found["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        ports = owned["f:template"]["f:spec"]["f:containers"][f'k:{{"name":"{NAME}"}}']
        ports["f:ports"] = {'k:{"containerPort":8080,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:name": {}}}
        del declared["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"]

        assert not lacks(found, declared)

    def test_the_replicas_of_an_autoscaler_are_not(self) -> None:
        found = applied(pods())
        del found["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]

        assert not lacks(found, pods(), keep_replicas=True)

    def test_fields_of_others_do_not_make_up_for_ours(self) -> None:
        found = applied(pods())
        own = found["metadata"]["managedFields"][0]
        found["metadata"]["managedFields"] = [own | {"manager": "kubectl", "operation": "Update"}]

        assert lacks(found, pods())
