"""The promise: not one failed request, whatever is done to a canary.

One stream of requests over kept and fresh connections goes on through everything, and no failure is left out.

Counted apart are tries of the proxy that failed, after which it sent the request to another pod. While pods drain,
there are none. The crash of a pod, which nobody can know of beforehand, costs the requests that are in flight inside
it and those that come until the proxy knows: each of them is one or more failed tries, and a failed request only if
no other pod is left to try. ingress-nginx tries the other pods of the same track (idempotent requests only); Traefik,
which is the proxy here, also goes on from the canary to stable. So the crash of a canary's only pod at 50 percent
fails no request here, where ingress-nginx answers them with 502. At 100 percent both do: no other pod gets requests.

Without drain the same steps do fail, in spite of the tries: all pods of a removed canary are gone before the proxy
knows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lightkube import Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod, Service
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import WEIGHT
from demo.measurement import wait_for
from sandbox.lifecycle import Sandbox
from sandbox.routes_in_force import canary_weight
from sandbox.traffic import Traffic
from tests.live.application import Application, eventually
from tests.live.lifecycle import HOST, NAMESPACE, SCRAPE_SECONDS, SERVICES, VICTIM, FailedTries, Life, Tries

pytestmark = pytest.mark.live

REQUESTS = 200_000
LEAST_RATE = 200.0
SECONDS = 60.0
SLOW_SECONDS = 1.0
FIRST, SECOND, THIRD = SERVICES


@dataclass(frozen=True)
class Crash:
    """The crash of a canary pod, from its order until its container was ready again (seconds since the epoch)."""

    service: str
    begun: float
    over: float

    def explains(self, tries: FailedTries) -> bool:
        own = f"{NAMESPACE}-{self.service}-"
        known = self.over + 2 * SCRAPE_SECONDS  # when what only Prometheus was told is read at the latest
        return tries.service.startswith(own) and tries.until > self.begun and tries.since < known


def crash_canary_pod(life: Life, service: str, pods: int) -> Crash:
    """Crash one of so many canary pods while requests are in flight inside it."""
    found = life.objects(Pod, app=service, version="canary")
    assert len(found) == pods
    name = next(iter(found))
    life.note(f"crash of {name}, 1 of {pods}")
    seconds = life.traffic.total[service].seconds
    answered = len(seconds)
    life.kubectl("annotate", "pod", name, f"sandbox/latency-seconds={SLOW_SECONDS}")
    # From now on each sender is in that pod for nearly all of the time.
    eventually(lambda: max(seconds[answered:], default=0) >= SLOW_SECONDS)
    begun = time.time()
    life.kubectl("annotate", "pod", name, "sandbox/crash=once", "sandbox/latency-seconds-")

    def back() -> bool:
        (status,) = life.objects(Pod, app=service)[name]["status"]["containerStatuses"]
        return bool(status["restartCount"] and status["ready"])

    eventually(back)
    over = time.time()
    life.settled()
    return Crash(service, begun, over)


def roll_stable(life: Life) -> None:
    life.note("rolling restart of stable")
    life.kubectl("rollout", "restart", f"deployment/{VICTIM}")
    life.kubectl("rollout", "status", f"deployment/{VICTIM}", f"--timeout={SECONDS:.0f}s")
    wait_until_drained(life, "stable")
    life.settled()


def wait_until_drained(life: Life, version: str) -> None:
    """Wait until no pod is on its way out."""

    def leaving() -> list[str]:
        pods = life.objects(Pod, app=VICTIM, version=version)
        return [name for name, pod in pods.items() if pod["metadata"].get("deletionTimestamp")]

    assert wait_for(leaving, lambda names: not names, SECONDS) == []


def repair_drift(life: Life) -> None:
    """Change by hand what a canary at 20 percent consists of; a plain `pulumi up` puts it back."""
    life.note("changes by hand")
    part_of = "app.kubernetes.io/part-of"
    before = life.objects(Service)[FIRST]["metadata"]["labels"][part_of]
    life.kubectl("annotate", "ingress", f"{FIRST}-canary", f"{WEIGHT}=70", "--overwrite")
    life.kubectl("delete", "ingress", f"{SECOND}-canary")
    life.kubectl("scale", "deployment", THIRD, "--replicas=3")
    life.kubectl("label", "service", FIRST, f"{part_of}=something-else", "--overwrite")
    life.up("drift repair")
    ingresses = life.objects(Ingress)
    assert [ingresses[f"{name}-canary"]["metadata"]["annotations"][WEIGHT] for name in SERVICES] == ["20", "20", "20"]
    assert life.objects(Service)[FIRST]["metadata"]["labels"][part_of] == before
    assert life.objects(Deployment)[THIRD]["spec"]["replicas"] == life.stack.settings().services[THIRD].replicas
    life.assert_as_declared()


def test_no_request_fails_in_the_life_of_a_canary(
    sandbox: Sandbox, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with Life.of(sandbox, tmp_path, {"canaryWeight": "0", f"services.{VICTIM}.replicas": "4"}) as life:
        begin = time.monotonic()
        life.up("first deploy; the canaries are dark")
        for weight in (5, 20, 50):
            life.shift(weight)
        crashes = [crash_canary_pod(life, VICTIM, pods=2), crash_canary_pod(life, SECOND, pods=1)]
        roll_stable(life)
        life.stack.set(f"services.{VICTIM}.replicas", "6")
        life.up("scale up")
        life.shift(100)
        life.declare_promotion()
        life.up("promote")
        life.stack.set(f"services.{VICTIM}.replicas", "2")
        life.up("scale down")
        wait_until_drained(life, "stable")
        life.assert_as_declared()

        for version, weight in {"2.0.0": 5, "2.1.0": 20, "2.2.0": 50, "2.3.0": 100}.items():
            life.declare_canaries(version, min(weight, 50))
            if weight == 20:
                repair_drift(life)
            if weight == 100:
                life.shift(100)
            life.abort()
        life.declare_canaries("3.0.0", 50)
        life.shift(0)
        life.abort()
        life.declare_canaries("3.1.0", 5)  # at once: the last canary may still be draining
        life.assert_as_declared()

        life.note(f"the rest of {REQUESTS:,} requests")
        wait_for(lambda: life.requests, lambda sent: sent >= REQUESTS, seconds=600)
        seconds = time.monotonic() - begin

    record_property("traffic", life.summary())
    print(life.summary())  # noqa: T201 - for `pytest -s`
    failures, sent = life.traffic.failures, life.requests
    assert failures == [], life.explained(failures)
    assert sent >= REQUESTS
    assert sent / seconds >= LEAST_RATE
    for crash in crashes:
        assert any(map(crash.explains, life.tries.failed)), f"the crash of {crash.service} met no request"
    others = [tries for tries in life.tries.failed if not any(crash.explains(tries) for crash in crashes)]
    assert others == [], "the proxy had to help outside the crashes"


def test_without_drain_the_same_steps_fail(sandbox: Sandbox, tmp_path: Path) -> None:
    undrained = {f"services.{service}.drainSeconds": "0" for service in SERVICES}
    with Life.of(sandbox, tmp_path, {"canaryWeight": "50"} | undrained) as life:
        life.up("first deploy")
        life.shift(100)
        life.abort()

    print(life.summary())  # noqa: T201 - for `pytest -s`
    assert life.traffic.failures


def test_the_crash_of_the_only_pod_fails_what_comes_until_the_proxy_knows(
    cluster: Client, sandbox: Sandbox, namespace: str
) -> None:
    stable = Application(cluster, namespace, sandbox.proxy_url, host=HOST).create().wait_until_served()
    prefix = WEIGHT.removesuffix("-weight")
    annotations = {prefix: "true", WEIGHT: "100"}
    canary = Application(
        cluster, namespace, sandbox.proxy_url, "app-canary", "canary", host=HOST, ingress_annotations=annotations
    )
    canary.create().wait_until_ready()

    def weight() -> int:
        return canary_weight(sandbox.proxy_admin_url, namespace, stable.name) or 0

    eventually(lambda: weight() == 100)
    with Traffic(sandbox.proxy_url, HOST, {stable.name: "/"}, rate=400, senders=8) as traffic:
        seconds = traffic.total[stable.name].seconds
        canary.order(latency_seconds=str(SLOW_SECONDS))
        eventually(lambda: max(seconds, default=0) >= SLOW_SECONDS)
        begun = time.time()
        canary.order(crash="once", latency_seconds=None)
        eventually(lambda: not weight())  # a canary without a ready pod gets nothing
        known = time.time()
        traffic.measure(400)[stable.name].result(SECONDS)

    lost = traffic.failures
    print(f"{len(lost)} requests failed in the {known - begun:.2f} s of the crash")  # noqa: T201 - for `pytest -s`
    assert lost
    assert {failure.reason for failure in lost} == {"status 502: Bad Gateway"}
    assert all(begun <= failure.ended and failure.sent < known for failure in lost)


@pytest.fixture
def pair(cluster: Client, sandbox: Sandbox, namespace: str) -> Application:
    """Two pods that nobody probes, so that only connections tell whether they are there."""
    return Application(cluster, namespace, sandbox.proxy_url, replicas=2, probe={}).create().wait_until_served()


def test_the_proxy_takes_refused_connections_to_another_pod(pair: Application, sandbox: Sandbox) -> None:
    refusing = pair.pods()[0].metadata
    assert refusing
    assert refusing.name
    with (
        Tries(sandbox) as tries,
        Traffic(sandbox.proxy_url, pair.host, {pair.name: "/"}, rate=400, senders=8) as traffic,
    ):
        order = {"metadata": {"annotations": {"sandbox/refuse": "true"}}}
        pair.cluster.patch(Pod, refusing.name, order, namespace=pair.namespace)
        traffic.measure(1200)[pair.name].result(SECONDS)
        wait_for(lambda: tries.failed, bool, SECONDS)

    assert traffic.failures == []
    assert tries.failed
