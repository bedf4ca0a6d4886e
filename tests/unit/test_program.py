"""What the program registers, seen by a mock that records every registration."""

import asyncio
import json
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime.config import set_all_config
from pulumi.runtime.stack import Stack

from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.routing.router import Pending
from canary_service.routing.split import Backend, CanaryBackend, Entry, Match, Split, Track
from canary_service.workload.labels import selector
from canary_service.workload.live import LiveDeployment, LiveService
from demo.stack import CONFIGURATION

ROOT = Path(__file__).parents[2]


@dataclass
class Recorder(pulumi.runtime.Mocks):
    """Keeps what the program asks of the engine."""

    registered: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.registered[args.typ.rpartition(":")[2], args.name] = args.inputs
        outputs = dict(args.inputs)
        if "metadata" in outputs:
            outputs["metadata"] = outputs["metadata"] | {"generation": 1}
        return args.name, outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program calls nothing, but called {args.token}")

    def of_kind(self, kind: str) -> set[str]:
        return {name for registered, name in self.registered if registered == kind}


def raw(path: Path) -> dict[str, str]:
    """Return the configuration of a stack file as the engine hands it over."""
    config = yaml.safe_load(path.read_text())["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def stack(name: str) -> dict[str, str]:
    """Return stack dev as it is shipped, or the same without canaries as prod."""
    config = raw(CONFIGURATION)
    if name == "dev":
        return config
    services = json.loads(config["macromind:services"])
    for service in services.values():
        del service["canary"]
    return config | {"macromind:services": json.dumps(services), "macromind:createNamespace": "false"}


class EmptyCluster:
    """Stands for a cluster in which there is nothing yet and pods are ready at once; keeps what its parts are asked."""

    waited_for: list[tuple[str, Track]]
    lowered: list[tuple[str, int]]
    routed: list[str]
    live: dict[str, LiveService]
    has_operator: bool

    def __init__(self, _: object, settings: Settings) -> None:
        self.settings = settings
        self.api = self.declared = self.routes = self.workloads = self

    def has_namespace(self) -> bool:
        return True

    def knows_monitoring(self) -> bool:
        return self.has_operator

    def read(self) -> dict[str, LiveService]:
        return {name: self.live.get(name, LiveService()) for name in self.settings.services}

    def refuse_unknown_kinds(self) -> None:
        pass

    def lower(self, weights: Mapping[str, int]) -> dict[str, Split]:
        found: dict[str, Split] = {}
        for name, weight in weights.items():
            split = self.live[name].split
            assert split is not None
            assert split.canary is not None
            self.lowered.append((name, weight))
            found[name] = replace(split, canary=replace(split.canary, weight=weight))
        return found

    def lost(self, _: object) -> bool:
        return False

    def drift(self, *_: object, **__: object) -> None:
        pass

    def wait_until_ready(self, name: str, track: Track, *_: object) -> None:
        self.waited_for.append((name, track))

    def wait_until_routed(self, name: str) -> str:
        self.routed.append(name)
        return ""

    def keep_while_used(self, *_: object, **__: object) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    monkeypatch.setattr("canary_service.rollout.update.connect", lambda _: None)
    EmptyCluster.waited_for, EmptyCluster.lowered, EmptyCluster.routed, EmptyCluster.live = [], [], [], {}
    EmptyCluster.has_operator = True
    monkeypatch.setattr("canary_service.rollout.update.LiveCluster", EmptyCluster)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(recorder, project="macromind", stack="test", preview=False)
    yield recorder
    set_all_config({}, [])
    loop.close()


def run(config: dict[str, str], secret_keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the program to the end of all its registrations; return the stack's outputs."""
    set_all_config(config, list(secret_keys))

    pulumi.runtime.test(lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__") and None)()  # type: ignore[no-untyped-call] # the SDK does not annotate it
    root = pulumi.runtime.get_root_resource()
    assert isinstance(root, Stack)
    outputs: dict[str, Any] = root.outputs
    return outputs


def changed(config: dict[str, str], service: str, **changes: object) -> dict[str, str]:
    services = json.loads(config["macromind:services"])
    services[service] |= changes
    return config | {"macromind:services": json.dumps(services)}


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_stacks_of_the_checkout_load(name: str) -> None:
    own = raw(ROOT / f"Pulumi.{name}.yaml").items()

    settings = load({key.removeprefix("macromind:"): value for key, value in own if key.startswith("macromind:")})

    assert settings.services


SERVICES = ("auth-service", "meal-planner-service", "nutrition-ai-service")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "Ingress"])
def test_each_service_has_one_object_of_each_kind_per_track(recorder: Recorder, kind: str) -> None:
    run(stack("dev"))

    assert recorder.of_kind(kind) == {name for s in SERVICES for name in (s, f"{s}-canary")}


def test_without_canary_there_are_no_canary_objects(recorder: Recorder) -> None:
    run(stack("prod"))

    assert not [name for _, name in recorder.registered if "canary" in name]
    assert recorder.of_kind("Ingress") == set(SERVICES)


def test_the_canary_ingress_carries_the_weight_of_the_stack(recorder: Recorder) -> None:
    run(stack("dev") | {"macromind:canaryWeight": "35"})

    for service in SERVICES:
        annotations = recorder.registered["Ingress", f"{service}-canary"]["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/canary-weight"] == "35"


def test_every_object_is_in_the_namespace_and_labelled_as_its_track(recorder: Recorder) -> None:
    run(stack("dev"))

    for (kind, name), manifest in recorder.registered.items():
        if kind in {"Deployment", "Service", "Ingress"}:
            track = "canary" if name.endswith("-canary") else "stable"
            assert manifest["metadata"]["namespace"] == "macromind"
            assert manifest["metadata"]["labels"]["version"] == track
            assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "macromind"


MONITORING = {"PodMonitor", "PrometheusRule", "ConfigMap"}


def monitoring(recorder: Recorder) -> set[str]:
    return {kind for kind, name in recorder.registered if name == "macromind-test" and kind in MONITORING}


def test_what_watches_the_services_comes_with_the_kinds_of_the_operator(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("pulumi.log.info", told.append)
    EmptyCluster.has_operator = False
    run(stack("dev"))
    assert monitoring(recorder) == set()
    assert "docs/monitoring.md has a plain scrape configuration" in told[-1]

    EmptyCluster.has_operator = True
    run(stack("dev"))
    assert monitoring(recorder) == MONITORING


def test_pods_are_scraped_only_where_their_own_metrics_count(recorder: Recorder) -> None:
    run(stack("dev") | {"macromind:monitoring": json.dumps({"source": "nginx"})})

    assert monitoring(recorder) == MONITORING - {"PodMonitor"}


def test_a_preview_without_a_cluster_does_not_take_monitoring_for_gone(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: object) -> None:
        raise ClusterError("the API server cannot be asked")

    monkeypatch.setattr("canary_service.rollout.update.connect", unreachable)
    pulumi.runtime.set_mocks(recorder, project="macromind", stack="test", preview=True)

    run(stack("dev"))

    assert monitoring(recorder) == MONITORING


def test_the_namespace_is_made_only_by_the_stack_that_owns_it(recorder: Recorder) -> None:
    run(stack("prod"))
    assert recorder.of_kind("Namespace") == set()

    run(stack("prod") | {"macromind:createNamespace": "true"})
    assert recorder.of_kind("Namespace") == {"macromind"}


def test_outputs_say_what_runs_its_share_and_where_the_weight_comes_from(recorder: Recorder) -> None:  # noqa: ARG001 - installs the mock
    config = changed(stack("dev"), "auth-service", canary={"image": "macromind/auth-service:1.5.0", "weight": 10})

    outputs = run(config)

    assert outputs["services"]["auth-service"] == {
        "url": "http://macromind.local/api/auth",
        "stable": {"image": "macromind/auth-service:1.4.2", "replicas": 2, "weight": 90},
        "canary": {"image": "macromind/auth-service:1.5.0", "replicas": 1, "weight": 10},
        "weightSource": "services.auth-service.canary.weight",
    }
    assert outputs["services"]["meal-planner-service"]["weightSource"] == "canaryWeight"


def test_env_of_an_encrypted_configuration_stays_secret(recorder: Recorder) -> None:
    config = changed(stack("dev"), "auth-service", env={"TOKEN": "hunter2"})

    run(config, ("macromind:services",))

    # The mock hands a secret over as a mark on the topmost property that holds it.
    assert pulumi.runtime.rpc._special_sig_key in recorder.registered["Deployment", "auth-service"]["spec"]  # noqa: SLF001 - the protocol's mark
    assert pulumi.runtime.rpc._special_sig_key not in recorder.registered["Ingress", "auth-service"]["spec"]  # noqa: SLF001 - likewise


NAME = "auth-service"


def deployment(tag: str, pods: int, track: Track) -> LiveDeployment:
    image = f"macromind/{NAME}:{tag}"
    return LiveDeployment(image, (image,), pods, pods, selector(NAME, track), 1, rolled_out=True)


def running(weight: int, *, stable: str = "1.4.2", canary: str = "1.5.0") -> LiveService:
    """Return what a cluster has of the first service when its pods are ready and its canary has this weight."""
    match = Match("macromind.local", "/api/auth")
    backends = Backend(NAME, 8080), Backend(f"{NAME}-canary", 8080)
    return LiveService(
        stable=deployment(stable, 2, Track.STABLE),
        canary=deployment(canary, 1, Track.CANARY),
        split=Split(
            NAME, "macromind", match, backends[0], CanaryBackend(backends[1], weight), entries=(Entry("nginx"),)
        ),
        selector=selector(NAME, Track.STABLE),
    )


def waited_for(weight: int, before: LiveService | None) -> set[Track]:
    """Return whose pods of the first service an update waits for that declares this weight."""
    EmptyCluster.live = {NAME: before} if before else {}
    run(stack("dev") | {"macromind:canaryWeight": str(weight)})
    return {track for name, track in EmptyCluster.waited_for if name == NAME}


@pytest.mark.usefixtures("recorder")
class TestWaits:
    def test_a_first_deploy_waits_for_all_pods(self) -> None:
        assert waited_for(20, None) == {Track.STABLE, Track.CANARY}

    def test_a_canary_that_gets_more_is_waited_for_although_it_did_not_change(self) -> None:
        assert waited_for(50, running(20)) == {Track.CANARY}

    def test_nothing_waits_for_a_canary_whose_weight_falls(self) -> None:
        assert waited_for(5, running(20)) == set()
        assert EmptyCluster.lowered == [(NAME, 5)]

    def test_what_did_not_change_is_not_waited_for(self) -> None:
        assert waited_for(20, running(20)) == set()

    def test_what_was_never_rolled_out_in_full_is_waited_for_again(self) -> None:
        interrupted = running(20)
        assert interrupted.stable
        unfinished = replace(interrupted, stable=replace(interrupted.stable, rolled_out=False))

        assert waited_for(20, unfinished) == {Track.STABLE}

    def test_what_the_update_changes_is_waited_for(self) -> None:
        older = running(20)
        assert older.canary

        assert waited_for(20, replace(older, canary=replace(older.canary, generation=0))) == {Track.CANARY}


def test_behind_a_gateway_one_route_per_service_leads_to_both_tracks(recorder: Recorder) -> None:
    run(stack("dev") | {"macromind:router": "gateway"})

    assert recorder.of_kind("HTTPRoute") == set(SERVICES)
    assert recorder.of_kind("Ingress") == set()
    for service in SERVICES:
        route = recorder.registered["HTTPRoute", service]
        assert [each["name"] for each in route["spec"]["rules"][-1]["backendRefs"]] == [service, f"{service}-canary"]
        assert route["metadata"]["labels"]["app.kubernetes.io/instance"] == service


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("change", "waited"),
    [
        ({}, False),
        ({"former_routers": ("nginx",)}, True),
        ({"pending": Pending("nobody has answered")}, True),
        ({"split": None}, True),
        ({"pending": Pending("nobody has answered"), "weight": 60}, False),  # its weight falls
        ({"former_routers": ("nginx",), "weight": 60}, True),
    ],
)
def test_a_route_that_the_router_has_taken_already_is_not_waited_for_again(
    change: dict[str, Any],
    waited: bool,  # noqa: FBT001 - a case
) -> None:
    config = stack("dev") | {"macromind:router": "gateway"}
    settings = load({key.removeprefix("macromind:"): value for key, value in config.items() if "macromind:" in key})
    split = settings.split_of(NAME)
    assert split.canary
    weight = change.get("weight", split.weight)
    live = replace(running(20), split=replace(split, canary=replace(split.canary, weight=weight)))
    changed = {key: value for key, value in change.items() if key != "weight"}
    EmptyCluster.live = {NAME: replace(live, **changed)}

    run(config)

    assert (NAME in EmptyCluster.routed) is waited


def test_a_bad_configuration_registers_nothing_and_ends_without_traceback(recorder: Recorder) -> None:
    with pytest.raises(pulumi.RunError, match="canaryWeight = 101") as caught:
        run(stack("dev") | {"macromind:canaryWeight": "101"})

    assert caught.value.__suppress_context__
    assert recorder.registered == {}
