"""The components that other programs use: what they take, what they refuse, what they register."""

import asyncio
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest
import yaml
from pulumi.output import UNKNOWN
from pulumi.resource import DependencyResource

from canary_service.cluster.errors import ClusterError, UnknownKindError
from canary_service.components import CanaryService, CanaryStack
from canary_service.components.generate import ARGUMENTS, SCHEMA, arguments, schema
from canary_service.components.kubernetes_object import KubernetesObject
from canary_service.rollout.guards import IDENTIFIER, OF_THE_STACK
from canary_service.routing.split import Track
from tests.unit.test_program import ROOT, EmptyCluster, Recorder, running

SERVICE = {"path": "/api/auth", "port": 8080, "image": "macromind/auth-service:1.4.2", "replicas": 2}
CANARY = {"image": "macromind/auth-service:1.5.0", "weight": 20}
PLACE = {"namespace": "macromind", "host": "macromind.local"}
INPUTS = PLACE | SERVICE | {"canary": CANARY}
NAME = "auth-service"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
EXAMPLES = ROOT / "docs/examples/package"
KUBECONFIG = """
clusters: [{name: one, cluster: {server: https://one.example}}]
contexts: [{name: other, context: {cluster: one, user: one}}]
users: [{name: one, user: {token: hunter2}}]
"""
SECRET_MARK = pulumi.runtime.rpc._special_sig_key  # noqa: SLF001 - the protocol's mark


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda message, *_: told.append(message))
    return told


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    monkeypatch.setattr("canary_service.rollout.update.connect", connected.append)
    connected.clear()
    EmptyCluster.waited_for, EmptyCluster.lowered, EmptyCluster.routed, EmptyCluster.live = [], [], [], {}
    EmptyCluster.has_operator = True
    monkeypatch.setattr("canary_service.rollout.update.LiveCluster", EmptyCluster)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=False)
    yield recorder
    pulumi.runtime.set_all_config({}, [])
    loop.close()


connected: list[Mapping[str, str]] = []
"""The configurations of providers by which a cluster was looked for."""


def run(program: Any) -> None:  # noqa: ANN401 - a function that declares resources
    pulumi.runtime.test(lambda: program() and None)()  # type: ignore[no-untyped-call] # the SDK does not annotate it


def service(name: str = NAME, opts: pulumi.ResourceOptions | None = None, **inputs: Any) -> CanaryService:  # noqa: ANN401 - of any type
    given = {key: value for key, value in (INPUTS | inputs).items() if value is not None}
    return CanaryService(name, cast("Any", given), opts)


def stack(name: str = "shop", opts: pulumi.ResourceOptions | None = None, **inputs: Any) -> CanaryStack:  # noqa: ANN401 - likewise
    return CanaryStack(
        name, cast("Any", PLACE | {"canaryWeight": 20, "services": {NAME: SERVICE | {"canary": CANARY}}} | inputs), opts
    )


def kinds(recorder: Recorder) -> set[tuple[str, str]]:
    return {key for key in recorder.registered if key[0] in {"Deployment", "Service", "Ingress"}}


BOTH_TRACKS = {(kind, name) for kind in ("Deployment", "Service", "Ingress") for name in (NAME, f"{NAME}-canary")}


