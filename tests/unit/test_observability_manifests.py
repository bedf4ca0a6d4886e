"""The objects that watch a stack, and the dashboard that is among them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary_service.observability.dashboard import FILE, content
from canary_service.observability.manifests import dashboard, monitoring_name, pod_monitor, prometheus_rule
from canary_service.observability.rules import groups
from tests.unit import promtool

ROOT = Path(__file__).parents[2]
NAME = "shop-dev"


def made(**monitoring: object) -> dict[str, Any]:
    settings = promtool.settings(monitoring=monitoring)
    return {make.__name__: make(settings, NAME, "shop") for make in (pod_monitor, prometheus_rule, dashboard)}


def endpoint(**changes: object) -> dict[str, Any]:
    (found,) = pod_monitor(promtool.settings(**changes), NAME, "shop")["spec"]["podMetricsEndpoints"]
    return dict(found)


class TestPodMonitor:
    def test_it_finds_the_pods_of_every_service_and_of_canaries_beside_an_existing_stable(self) -> None:
        services = {
            "cart": {"path": "/cart", "port": 80, "image": "a:1"},
            "pay": {"path": "/pay", "port": 80, "stable": "existing", "canary": {"image": "a:2"}},
        }
        monitor = pod_monitor(promtool.settings(services=services), NAME, "shop")

        assert monitor["spec"]["selector"] == {
            "matchExpressions": [{"key": "app", "operator": "In", "values": ["cart", "pay", "pay-canary"]}]
        }
        assert {"sourceLabels": ["app"], "regex": "(pay)-canary", "targetLabel": "app", "replacement": "$1"} in (
            endpoint(services=services)["relabelings"]
        )

    @pytest.mark.parametrize(
        ("label", "track"), [("stable", "stable"), ("canary", "canary"), ("", "stable"), ("v2", "stable")]
    )
    def test_whatever_is_no_canary_by_its_label_is_stable(self, label: str, track: str) -> None:
        labels = {"__meta_kubernetes_pod_label_version": label, "__meta_kubernetes_pod_label_app": "cart"}
        for rule in endpoint()["relabelings"]:
            value = ";".join(labels.get(source, "") for source in rule.get("sourceLabels", ()))
            if found := re.fullmatch(rule.get("regex", "(.*)"), value):
                labels[rule["targetLabel"]] = found.expand(rule.get("replacement", "$1").replace("$", "\\"))

        assert (labels["app"], labels["version"]) == ("cart", track)

    def test_port_and_path_are_those_of_the_configuration(self) -> None:
        found = endpoint(monitoring={"metricsPort": "admin", "metricsPath": "/prometheus"})

        assert (found["port"], found["path"]) == ("admin", "/prometheus")


def test_prometheus_finds_its_objects_and_grafana_its_own_by_their_labels() -> None:
    objects = made(labels={"release": "kube-prometheus-stack"}, dashboardLabels={"grafana": "yes"})

    assert objects["pod_monitor"]["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert objects["prometheus_rule"]["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    labels = objects["dashboard"]["metadata"]["labels"]
    assert labels["grafana"] == "yes"
    assert not labels.keys() & {"release", "grafana_dashboard"}


def test_names_of_objects_are_valid_and_differ_by_stack() -> None:
    assert monitoring_name("my-shop", "dev") == "my-shop-dev"
    stacks = [("my-shop", "dev"), ("my", "shop-dev"), ("My_Shop", "dev"), ("my.shop", "dev"), ("my-shop", "Dev")]
    stacks += [("shop", "x" * 60), ("shop", "x" * 61), ("___", "._."), ("a" * 30, "b-" * 20)]
    names = [monitoring_name(*each) for each in stacks]

    assert len(set(names)) == len(stacks)
    for name in names:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 40


class TestDashboard:
    def test_the_file_is_what_its_program_makes(self) -> None:
        assert json.loads(FILE.read_text()) == content(), "python -m observability.dashboard"

    def test_it_has_the_title_uid_and_namespace_of_the_stack(self) -> None:
        (text,) = made(dashboardTitle="Our shop")["dashboard"]["data"].values()
        found = json.loads(text)

        assert (found["title"], found["uid"]) == ("Our shop", NAME)
        variables = {variable["name"]: variable for variable in found["templating"]["list"]}
        assert variables.keys() == {"datasource", "namespace", "router", "service"}
        assert variables["namespace"]["current"]["value"] == "shop"
        (text,) = made()["dashboard"]["data"].values()
        assert json.loads(text)["title"] == "shop services"

    def test_every_query_asks_for_what_is_recorded_or_documented(self) -> None:
        recorded = {
            rule["record"] for group in groups(promtool.settings(), NAME) for rule in group["rules"] if "record" in rule
        }
        document = (ROOT / "docs/monitoring.md").read_text()
        for query in queries():
            for metric in re.findall(r"([a-z][a-z_:0-9]+)\{", query):
                assert metric in recorded or metric in document

    def test_panels_are_told_apart_and_stand_beside_one_another(self) -> None:
        panels = content()["panels"]

        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(places)
        for panel in panels:
            references = [target["refId"] for target in panel.get("targets", ())]
            assert len(set(references)) == len(references)

    def test_promtool_takes_every_query(self, tmp_path: Path) -> None:
        file = tmp_path / "queries.yaml"
        rules = [
            {"record": f"query_{number}", "expr": query.replace("$namespace", "shop").replace("$service", "cart")}
            for number, query in enumerate(queries())
        ]
        file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

        assert f"{len(rules)} rules found" in promtool.run(promtool.found(), "check", "rules", file)


def queries() -> list[str]:
    found = content()
    targets = [target["expr"] for panel in found["panels"] for target in panel.get("targets", ())]
    return targets + [annotation["expr"] for annotation in found["annotations"]["list"]]


def test_a_stack_is_made_without_grafanas_sdk() -> None:
    loaded = "import sys, canary_service.components.monitoring; print('grafana_foundation_sdk' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
