"""What the operator makes of monitors; expectations are those of its own tests (pkg/prometheus/promcfg_test.go)."""

from typing import Any

import pytest

from sandbox.scrape_jobs import left_out, scrape_jobs

URL = "http://node:8080"
IN_SHOP = {"action": "keep", "source_labels": ["__meta_kubernetes_namespace"], "regex": "shop"}
JOB_BEFORE = {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}
NOT_ENDED = {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"}
IDENTITY = [
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
]


def monitor(kind: str = "PodMonitor", /, **spec: object) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "one", "namespace": "shop"}, "spec": spec}


def relabelings(monitor: dict[str, Any]) -> list[dict[str, Any]]:
    (job,) = scrape_jobs(monitor, URL)
    found: list[dict[str, Any]] = job["relabel_configs"]
    return found


def test_a_pod_monitor_is_a_job_for_each_endpoint() -> None:
    endpoints = [{"port": "http", "interval": "15s", "path": "/m", "honorLabels": True}, {"port": "admin"}]
    first, second = scrape_jobs(monitor(selector={}, podMetricsEndpoints=endpoints), URL)
    assert first == {
        "job_name": "podMonitor/shop/one/0",
        "honor_labels": True,
        "scrape_interval": "15s",
        "metrics_path": "/m",
        "http_sd_configs": [{"url": f"{URL}/discovery/pod", "refresh_interval": "1s"}],
        "relabel_configs": [
            IN_SHOP,
            JOB_BEFORE,
            NOT_ENDED,
            {"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "http"},
            *IDENTITY,
            {"target_label": "job", "replacement": "shop/one"},
            {"target_label": "endpoint", "replacement": "http"},
        ],
        "metric_relabel_configs": [],
    }
    assert second["job_name"] == "podMonitor/shop/one/1"
    assert second["scrape_interval"] == "1s"


def test_a_service_monitor_follows_endpoint_slices() -> None:
    spec = {
        "selector": {"matchLabels": {"team": "one"}},
        "endpoints": [{"port": "web"}],
        "jobLabel": "team",
        "targetLabels": ["team"],
        "podTargetLabels": ["version"],
    }
    (job,) = scrape_jobs(monitor("ServiceMonitor", **spec), URL)
    assert job["job_name"] == "serviceMonitor/shop/one/0"
    assert job["http_sd_configs"][0]["url"] == f"{URL}/discovery/endpointslice"
    assert job["relabel_configs"] == [
        IN_SHOP,
        JOB_BEFORE,
        NOT_ENDED,
        {
            "action": "keep",
            "source_labels": ["__meta_kubernetes_service_label_team", "__meta_kubernetes_service_labelpresent_team"],
            "regex": "(one);true",
        },
        {"action": "keep", "source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": "web"},
        *IDENTITY,
        {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "service"},
        {"source_labels": ["__meta_kubernetes_service_label_team"], "target_label": "team", "regex": "(.+)"},
        {"source_labels": ["__meta_kubernetes_pod_label_version"], "target_label": "version", "regex": "(.+)"},
        {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"},
        {"source_labels": ["__meta_kubernetes_service_label_team"], "target_label": "job", "regex": "(.+)"},
        {"target_label": "endpoint", "replacement": "web"},
    ]


@pytest.mark.parametrize(
    ("expression", "relabeling"),
    [
        (
            {"key": "app", "operator": "In", "values": ["a", "b"]},
            {"action": "keep", "source_labels": ["label", "labelpresent"], "regex": "(a|b);true"},
        ),
        (
            {"key": "app", "operator": "NotIn", "values": ["a"]},
            {"action": "drop", "source_labels": ["label", "labelpresent"], "regex": "(a);true"},
        ),
        ({"key": "app", "operator": "Exists"}, {"action": "keep", "source_labels": ["labelpresent"], "regex": "true"}),
        (
            {"key": "app", "operator": "DoesNotExist"},
            {"action": "drop", "source_labels": ["labelpresent"], "regex": "true"},
        ),
    ],
)
def test_a_selectors_expressions_keep_and_drop(expression: dict[str, Any], relabeling: dict[str, Any]) -> None:
    spec = {"selector": {"matchExpressions": [expression]}, "podMetricsEndpoints": [{"port": "http"}]}
    expected = relabeling | {
        "source_labels": [f"__meta_kubernetes_pod_{name}_app" for name in relabeling["source_labels"]]
    }
    assert relabelings(monitor(**spec))[3] == expected


@pytest.mark.parametrize(
    ("endpoint", "label", "regex"),
    [
        ({"portNumber": 8080}, "__meta_kubernetes_pod_container_port_number", "8080"),
        ({"targetPort": 8080}, "__meta_kubernetes_pod_container_port_number", "8080"),
        ({"targetPort": "web"}, "__meta_kubernetes_pod_container_port_name", "web"),
    ],
)
def test_a_port_is_a_number_or_a_name(endpoint: dict[str, Any], label: str, regex: str) -> None:
    kept = relabelings(monitor(selector={}, podMetricsEndpoints=[endpoint]))[3]
    assert kept == {"action": "keep", "source_labels": [label], "regex": regex}


@pytest.mark.parametrize(
    ("selector", "namespaces"), [({}, "shop"), ({"matchNames": ["a", "b"]}, "a|b"), ({"any": True}, None)]
)
def test_pods_are_looked_for_where_the_monitor_says(selector: dict[str, Any], namespaces: str | None) -> None:
    spec = {"selector": {}, "namespaceSelector": selector, "podMetricsEndpoints": [{"port": "http"}]}
    kept = [
        relabeling["regex"]
        for relabeling in relabelings(monitor(**spec))
        if relabeling.get("source_labels") == ["__meta_kubernetes_namespace"] and relabeling.get("action") == "keep"
    ]
    assert kept == ([namespaces] if namespaces else [])


def test_relabelings_come_last_and_in_the_words_of_prometheus() -> None:
    endpoint = {
        "port": "http",
        "filterRunning": False,
        "relabelings": [{"sourceLabels": ["a", "b"], "targetLabel": "c", "action": "Replace"}],
        "metricRelabelings": [{"action": "labeldrop", "regex": "le"}],
    }
    (job,) = scrape_jobs(monitor(selector={}, podMetricsEndpoints=[endpoint]), URL)
    assert job["relabel_configs"][-1] == {"source_labels": ["a", "b"], "target_label": "c", "action": "replace"}
    assert NOT_ENDED not in job["relabel_configs"]
    assert job["metric_relabel_configs"] == [{"action": "labeldrop", "regex": "le"}]


def test_a_label_with_other_characters_is_found_under_prometheus_name() -> None:
    spec = {"selector": {"matchLabels": {"app.kubernetes.io/name": "x"}}, "podMetricsEndpoints": [{"port": "http"}]}
    assert relabelings(monitor(**spec))[3]["source_labels"] == [
        "__meta_kubernetes_pod_label_app_kubernetes_io_name",
        "__meta_kubernetes_pod_labelpresent_app_kubernetes_io_name",
    ]


def test_what_is_not_heeded_is_named() -> None:
    spec = {"selector": {}, "sampleLimit": 5, "podMetricsEndpoints": [{"port": "http"}, {"port": "x", "oauth2": {}}]}
    assert left_out(monitor(**spec)) == ["spec.sampleLimit", "spec.podMetricsEndpoints[1].oauth2"]