def test_a_service_has_the_objects_that_it_has_in_a_stack_of_this_project(recorder: Recorder) -> None:
    run(service)

    assert kinds(recorder) == BOTH_TRACKS
    assert ("CanaryService", NAME) in recorder.registered
    annotations = recorder.registered["Ingress", f"{NAME}-canary"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/canary-weight"] == "20"
    assert annotations["canary-service/stack"] == "shop/test"


def test_a_service_tells_where_it_is_and_what_shares_it_has(recorder: Recorder) -> None:  # noqa: ARG001 - installs the mock
    found: dict[str, Any] = {}

    def program() -> None:
        made = service()
        pulumi.Output.all(made.url, made.tracks).apply(lambda values: found.update(url=values[0], tracks=values[1]))

    run(program)

    assert found["url"] == "http://macromind.local/api/auth"
    assert {track: state["weight"] for track, state in found["tracks"].items()} == {"stable": 80, "canary": 20}


def test_services_of_one_name_in_two_namespaces_stand_beside_each_other(recorder: Recorder) -> None:
    def program() -> None:
        service()
        service("auth-eu", serviceName=NAME, namespace="eu", host="eu.local")

    run(program)

    europe = recorder.registered["Deployment", f"auth-eu-{NAME}"]["metadata"]
    assert (europe["name"], europe["namespace"]) == (NAME, "eu")
    assert recorder.registered["Deployment", NAME]["metadata"]["namespace"] == "macromind"


def test_two_stacks_stand_beside_each_other_and_beside_resources_of_the_program(recorder: Recorder) -> None:
    def program() -> None:
        pulumi.CustomResource("kubernetes:core/v1:ConfigMap", NAME, {"data": {"key": "value"}})
        stack()
        stack("shop-eu", namespace="eu", host="eu.local", createNamespace=True)

    run(program)

    names = {name for kind, name in recorder.registered if kind == "Deployment"}
    assert names == {f"{of}-{track}" for of in ("shop", "shop-eu") for track in (NAME, f"{NAME}-canary")}
    rules = {name for kind, name in recorder.registered if kind == "PrometheusRule"}
    assert len(rules) == len({recorder.registered["PrometheusRule", name]["metadata"]["name"] for name in rules}) == 2
    assert ("Namespace", "shop-eu-eu") in recorder.registered
    assert ("ConfigMap", NAME) in recorder.registered


@pytest.mark.parametrize("wrapped", [pulumi.Output.from_input, pulumi.Output.secret], ids=["output", "secret"])
def test_inputs_may_be_outputs(recorder: Recorder, wrapped: Any) -> None:  # noqa: ANN401 - makes an output
    run(lambda: service(env=wrapped({"TOKEN": "hunter2"})))

    assert kinds(recorder) == BOTH_TRACKS
    hidden = SECRET_MARK in recorder.registered["Deployment", NAME]["spec"]
    assert hidden == (wrapped is pulumi.Output.secret)
    assert SECRET_MARK not in recorder.registered["Ingress", NAME]["spec"]


@pytest.mark.parametrize("wrapped", [dict, pulumi.Output.from_input], ids=["plain", "output"])
def test_the_order_of_maps_changes_nothing(recorder: Recorder, wrapped: Any) -> None:  # noqa: ANN401 - makes an input
    services = {NAME: SERVICE, "other": SERVICE | {"path": "/other"}}
    rules = []
    for order in (sorted(services), sorted(services, reverse=True)):
        run(lambda order=order: stack(services=wrapped({name: services[name] for name in order})))
        (rule,) = (each for (kind, _), each in recorder.registered.items() if kind == "PrometheusRule")
        rules.append(rule)

    assert rules[0] == rules[1]


def test_numbers_arrive_as_they_were_written(recorder: Recorder) -> None:
    run(lambda: service(port=8080.0, env={"WHOLE": 3.0, "PART": 0.5}))

    container = recorder.registered["Deployment", NAME]["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"][0]["containerPort"] == 8080
    assert {each["name"]: each["value"] for each in container["env"]} == {"WHOLE": "3", "PART": "0.5"}


def test_a_secret_of_one_service_of_a_stack_hides_the_pods_of_that_one(recorder: Recorder) -> None:
    services = {
        NAME: SERVICE | {"env": {"TOKEN": pulumi.Output.secret("hunter2")}},
        "other": SERVICE | {"path": "/other"},
    }

    run(lambda: stack(services=services))

    assert SECRET_MARK in recorder.registered["Deployment", f"shop-{NAME}"]["spec"]
    assert SECRET_MARK not in recorder.registered["Deployment", "shop-other"]["spec"]


def test_a_secret_that_a_patch_brings_into_the_annotations_of_pods_is_hidden_with_them(
    recorder: Recorder,  # noqa: ARG001 - installs the mock
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    templates: list[Any] = []
    make = KubernetesObject.__init__

    def noted(self: KubernetesObject, manifest: Any, opts: pulumi.ResourceOptions, **own: Any) -> None:  # noqa: ANN401 - a manifest
        if manifest["kind"] == "Deployment":
            templates.append(manifest["spec"]["template"])
        make(self, manifest, opts, **own)

    monkeypatch.setattr(KubernetesObject, "__init__", noted)
    patch = {"metadata": {"annotations": {"shop.example/token": pulumi.Output.secret("hunter2")}}}

    run(lambda: service(podTemplatePatch=patch))

    assert len(templates) == 2
    assert all(isinstance(each, pulumi.Output) for each in templates)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"canary": CANARY | {"weight": 101}}, "canary.weight = 101\n    allowed: a whole number of percent"),
        ({"image": None}, "image = (missing)"),
        ({"host": None}, "host = (missing)"),
        ({"serviceName": "Auth"}, "serviceName = Auth"),
        ({"imagee": "x"}, "imagee = x\n    allowed: no such key; did you mean image?"),
        ({"maxStep": 0}, "maxStep = 0"),
        ({"serviceName": ["x"]}, "serviceName = (of type list)\n    allowed: text"),
        ({"hots": "x"}, "hots = x\n    allowed: no such key; did you mean host?"),
        ({"kubeconfg": "x"}, "allowed: no such key; did you mean kubeconfig?"),
        ({"secert": {"data": {"KEY": "hidden.example"}}}, "secert = (a map or list)"),
        ({"services": {}}, "services = (a map or list)"),
        ({"weight": 5}, "nothing of it was changed.\n  weight = 5"),
        ({"canary": pulumi.Output.secret}, "canary = (secret)"),
        ({"host": pulumi.Output.secret}, "host = (secret)\n    allowed: a value that is not secret"),
        ({"env": {"a b": "hunter2"}, "secret": {"data": {"KEY": ["hunter2"]}}}, "secret.data.KEY = (secret)"),
    ],
)
@pytest.mark.usefixtures("recorder")
def test_what_is_wrong_is_told_by_input_and_without_commands_for_another_configuration(
    inputs: dict[str, Any], message: str
) -> None:
    made = {key: value("hidden.example") if callable(value) else value for key, value in inputs.items()}

    with pytest.raises(pulumi.RunError) as caught:
        run(lambda: service(**made))

    assert str(caught.value).startswith(f"CanaryService {NAME}: ")
    assert message in str(caught.value)
    assert "pulumi config" not in str(caught.value)
    assert "hidden.example" not in str(caught.value)


