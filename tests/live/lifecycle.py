"""Stack dev under traffic that goes on through everything that is done to it, and why a request failed."""

import json
import re
import shutil
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Service
from lightkube.resources.networking_v1 import Ingress

from canary_service.workload.labels import object_name
from demo.measurement import Cluster, check_share, measure, settle
from demo.stack import StackCopy
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Failure, Traffic
from tests.live.application import eventually

SERVICES = {
    "auth-service": "/api/auth",
    "meal-planner-service": "/api/meals",
    "nutrition-ai-service": "/api/nutrition",
}
VICTIM = "auth-service"
"""The service that crashes and misfortunes happen to."""
HOST = "macromind.local"
NAMESPACE = "macromind"

RATE = 240.0
SENDERS = 8
REQUESTS_PER_SHARE = 200

_SCRAPE_SECONDS = 0.25
_SHOWN_FAILURES = 50
_TRIES = re.compile(r'^traefik_service_requests_total\{code="(5\d\d)".*service="([^"]+)@\w+"\} (\S+)$', re.MULTILINE)
SCRAPE_SECONDS = 1.0
"""So often the sandbox's Prometheus asks the proxy."""

_SCRAPED_TRIES = 'last_over_time(traefik_service_requests_total{code=~"5.."}[3s])'
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class FailedTries:
    """Requests that the proxy could not get answered by the pod it chose; most are answered by its next try.

    `since` and `until` are seconds since the epoch.
    """

    service: str
    status: str
    count: int
    since: float
    until: float


