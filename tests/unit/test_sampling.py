"""A sample has what was counted since the one before; whatever cannot be asked is a problem and never an exception."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import canary_service.rollout.prometheus
from canary_service.cluster.errors import ClusterError
from canary_service.cluster.workloads import PodsSeen
from canary_service.config.loader import load
from canary_service.config.settings import Settings, SourceName
from canary_service.rollout.samples import AlignedSample, Sample
from canary_service.rollout.sampling import Sampler
from canary_service.routing.split import Backend, CanaryBackend, Match, Split, Track
from canary_service.workload.readiness import Readiness

SERVICE = {"path": "/", "port": 8080, "image": "app:1", "canary": {"image": "app:2"}}
BOUNDS = ("0.1", "1", "+Inf")
NOW = 1000.0


def settings(**gates: Any) -> Settings:  # noqa: ANN401 - values of any key
    rollout = {"gates": gates, "stepSeconds": 100, "sampleSeconds": 10}
    raw = {"namespace": "shop", "host": "shop.example", "services": json.dumps({"app": SERVICE})}
    return load(raw | {"rollout": json.dumps(rollout)})


@dataclass
class Counts:
    """What a pod has counted: requests by status, and how many of those were slow."""

    track: str
    by_status: dict[str, int] = field(default_factory=dict)
    slow: int = 0

    def answer(self, number: int, status: str = "200", slow: int = 0) -> None:
        self.by_status[status] = self.by_status.get(status, 0) + number
        self.slow += slow


class Server(ThreadingHTTPServer):
    """Plays a Prometheus that has just scraped `pods`, or answers as it is told; and the user's webhook."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.now = NOW
        self.scraped = NOW - 5
        self.pods: dict[str, Counts] = {}
        self.idle: dict[str, str] = {}
        self.values: dict[str, list[float | str]] = {}
        self.override: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.webhook = 200
        self.told: list[Any] = []
        self.asked: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        query, at = parameters["query"], float(parameters.get("time", self.now))
        self.asked.append(query)
        if query == "time()":
            return result("scalar", [self.now, str(self.now)])
        if path.endswith("query_range"):
            begin, end = float(parameters["start"]), float(parameters["end"])
            points = [[at, str(self.scraped if at >= self.scraped else 0)] for at in (begin, end)]
            return result("matrix", [{"metric": {}, "values": points}] if self.pods else [])
        if query.startswith("max by"):
            tracks = {pod: counts.track for pod, counts in self.pods.items()} | self.idle
            times = [{"metric": labels(pod, track), "value": [at, self.scraped]} for pod, track in tracks.items()]
            return result("vector", times)
        if query in self.values:
            return result(
                "vector", [{"metric": {"n": str(n)}, "value": [at, v]} for n, v in enumerate(self.values[query])]
            )
        for resource in ("memory", "cpu"):
            if f"container_{resource}" in query:
                values = enumerate(self.values.get(resource, []))
                return result("vector", [{"metric": {"pod": f"app-canary-{n}"}, "value": [at, v]} for n, v in values])
        return result(
            "vector", [series for pod, counts in self.pods.items() for series in self.series(query, pod, counts, at)]
        )

    def series(self, query: str, pod: str, counts: Counts, at: float) -> Iterator[dict[str, Any]]:
        answered, failed = sum(counts.by_status.values()), counts.by_status.get("500")
        if "_bucket" in query:
            for bound, count in zip(BOUNDS, (answered - counts.slow, answered, answered), strict=True):
                yield {"metric": labels(pod, counts.track) | {"le": bound}, "value": [at, str(count)]}
        elif '"5.."' not in query:
            yield {"metric": labels(pod, counts.track), "value": [at, str(answered)]}
        elif failed is not None:
            yield {"metric": labels(pod, counts.track), "value": [at, str(failed)]}


