"""What the engine sends reaches the rules whole, and their findings reach the engine."""

import json
from collections.abc import Mapping
from typing import Any, cast

import grpc  # type: ignore[import-untyped] # has no types of its own
import pytest
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped] # likewise
from pulumi.runtime.proto import analyzer_pb2 as protocol

from canary_policies.analyzer import Analyzer
from canary_policies.catalog import RULES
from canary_policies.rule import ResourceRule, Severity
from tests.unit.policies.samples import Manifest, changed, named, token, valid, workload

# sdk/go/common/resource/plugin/rpc.go
UNKNOWN_TEXT, UNKNOWN_MAP = "04da6b54-80e4-46f7-96ec-b56ff0331ba9", "dd056dcd-154b-4c76-9bd3-c8f88648b5ff"
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
ASSET = "c44067f5952c0a294b673a41bacd8c17"


class Refused(Exception):  # noqa: N818 - what the context does
    """The call was ended with an error."""


class Context:
    def abort(self, code: grpc.StatusCode, message: str) -> None:
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        raise Refused(message)


CONTEXT = cast("grpc.ServicerContext", Context())


def struct(value: Mapping[str, Any]) -> Struct:
    made = Struct()
    made.update(json.loads(json.dumps(value)))
    return made


def configured(**levels: Any) -> Analyzer:  # noqa: ANN401 - options as JSON has them
    """Return an analyzer with rules at a level, or with options, by names in which `_` stands for `-`."""
    analyzer, request = Analyzer(), protocol.ConfigureAnalyzerRequest()
    for name, given in levels.items():
        policy = request.policyConfig[name.replace("_", "-")]
        policy.enforcementLevel = given if isinstance(given, int) else protocol.MANDATORY
        if isinstance(given, dict):
            policy.properties.update(given)
    analyzer.Configure(request, CONTEXT)
    return analyzer


def of_object(analyzer: Analyzer, manifest: Manifest, type_token: str = "") -> dict[str, protocol.AnalyzeDiagnostic]:
    request = protocol.AnalyzeRequest(
        type=type_token or token(manifest), name="name", urn="urn", properties=struct(manifest)
    )
    return {found.policyName: found for found in analyzer.Analyze(request, CONTEXT).diagnostics}


def of_stack(analyzer: Analyzer, manifests: list[Manifest]) -> dict[str, protocol.AnalyzeDiagnostic]:
    resources = [
        protocol.AnalyzerResource(type=token(each), name="name", urn=f"urn:{each['kind']}", properties=struct(each))
        for each in manifests
    ]
    request = protocol.AnalyzeStackRequest(resources=resources)
    return {found.policyName: found for found in analyzer.AnalyzeStack(request, CONTEXT).diagnostics}


def config_map(data: Mapping[str, object]) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}, "data": data}


def test_the_engine_hears_of_every_rule() -> None:
    info = Analyzer().GetAnalyzerInfo(None, CONTEXT)

    assert info.supportsConfig
    assert [policy.name for policy in info.policies] == [rule.name for rule in RULES]
    for rule, policy in zip(RULES, info.policies, strict=True):
        stack = not isinstance(rule, ResourceRule)
        assert policy.policy_type == (protocol.POLICY_TYPE_STACK if stack else protocol.POLICY_TYPE_RESOURCE)
        assert policy.description == rule.why
        assert set(policy.configSchema.properties) == set(rule.options)
        assert (policy.enforcementLevel == protocol.DISABLED) == (rule.severity is Severity.DISABLED)


def test_a_finding_has_rule_reason_fix_and_level() -> None:
    latest = changed(
        [workload("Deployment", "web", "web")],
        "Deployment web",
        (("spec", "template", "spec", "containers", 0, "image"), "web:latest"),
    )[0]

    found = of_object(Analyzer(), latest)

    assert list(found) == ["image-pinned"]
    assert found["image-pinned"].message.splitlines() == [
        "A tag that moves gives pods of one track different versions, and a rollback the wrong one",
        "Deployment shop/web: container web runs web:latest, whose tag moves. Fix: name a version's tag or a digest",
    ]
    assert found["image-pinned"].urn == "urn"
    assert found["image-pinned"].enforcementLevel == protocol.MANDATORY


def test_what_is_not_known_hides_no_known_violation() -> None:
    template = ("spec", "template")
    partly = changed(
        [workload("Deployment", "web", "web")],
        "Deployment web",
        ((*template, "spec", "containers", 0, "image"), UNKNOWN_TEXT),
        ((*template, "spec", "containers", "+"), {"name": "known", "image": "web:latest"}),
        ((*template, "metadata"), UNKNOWN_MAP),
    )[0]

    found = of_object(Analyzer(), partly)

    assert "container known runs web:latest" in found["image-pinned"].message
    assert "container web" not in found["image-pinned"].message
    assert "required-labels" not in found


