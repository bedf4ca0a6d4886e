"""What Envoy Gateway does with router gateway's objects beyond the conformance suite."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

import httpx2
import pytest
from lightkube import Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace
from lightkube.types import PatchType

from canary_service.observability.queries import SOURCES, Scope, track_error_ratio, track_rate
from canary_service.routing.registry import ROUTERS
from canary_service.routing.split import Backend, CanaryBackend, Entry, Header, Match, Split
from demo.measurement import drawn_bounds, round_robin_bounds, wait_for
from sandbox import envoy_routes
from sandbox.envoy_gateway import CONTROLLER_NAMESPACE, EnvoyProxy
from sandbox.envoy_gateway import GATEWAY as ENVOY
from sandbox.lifecycle import Sandbox
from tests.live.application import Application, eventually
from tests.live.routes import replaced

NAMESPACE = "shop"
HOST = f"{NAMESPACE}.example"
GATEWAY = ROUTERS["gateway"]
ASKED = {"X-Canary": "true"}
REQUESTS = 400

_http = httpx2.Client(trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def cluster(envoy_sandbox: Sandbox) -> Client:
    return Client(KubeConfig.from_file(envoy_sandbox.kubeconfig), trust_env=False)


@pytest.fixture(scope="module")
def canary(envoy_sandbox: Sandbox, cluster: Client) -> Iterator[Application]:
    """A service with its canary."""
    cluster.create(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    stable, canary = (
        Application(cluster, NAMESPACE, envoy_sandbox.proxy_url, name, version).create()
        for name, version in (("app", "stable"), ("app-canary", "canary"))
    )
    stable.wait_until_ready()
    yield canary.wait_until_ready()
    cluster.delete(Namespace, NAMESPACE)


def route(sandbox: Sandbox, cluster: Client, weight: int) -> None:
    """Write the route; return when Envoy has its weight."""
    backend = CanaryBackend(Backend("app-canary", 80), weight, header=Header("X-Canary", "true"))
    split = Split("app", NAMESPACE, Match(HOST, "/"), Backend("app", 80), backend, (Entry(ENVOY, "default"),))
    replaced(cluster, GATEWAY, NAMESPACE, [each.manifest for each in GATEWAY.render(split)])
    eventually(lambda: envoy_routes.canary_weight(sandbox.envoy_admin_url, NAMESPACE, "app") == weight)


def answer(sandbox: Sandbox, headers: Mapping[str, str] | None = None) -> tuple[str, int]:
    got = _http.get(sandbox.envoy_url, headers={"Host": HOST, **(headers or {})})
    return got.headers.get("X-Version", ""), got.status_code


def answered_by(sandbox: Sandbox, track: str) -> bool:
    return answer(sandbox) == (track, httpx2.codes.OK)


def counted(sandbox: Sandbox, query: str) -> dict[str, float]:
    """Return, by track where there are any, what was counted in place of the rate at which it is."""
    query = query.replace("rate(", "(").replace("[5m]", "")
    found = _http.get(f"{sandbox.prometheus_url}/api/v1/query", params={"query": query}).json()
    return {one["metric"].get("version", ""): float(one["value"][1]) for one in found["data"]["result"]}


@pytest.mark.usefixtures("canary")
def test_a_weight_is_obeyed_within_the_time_that_the_router_is_given(envoy_sandbox: Sandbox, cluster: Client) -> None:
    took = []
    for weight in (100, 0) * 5:
        begun = time.monotonic()
        route(envoy_sandbox, cluster, weight)
        eventually(partial(answered_by, envoy_sandbox, "canary" if weight else "stable"))
        took.append(time.monotonic() - begun)
    print(f"Envoy obeys after {min(took):.2f} to {max(took):.2f} s")  # noqa: T201 - what docs/routers.md says
    assert max(took) < GATEWAY.sync_seconds


def test_the_tracks_are_counted_apart_where_each_backend_has_one_cluster(
    envoy_sandbox: Sandbox, cluster: Client, canary: Application
) -> None:
    rates, errors = (query(SOURCES["envoy"], Scope(NAMESPACE, ("app",))) for query in (track_rate, track_error_ratio))
    route(envoy_sandbox, cluster, 20)
    least, most = round_robin_bounds(REQUESTS, 20)
    eventually(lambda: least <= [answer(envoy_sandbox) for _ in range(REQUESTS)].count(("canary", 200)) <= most)
    without = Counter(answer(envoy_sandbox) for _ in range(REQUESTS))
    assert least <= without["canary", 200] <= most
    every = f'sum(envoy_cluster_upstream_rq_total{{envoy_cluster_name=~"httproute/{NAMESPACE}/.*"}})'
    eventually(lambda: counted(envoy_sandbox, every).get("", 0) >= REQUESTS)
    assert counted(envoy_sandbox, rates) == {}

    merged: dict[str, dict[str, object]] = {"spec": {"mergeBackends": {}}}
    cluster.patch(EnvoyProxy, ENVOY, merged, namespace=CONTROLLER_NAMESPACE, patch_type=PatchType.MERGE)
    eventually(lambda: envoy_routes.clusters(envoy_sandbox.envoy_admin_url, NAMESPACE, "app") == 2)
    answers = Counter(answer(envoy_sandbox) for _ in range(REQUESTS))
    least, most = drawn_bounds(REQUESTS, 20, 1 - 1e-6)
    assert least <= answers["canary", 200] <= most
    canary.order(error_rate="1")
    eventually(lambda: _noted(answers, answer(envoy_sandbox, ASKED)) == ("canary", 500))
    for _ in range(10):
        assert _noted(answers, answer(envoy_sandbox, ASKED)) == ("canary", 500)
    route(envoy_sandbox, cluster, 30)
    route(envoy_sandbox, cluster, 0)
    for _ in range(10):
        assert _noted(answers, answer(envoy_sandbox)) == ("stable", 200)
    sent = {"stable": answers["stable", 200], "canary": answers["canary", 200] + answers["canary", 500]}
    assert wait_for(lambda: counted(envoy_sandbox, rates), sent.__eq__, 30) == sent
    failed = {"stable": 0.0, "canary": answers["canary", 500] / sent["canary"]}
    assert counted(envoy_sandbox, errors) == pytest.approx(failed)


def _noted(answers: Counter[tuple[str, int]], found: tuple[str, int]) -> tuple[str, int]:
    answers[found] += 1
    return found