def labels(pod: str, track: str) -> dict[str, str]:
    return {"version": track, "pod": pod, "instance": f"{pod}:8080"}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.override:
            self.server.override(self)
            return
        url = urlsplit(self.path)
        parameters = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.give(json.dumps(self.server.answer(url.path, parameters)).encode())

    def do_POST(self) -> None:
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.give(b"", self.server.webhook)

    def give(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def result(kind: str, found: object) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": found}}


class FakeCluster:
    """Has a canary at `weight` with one ready pod; raises `error` when there is one."""

    def __init__(self) -> None:
        self.weight = 20
        self.restarts = {"app-canary-0": 4}
        self.limits: dict[str, str] = {"memory": "100Mi"}
        self.error: Exception | None = None
        self.ready = 1

    def split(self, name: str) -> Split:
        if self.error:
            raise self.error
        canary = CanaryBackend(Backend(f"{name}-canary", 80), self.weight)
        return Split(name, "shop", Match("shop.example", "/", "Prefix"), Backend(name, 80), canary)

    def pods_of(self, name: str, track: Track) -> PodsSeen:
        assert (name, track in Track) == ("app", True)
        if self.error:
            raise self.error
        pods = [
            {
                "metadata": {"name": pod, "uid": pod},
                "spec": {"containers": [{"resources": {"limits": self.limits}}]},
                "status": {"containerStatuses": [{"restartCount": count}]},
            }
            for pod, count in self.restarts.items()
        ]
        return PodsSeen(Readiness(self.ready, self.ready, rolled_out=True), pods)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@dataclass
class Watch:
    """Looks at what `server` plays, each time after a scrape."""

    server: Server
    cluster: FakeCluster
    sampler: Sampler

    def __post_init__(self) -> None:
        self.mark = self.sampler.begin("app")

    def look(self) -> Sample:
        self.server.now += 10
        self.server.scraped = self.server.now - 1
        return self.sampler.sample("app", self.mark)


@pytest.fixture
def watch(server: Server, cluster: FakeCluster) -> Iterator[Watch]:
    server.pods = {"s-0": Counts("stable"), "c-0": Counts("canary")}
    server.pods["s-0"].answer(1000)
    server.pods["c-0"].answer(200, "500")
    server.values["memory"] = [2**20 * 25]
    sampler = Sampler(settings(), server.url, cluster, cluster)
    yield Watch(server, cluster, sampler)
    sampler.close()


def counted(sample: Sample) -> tuple[float, float, float, float] | None:
    stable, canary = sample.stable, sample.canary
    return (stable.requests, stable.failed, canary.requests, canary.failed) if stable and canary else None


class TestCounts:
    def test_what_was_counted_before_the_step_settled_does_not_count(self, watch: Watch) -> None:
        first = watch.look()
        watch.server.pods["s-0"].answer(80)
        watch.server.pods["c-0"].answer(20)

        assert first.problems == {}
        assert counted(first) == (0, 0, 0, 0)
        assert counted(watch.look()) == (80, 0, 20, 0)
        assert counted(watch.look()) == (0, 0, 0, 0)

    def test_until_all_targets_were_scraped_there_is_no_data_and_no_problem(self, watch: Watch) -> None:
        sample = watch.sampler.sample("app", watch.mark)

        assert (sample.stable, sample.canary, sample.problems) == (None, None, {})

    def test_a_series_that_begins_with_a_failure_counts_it(self, watch: Watch) -> None:
        watch.look()
        watch.server.pods["s-0"].answer(3, "500")

        assert counted(watch.look()) == (3, 3, 0, 0)

    def test_a_pod_that_starts_again_counts_from_0_and_others_go_on(self, watch: Watch) -> None:
        watch.server.pods["c-1"] = Counts("canary", {"200": 50})
        watch.look()
        watch.server.pods["c-0"] = Counts("canary", {"200": 30})
        watch.server.pods["c-1"].answer(5)

        assert counted(watch.look()) == (0, 0, 35, 0)

    def test_a_pod_that_is_found_later_counts_from_then_on(self, watch: Watch) -> None:
        watch.look()
        watch.server.pods["c-1"] = Counts("canary", {"200": 500})
        assert counted(watch.look()) == (0, 0, 0, 0)
        watch.server.pods["c-1"].answer(7)

        assert counted(watch.look()) == (0, 0, 7, 0)

    def test_a_pod_that_could_not_be_scraped_for_a_while_goes_on_where_it_was(self, watch: Watch) -> None:
        watch.look()
        away = watch.server.pods.pop("c-0")
        assert watch.look().canary is None
        away.answer(9)
        watch.server.pods["c-0"] = away

        assert counted(watch.look()) == (0, 0, 9, 0)

    def test_while_the_server_is_away_nothing_is_lost_and_nothing_counted_twice(self, watch: Watch) -> None:
        watch.look()
        watch.server.override = lambda handler: handler.send_error(503)
        watch.server.pods["c-0"].answer(11)
        assert watch.look().problems["requests"] == f"Prometheus {watch.server.url}: it answered 503"
        watch.server.override = None
        watch.server.pods["c-0"].answer(4)

        back = watch.look()
        assert (counted(back), back.counted_seconds) == ((0, 0, 15, 0), 20)

    def test_a_step_that_begins_while_the_server_is_away_counts_from_its_return(self, watch: Watch) -> None:
        watch.server.override = lambda handler: handler.send_error(503)
        watch.mark = watch.sampler.begin("app")
        assert "requests" in watch.look().problems
        watch.server.override = None
        watch.server.pods["c-0"].answer(11)
        assert watch.look().canary is None  # not scraped since
        assert counted(watch.look()) == (0, 0, 0, 0)
        watch.server.pods["c-0"].answer(4)

        assert counted(watch.look()) == (0, 0, 4, 0)

    def test_both_tracks_are_counted_over_one_time(self, watch: Watch) -> None:
        assert watch.look().aligned == AlignedSample(stable=0, canary=0)
        watch.server.pods["s-0"].answer(80)
        watch.server.pods["c-0"].answer(20)

        assert watch.look().aligned == AlignedSample(stable=80, canary=20)

    def test_a_share_is_not_told_before_each_ready_pod_was_scraped(self, watch: Watch) -> None:
        watch.cluster.ready = 2
        watch.look()
        watch.server.pods["s-0"].answer(80)
        assert watch.look().aligned is None
        watch.server.pods |= {"s-1": Counts("stable"), "c-1": Counts("canary")}
        watch.look()
        for pod in watch.server.pods.values():
            pod.answer(10)

        assert watch.look().aligned == AlignedSample(stable=20, canary=20)

    def test_a_pod_that_was_scraped_before_its_first_request_counts_it(self, watch: Watch) -> None:
        watch.server.idle = {"c-1": "canary"}
        watch.look()
        watch.server.pods["c-1"] = Counts("canary", {"500": 3})

        assert counted(watch.look()) == (0, 0, 3, 3)

    def test_durations_are_a_histogram_with_its_percentile(self, watch: Watch) -> None:
        watch.look()
        watch.server.pods["c-0"].answer(100, slow=10)

        canary = watch.look().canary
        assert canary
        assert (canary.timed, canary.buckets) == (100, ((0.1, 90), (1.0, 100)))
        assert canary.p95_seconds == pytest.approx(0.55)

    def test_at_weight_100_stables_last_requests_are_the_baseline(self, watch: Watch) -> None:
        watch.cluster.weight = 100
        past = dict(watch.server.pods)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            assert isinstance(handler, Handler)
            url = urlsplit(handler.path)
            parameters = {key: values[0] for key, values in parse_qs(url.query).items()}
            early = float(parameters.get("time", watch.server.now)) < NOW - 150
            watch.server.pods = {"s-0": Counts("stable", {"200": 10})} if early else past
            handler.give(json.dumps(watch.server.answer(url.path, parameters)).encode())

        past["s-1"] = Counts("stable", {"200": 7})
        watch.server.override = answer
        sample = watch.look()

        assert sample.baseline
        assert sample.baseline.requests == 997


BROKEN: dict[str, bytes] = {
    "html": b"<html>no Prometheus here</html>",
    "nothing": b"",
    "a list": b"[]",
    "an empty object": b"{}",
    "no data": b'{"status":"success","data":null}',
    "an error": b'{"status":"error","errorType":"timeout","error":"expanding series"}',
    "a string": json.dumps(result("string", [1, "x"])).encode(),
    "values that are no numbers": json.dumps(result("vector", [{"metric": {}, "value": [1, "many"]}])).encode(),
    "labels that are none": json.dumps(result("vector", [{"metric": [1], "value": [1, "1"]}])).encode(),
    "too deep": b"[" * 100_000,
    "bytes": bytes(range(256)),
}


class TestNotAnswered:
    @pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
    def test_garbage_is_a_problem_and_the_rest_is_known(self, watch: Watch, body: bytes) -> None:
        watch.look()
        watch.server.override = lambda handler: handler.give(body) if isinstance(handler, Handler) else None

        sample = watch.look()

        assert sample.problems.keys() == {"requests", "memory"}
        assert all(text.startswith(f"Prometheus {watch.server.url}: ") for text in sample.problems.values())
        assert sample.canary is None
        assert sample.pods
        assert sample.pods.ready == 1
        watch.server.override = None
        assert watch.look().problems == {}

    @pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
    def test_what_is_no_number_is_not_known(self, watch: Watch, value: str) -> None:
        watch.look()
        watch.server.values["memory"] = [value]

        sample = watch.look()

        assert sample.problems == {}
        assert sample.pods
        assert sample.pods.memory_percent is None

    def test_an_answer_without_series_is_no_data_and_no_problem(self, watch: Watch) -> None:
        watch.look()
        watch.server.pods = {}

        sample = watch.look()

        assert (sample.stable, sample.canary, sample.problems) == (None, None, {})

    @pytest.mark.parametrize("drips", [False, True])
    def test_a_slow_answer_is_a_problem_after_the_timeout(
        self,
        watch: Watch,
        drips: bool,  # noqa: FBT001 - a parameter
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(canary_service.rollout.prometheus, "TIMEOUT_SECONDS", 0.2)
        slow = Watch(watch.server, watch.cluster, Sampler(settings(), watch.server.url, watch.cluster, watch.cluster))

        asked: list[str] = []

        def answer(handler: BaseHTTPRequestHandler) -> None:
            asked.append(handler.path)
            if drips:
                handler.send_response(200)
                handler.end_headers()
            while not watch.server.over.wait(0.05) and drips:
                try:
                    handler.wfile.write(b" ")
                except OSError:
                    return
            watch.server.over.wait(2)

        watch.server.override = answer
        sample = slow.look()

        assert "answer within" in sample.problems["requests"]
        assert sample.problems["memory"] == sample.problems["requests"]
        assert len(asked) == 1  # the rest was not waited for again

    def test_a_server_that_is_not_there_is_a_problem(self, cluster: FakeCluster) -> None:
        for url in ("http://127.0.0.1:1", "http://[x", "http://me:s3cret@127.0.0.1:1/"):
            sampler = Sampler(settings(), url, cluster, cluster)
            sample = sampler.sample("app", sampler.begin("app"))
            assert sample.problems.keys() == {"requests", "memory"}
            assert "s3cret" not in str(sample.problems)
            assert sample.problems["requests"].startswith("Prometheus http://")

    def test_a_server_that_does_not_answer_is_told_before_a_run(self, server: Server, cluster: FakeCluster) -> None:
        (told,) = Sampler(settings(), "http://me:s3cret@127.0.0.1:1/", cluster, cluster).obstacles()

        assert told.startswith("Prometheus http://127.0.0.1:1/: ConnectError: ")
        assert "canaries are held" in told
        assert Sampler(settings(), server.url, cluster, cluster).obstacles() == []

    def test_steps_that_are_hardly_longer_than_the_time_between_scrapes_are_told_before_a_run(
        self, server: Server, cluster: FakeCluster
    ) -> None:
        def told(seconds: int, source: SourceName = "application") -> list[str]:
            made = settings()
            rollout = made.rollout.model_copy(update={"step_seconds": seconds})
            monitoring = made.monitoring.model_copy(update={"source": source})
            made = made.model_copy(update={"rollout": rollout, "monitoring": monitoring})
            return Sampler(made, server.url, cluster, cluster).obstacles()

        assert told(60) == told(20, "traefik") == []
        (text,) = told(20)
        assert "rollout.stepSeconds is 20, and pods are scraped every 15 s" in text
        assert "Set it to 60 or more" in text

    def test_without_a_server_in_the_configuration_its_key_is_named(self, cluster: FakeCluster) -> None:
        sampler = Sampler(settings(), None, cluster, cluster)

        sample = sampler.sample("app", sampler.begin("app"))

        assert sample.problems["requests"] == "rollout.prometheusUrl is not set"
        assert sample.weight == 20

    def test_a_cluster_that_cannot_be_asked_is_a_problem(self, watch: Watch) -> None:
        watch.cluster.error = ClusterError("the API server is away")

        sample = watch.look()

        assert sample.problems == {"weight": "the API server is away", "pods": "the API server is away"}
        assert (sample.weight, sample.pods) == (None, None)
        assert sample.canary


class TestPods:
    def test_restarts_count_since_the_step_began(self, watch: Watch) -> None:
        watch.cluster.restarts = {"app-canary-0": 5, "app-canary-1": 2}

        pods = watch.look().pods

        assert pods
        assert pods.restarts == 3

    def test_the_pod_that_uses_most_of_its_limit_is_told(self, watch: Watch) -> None:
        watch.cluster.restarts = {"app-canary-0": 0, "app-canary-1": 0}
        watch.server.values["memory"] = [2**20 * 25, 2**20 * 75]

        pods = watch.look().pods

        assert pods
        assert (pods.limited, pods.memory_percent, pods.cpu_percent) == (("memory",), 75, None)

    @pytest.mark.parametrize("limits", [{}, {"cpu": "1"}, {"memory": "1E"}])
    def test_without_a_limit_nothing_is_compared(self, watch: Watch, limits: dict[str, str]) -> None:
        watch.cluster.limits = limits
        sample = watch.look()

        assert sample.problems == {}
        assert sample.pods
        assert "memory" not in sample.pods.limited
        assert sample.pods.memory_percent is None


class TestUsersGates:
    QUERY = "logins{namespace='$namespace',app='$service'}"

    @pytest.mark.parametrize(
        ("values", "expected", "problems"),
        [(["3.5"], 3.5, set()), ([], None, set()), (["NaN"], None, set()), (["1", "2"], None, {"query logins"})],
    )
    def test_a_query_gives_one_value(
        self,
        server: Server,
        cluster: FakeCluster,
        values: list[float | str],
        expected: float | None,
        problems: set[str],
    ) -> None:
        server.values["logins{namespace='shop',app='app'}"] = values
        found = settings(queries={"logins": {"query": self.QUERY, "max": 5}})
        sampler = Sampler(found, server.url, cluster, cluster)

        sample = sampler.sample("app", sampler.begin("app"))

        assert sample.values == {"logins": expected}
        assert sample.problems.keys() == problems

    @pytest.mark.parametrize(
        ("status", "decision"),
        [(200, True), (202, None), (409, False), (404, "it answered 404"), (302, "it answered 302")],
    )
    def test_the_webhook_decides_by_its_status(
        self,
        server: Server,
        cluster: FakeCluster,
        status: int,
        decision: bool | str | None,  # noqa: FBT001 - its answer
    ) -> None:
        server.webhook = status
        sampler = Sampler(settings(webhookUrl=f"{server.url}/gate?token=s3cret"), server.url, cluster, cluster)

        sample = sampler.sample("app", sampler.begin("app"))

        if isinstance(decision, str):
            assert sample.problems["webhook"].startswith(decision)
        else:
            assert (sample.webhook, sample.problems) == (decision, {})
        assert server.told == [{"namespace": "shop", "service": "app", "weight": 20}]

    def test_a_webhook_that_is_not_there_holds_and_shows_no_token(self, server: Server, cluster: FakeCluster) -> None:
        sampler = Sampler(settings(webhookUrl="http://127.0.0.1:1/s3cret"), server.url, cluster, cluster)

        sample = sampler.sample("app", sampler.begin("app"))

        assert sample.webhook is None
        assert sample.problems == {"webhook": "no answer: ConnectError"}


def test_a_sample_is_a_line_of_a_journal_and_back(watch: Watch) -> None:
    watch.look()
    watch.server.pods["c-0"].answer(100, slow=10)
    sample = watch.look()

    assert Sample.model_validate_json(sample.model_dump_json(by_alias=True)) == sample
