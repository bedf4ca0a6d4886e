"""Prometheus counts what the pods answer and the proxy passes on, and does what monitors and rules say."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Event, Pod, Service
from lightkube.types import PatchType

from sandbox.lifecycle import Sandbox
from tests.live.application import Application, eventually
from tests.live.test_answering_pods import component_process

GROUP = "monitoring.coreos.com"
PodMonitor = create_namespaced_resource(GROUP, "v1", "PodMonitor", "podmonitors")
ServiceMonitor = create_namespaced_resource(GROUP, "v1", "ServiceMonitor", "servicemonitors")
PrometheusRule = create_namespaced_resource(GROUP, "v1", "PrometheusRule", "prometheusrules")

Labels = tuple[tuple[str, str], ...]
Ask = Callable[[str], dict[Labels, float]]
Make = Callable[..., Application]

CANARY = {
    "nginx.ingress.kubernetes.io/canary": "true",
    "nginx.ingress.kubernetes.io/canary-weight": "0",
    "nginx.ingress.kubernetes.io/canary-by-header": "X-Canary",
    "nginx.ingress.kubernetes.io/canary-by-header-value": "true",
}


TO_CANARY = {"X-Canary": "true"}


def api(sandbox: Sandbox, what: str, **parameters: str) -> httpx2.Response:
    with httpx2.Client(trust_env=False) as http:
        return http.get(f"{sandbox.prometheus_url}/api/v1/{what}", params=parameters)


@pytest.fixture
def ask(sandbox: Sandbox) -> Ask:
    """Ask Prometheus: the value of each series by its labels."""

    def query(expression: str) -> dict[Labels, float]:
        answer = api(sandbox, "query", query=expression).json()
        assert answer["status"] == "success", answer
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in answer["data"]["result"]}

    return query


@pytest.fixture
def make(cluster: Client, namespace: str, sandbox: Sandbox) -> Make:
    return lambda **settings: Application(cluster, namespace, sandbox.proxy_url, **settings).create()


@pytest.fixture
def monitored(cluster: Client, namespace: str) -> str:
    """A namespace whose pods with a port named `http` are scraped."""
    monitor(cluster, namespace)
    return namespace


def monitor(cluster: Client, namespace: str, **endpoint: object) -> None:
    endpoints = [{"port": "http", **endpoint}]
    spec = {"selector": {}, "podMetricsEndpoints": endpoints}
    cluster.create(PodMonitor(metadata=ObjectMeta(name="all", namespace=namespace), spec=spec))


def rules(cluster: Client, namespace: str, name: str, *rules: dict[str, Any]) -> None:
    spec = {"groups": [{"name": name, "interval": "1s", "rules": list(rules)}]}
    cluster.create(PrometheusRule(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec))


def labels(**expected: str) -> Labels:
    return tuple(sorted(expected.items()))


def warnings(cluster: Client, namespace: str, name: str) -> list[str]:
    events = cluster.list(Event, namespace=namespace, fields={"involvedObject.name": name})
    return [event.message or "" for event in events]


def test_the_sandbox_is_scraped_from_the_start(ask: Ask) -> None:
    own = {"traefik", "kubelet", "kube-state-metrics"}
    eventually(lambda: {dict(series)["job"] for series in ask('up{namespace=""} == 1')} == own)


class Caller:
    """Sends requests and counts the answers by who gave them, the proxy's own ones left out."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.answers: Counter[tuple[str, str]] = Counter()

    def get(self, **headers: str) -> str | None:
        answer = self._application.get(**headers)
        version = answer.headers.get("X-Version")
        if version:
            self.answers[version, str(answer.status_code)] += 1
        return version


def test_requests_of_known_composition_give_these_numbers(make: Make, monitored: str, ask: Ask) -> None:
    stable = make(replicas=2).wait_until_ready()
    canary = make(name="app-canary", version="canary", host=stable.host, ingress_annotations=CANARY).wait_until_ready()
    caller = Caller(stable)
    eventually(lambda: caller.get() == "stable" and caller.get(**TO_CANARY) == "canary")
    for _ in range(53):
        assert caller.get() == "stable"
    for _ in range(17):
        assert caller.get(**TO_CANARY) == "canary"
    canary.order(error_rate="1")
    eventually(lambda: caller.get(**TO_CANARY) and caller.answers["canary", "500"] == 11)
    assert sum(caller.answers.values()) > 53 + 17 + 11
    expected = {
        labels(app="app", version=version, status=status): count for (version, status), count in caller.answers.items()
    }
    counted = f'sum by (app, version, status) (http_requests_total{{namespace="{monitored}"}}) > 0'
    eventually(lambda: ask(counted) == expected)
    timed = f'sum by (version) (http_request_duration_seconds_count{{namespace="{monitored}"}})'
    by_version = {
        labels(version=version): sum(count for (of, _), count in caller.answers.items() if of == version)
        for version in ("stable", "canary")
    }
    assert ask(timed) == by_version
    passed_on = (
        "sum by (version, code) (label_replace(label_replace(traefik_service_requests_total"
        f'{{service=~"{monitored}-.*"}}, "version", "stable", "", ""), "version", "canary", "service", ".*-canary@.*"))'
    )
    by_code = {labels(version=v, code=status): count for (v, status), count in caller.answers.items()}
    eventually(lambda: ask(passed_on) == by_code)


