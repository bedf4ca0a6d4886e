"""Pods that really answer, and the real proxy in front of them."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import aiohttp
import httpx2
import pytest
from lightkube import Client
from lightkube.resources.core_v1 import Event, Pod
from lightkube.resources.networking_v1 import Ingress
from prometheus_client.parser import text_string_to_metric_families

from sandbox.lifecycle import Sandbox
from tests.live.application import Application, eventually, is_ready

Make = Callable[..., Application]


@pytest.fixture
def make(cluster: Client, namespace: str, sandbox: Sandbox) -> Make:
    return lambda **settings: Application(cluster, namespace, sandbox.proxy_url, **settings).create()


def name(pod: Pod) -> str:
    assert pod.metadata is not None
    return pod.metadata.name or ""


def condition_time(pod: Pod, kind: str) -> datetime:
    assert pod.status is not None
    (time,) = (c.lastTransitionTime for c in pod.status.conditions or () if c.type == kind)
    assert time is not None
    return time


def restarts(pod: Pod) -> int:
    assert pod.status is not None
    return sum(status.restartCount for status in pod.status.containerStatuses or ())


def waiting_reason(pod: Pod) -> str | None:
    state = pod.status and pod.status.containerStatuses and pod.status.containerStatuses[0].state
    return state.waiting.reason if state and state.waiting else None


def warnings(cluster: Client, pod: Pod) -> list[str]:
    assert pod.metadata is not None
    events = cluster.list(Event, namespace=pod.metadata.namespace or "", fields={"involvedObject.name": name(pod)})
    return [event.message or "" for event in events]


def test_an_ingress_leads_to_pods_that_say_who_they_are(make: Make) -> None:
    application = make(replicas=2).wait_until_served()
    answers = [application.get("/some/path") for _ in range(20)]
    assert {a.headers["X-Pod"] for a in answers} == {name(pod) for pod in application.pods()}
    assert all(a.status_code == 200 for a in answers)
    assert {(a.headers["X-Service"], a.headers["X-Version"]) for a in answers} == {("app", "stable")}
    assert answers[0].json() == {
        "pod": answers[0].headers["X-Pod"],
        "service": "app",
        "version": "stable",
        "image": "registry.example/app:1.0",
        "path": "/some/path",
    }


def test_the_ingress_gets_an_address(make: Make, cluster: Client) -> None:
    application = make()

    def address() -> str | None:
        ingress = cluster.get(Ingress, application.name, namespace=application.namespace)
        balancer = ingress.status and ingress.status.loadBalancer
        return balancer.ingress[0].ip if balancer and balancer.ingress else None

    assert eventually(address) == "127.0.0.1"


def test_a_pod_is_ready_only_after_its_start_and_its_probe(make: Make) -> None:
    application = make(environment={"SANDBOX_START_SECONDS": "3"})
    running = eventually(lambda: [p for p in application.pods() if p.status and p.status.phase == "Running"])
    assert not is_ready(running[0])
    application.wait_until_ready()
    pod = application.pod()
    assert pod.status is not None
    assert pod.status.startTime is not None
    took = (condition_time(pod, "Ready") - pod.status.startTime).total_seconds()
    assert 3 <= took < 6


def test_a_canary_of_20_percent_gets_every_fifth_request(make: Make, sandbox: Sandbox) -> None:
    stable = make().wait_until_served()
    canary_annotations = {
        "nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "20",
    }
    canary = make(name="app-canary", version="canary", host=stable.host, ingress_annotations=canary_annotations)
    canary.wait_until_ready()
    eventually(lambda: stable.get().headers["X-Version"] == "canary")

    def counted_between_two_reloads() -> Counter[str] | None:
        """A reload, for whichever Ingress of the cluster, begins the proxy's round robin anew."""
        before = proxy_reloads(sandbox)
        versions = Counter(stable.get().headers["X-Version"] for _ in range(100))
        return versions if proxy_reloads(sandbox) == before else None

    versions = eventually(counted_between_two_reloads)
    assert versions is not None
    assert versions.total() == 100
    # The round robin goes by sums of 1/80 and 1/20, whose rounding now and then moves a turn by one place.
    assert 19 <= versions["canary"] <= 21


def proxy_reloads(sandbox: Sandbox) -> float:
    text = httpx2.get(f"{sandbox.proxy_admin_url}/metrics", trust_env=False).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["traefik_config_reloads"].samples[0].value


