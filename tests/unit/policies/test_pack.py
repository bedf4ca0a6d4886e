"""The pack as a whole: it stands alone, is documented and fits the shipped stacks."""

import ast
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary_policies.catalog import RULES
from canary_policies.documentation import page
from canary_policies.rule import Finding, ResourceRule, Rule, Severity, StackRule, UnknownOptionError
from canary_policies.weights import override_refused
from canary_service.components.kubernetes_object import annotated
from canary_service.config.loader import load
from canary_service.routing.split import Track
from canary_service.workload.manifests import (
    autoscaler,
    configurations,
    deployment,
    disruption_budget,
    labels_of,
    service,
)
from tests.unit.policies.samples import NGINX, Manifest, changed, named, objects, valid, workload

ROOT = Path(__file__).parents[3]
PACK = ROOT / "policies"
BY_NAME = {rule.name: rule for rule in RULES}
STACKS = ("dev", "prod")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_has_what_a_reader_needs(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)
    assert "\n" not in rule.why + rule.fix
    assert len(rule.why) < 110
    assert not rule.why.endswith(".")
    assert not rule.fix.endswith(".")
    assert rule.kinds
    for schema in rule.options.values():
        assert {"type", "default", "description"} <= schema.keys()


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(RULES)


def test_a_message_names_object_reason_and_fix() -> None:
    rule = BY_NAME["image-pinned"]
    (found,) = objects([workload("Deployment", "web", "web")])

    message = rule.message(Finding(found, "container web runs web:latest, whose tag moves"))

    assert message == (
        "Deployment shop/web: container web runs web:latest, whose tag moves. Fix: name a version's tag or a digest"
    )


def test_the_list_of_rules_is_current() -> None:
    assert (ROOT / "docs/policies.md").read_text() == page().rstrip() + "\n"


def test_the_rules_import_nothing_but_python_and_only_the_analyzer_knows_the_engine() -> None:
    for path in (PACK / "canary_policies").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}

        engine = {"google", "grpc", "pulumi"} if path.name == "analyzer.py" else set()
        assert {name.partition(".")[0] for name in names} <= {"canary_policies", *engine, *sys.stdlib_module_names}


def test_a_copy_of_the_folder_works_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(PACK, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))

    done = subprocess.run(
        [sys.executable, "-S", "-m", "canary_policies.documentation"],
        cwd=tmp_path / "copy",
        check=True,
        capture_output=True,
        text=True,
        env={},
    )

    assert done.stdout == (ROOT / "docs/policies.md").read_text()


def test_the_pack_asks_for_what_this_repository_installs() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    wanted = (PACK / "requirements.txt").read_text().splitlines()

    assert wanted
    assert set(wanted) <= set(dependencies)


def configuration(stack: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PACK / f"{stack}.json").read_text())
    return found


def given_options(stack: str, rule: Rule) -> dict[str, Any]:
    given = configuration(stack).get(rule.name, {})
    return {key: value for key, value in given.items() if key != "enforcementLevel"} if isinstance(given, dict) else {}


@pytest.mark.parametrize("stack", STACKS)
def test_the_shipped_configurations_name_rules_options_and_levels_that_exist(stack: str) -> None:
    for name, given in configuration(stack).items():
        BY_NAME[name].configured(given_options(stack, BY_NAME[name]))
        level = given.get("enforcementLevel", "mandatory") if isinstance(given, dict) else given
        assert level in set(Severity)


def test_production_limits_the_weight() -> None:
    assert BY_NAME["max-weight"].configured(given_options("prod", BY_NAME["max-weight"]))["maxWeight"] < 100


def rendered(stack: str) -> list[Manifest]:
    """Return what the program registers for a shipped stack."""
    text = (ROOT / f"Pulumi.{stack}.yaml").read_text()
    values = {key.partition(":")[2]: value for key, value in yaml.safe_load(text)["config"].items()}
    settings = load({key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()})
    found: list[Manifest] = []
    for name in settings.services:
        for track in settings.tracks_of(name):
            of_track = (settings, name, track, "macromind")
            made = [service(*of_track), deployment(*of_track), autoscaler(*of_track), disruption_budget(*of_track)]
            found += [manifest for manifest in (*made, *configurations(*of_track)) if manifest]
        for route in settings.router_of_stack().render(settings.split_of(name)):
            labels = route.manifest["metadata"]["labels"]
            route.manifest["metadata"]["labels"] = labels_of(settings, name, Track(labels["version"]), "macromind")
            found.append(route.manifest)
    return [annotated(manifest) for manifest in found]


@pytest.mark.parametrize("stack", STACKS)
def test_the_shipped_stacks_break_no_rule(stack: str) -> None:
    made = objects(rendered(stack))
    active = [rule for rule in RULES if rule.severity is not Severity.DISABLED or rule.name in configuration(stack)]

    found = [
        rule.message(finding)
        for rule in active
        for finding in rule.findings(made, rule.configured(given_options(stack, rule)))
    ]

    assert len(made) >= 9
    assert found == []