@pytest.mark.usefixtures("recorder")
def test_a_service_of_another_stack_is_named() -> None:
    EmptyCluster.live = {NAME: replace(running(20), owner="shop/prod")}

    with pytest.raises(pulumi.RunError, match=rf"serviceName = {NAME}\n.*objects belong to stack shop/prod"):
        run(service)


def test_an_update_that_the_project_s_program_refuses_is_refused(recorder: Recorder) -> None:
    EmptyCluster.live = {NAME: running(20)}

    refused = r"canary\.weight = 90\n    allowed: at most 70 now: .*, and maxStep lets a weight rise by 50 points"
    with pytest.raises(pulumi.RunError, match=refused):
        run(lambda: service(canary=CANARY | {"weight": 90}))

    assert kinds(recorder) == set()


@pytest.mark.usefixtures("recorder")
def test_a_weight_that_falls_is_lowered_first_and_one_that_rises_waits() -> None:
    EmptyCluster.live = {NAME: running(20)}
    run(lambda: service(canary=CANARY | {"weight": 5}))
    assert EmptyCluster.lowered == [(NAME, 5)]
    assert EmptyCluster.waited_for == []

    run(lambda: service(canary=CANARY | {"weight": 50}))
    assert EmptyCluster.waited_for == [(NAME, Track.CANARY)]


def never_known() -> pulumi.Output[Any]:
    """Return what a preview has of a resource that it would make."""

    async def given(value: Any) -> Any:  # noqa: ANN401 - of any type
        return value

    return pulumi.Output(set(), given(None), given(value=False))


@pytest.mark.parametrize("unknown", [never_known, lambda: pulumi.Output.from_input(UNKNOWN)])
def test_a_preview_that_does_not_know_an_input_says_so_and_goes_on(
    recorder: Recorder,
    told: list[str],
    unknown: Any,  # noqa: ANN401 - makes an output
) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)
    found: list[str] = []

    run(lambda: service(image=unknown()).url.apply(found.append))

    assert told[0].startswith("not known before the update: image. ")
    assert kinds(recorder) == set()
    assert found == []


@pytest.mark.parametrize("unknown", ["image", "canary.image", "canary.weight"])
@pytest.mark.parametrize("make", [service, stack])
def test_a_preview_takes_what_is_in_force_for_an_image_or_weight_that_is_not_known(
    recorder: Recorder,
    told: list[str],
    make: Any,  # noqa: ANN401 - a function that makes a component
    unknown: str,
) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)
    EmptyCluster.live = {NAME: running(35)}
    found: list[object] = []
    inputs: dict[str, Any] = SERVICE | {"canary": CANARY | {"weight": 35}}
    if unknown == "image":
        inputs["image"] = never_known()
    else:
        inputs["canary"][unknown.removeprefix("canary.")] = never_known()

    def program() -> None:
        made: Any = make(**inputs) if make is service else make(services={NAME: inputs})
        (made.tracks if make is service else made.services).apply(found.append)

    run(program)

    (message,) = [each for each in told if each.startswith("not known")]
    assert re.fullmatch(rf"not known before the update: (services\.{NAME}\.)?{unknown}\. This .*", message)
    prefix = "" if make is service else "shop-"
    assert {name for kind, name in recorder.registered if kind == "Deployment"} == {
        prefix + NAME,
        f"{prefix}{NAME}-canary",
    }
    annotations = recorder.registered["Ingress", f"{prefix}{NAME}-canary"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/canary-weight"] == "35"
    assert found == []


@pytest.mark.usefixtures("recorder")
def test_a_preview_does_not_refuse_what_the_unknown_may_mend(recorder: Recorder, told: list[str]) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)
    EmptyCluster.live = {NAME: running(20)}

    run(lambda: service(canary={"image": "another:9", "weight": never_known()}))

    assert "what is there of it stays, although this preview deletes it" in told[0]
    assert kinds(recorder) == set()