def test_the_proxy_tells_the_weights_in_force(make: Make, sandbox: Sandbox) -> None:
    stable = make().wait_until_served()
    canary_annotations = {
        "nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "35",
    }
    make(name="app-canary", version="canary", host=stable.host, ingress_annotations=canary_annotations)

    def weights() -> list[int]:
        services = httpx2.get(f"{sandbox.proxy_admin_url}/api/http/services?per_page=1000", trust_env=False).json()
        return [
            part["weight"]
            for service in services
            if stable.namespace in service["name"] and "weighted" in service
            for part in service["weighted"]["services"]
        ]

    eventually(lambda: 35 in weights() and 65 in weights())


def test_metrics_count_exactly_the_requests_sent(make: Make) -> None:
    application = make().wait_until_served()
    before = samples(application)
    for _ in range(50):
        application.get("/counted")
    application.order(error_rate="1")
    eventually(lambda: application.get().status_code == 500)
    middle = samples(application)
    for _ in range(7):
        application.get("/failed")
    after = samples(application)
    ok = ("http_requests_total", "200")
    failed = ("http_requests_total", "500")
    assert middle[ok] - before[ok] >= 50
    assert after[failed] - middle[failed] == 7
    assert after[ok] == middle[ok]
    assert after["http_request_duration_seconds_count", ""] == after[ok] + after[failed]


def samples(application: Application) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(application.get("/metrics").text):
        for sample in family.samples:
            if sample.name.endswith(("_total", "_count")):
                assert (sample.labels["app"], sample.labels["version"]) == ("app", "stable")
                counts[sample.name, sample.labels.get("status", "")] += int(sample.value)
    return counts


async def load(
    application: Application, done: Callable[[], bool], requests_per_second: float = 400
) -> Counter[int | str]:
    """Send requests at a steady rate until done; count the statuses and the errors."""
    results: Counter[int | str] = Counter()

    async def send(session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(application.proxy_url, headers={"Host": application.host}) as answer:
                await answer.read()
                results[answer.status] += 1
        except aiohttp.ClientError as error:
            results[repr(error)] += 1

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as requests:
        session._retry_connection = False  # noqa: SLF001  no public switch keeps it from sending a lost GET again
        finished = asyncio.create_task(asyncio.to_thread(eventually, done, 120))
        begin, sent = time.monotonic(), 0
        while not finished.done():
            if sent <= (time.monotonic() - begin) * requests_per_second:
                requests.create_task(send(session))
                sent += 1
            else:
                await asyncio.sleep(1 / requests_per_second)
        await finished
    return results


def test_a_rolling_restart_under_load_loses_no_request(make: Make) -> None:
    application = make(replicas=3, drain_seconds=5).wait_until_served()
    before = {name(pod) for pod in application.pods()}
    application.restart()
    results = asyncio.run(
        load(
            application,
            lambda: application.rolled_out() and len(application.pods()) == 3,
        )
    )
    assert before.isdisjoint(name(pod) for pod in application.pods())
    assert results.total() > 2000
    assert results == {200: results.total()}


def test_a_pod_finishes_what_is_in_flight_before_it_goes(make: Make) -> None:
    application = make(drain_seconds=0, environment={"SANDBOX_LATENCY_SECONDS": "2"}).wait_until_served()
    cluster, pod = application.cluster, application.pod()

    async def request_and_delete() -> httpx2.Response:
        request = asyncio.create_task(asyncio.to_thread(application.get))
        await asyncio.sleep(0.5)  # the request is on its way: nothing outside the pod can tell that it has arrived
        await asyncio.to_thread(cluster.delete, Pod, name(pod), namespace=application.namespace)
        return await request

    answer = asyncio.run(request_and_delete())
    assert (answer.status_code, answer.headers["X-Pod"]) == (200, name(pod))
    eventually(lambda: name(pod) not in {name(p) for p in application.pods()}, seconds=10)


def test_the_error_rate_is_obeyed_while_it_is_ordered(make: Make) -> None:
    application = make(environment={"SANDBOX_ERROR_RATE": "1"}).wait_until_ready()
    eventually(lambda: application.get().status_code == 500)
    assert is_ready(application.pod())
    application.order(error_rate="0")
    eventually(lambda: application.get().status_code == 200)
    assert {application.get().status_code for _ in range(20)} == {200}
    application.order(error_rate="0.5")
    eventually(lambda: application.get().status_code == 500)
    statuses = Counter(application.get().status_code for _ in range(200))
    assert 50 < statuses[500] < 150  # one in 10^13 random runs is outside


def test_the_latency_ordered_is_added(make: Make) -> None:
    application = make().wait_until_served()
    application.order(latency_seconds="0.3")
    eventually(lambda: application.get().elapsed.total_seconds() >= 0.3)
    assert 0.3 <= application.get().elapsed.total_seconds() < 1
    assert is_ready(application.pod())


def test_a_pod_ordered_to_refuse_is_not_ready_until_it_accepts_again(make: Make) -> None:
    application = make().wait_until_served()
    application.order(refuse="true")
    eventually(lambda: application.get().status_code in (502, 503))
    eventually(lambda: not is_ready(application.pod()))
    application.order(refuse=None)
    application.wait_until_served()


def test_each_new_value_of_the_crash_order_crashes_once(make: Make) -> None:
    application = make().wait_until_served()
    application.order(crash="first")
    eventually(lambda: restarts(application.pod()) == 1)
    application.wait_until_ready()
    application.order(crash="second")
    eventually(lambda: restarts(application.pod()) == 2)
    application.wait_until_ready()
    status = application.pod().status
    assert status is not None
    assert status.containerStatuses is not None
    last = status.containerStatuses[0].lastState
    assert last is not None
    assert last.terminated is not None
    assert last.terminated.exitCode == 1
    application.wait_until_served()
    assert restarts(application.pod()) == 2


def test_a_container_that_keeps_crashing_backs_off(make: Make) -> None:
    application = make(environment={"SANDBOX_CRASH_AFTER_SECONDS": "0.2"})
    eventually(lambda: [p for p in application.pods() if waiting_reason(p) == "CrashLoopBackOff"])
    eventually(lambda: restarts(application.pod()) >= 2)
    eventually(lambda: any("back-off 4s" in warning for warning in warnings(application.cluster, application.pod())))


def test_a_failing_liveness_probe_restarts_the_container(make: Make) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 2}
    application = make(liveness_probe=probe).wait_until_ready()
    application.order(refuse="true")
    eventually(lambda: restarts(application.pod()) == 1)


