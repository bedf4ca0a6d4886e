"""The rules of a stack: what they are made of here; what they do, promtool plays (tests/unit/data/promtool)."""

import re
from pathlib import Path
from typing import Any

import pytest

from canary_service.config.settings import Settings
from canary_service.observability.queries import SOURCES
from canary_service.observability.rules import groups
from tests.unit import promtool

ROOT = Path(__file__).parents[2]


def rules(of: Settings) -> list[dict[str, Any]]:
    return [rule for group in groups(of, "shop-dev") for rule in group["rules"]]


def alerts(of: Settings) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(of) if "alert" in rule}


@pytest.fixture(scope="module")
def program() -> str:
    return promtool.found()


@pytest.mark.parametrize("suite", sorted(promtool.SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(program: str, suite: Path, tmp_path: Path) -> None:
    promtool.play(program, suite, tmp_path, promtool.settings())


def test_a_suite_notices_another_limit(program: str, tmp_path: Path) -> None:
    lax = promtool.settings(rollout={"gates": {"errorRateDifference": "40"}})

    with pytest.raises(AssertionError, match="CanaryErrorRatioHigh"):
        promtool.play(program, promtool.SUITES / "error_ratio.yaml", tmp_path, lax)


@pytest.mark.parametrize("source", SOURCES)
def test_promtool_takes_the_rules_of_every_source(program: str, source: str, tmp_path: Path) -> None:
    file = promtool.write_rules(tmp_path, promtool.settings(monitoring={"source": source}))

    assert "SUCCESS" in promtool.run(program, "check", "rules", file)


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    fired = {
        name
        for suite in promtool.SUITES.glob("*.yaml")
        for name in re.findall(r'alertname="(\w+)",alertstate="firing"', suite.read_text())
    }

    assert fired == alerts(promtool.settings()).keys()


def test_each_alert_leads_to_its_section_of_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)

    for name, alert in alerts(promtool.settings(monitoring={"runbookUrl": "https://wiki.example/canary"})).items():
        assert name in headings
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/canary#{name.lower()}"
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]
        assert alert["labels"]["severity"] in {"critical", "warning"}
    assert len(headings) == len(alerts(promtool.settings()))


def test_the_document_names_each_alert() -> None:
    document = (ROOT / "docs/monitoring.md").read_text()

    assert set(re.findall(r"^\| (\w+) \| (?:critical|warning)", document, re.MULTILINE)) == set(
        alerts(promtool.settings())
    )


def test_a_weight_changes_the_first_group_alone() -> None:
    before, after = (
        groups(promtool.settings(canaryWeight=weight, services=_one()), "shop-dev") for weight in ("5", "50")
    )

    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True]


def _one() -> dict[str, Any]:
    return {"cart": {"path": "/", "port": 80, "image": "a:1", "canary": {"image": "a:2"}}}


def test_without_a_canary_no_weight_is_declared() -> None:
    plain = promtool.settings(services={"cart": {"path": "/", "port": 80, "image": "a:1"}})

    assert "canary_service:declared_weight:percent" not in {rule.get("record") for rule in rules(plain)}


def test_where_all_services_have_session_cookies_nothing_is_said_of_shares() -> None:
    sticky = promtool.settings(services={"cart": _one()["cart"] | {"sessionAffinity": {"cookieName": "a"}}})

    assert {name for name in alerts(sticky) if "Traffic" in name or "Share" in name} == set()


@pytest.mark.parametrize(
    ("changes", "alert", "expected"),
    [
        ({"rollout": {"gates": {"errorRateDifference": "2.5"}}}, "CanaryErrorRatioHigh", "> 0.025"),
        ({"rollout": {"gates": {"latencyRatio": "2"}}}, "CanaryLatencyHigh", "> 2 "),
        ({"rollout": {"gates": {"latencyDifferenceMilliseconds": "100"}}}, "CanaryLatencyHigh", "> 0.1"),
        ({"rollout": {"gates": {"weightDifference": "10"}}}, "CanaryShareOffWeight", "+ 10 "),
        ({"monitoring": {"canaryMaxAgeHours": "48"}}, "CanaryTooOld", "offset 48h"),
        ({"monitoring": {"objective": "99.5"}}, "ErrorBudgetBurn", "> 0.005 "),
    ],
)
def test_a_limit_is_that_of_the_configuration(changes: dict[str, Any], alert: str, expected: str) -> None:
    assert expected in alerts(promtool.settings(**changes))[alert]["expr"] + " "