def test_a_pulumi_secret_in_a_variable_is_plain_to_the_cluster_and_stays_out_of_messages() -> None:
    guilty = config_map({"API_TOKEN": {SIGNATURE: SECRET, "value": "hunter22"}})
    unknown = config_map({"API_TOKEN": {SIGNATURE: SECRET, "value": UNKNOWN_TEXT}})

    assert list(of_object(Analyzer(), guilty)) == ["no-plain-secrets"]
    assert "hunter22" not in of_object(Analyzer(), guilty)["no-plain-secrets"].message
    assert of_object(Analyzer(), unknown) == {}


def test_what_no_manifest_can_hold_is_not_judged() -> None:
    asset = config_map({"API_TOKEN": {SIGNATURE: ASSET, "path": "/etc/passwd"}, "OTHER_TOKEN": None})

    assert of_object(Analyzer(), asset) == {}


def test_a_stack_is_judged_together_and_the_finding_is_at_its_object() -> None:
    mixed = changed(valid(), "Service web", (("spec", "selector", "version"), "canary"))

    found = of_stack(Analyzer(), mixed)

    assert list(found) == ["service-selects-one-track"]
    assert found["service-selects-one-track"].urn == "urn:Service"
    assert of_stack(Analyzer(), valid()) == {}


def test_configuration_reaches_its_rule() -> None:
    ingress = named(valid(), "Ingress web-canary")

    assert of_object(Analyzer(), ingress) == {}
    found = of_object(configured(max_weight={"maxWeight": 10}), ingress)

    assert "20 %, above the limit of 10 %" in found["max-weight"].message


def test_a_level_reaches_its_rule() -> None:
    guilty = config_map({"API_TOKEN": "hunter22"})

    advisory = of_object(configured(no_plain_secrets=protocol.ADVISORY), guilty)

    assert advisory["no-plain-secrets"].enforcementLevel == protocol.ADVISORY
    assert of_object(configured(no_plain_secrets=protocol.DISABLED), guilty) == {}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("max_weight", {"maxWieght": 10}, "max-weight has no option maxWieght: choose maxWeight, override, canary"),
        ("required_labels", {"labels": {"app": r"^web\z"}}, "required-labels: labels: .* is no regular expression"),
        ("no_plain_secrets", {"allowed": ["A", "["]}, "no-plain-secrets: allowed: .* is no regular expression"),
        ("max_weight", {"canary": "a{99999999999999}"}, "max-weight: canary: .*: the repetition number is too large"),
        (
            "image_registry",
            {"registries": ["macromind"]},
            "image-registry: registries: macromind names no registry: write HOST or HOST/FOLDER, as docker.io/example",
        ),
        ("max_wieght", {"maxWeight": 10}, "there is no rule max-wieght: choose required-labels, "),
    ],
)
def test_a_configuration_that_would_be_overlooked_is_refused(name: str, options: Manifest, message: str) -> None:
    with pytest.raises(Refused, match=message):
        configured(**{name: options})


def test_options_of_a_rule_that_nobody_switched_on_are_refused() -> None:
    request = protocol.ConfigureAnalyzerRequest()
    policy = request.policyConfig["hpa-min-replicas"]
    policy.enforcementLevel = protocol.DISABLED
    policy.properties.update({"minReplicas": 2, "trackLabel": "version"})
    Analyzer().Configure(request, CONTEXT)

    policy.properties.update({"minReplicas": 3})

    with pytest.raises(Refused, match='hpa-min-replicas is disabled: add "enforcementLevel": "mandatory"'):
        Analyzer().Configure(request, CONTEXT)


def test_the_word_for_all_rules_is_no_misspelled_rule() -> None:
    assert of_object(configured(all=protocol.ADVISORY), config_map({"API_TOKEN": "hunter22"}))


def test_resources_of_others_are_none_of_its_business() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {}}}

    assert of_object(Analyzer(), deployment)
    assert of_object(Analyzer(), deployment, "aws:apps:Deployment") == {}


def test_it_changes_nothing() -> None:
    request = protocol.AnalyzeRequest(type="kubernetes:core/v1:ConfigMap", properties=struct(config_map({"a": "b"})))

    assert not Analyzer().Remediate(request, CONTEXT).remediations