def test_an_image_whose_tag_ends_in_missing_is_never_pulled(make: Make) -> None:
    application = make(image="registry.example/app:1.0-missing")
    pod = eventually(lambda: [p for p in application.pods() if waiting_reason(p) == "ImagePullBackOff"])[0]
    assert not is_ready(pod)
    assert pod.status is not None
    assert pod.status.phase == "Pending"


def test_an_order_that_makes_no_sense_is_answered_with_an_event(make: Make) -> None:
    application = make(annotations={"sandbox/error-rate": "lots"}).wait_until_served()
    eventually(
        lambda: any(
            'sandbox/error-rate is "lots"; allowed is a number from 0 to 1' in warning
            for warning in warnings(application.cluster, application.pod())
        )
    )


def test_400_pods_run(make: Make) -> None:
    application = make(replicas=400, drain_seconds=0)
    eventually(application.rolled_out, seconds=90)


def component_process(sandbox: Sandbox, component: str) -> int:
    """Return the id on the host of a component's process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0].endswith(b"/" + component.encode()) and str(sandbox.state).encode() in b" ".join(command):
            return int(folder.name)
    return 0


def test_a_killed_api_server_comes_back_and_pods_answer_all_the_while(make: Make, sandbox: Sandbox) -> None:
    application = make().wait_until_served()
    killed = component_process(sandbox, "kube-apiserver")
    os.kill(killed, signal.SIGKILL)
    results = asyncio.run(
        load(application, lambda: component_process(sandbox, "kube-apiserver") not in (0, killed), 100)
    )
    assert results == {200: results.total()}

    def answers() -> bool:
        try:
            return bool(application.pods())
        except httpx2.HTTPError:
            return False

    eventually(answers)
    make(name="later").wait_until_served()


def test_logs_are_read_by_kubectl_and_outlive_a_crash(
    make: Make, sandbox: Sandbox, cluster: Client, namespace: str
) -> None:
    application = make(environment={"SANDBOX_ERROR_RATE": "1"}).wait_until_ready()
    kubectl = shutil.which("kubectl", path=sandbox.environment["PATH"])
    assert kubectl
    pod = name(application.pod())

    def logs(*options: str) -> list[str]:
        command = [kubectl, "--namespace", namespace, "logs", pod, *options]
        done = subprocess.run(command, env=dict(sandbox.environment), check=False, capture_output=True, text=True)
        return (done.stdout + done.stderr).splitlines()

    started = "registry.example/app:1.0 started; ports: 8080"
    eventually(lambda: application.get("/failing").status_code == httpx2.codes.INTERNAL_SERVER_ERROR)
    first, *errors = logs()
    assert first == started
    assert set(errors) == {"ERROR GET /failing: status 500, ordered by error-rate"}
    assert logs("--tail", "1") == [errors[-1]]
    assert "not found" in logs("--previous")[0]

    application.order(crash="1")
    eventually(lambda: restarts(application.pod()) == 1)
    assert logs("--previous") == [first, *errors, "crash ordered (1)"]
    assert eventually(logs)[0] == started
    cluster.delete(Pod, pod, namespace=namespace)
    assert logs("--follow")[-1] == "told to end: closing"