def test_a_preview_refuses_what_the_unknown_cannot_mend(recorder: Recorder) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)
    EmptyCluster.live = {NAME: running(20)}

    with pytest.raises(pulumi.RunError, match=r": 1 input .*\n  replicas = 1\n    allowed: at least 2"):
        run(lambda: service(replicas=1, canary={"image": "another:9", "weight": never_known()}))


def test_a_null_that_a_resource_gives_in_a_preview_is_not_known(recorder: Recorder, told: list[str]) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

    def program() -> None:
        made = pulumi.CustomResource("docker:index:Image", "image", {})
        service(image=made.urn.apply(lambda _: None))

    run(program)

    assert told[0].startswith("not known before the update: image. ")


@pytest.mark.parametrize(
    ("inputs", "unknown", "message"),
    [
        ({"canary": CANARY | {"weight": 110}}, "image", "canary.weight = 110"),
        ({"imagee": "x", "host": "no host"}, "port", "2 inputs cannot be used"),
        ({"canary": CANARY | {"weight": 110}}, "serviceName", "canary.weight = 110"),
        ({"tlsSecretName": "tls", "kubeconfg": "x"}, "router", "1 input cannot be used"),
        ({"sessionAffinity": {"cookieNam": "x"}}, "autoscaling", "sessionAffinity.cookieNam = x"),
    ],
)
def test_what_is_known_is_checked_even_if_something_else_is_not(
    recorder: Recorder, inputs: dict[str, Any], unknown: str, message: str
) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

    given: dict[str, Any] = inputs | {unknown: never_known()}

    with pytest.raises(pulumi.RunError) as caught:
        run(lambda: service(**given))

    assert message in str(caught.value)
    assert "known after the update" not in str(caught.value)


@pytest.mark.parametrize("unknown", sorted({*INPUTS, "router", "tlsSecretName", "autoscaling", "podTemplatePatch"}))
def test_nothing_is_said_to_be_wrong_with_what_is_not_known(recorder: Recorder, told: list[str], unknown: str) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

    given: dict[str, Any] = {unknown: never_known()}

    run(lambda: service(**given))

    assert told[0].startswith(f"not known before the update: {unknown}. ")


@pytest.mark.parametrize("wrapped", [dict, pulumi.Output.from_input], ids=["plain", "output"])
def test_an_input_that_is_none_is_absent(recorder: Recorder, wrapped: Any) -> None:  # noqa: ANN401 - makes an input
    nones = dict.fromkeys(("resources", "configMap", "autoscaling"))
    canary = wrapped(CANARY | {"cookie": None, "env": None})

    def program() -> None:
        args = INPUTS | nones | {"canary": canary, "tlsSecretName": None, "kubeconfig": None, "maxStep": None}
        CanaryService(NAME, cast("Any", args))
        stack(namespace="eu", host="eu.local", canaryWeight=None, services={NAME: SERVICE | nones | {"canary": canary}})
        CanaryService("other", cast("Any", INPUTS | {"path": "/other", "canary": None}))

    run(program)

    names = {name for kind, name in recorder.registered if kind == "Deployment"}
    assert names == {NAME, f"{NAME}-canary", f"shop-{NAME}", f"shop-{NAME}-canary", "other"}


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("services", "said"),
    [
        ({NAME: None}, f"services.{NAME} = null"),
        ({NAME: SERVICE | {"env": {"X": None}}}, f"services.{NAME}.env.X = null"),
    ],
)
def test_a_service_or_a_value_in_a_map_that_is_none_is_refused(services: dict[str, Any], said: str) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        run(lambda: stack(services=services))

    assert said in str(caught.value)


@pytest.mark.parametrize("component", [CanaryService, CanaryStack])
def test_inputs_of_which_nothing_is_known_are_told_as_that(
    recorder: Recorder,
    told: list[str],
    component: Any,  # noqa: ANN401 - a class
) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

    run(lambda: component(NAME, never_known()))

    assert told[0].startswith("not known before the update: all inputs. ")
    assert kinds(recorder) == set()


def test_an_image_that_is_not_known_is_told_where_the_cluster_does_not_know_the_router(
    recorder: Recorder, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: object) -> None:
        raise UnknownKindError("no such kind")

    monkeypatch.setattr(EmptyCluster, "read", unknown)
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

    run(lambda: service(image=never_known()))

    assert told[0].startswith("not known before the update: image. ")