def test_series_have_the_labels_that_the_operator_gives_them(make: Make, monitored: str, ask: Ask) -> None:
    application = make(replicas=1).wait_until_ready()
    pod = application.pod()
    assert pod.metadata is not None
    assert pod.status is not None
    where = {
        "namespace": monitored,
        "pod": pod.metadata.name or "",
        "container": "app",
        "endpoint": "http",
        "job": f"{monitored}/all",
        "instance": f"{pod.status.podIP}:8080",
    }
    own = {"__name__": "http_requests_total", "app": "app", "version": "stable", "status": "200"}
    series = f'http_requests_total{{namespace="{monitored}",status="200"}}'
    eventually(lambda: list(ask(series)) == [labels(**own, **where)])


def test_a_service_monitor_finds_the_pods_behind_a_service(
    make: Make, cluster: Client, namespace: str, ask: Ask
) -> None:
    application = make(replicas=2).wait_until_ready()
    patch = {"metadata": {"labels": {"team": "one"}}, "spec": {"ports": [{"port": 80, "name": "web"}]}}
    cluster.patch(Service, application.name, patch, namespace=namespace)
    spec = {"selector": {"matchLabels": {"team": "one"}}, "endpoints": [{"port": "web"}], "targetLabels": ["team"]}
    cluster.create(ServiceMonitor(metadata=ObjectMeta(name="one", namespace=namespace), spec=spec))
    counted = f'count by (job, service, team, endpoint, container) (up{{namespace="{namespace}"}} == 1)'
    found = labels(job="app", service="app", team="one", endpoint="web", container="app")
    eventually(lambda: ask(counted) == {found: 2})


def test_targets_come_and_go_with_pods_and_monitors(
    make: Make, cluster: Client, monitored: str, sandbox: Sandbox, ask: Ask
) -> None:
    application = make(replicas=1, drain_seconds=0).wait_until_ready()
    targets = f'count(up{{namespace="{monitored}"}})'
    eventually(lambda: ask(targets) == {(): 1})
    cluster.patch(Deployment, application.name, {"spec": {"replicas": 3}}, namespace=monitored)
    eventually(lambda: ask(targets) == {(): 3})
    cluster.patch(Deployment, application.name, {"spec": {"replicas": 2}}, namespace=monitored)
    eventually(lambda: ask(targets) == {(): 2})
    cluster.delete(PodMonitor, "all", namespace=monitored)
    # Series of a job that is gone stay for the five minutes that queries look back.
    eventually(lambda: monitored not in api(sandbox, "targets", state="active").text)


def test_an_alert_fires_while_its_reason_lasts(make: Make, cluster: Client, monitored: str, ask: Ask) -> None:
    errors = f'sum(rate(http_requests_total{{namespace="{monitored}",status="500"}}[5s]))'
    rules(
        cluster,
        monitored,
        "errors",
        {"record": "test:errors:rate5s", "expr": errors, "labels": {"namespace": monitored}},
        {
            "alert": "Errors",
            "expr": f'test:errors:rate5s{{namespace="{monitored}"}} > 0',
            "labels": {"severity": "page"},
        },
    )
    application = make().wait_until_served()
    firing = f'ALERTS{{namespace="{monitored}",alertstate="firing"}}'
    eventually(
        lambda: (
            ask(f'test:errors:rate5s{{namespace="{monitored}"}}')
            == {labels(__name__="test:errors:rate5s", namespace=monitored): 0}
        )
    )
    assert ask(firing) == {}
    application.order(error_rate="1")
    alert = labels(__name__="ALERTS", alertname="Errors", alertstate="firing", namespace=monitored, severity="page")
    eventually(lambda: application.get().status_code and ask(firing) == {alert: 1})
    application.order(error_rate=None)
    eventually(lambda: ask(firing) == {})


