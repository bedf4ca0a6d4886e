"""A stack deploys what watches it, and that tells a canary that fails and a share that is not the declared one."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap

from canary_service.observability.queries import (
    SOURCES,
    TRACK,
    Scope,
    track_error_ratio,
    track_latency,
    track_rate,
    track_share,
)
from canary_service.observability.recorded import INTERVAL_SECONDS, track_rate_over
from canary_service.observability.rules import SETTLE_SECONDS
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Traffic
from tests.live.account import DEPLOY, Account, install
from tests.live.application import eventually
from tests.live.scene import CANARY, GOOD_CANARY, NAME, PATHS, RATE, Scene

GROUP = "monitoring.coreos.com"
PodMonitor = create_namespaced_resource(GROUP, "v1", "PodMonitor", "podmonitors")
PrometheusRule = create_namespaced_resource(GROUP, "v1", "PrometheusRule", "prometheusrules")
OBJECTS = ((PodMonitor, "PodMonitor"), (PrometheusRule, "PrometheusRule"), (ConfigMap, "ConfigMap"))
OBJECT = "macromind-dev"
RECORDED_SERIES = 28.0
"""Of a service with a canary; docs/monitoring.md says so."""

HEADER = {"header": {"name": "X-Canary", "value": "true"}}
WEIGHT = "nginx.ingress.kubernetes.io/canary-weight"

Labels = frozenset[tuple[str, str]]


def labels(**expected: str) -> Labels:
    return frozenset(expected.items())


class Prometheus:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._http = httpx2.Client(trust_env=False, base_url=scene.sandbox.prometheus_url)

    def ask(self, query: str) -> dict[Labels, float]:
        """Return the value of each series by its labels."""
        answer = self._http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in answer["data"]["result"]}

    def firing(self) -> set[str]:
        found = self.ask(f'ALERTS{{alertstate="firing",namespace="{self._scene.namespace}"}}')
        return {dict(series)["alertname"] for series in found}

    def fired(self) -> set[str]:
        """Return what fired in the last quarter of an hour, however shortly."""
        found = self.ask(f'present_over_time(ALERTS{{alertstate="firing",namespace="{self._scene.namespace}"}}[15m])')
        return {dict(series)["alertname"] for series in found}

    def watches(self) -> bool:
        """Tell whether rules are evaluated on samples of both tracks."""
        series = f'{track_rate_over("1m")}{{namespace="{self._scene.namespace}"}} > 0'
        return {dict(found)[TRACK] for found in self.ask(series)} == {"stable", "canary"}


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    return Scene.create(sandbox, cluster, namespace, tmp_path)


@pytest.fixture
def prometheus(scene: Scene) -> Prometheus:
    return Prometheus(scene)


def changes(scene: Scene) -> dict[str, int]:
    summary: dict[str, int] = scene.stack.preview()["changeSummary"]
    return summary


def deployed(scene: Scene, kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a class of lightkube
    found = scene.get(kind, OBJECT)
    assert found
    return found


def there(scene: Scene) -> set[str]:
    return {name for kind, name in OBJECTS if scene.get(kind, OBJECT)}


def order(scene: Scene, what: str, value: str | None) -> None:
    """Have the canary's pods fail a part of their requests (error-rate), or take longer (latency-seconds)."""
    for pod in scene.pods("canary"):
        scene.kubectl("annotate", "--overwrite", "pod", pod, f"sandbox/{what}={value}" if value else f"sandbox/{what}-")


def test_a_shift_changes_the_route_and_the_declared_weight_alone(scene: Scene) -> None:
    scene.configure(weight=20, canary=GOOD_CANARY)
    scene.up()
    assert there(scene) == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    groups = deployed(scene, PrometheusRule)["spec"]["groups"]

    scene.configure(weight=50)
    assert changes(scene)["update"] == 2
    scene.up()
    shifted = deployed(scene, PrometheusRule)["spec"]["groups"]
    assert [group for group in shifted if group not in groups] == [shifted[0]]
    assert "vector(50)" in {rule["expr"] for rule in shifted[0]["rules"]}
    assert changes(scene).keys() == {"same"}


def test_what_others_do_to_monitoring_is_put_back_and_what_is_switched_off_goes(scene: Scene) -> None:
    scene.configure(weight=20, canary=GOOD_CANARY)
    scene.up()
    scene.kubectl("delete", "prometheusrule", OBJECT)
    scene.kubectl("label", "--overwrite", "podmonitor", OBJECT, "app.kubernetes.io/part-of=other")
    told = scene.stack.run("preview")
    assert f"PrometheusRule {OBJECT} is missing" in told
    assert f"PodMonitor {OBJECT} was changed by kubectl-label" in told
    scene.configure(weight=50)
    scene.up()
    assert there(scene) == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    assert deployed(scene, PodMonitor)["metadata"]["labels"]["app.kubernetes.io/part-of"] == "macromind"
    assert changes(scene).keys() == {"same"}

    scene.stack.set("monitoring.dashboardTitle", "Another title")
    scene.up()
    (dashboard,) = deployed(scene, ConfigMap)["data"].values()
    assert '"title":"Another title"' in dashboard

    scene.stack.set("monitoring.enabled", "false")
    scene.up()
    assert there(scene) == set()