@pytest.mark.parametrize("inputs", [None, [], "host: shop.example"])
@pytest.mark.usefixtures("recorder")
def test_inputs_that_are_no_map_are_refused(inputs: Any) -> None:  # noqa: ANN401 - what a caller may get wrong
    with pytest.raises(pulumi.RunError, match=r"all inputs = \(of type .*\)\n    allowed: a map of names to values"):
        run(lambda: CanaryService(NAME, inputs))


@pytest.mark.parametrize("place", [("env",), ("secret", "data"), ("canary", "env")], ids=".".join)
def test_a_preview_shows_a_component_of_which_only_the_text_of_a_variable_is_not_known(
    recorder: Recorder, told: list[str], place: tuple[str, ...]
) -> None:
    pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)
    inputs: dict[str, Any] = {"URL": never_known()}
    for key in reversed(place):
        inputs = {key: inputs}
    if "canary" in inputs:
        inputs["canary"] |= CANARY

    run(lambda: service(**inputs))

    assert kinds(recorder) == BOTH_TRACKS
    assert told == []


def in_plugin(parent: str, *aliases: pulumi.Alias) -> pulumi.ResourceOptions:
    """Return the options that a component of a plugin gets."""
    known = DependencyResource(f"urn:pulumi:test::shop::{parent}")
    return pulumi.ResourceOptions(parent=known, aliases=aliases, protect=False, retain_on_delete=False)