def test_an_alert_goes_on_where_it_was_when_another_group_of_its_rule_changes(
    cluster: Client, namespace: str, sandbox: Sandbox, ask: Ask
) -> None:
    def declared(weight: int) -> dict[str, Any]:
        record = {"record": "test:weight", "expr": f"vector({weight})", "labels": {"of": namespace}}
        alert = {"alert": "Lasting", "expr": "vector(1)", "labels": {"of": namespace}}
        return {
            "groups": [
                {"name": "declared", "interval": "1s", "rules": [record]},
                {"name": "alerts", "interval": "1s", "rules": [alert]},
            ]
        }

    def fires_since() -> list[str]:
        alerts = api(sandbox, "alerts").json()["data"]["alerts"]
        return [alert["activeAt"] for alert in alerts if alert["labels"].get("of") == namespace]

    cluster.create(PrometheusRule(metadata=ObjectMeta(name="one", namespace=namespace), spec=declared(20)))
    began = eventually(fires_since)
    patch = {"spec": declared(50)}
    cluster.patch(PrometheusRule, "one", patch, namespace=namespace, patch_type=PatchType.MERGE)
    eventually(lambda: list(ask(f'test:weight{{of="{namespace}"}}').values()) == [50])
    assert fires_since() == began


def test_what_prometheus_would_refuse_is_said_and_stops_nothing_else(cluster: Client, namespace: str, ask: Ask) -> None:
    rules(cluster, namespace, "wrong", {"record": "test:wrong", "expr": "sum("})
    broken = {"port": "http", "relabelings": [{"action": "replace", "regex": "(", "targetLabel": "x"}]}
    monitor(cluster, namespace, **broken)
    rules(cluster, namespace, "right", {"record": "test:right", "expr": "vector(42)", "labels": {"of": namespace}})
    eventually(lambda: list(ask(f'test:right{{of="{namespace}"}}').values()) == [42])
    eventually(
        lambda: any("parse error: unclosed left parenthesis" in w for w in warnings(cluster, namespace, "wrong"))
    )
    eventually(lambda: any("missing closing )" in warning for warning in warnings(cluster, namespace, "all")))
    assert warnings(cluster, namespace, "right") == []
    mended = {"spec": {"groups": [{"name": "wrong", "rules": [{"record": "test:wrong", "expr": "vector(1)"}]}]}}
    cluster.patch(PrometheusRule, "wrong", mended, namespace=namespace, patch_type=PatchType.MERGE)
    eventually(lambda: ask("test:wrong"))


def test_a_field_of_a_monitor_that_is_not_played_is_said(cluster: Client, namespace: str) -> None:
    monitor(cluster, namespace, bearerTokenSecret={"name": "token", "key": "token"})
    said = "the sandbox does not heed spec.podMetricsEndpoints[0].bearerTokenSecret"
    eventually(lambda: warnings(cluster, namespace, "all") == [said])


def test_what_containers_use_is_counted_as_cadvisor_does(make: Make, namespace: str, ask: Ask) -> None:
    application = make(annotations={"sandbox/cpu-cores": "0.5", "sandbox/memory-bytes": "3e9"}).wait_until_ready()
    pod = application.pod().metadata
    assert pod is not None
    here = f'{{namespace="{namespace}",pod="{pod.name}",container="app",image="{application.image}"}}'
    eventually(
        lambda: (
            [0.5 < used < 1 for used in ask(f"rate(container_cpu_usage_seconds_total{here}[5s])").values()] == [True]
        )
    )
    eventually(
        lambda: [3e9 < used < 3.2e9 for used in ask(f"container_memory_working_set_bytes{here}").values()] == [True]
    )
    of_pod = ask(f'container_memory_working_set_bytes{{namespace="{namespace}",container=""}}')
    assert len(of_pod) == 1


def test_the_state_of_deployments_is_counted_as_kube_state_metrics_does(make: Make, namespace: str, ask: Ask) -> None:
    application = make(replicas=2, environment={"SANDBOX_REFUSE": "true"})
    here = f'{{namespace="{namespace}",deployment="{application.name}"}}'
    eventually(lambda: list(ask(f"kube_deployment_spec_replicas{here}").values()) == [2])
    assert list(ask(f"kube_deployment_status_replicas_ready{here}").values()) == [0]
    for pod in application.pods():
        assert pod.metadata is not None
        annotations = {"metadata": {"annotations": {"sandbox/refuse": "false"}}}
        application.cluster.patch(Pod, pod.metadata.name or "", annotations, namespace=namespace)
    eventually(lambda: list(ask(f"kube_deployment_status_replicas_ready{here}").values()) == [2])


def test_a_killed_prometheus_comes_back_as_it_was(make: Make, monitored: str, sandbox: Sandbox, ask: Ask) -> None:
    make().wait_until_ready()
    targets = f'count(up{{namespace="{monitored}"}} == 1)'
    eventually(lambda: ask(targets) == {(): 1})
    killed = component_process(sandbox, "prometheus")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: component_process(sandbox, "prometheus") not in (0, killed))

    def scraped_again() -> bool:
        try:
            return ask(f'count_over_time(up{{namespace="{monitored}"}}[2s]) > 0') != {}
        except (httpx2.HTTPError, ValueError):
            return False  # it is starting

    eventually(scraped_again)