@pytest.mark.parametrize("image", ["index.docker.io/shop/web:1", "docker.io/shop/web:1", "shop/web:1"])
@pytest.mark.parametrize("registry", ["docker.io/shop", "index.docker.io/shop"])
def test_docker_hub_is_one_registry_by_each_of_its_names(image: str, registry: str) -> None:
    rule = BY_NAME["image-registry"]
    path = ("spec", "template", "spec", "containers", 0, "image")
    made = objects(changed([workload("Deployment", "web", "web")], "Deployment web", (path, image)))

    assert not list(rule.findings(made, rule.configured({"registries": [registry]})))
    assert list(rule.findings(made, rule.configured({"registries": ["docker.io/other"]})))


def faulty(*_: object) -> list[Any]:
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize("kind", [ResourceRule, StackRule])
def test_a_rule_that_fails_says_so_of_its_object_and_ends_nothing(kind: type[ResourceRule] | type[StackRule]) -> None:
    rule = kind(name="a-rule", why="", fix="", kinds=frozenset({"Deployment"}), check=faulty)

    (finding,) = rule.findings(objects([workload("Deployment", "web", "web")]), {})

    assert finding.object.name == "web"
    assert finding.reason == "a-rule could not be judged: ZeroDivisionError: by zero"


@pytest.mark.parametrize(
    ("title", "path", "value"),
    [
        ("Ingress web-canary", ("metadata", "annotations", f"{NGINX}canary-by-header-pattern"), "a{99999999999999}"),
        ("Ingress web-canary", ("metadata", "annotations", f"{NGINX}canary-by-header-pattern"), "(" * 3000),
        ("Ingress web-canary", ("metadata", "annotations", f"{NGINX}canary-weight"), "9" * 5000),
        ("Ingress web-canary", ("metadata", "annotations", f"{NGINX}canary-weight-total"), "9" * 5000),
        ("PodDisruptionBudget web", ("spec", "minAvailable"), "9" * 5000 + "%"),
        *(
            ("ConfigMap web", ("data", "file"), (text * 200_000)[:200_000])
            for text in ("a.", "eyJ-", "eyJaaaaaaaa.", "SG.", "a://", "a:b@", "password=", "a=b\n", '"a": ', "-", "x")
        ),
    ],
)
def test_no_value_stops_or_holds_up_the_pack(title: str, path: tuple[str, ...], value: str) -> None:
    made = objects(changed(valid(), title, (path, value)))
    begun = time.process_time()

    reasons = [finding.reason for rule in RULES for finding in rule.findings(made, rule.configured({}))]

    assert time.process_time() - begun < 1
    assert not [reason for reason in reasons if "could not be judged" in reason]


def test_an_option_that_a_rule_has_not_is_an_error() -> None:
    with pytest.raises(
        UnknownOptionError, match="max-weight has no option maxWieght: choose maxWeight, override, canary"
    ):
        BY_NAME["max-weight"].configured({"maxWieght": 10})
    with pytest.raises(UnknownOptionError, match="no-privilege has no option on: it has none"):
        BY_NAME["no-privilege"].configured({"on": True})


WHOLE = {"reason": "load test", "reviewedBy": "sam@example.com", "expires": "2027-03-31"}


@pytest.mark.parametrize(
    ("change", "today", "refused"),
    [
        ({}, "2027-03-30", None),
        ({}, "2027-03-31", None),
        ({}, "2027-04-01", "does not count since 2027-03-31"),
        ({"reason": None}, "2027-01-01", "does not count without reason"),
        ({"reviewedBy": " "}, "2027-01-01", "does not count without reviewedBy"),
        ({"reviewedBy": 7, "expires": ""}, "2027-01-01", "does not count without reviewedBy, expires"),
        ({"expires": "soon"}, "2027-01-01", "does not count: 'soon' is no date of the form YYYY-MM-DD"),
        ({"expires": "31.03.2027"}, "2027-01-01", "does not count: '31.03.2027' is no date of the form YYYY-MM-DD"),
    ],
)
def test_an_override_counts_when_it_is_whole_and_to_the_end_of_its_day(
    change: dict[str, Any], today: str, refused: str | None
) -> None:
    assert override_refused(WHOLE | change, date.fromisoformat(today)) == refused


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ({}, "gives the canary 60 %, above the limit of 50 %"),
        (WHOLE | {"expires": "2000-01-01"}, "above the limit of 50 % (the override does not count since 2000-01-01)"),
        ({"reason": "because"}, "(the override does not count without reviewedBy, expires)"),
        (WHOLE | {"expires": "9999-12-31"}, None),
    ],
)
def test_the_limit_holds_unless_an_override_counts(override: dict[str, str], reason: str | None) -> None:
    rule = BY_NAME["max-weight"]
    weight = ("metadata", "annotations", "nginx.ingress.kubernetes.io/canary-weight")
    made = objects([named(changed(valid(), "Ingress web-canary", (weight, "60")), "Ingress web-canary")])

    found = list(rule.findings(made, rule.configured({"maxWeight": 50, "override": override})))

    assert [reason in finding.reason for finding in found if reason] == ([True] if reason else [])
    assert len(found) == (1 if reason else 0)