class TestNames:
    """What the engine takes for another resource, it makes anew, and deletes the one that was there and serves."""

    @staticmethod
    def live(declared_as: str = "") -> None:
        found = replace(running(20), owner="shop/test", declared_as=frozenset({declared_as}))
        EmptyCluster.live = {NAME: found}

    @pytest.mark.parametrize("preview", [True, False])
    @pytest.mark.parametrize(
        ("was", "program"),
        [
            ("", lambda: service("web", serviceName=NAME)),
            ("canary:index:CanaryService::web", service),
            ("canary:index:CanaryService::web", lambda: service("web2", serviceName=NAME)),
            ("", stack),
            ("canary:index:CanaryStack::old", stack),
            ("canary:index:CanaryStack::shop", service),
            ("", lambda: service(opts=pulumi.ResourceOptions(parent=pulumi.ComponentResource("shop:index:Shop", "x")))),
            (
                "shop:index:Shop$canary:index:CanaryService::web",
                lambda: service(image=pulumi.Output.from_input("app:1")),
            ),
        ],
    )
    def test_what_serves_under_another_name_or_parent_is_not_deleted(
        self,
        recorder: Recorder,
        was: str,
        program: Any,  # noqa: ANN401 - declares resources
        preview: bool,  # noqa: FBT001 - a case
    ) -> None:
        pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=preview)
        self.live(was)

        with pytest.raises(pulumi.RunError) as caught:
            run(program)

        component = was or f"canary:index:CanaryService::{NAME}"
        assert f" = {NAME}\n    allowed: what is declared as it was, as {component}: " in str(caught.value)
        assert f"or give it the alias urn:pulumi:test::shop::{component}" in str(caught.value)
        assert kinds(recorder) == set()
        assert EmptyCluster.lowered == []

    @pytest.mark.parametrize("unknown", [{"image": UNKNOWN}, {"canary": CANARY | {"weight": UNKNOWN}}])
    @pytest.mark.parametrize(
        ("program", "key"),
        [
            (lambda unknown: service("web", serviceName=NAME, **unknown), "serviceName"),
            (lambda unknown: stack(services={NAME: SERVICE | {"canary": CANARY} | unknown}), f"services.{NAME}"),
        ],
    )
    def test_a_preview_refuses_it_too_where_image_or_weight_are_not_known(
        self,
        recorder: Recorder,
        program: Any,  # noqa: ANN401 - declares resources
        key: str,
        unknown: dict[str, Any],
    ) -> None:
        pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)
        self.live("canary:index:CanaryService::old")

        with pytest.raises(pulumi.RunError, match=rf": 1 input .*\n  {key} = {NAME}\n    allowed: what is declared as"):
            run(lambda: program(unknown))

    @pytest.mark.parametrize(
        ("was", "program", "urn"),
        [
            (
                "",
                lambda opts: service("web", opts, serviceName=NAME),
                f"canary:index:CanaryService${DEPLOYMENT}::{NAME}",
            ),
            (
                "canary:index:CanaryService::web",
                lambda opts: service(opts=opts),
                f"canary:index:CanaryService${DEPLOYMENT}::web-{NAME}",
            ),
            (
                "canary:index:CanaryService::web",
                lambda opts: stack(opts=opts),
                f"canary:index:CanaryService${DEPLOYMENT}::web-{NAME}",
            ),
            (
                "shop:index:Shop$canary:index:CanaryStack::old",
                lambda opts: stack(opts=opts),
                f"shop:index:Shop$canary:index:CanaryStack$canary:index:CanaryService${DEPLOYMENT}::old-{NAME}",
            ),
        ],
    )
    def test_an_alias_keeps_the_objects(
        self,
        recorder: Recorder,
        monkeypatch: pytest.MonkeyPatch,
        was: str,
        program: Any,  # noqa: ANN401 - declares resources
        urn: str,
    ) -> None:
        self.live(was)
        aliases: list[Any] = []
        make = pulumi.CustomResource.__init__

        def noted(self: pulumi.CustomResource, t: str, name: str, props: Any, opts: Any, **own: Any) -> None:  # noqa: ANN401 - as inherited
            if t == DEPLOYMENT:
                aliases.extend(opts.aliases)
            make(self, t, name, props, opts, **own)

        monkeypatch.setattr(pulumi.CustomResource, "__init__", noted)
        alias = f"urn:pulumi:test::shop::{was or f'canary:index:CanaryService::{NAME}'}"

        run(lambda: program(pulumi.ResourceOptions(aliases=[alias])))

        assert kinds(recorder)
        assert f"urn:pulumi:test::shop::{urn}" in aliases

    @pytest.mark.parametrize(
        ("program", "said"),
        [
            (service, None),
            (lambda: service(opts=in_plugin("pulumi:pulumi:Stack::shop-test")), None),
            (
                lambda: service(opts=in_plugin("shop:index:Shop::x", pulumi.Alias(name="old"))),
                f"shop:index:Shop$canary:index:CanaryService::{NAME}",
            ),
            (lambda: service("web", serviceName=NAME), "canary:index:CanaryService::web"),
            (stack, "canary:index:CanaryStack::shop"),
        ],
    )
    def test_objects_say_what_declares_them_and_where_nothing_is_said_it_is_as_in_a_program_by_configuration(
        self,
        recorder: Recorder,
        program: Any,  # noqa: ANN401 - declares resources
        said: str | None,
    ) -> None:
        run(program)

        found = [
            each for (kind, _), each in recorder.registered.items() if kind in {"Deployment", "Service", "Ingress"}
        ]
        assert {each["metadata"]["annotations"].get("canary-service/declared-as") for each in found} == {said}
        self.live(said or "")
        run(program)

    @pytest.mark.usefixtures("recorder")
    @pytest.mark.parametrize(
        ("second", "message"),
        [
            (
                lambda: service("web", serviceName=NAME, host="other.local"),
                f"serviceName = {NAME}\n    allowed: a service that nothing else in the program declares",
            ),
            (lambda: stack(host="other.local"), f"services.{NAME} = {NAME}\n"),
            (
                lambda: service("web", namespace="other"),
                "path = /api/auth\n    allowed: a path that no other service on this host has",
            ),
            (lambda: service("web", path="/api/auth/"), "path = /api/auth/\n"),
            (lambda: service("web", pathType="Exact"), "path = /api/auth\n"),
            (
                lambda: service(f"{NAME}-canary", path="/other", canary=None),
                f"serviceName = {NAME}-canary\n",
            ),
        ],
    )
    def test_a_service_and_its_path_are_declared_once(
        self,
        second: Any,  # noqa: ANN401 - declares resources
        message: str,
    ) -> None:
        def program() -> None:
            service()
            second()

        with pytest.raises(pulumi.RunError) as caught:
            run(program)

        assert message in str(caught.value)
        assert f": canary:index:CanaryService::{NAME} ({NAME}) " in str(caught.value)

    @pytest.mark.usefixtures("recorder")
    @pytest.mark.parametrize(
        ("second", "key"),
        [({"serviceName": NAME, "host": "other.local"}, "serviceName"), ({"namespace": "other"}, "path")],
    )
    @pytest.mark.parametrize("connection", [{"context": "other"}, {"kubeconfig": KUBECONFIG, "context": "other"}])
    def test_a_cluster_is_the_same_however_it_is_named(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        connection: dict[str, Any],
        second: dict[str, Any],
        key: str,
    ) -> None:
        (tmp_path / "kubeconfig").write_text(f"current-context: other\n{KUBECONFIG}")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

        def program() -> None:
            service()
            service("web", **second, **connection)

        with pytest.raises(pulumi.RunError, match=rf"CanaryService web: 1 input .*\n  {key} = "):
            run(program)

    def test_other_clusters_and_classes_are_other_places(self, recorder: Recorder) -> None:
        def program() -> None:
            service()
            service("west", serviceName=NAME, kubeconfig=KUBECONFIG, context="other")
            service("inside", ingressClassName="inside")

        run(program)

        assert len(recorder.of_kind("CanaryService")) == 3


