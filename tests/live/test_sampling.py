"""A sample has what clients were answered since the step settled, and the state of the canary's pods."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from lightkube import Client

from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.settings import SourceName
from canary_service.rollout.prometheus import Prometheus
from canary_service.rollout.samples import Sample
from canary_service.rollout.sampling import Mark, Sampler
from canary_service.rollout.verdict import judge, total
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import GOOD_CANARY, NAME, PATHS, Scene

TO_CANARY = {"X-Canary": "true"}
TESTED = GOOD_CANARY | {"header": {"name": "X-Canary", "value": "true"}}
SOURCES: tuple[SourceName, ...] = ("application", "traefik")
SCRAPES_SECONDS = 60


@dataclass
class Looks:
    """Takes samples from one source and keeps them."""

    sampler: Sampler
    mark: Mark
    taken: list[Sample] = field(default_factory=list)

    @staticmethod
    def begin(scene: Scene, source: SourceName) -> "Looks":
        settings = scene.stack.settings()
        settings = settings.model_copy(update={"monitoring": settings.monitoring.model_copy(update={"source": source})})
        cluster = LiveCluster(scene.cluster, settings)
        sampler = Sampler(settings, scene.sandbox.prometheus_url, cluster.routes, cluster.workloads)
        return Looks(sampler, sampler.begin(NAME))

    def look(self) -> Sample:
        self.taken.append(self.sampler.sample(NAME, self.mark))
        return self.taken[-1]

    def begun(self) -> bool:
        """Look, and tell whether counting has begun."""
        self.look()
        return self.mark.at is not None

    def counted(self) -> dict[str, tuple[float, float]]:
        """Return requests and failures of each track, as of now."""
        self.look()
        stable, canary = (total(getattr(each, track) for each in self.taken) for track in ("stable", "canary"))
        return {"stable": (stable.requests, stable.failed), "canary": (canary.requests, canary.failed)}

    def aligned(self) -> tuple[float, float]:
        """Return the requests of stable and canary in the time that is known of both, as of now."""
        self.look()
        known = [each.aligned for each in self.taken if each.aligned]
        return sum(each.stable for each in known), sum(each.canary for each in known)


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    return Scene.create(sandbox, cluster, namespace, tmp_path)


@pytest.fixture
def http(scene: Scene) -> Iterator[httpx2.Client]:
    with httpx2.Client(
        trust_env=False, base_url=scene.sandbox.proxy_url, headers={"Host": f"{scene.namespace}.example"}
    ) as client:
        yield client


def sent(http: httpx2.Client, number: int, headers: Mapping[str, str]) -> Counter[tuple[str, int]]:
    answers = [http.get(PATHS[NAME], headers=headers) for _ in range(number)]
    return Counter((answer.headers["X-Version"], answer.status_code) for answer in answers)


def order(scene: Scene, annotation: str) -> None:
    for pod in scene.pods("canary"):
        scene.kubectl("annotate", "--overwrite", "pod", pod, f"sandbox/{annotation}")


def test_samples_count_what_was_answered_since_the_step_settled_and_nothing_else(
    scene: Scene, http: httpx2.Client
) -> None:
    scene.configure(weight=0, canary=TESTED)
    scene.up()
    scene.settle()
    eventually(lambda: sent(http, 1, TO_CANARY) == {("canary", 200): 1})
    sent(http, 40, {})
    with Prometheus(scene.sandbox.prometheus_url) as prometheus:
        scraped = f'count(up{{namespace="{scene.namespace}"}} == 1)'
        eventually(lambda: [one.value for one in prometheus.vector(scraped)] == [3], SCRAPES_SECONDS)

    looks = [Looks.begin(scene, source) for source in SOURCES]
    assert [each.look().problems for each in looks] == [{}, {}]
    for each in looks:
        eventually(lambda: each.look().canary, SCRAPES_SECONDS)  # noqa: B023 - used at once
    assert sent(http, 53, {}) == {("stable", 200): 53}
    assert sent(http, 17, TO_CANARY) == {("canary", 200): 17}
    order(scene, "error-rate=1")
    eventually(lambda: sent(http, 1, TO_CANARY) == {("canary", 500): 1})
    assert sent(http, 11, TO_CANARY) == {("canary", 500): 11}

    for each in looks:
        eventually(lambda: each.counted()["stable"] == (53, 0), SCRAPES_SECONDS)  # noqa: B023 - used at once
        eventually(lambda: each.counted()["canary"][1] == 12, SCRAPES_SECONDS)  # noqa: B023 - used at once
    requests, _ = looks[0].counted()["canary"]
    assert requests - 12 >= 17
    assert looks[1].counted()["canary"] == (requests, 12)
    # The pods' scrapes are apart, and of what came between their first ones a part counts as before their common time.
    eventually(lambda: min(looks[0].aligned()) > 0, SCRAPES_SECONDS)
    assert looks[1].aligned() == (53, requests)
    assert all(each.problems == {} for looked in looks for each in looked.taken)
    verdict = judge(looks[0].taken, scene.stack.settings().rollout.gates, complete=True)
    assert {each.gate: each.outcome for each in verdict.gates}["error-rate"] == "inconclusive"

    pods = looks[0].look().pods
    assert pods
    assert (pods.wanted, pods.ready, pods.restarts, pods.crashing) == (1, 1, 0, False)
    assert pods.memory_percent is not None
    order(scene, "memory-bytes=300e6")
    eventually(lambda: (found := looks[0].look().pods) and (found.memory_percent or 0) > 100)
    order(scene, "crash=once")
    eventually(lambda: (found := looks[0].look().pods) and found.restarts == 1)


def test_at_weight_100_the_canary_is_held_against_what_stable_answered_before(
    scene: Scene, http: httpx2.Client
) -> None:
    gates = {"minRequests": 30}
    for key, value in {"maxStep": 100, "stepSeconds": 60, "sampleSeconds": 1}.items():
        scene.stack.set(f"rollout.{key}", str(value))
    scene.stack.set("rollout.gates.minRequests", "30")
    scene.configure(weight=0, canary=TESTED)
    scene.up()
    scene.settle()
    assert sent(http, 40, {}) == {("stable", 200): 40}
    early = Looks.begin(scene, "traefik")
    eventually(lambda: (found := early.look().stable) is not None and found.requests == 0)
    scene.configure(weight=100)
    scene.up()
    scene.settle()

    looks = Looks.begin(scene, "traefik")
    eventually(looks.begun)
    assert sent(http, 300, {}) == {("canary", 200): 300}
    eventually(lambda: looks.counted()["canary"][0] == 300)
    newest = looks.look()
    assert newest.weight == 100
    assert newest.baseline
    assert newest.baseline.requests >= gates["minRequests"]
    found = {
        each.gate: each.outcome
        for each in judge(looks.taken, scene.stack.settings().rollout.gates, complete=True).gates
    }
    assert found["error-rate"] == found["latency"] == found["share"] == "pass"