def test_an_account_that_may_not_read_monitoring_is_told_what_helps(scene: Scene, tmp_path: Path) -> None:
    install(scene, tmp_path)
    scene.configure(weight=20, canary=GOOD_CANARY)
    roles = json.loads(scene.kubectl("get", "role", DEPLOY, "--output", "json"))
    roles["rules"] = [rule for rule in roles["rules"] if rule["apiGroups"] != [GROUP]]
    (tmp_path / "role.json").write_text(json.dumps(roles))
    scene.kubectl("replace", "--filename", str(tmp_path / "role.json"))
    limited = replace(scene, stack=Account.of(scene, DEPLOY, tmp_path).scene.stack)

    message = limited.up_refused().message
    assert 'cannot list resource "prometheusrules"' in message
    assert "pulumi config set --path monitoring.enabled false" in message
    assert "Traceback" not in message

    limited.stack.set("monitoring.enabled", "false")
    limited.up()
    assert there(scene) == set()


def test_the_queries_count_exactly_what_was_sent(scene: Scene, prometheus: Prometheus) -> None:
    scene.configure(weight=0, canary=GOOD_CANARY | HEADER)
    scene.up()
    scene.settle()
    order(scene, "latency-seconds", "0.2")
    answers: Counter[tuple[str, int]] = Counter()
    with httpx2.Client(trust_env=False, base_url=scene.sandbox.proxy_url) as http:

        def answered(track: str) -> tuple[str, int]:
            header = {"X-Canary": "true"} if track == "canary" else {}
            answer = http.get(PATHS[NAME], headers={"Host": f"{scene.namespace}.example"} | header)
            found = answer.headers["X-Version"], answer.status_code
            answers[found] += 1
            return found

        eventually(lambda: answered("canary") == ("canary", 200))
        assert {answered("stable") for _ in range(37)} == {("stable", 200)}
        order(scene, "error-rate", "1")
        eventually(lambda: answered("canary") == ("canary", 500))
        assert {answered("canary") for _ in range(11)} == {("canary", 500)}
    sent = {track: answers[track, 200] + answers[track, 500] for track in ("stable", "canary")}
    expected = {labels(app=NAME, version=track): float(number) for track, number in sent.items()}
    ratios = {
        labels(app=NAME, version="stable"): 0.0,
        labels(app=NAME, version="canary"): answers["canary", 500] / sent["canary"],
    }
    shares = {labels(app=NAME, version=track): sent[track] / sum(sent.values()) for track in sent}
    for source in ("application", "traefik"):
        scope = Scope(scene.namespace, (NAME,))
        eventually(lambda: prometheus.ask(_counted(track_rate(SOURCES[source], scope))) == expected)  # noqa: B023 - used at once
        assert prometheus.ask(_counted(track_error_ratio(SOURCES[source], scope))) == pytest.approx(ratios)
        assert prometheus.ask(_counted(track_share(SOURCES[source], scope))) == pytest.approx(shares)
        seconds = prometheus.ask(_counted(track_latency(SOURCES[source], scope, 0.95)))
        assert seconds.keys() == shares.keys()
        stable, canary = (seconds[labels(app=NAME, version=track)] for track in ("stable", "canary"))
        assert stable < 0.1 < canary <= 0.25  # the bucket that 0.2 s falls into


def _counted(query: str) -> str:
    """Return a query for what was counted in place of the rate at which it is."""
    return query.replace("rate(", "(").replace("[5m]", "")


def test_a_failing_canary_and_a_weight_set_by_hand_fire_their_alerts_alone_and_both_clear(
    scene: Scene, prometheus: Prometheus
) -> None:
    scene.configure(weight=50, canary=GOOD_CANARY)
    scene.up()
    with Traffic(scene.sandbox.proxy_url, f"{scene.namespace}.example", PATHS, RATE):
        eventually(prometheus.watches, 90)
        recorded = f'count({{__name__=~"canary_(?:track|service):.*",namespace="{scene.namespace}"}})'
        eventually(lambda: prometheus.ask(recorded) == {labels(): RECORDED_SERIES}, 2 * INTERVAL_SECONDS)
        assert prometheus.firing() == set()

        order(scene, "error-rate", "0.3")
        eventually(lambda: prometheus.firing() == {"CanaryErrorRatioHigh"}, 2 * INTERVAL_SECONDS)
        order(scene, "error-rate", None)
        eventually(lambda: prometheus.firing() == set(), 4 * INTERVAL_SECONDS)

        scene.kubectl("annotate", "--overwrite", "ingress", CANARY, f"{WEIGHT}=90")
        eventually(lambda: prometheus.firing() == {"CanaryShareOffWeight"}, SETTLE_SECONDS + 4 * INTERVAL_SECONDS)
        scene.up()
        eventually(lambda: prometheus.firing() == set(), 4 * INTERVAL_SECONDS)
        assert prometheus.fired() == {"CanaryErrorRatioHigh", "CanaryShareOffWeight"}