class TestOptions:
    def test_what_a_component_depends_on_comes_before_its_objects_and_may_make_the_namespace(
        self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(EmptyCluster, "has_namespace", lambda _: False)
        with pytest.raises(pulumi.RunError, match=r"namespace = macromind\n.*fix: kubectl create namespace macromind"):
            run(service)

        after: list[pulumi.Resource] = []
        make = KubernetesObject.__init__

        def noted(self: KubernetesObject, manifest: Any, opts: pulumi.ResourceOptions, **own: Any) -> None:  # noqa: ANN401 - a manifest
            if manifest["kind"] == "Service":
                after.extend(cast("list[pulumi.Resource]", opts.depends_on))
            make(self, manifest, opts, **own)

        monkeypatch.setattr(KubernetesObject, "__init__", noted)

        def program() -> None:
            made = pulumi.CustomResource("kubernetes:core/v1:Namespace", "macromind", {})
            service(opts=pulumi.ResourceOptions(depends_on=[made]))

        run(program)

        assert [each.pulumi_resource_name for each in after] == ["macromind", "macromind"]
        assert kinds(recorder) == BOTH_TRACKS

    def test_a_namespace_that_is_another_resource_s_may_be_missing(
        self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(EmptyCluster, "has_namespace", lambda _: False)

        def program() -> None:
            made = pulumi.CustomResource("kubernetes:core/v1:Namespace", "macromind", {"metadata": {}})
            service(namespace=made.urn.apply(lambda _: "macromind"))

        run(program)

        assert kinds(recorder) == BOTH_TRACKS

    @pytest.mark.usefixtures("recorder")
    def test_dependencies_that_are_not_known_yet_are_refused_by_component(self) -> None:
        opts = pulumi.ResourceOptions(depends_on=pulumi.Output.from_input([]))

        with pytest.raises(pulumi.RunError, match=f"^CanaryService {NAME}: depends_on takes resources, not outputs"):
            run(lambda: service(opts=opts))

    @pytest.mark.usefixtures("recorder")
    @pytest.mark.parametrize("place", ["provider", "providers", "parent"])
    def test_a_provider_of_the_program_is_refused(self, place: str) -> None:
        def program() -> None:
            provider = pulumi.ProviderResource("kubernetes", "mine", {}, None)
            given: dict[str, Any] = {"provider": provider, "providers": {"kubernetes": provider}}
            if place == "parent":
                opts = pulumi.ResourceOptions(providers=given["providers"])
                given = {"parent": pulumi.ComponentResource("shop:index:Shop", "shop", None, opts)}
            service(opts=pulumi.ResourceOptions(**{place: given[place]}))

        with pytest.raises(pulumi.RunError, match="Give the inputs kubeconfig or context instead"):
            run(program)

    def test_a_cluster_that_the_inputs_name_is_the_one_that_is_compared_and_changed(self, recorder: Recorder) -> None:
        run(lambda: service(kubeconfig=pulumi.Output.secret(KUBECONFIG), context="other"))

        assert connected == [{"kubeconfig": KUBECONFIG, "context": "other", IDENTIFIER: OF_THE_STACK}]
        provider = recorder.registered["kubernetes", f"{NAME}-kubernetes"]
        assert provider["context"] == "other"
        assert "hunter2" not in str(provider["kubeconfig"]) or SECRET_MARK in provider["kubeconfig"]

    @pytest.mark.parametrize("configured", ["", "shop"])
    def test_its_provider_is_known_by_the_same_identifier_as_the_default_one(
        self, recorder: Recorder, configured: str
    ) -> None:
        pulumi.runtime.set_all_config({f"kubernetes:{IDENTIFIER}": configured} if configured else {}, [])

        run(lambda: service(kubeconfig=KUBECONFIG, context="other"))

        provider = recorder.registered["kubernetes", f"{NAME}-kubernetes"]
        assert provider[IDENTIFIER] == (configured or OF_THE_STACK)

    @pytest.mark.usefixtures("recorder")
    def test_a_kubeconfig_of_the_stack_s_without_an_identifier_is_refused_with_the_command_that_mends_it(self) -> None:
        pulumi.runtime.set_all_config({"kubernetes:kubeconfig": KUBECONFIG}, [])

        with pytest.raises(pulumi.RunError, match=rf"kubernetes:{IDENTIFIER} = \(none\)") as caught:
            run(service)

        assert f"pulumi config set kubernetes:{IDENTIFIER} {OF_THE_STACK}" in str(caught.value)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"kubeconfig": KUBECONFIG, "context": "nope"}, "kubeconfig, context: .*Context 'nope' not found"),
            ({"kubeconfig": "/no/such/file"}, "kubeconfig: .*the given kubeconfig, which is no file"),
            ({"kubeconfig": {"clusters": ["hunter2"]}}, r"kubeconfig = \(of type dict\)\n    allowed: text"),
            ({"context": 5}, r"context = \(of type int\)\n    allowed: text"),
        ],
    )
    def test_inputs_that_lead_to_no_cluster_are_refused_in_a_preview_too(
        self, recorder: Recorder, inputs: dict[str, Any], message: str
    ) -> None:
        pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

        with pytest.raises(pulumi.RunError, match=rf"^CanaryService {NAME}: (.*\n  )?{message}") as caught:
            run(lambda: service(**inputs))

        assert "hunter2" not in str(caught.value)
        assert kinds(recorder) == set()

    def test_a_kubeconfig_that_another_resource_makes_may_come_with_the_update(
        self, recorder: Recorder, told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(_: object) -> None:
            raise ClusterError("no cluster to talk to")

        monkeypatch.setattr("canary_service.rollout.update.connect", missing)
        pulumi.runtime.set_mocks(recorder, project="shop", stack="test", preview=True)

        def program() -> None:
            made = pulumi.CustomResource("command:local:Command", "cluster", {})
            service(kubeconfig=made.urn.apply(lambda _: "./kubeconfig"))

        run(program)

        assert kinds(recorder) == BOTH_TRACKS
        assert told[0].startswith("no cluster to talk to. What is in force is not known")

    def test_without_one_it_is_that_of_the_default_provider(self, recorder: Recorder) -> None:
        pulumi.runtime.set_all_config({"kubernetes:context": "default", "shop:x": "1"}, [])

        run(service)

        assert connected == [{"context": "default"}]
        assert not [name for kind, name in recorder.registered if kind == "kubernetes"]


def test_a_cluster_that_cannot_be_asked_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    def unreachable(_: object) -> None:
        raise ClusterError("the API server cannot be asked")

    monkeypatch.setattr("canary_service.rollout.update.connect", unreachable)

    with pytest.raises(pulumi.RunError, match=f"^CanaryService {NAME}: the API server cannot be asked$"):
        run(service)

    assert kinds(recorder) == set()


def test_the_types_of_the_inputs_are_those_of_the_configuration() -> None:
    assert ARGUMENTS.read_text() == arguments(), "run `python -m canary_service.components.generate`"


def test_the_schema_of_the_package_is_that_of_its_classes() -> None:
    assert SCHEMA.read_text() == schema(), "run `python -m canary_service.components.generate`"


def test_every_input_is_described_in_the_schema() -> None:
    found = json.loads(SCHEMA.read_text())
    typed = found["types"] | {
        name: {"properties": each["inputProperties"]} for name, each in found["resources"].items()
    }

    assert [
        (name, key)
        for name, each in typed.items()
        for key, described in each["properties"].items()
        if not described.get("description")
    ] == []


def of_type(schema: dict[str, Any], reference: str) -> dict[str, Any]:
    properties: dict[str, Any] = schema["types"][reference.removeprefix("#/types/")]["properties"]
    return properties


def unknown_inputs(schema: dict[str, Any], known: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Return what of the given inputs the schema does not have."""
    found = [key for key in given if key not in known]
    for key in given.keys() & known.keys():
        if "$ref" in known[key] and isinstance(given[key], dict):
            found += unknown_inputs(schema, of_type(schema, known[key]["$ref"]), given[key])
    return found


def test_the_yaml_example_has_the_package_s_types_and_inputs() -> None:
    schema = json.loads(SCHEMA.read_text())
    example = yaml.safe_load((EXAMPLES / "yaml/Pulumi.yaml").read_text())

    for resource in example["resources"].values():
        package, _, kind = resource["type"].partition(":")
        component = schema["resources"][f"{package}:index:{kind}"]
        assert unknown_inputs(schema, component["inputProperties"], resource["properties"]) == []
        assert set(component["requiredInputs"]) <= resource["properties"].keys()


def test_the_package_s_document_shows_the_example_that_the_live_tests_run() -> None:
    shown = re.search(r"^    checkout = .*?^    \)$", (ROOT / "docs/package.md").read_text(), re.DOTALL | re.MULTILINE)

    assert shown
    run_by_tests = (EXAMPLES / "python/__main__.py").read_text().replace('config.get("namespace") or "shop"', '"shop"')
    assert textwrap.dedent(shown[0]) in run_by_tests