class Tries:
    """Reads from the proxy's metrics, as long as it is open, how many tries of requests failed.

    Traefik gives the numbers of a service that it has forgotten once more and then no longer, whoever asks
    (`prometheusState.Collect` in its source). The sandbox's Prometheus asks too, so what it was given counts as well.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._url = f"{sandbox.proxy_admin_url}/metrics"
        self._scraped_url = f"{sandbox.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': _SCRAPED_TRIES})}"
        self.failed: list[FailedTries] = []
        self._before: dict[tuple[str, str], int] = {}
        self._since = 0.0
        self._reading = threading.Lock()
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tries")
        self._done: Future[None] = Future()

    def __enter__(self) -> Self:
        self._before, self._since = self._counters(), time.time()
        self._done = self._executor.submit(self._keep_reading)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._done.result()  # raises what ended the reading early, so that nothing was overlooked
        self.read()

    def read(self) -> None:
        """Count the tries that failed since the last time."""
        with self._reading:
            now, until = self._counters(), time.time()
            for (status, service), count in now.items():
                known = self._before.get((status, service), 0)
                new = count - known if count >= known else count  # one that was forgotten begins at 0 again
                if new:
                    self.failed.append(FailedTries(service, status, new, self._since, until))
            self._before, self._since = now, until

    def _keep_reading(self) -> None:
        while not self._stop.wait(_SCRAPE_SECONDS):
            self.read()

    def _counters(self) -> dict[tuple[str, str], int]:
        with _direct.open(self._url, timeout=10) as response:
            found = _TRIES.findall(response.read().decode())
        counters = {(status, service): int(float(count)) for status, service, count in found}
        with _direct.open(self._scraped_url, timeout=10) as response:
            scraped = json.loads(response.read())["data"]["result"]
        for series in scraped:
            key = series["metric"]["code"], series["metric"]["service"].rpartition("@")[0]
            counters[key] = max(counters.get(key, 0), int(float(series["value"][1])))
        return counters


def _answers(url: str) -> bool:
    """Tell whether the proxy knows a route for this URL of the host, whatever comes back."""
    try:
        with _direct.open(urllib.request.Request(url, headers={"Host": HOST}), timeout=10):  # noqa: S310 - the sandbox's own
            return True
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.NOT_FOUND


@dataclass
class Life:
    """The stack, what it runs in, its traffic, and what is done to it.

    `steps` are texts with the times (seconds since the epoch) when they began.
    """

    sandbox: Sandbox
    stack: StackCopy
    observed: Cluster
    traffic: Traffic
    tries: Tries
    steps: list[tuple[float, str]] = field(default_factory=list)

    @staticmethod
    @contextmanager
    def of(sandbox: Sandbox, folder: Path, configuration: Mapping[str, str]) -> Iterator["Life"]:
        """Begin the traffic to a stack that is not deployed yet; destroy the stack afterwards."""
        stack = StackCopy.create(folder / "project", "dev", sandbox.environment)
        for key, value in configuration.items():
            stack.set(key, value)
        observed = Cluster.of(sandbox)
        # What another test has destroyed goes with the garbage collector, and the proxy routes by it until then.
        eventually(lambda: not any(_answers(f"{sandbox.proxy_url}{path}") for path in SERVICES.values()))
        traffic = Traffic(sandbox.proxy_url, HOST, SERVICES, RATE, SENDERS)
        try:
            with Tries(sandbox) as tries, traffic:
                yield Life(sandbox, stack, observed, traffic, tries)
        finally:
            stack.run("destroy", "--yes", "--skip-preview")

    @property
    def requests(self) -> int:
        """How many have been sent."""
        return sum(tally.requests for tally in self.traffic.total.values())

    def note(self, text: str) -> None:
        """Begin a step."""
        self.steps.append((time.time(), text))
        print(f"{time.strftime('%X')} {self.requests:7} requests, {len(self.traffic.failures)} failed; {text}")  # noqa: T201 - for `pytest -s`: the run takes minutes

    def up(self, what: str) -> None:
        """Update, wait until the proxy routes by it, and hold the shares against what is declared."""
        self.note(what)
        self.note(f"{what}: updated in {self.stack.up():.1f} s")
        self.settled()

    def settled(self) -> None:
        """Wait until the proxy routes by what is declared, and hold the shares against it."""
        settings = self.stack.settings()
        for service in SERVICES:
            settle(self.observed, settings, service)
        self.tries.read()
        for service, tally in measure(self.observed, self.traffic, REQUESTS_PER_SHARE).items():
            # Many senders at once: their answers do not come back in the order of the proxy's round.
            check_share(service, settings.split_of(service).weight, tally, drawn=True)

    def shift(self, weight: int) -> None:
        """Take all canaries to a weight (percent)."""
        self.stack.set("canaryWeight", str(weight))
        self.up(f"canaryWeight {weight}")

    def declare_canaries(self, version: str, weight: int) -> None:
        """Give each service a new canary at once at this weight (percent)."""
        for service in SERVICES:
            self.stack.set(f"services.{service}.canary.image", f"macromind/{service}:{version}")
        self.shift(weight)

    def declare_promotion(self) -> None:
        """Let stable run the canary's image, without a canary."""
        for service, declared in self.stack.settings().services.items():
            assert declared.canary
            self.stack.set(f"services.{service}.image", declared.canary.image)
            self.stack.remove(f"services.{service}.canary")

    def declare_abort(self) -> None:
        """Declare no canaries any more."""
        for service in SERVICES:
            self.stack.remove(f"services.{service}.canary")

    def abort(self) -> None:
        """Remove all canaries."""
        self.declare_abort()
        self.up("abort: remove the canaries")

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the stack's namespace and return what it printed."""
        path = shutil.which("kubectl", path=self.sandbox.environment["PATH"])
        assert path
        command = [path, "--namespace", NAMESPACE, *arguments]
        return subprocess.run(
            command, env=dict(self.sandbox.environment), capture_output=True, text=True, check=True
        ).stdout

    def objects(self, kind: Any, **labels: str) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - a class of lightkube
        """Return the stack's objects of a kind, by name."""
        found = (each.to_dict() for each in self.observed.client.list(kind, namespace=NAMESPACE, labels=dict(labels)))
        return {each["metadata"]["name"]: each for each in found}

    def assert_as_declared(self) -> None:
        """Hold the cluster against the configuration, and the engine's state against both."""
        settings = self.stack.settings()
        declared = {
            object_name(service, track): (settings.image_of(service, track), settings.replicas_of(service, track))
            for service in SERVICES
            for track in settings.tracks_of(service)
        }
        found = {name: each["spec"] for name, each in self.objects(Deployment).items()}
        pods = {name: spec["template"]["spec"]["containers"][0] for name, spec in found.items()}
        assert {name: (pods[name]["image"], spec["replicas"]) for name, spec in found.items()} == declared
        assert self.objects(Service).keys() == self.objects(Ingress).keys() == declared.keys()
        self.settled()
        assert self.stack.preview()["changeSummary"].keys() == {"same"}

    def summary(self) -> str:
        """Tell in one line what was sent and what became of it."""
        seconds = [second for tally in self.traffic.total.values() for second in tally.seconds]
        quantiles = statistics.quantiles(seconds, n=100)
        tries = sum(tries.count for tries in self.tries.failed)
        return (
            f"{self.requests:,} requests in {time.time() - self.steps[0][0]:.0f} s, {len(self.traffic.failures)} "
            f"failed, p50 {1000 * quantiles[49]:.1f} ms, p99 {1000 * quantiles[98]:.0f} ms; "
            f"{tries} tries of the proxy failed"
        )

    def explained(self, failures: list[Failure]) -> str:
        """Tell what failed during which step."""
        count = Counter((self._step_at(failure.ended)[1], failure.reason) for failure in failures)
        lines = [f"{number} x {reason} in step: {step}" for (step, reason), number in count.items()]
        for failure in failures[:_SHOWN_FAILURES]:
            began, step = self._step_at(failure.ended)
            kind = "fresh" if failure.fresh else "kept"
            lines.append(
                f"{failure.ended:.3f} {failure.service} ({kind} connection, {failure.ended - failure.sent:.3f} s): "
                f"{failure.reason}; {failure.ended - began:.2f} s into: {step}"
            )
        return "\n".join(lines)

    def _step_at(self, moment: float) -> tuple[float, str]:
        begun = [step for step in self.steps if step[0] <= moment]
        return begun[-1] if begun else (moment, "before the first step")
