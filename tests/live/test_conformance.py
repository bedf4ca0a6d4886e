"""One suite for all routers that the sandbox's proxies serve, with real traffic.

What it finds is written to build/conformance.json, of which `python -m tests.conformance` makes the table in
docs/routers.md.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import httpx2
import pytest
from lightkube import Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace
from prometheus_client.parser import text_string_to_metric_families

from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Router
from canary_service.routing.split import Backend, CanaryBackend, Entry, Header, Match, SessionAffinity, Split
from demo.measurement import drawn_bounds, round_robin_bounds, wait_for
from sandbox import envoy_routes
from sandbox.lifecycle import Sandbox
from sandbox.routes_in_force import canary_weight, mirrored_percent, reloads
from sandbox.traffic import Traffic
from tests.conformance import Results
from tests.live.application import Application, eventually
from tests.live.routes import replaced


@dataclass(frozen=True)
class Served:
    """A router, what its objects are attached to, and who serves them: Traefik, or Envoy."""

    router: str
    entry: Entry
    by_envoy: bool = False


ENVOY = "gateway on Envoy Gateway"
SERVED = {
    "nginx": Served("nginx", Entry("nginx")),
    "gateway": Served("gateway", Entry("gateway", "default")),
    ENVOY: Served("gateway", Entry("envoy", "default"), by_envoy=True),
    "traefik": Served("traefik", Entry("web")),
}
NAMES = ("app", "app-canary", "other", "other-canary")
HEADER = Header("X-Canary", "true")
ASKED = {HEADER.name: HEADER.value}
COOKIE = "early"
WEIGHTS = (0, 1, 20, 50, 99, 100)
REQUESTS = 200
RATE = 100.0

_http = httpx2.Client(trust_env=False, timeout=30)


@dataclass(frozen=True)
class Routed:
    """Two services with two versions each in a namespace, and what routes to them."""

    column: str
    sandbox: Sandbox
    cluster: Client
    applications: dict[str, Application]

    @property
    def served(self) -> Served:
        return SERVED[self.column]

    @property
    def router(self) -> Router:
        return ROUTERS[self.served.router]

    @property
    def url(self) -> str:
        return self.sandbox.envoy_url if self.served.by_envoy else self.sandbox.proxy_url

    @property
    def namespace(self) -> str:
        return self.applications["app"].namespace

    @property
    def host(self) -> str:
        return f"{self.namespace}.example"

    def split(self, weight: int, name: str = "app", path: str = "/api") -> Split:
        canary = CanaryBackend(Backend(f"{name}-canary", 80), weight)
        match, entries = Match(self.host, path), (self.served.entry,)
        # The Ingresses of the applications have their names.
        return Split(f"{name}-route", self.namespace, match, Backend(name, 80), canary, entries)

    def route(self, split: Split) -> None:
        """Write a route and wait until the proxy obeys it."""
        asked = split.canary and (split.canary.header or split.canary.cookie)
        before = self._reloads()
        manifests = [route.manifest for route in self.router.render(split)]
        replaced(self.cluster, self.router, self.namespace, manifests)
        eventually(lambda: self._in_force(split.name) == (split.weight, split.mirror))
        if asked:
            eventually(lambda: self._reloads() > before)
        if self.served.by_envoy and not split.affinity:
            eventually(partial(self._shared, split))

    def _shared(self, split: Split) -> bool:
        """Tell whether Envoy's workers have the weight: they get one that is changed again within a second later."""
        least, most = round_robin_bounds(100, split.weight)
        return least <= self.answers(100, split.match.path)[f"{split.stable.service} canary"] <= most

    def _reloads(self) -> int:
        if self.served.by_envoy:
            return envoy_routes.reloads(self.sandbox.envoy_admin_url)
        return reloads(self.sandbox.proxy_admin_url)

    def _in_force(self, name: str) -> tuple[int | None, int]:
        if self.served.by_envoy:
            place = self.sandbox.envoy_admin_url, self.namespace, name
            return envoy_routes.canary_weight(*place), envoy_routes.mirrored_percent(*place)
        own = self.sandbox.proxy_admin_url, self.namespace, name, self.router.name
        return canary_weight(*own), mirrored_percent(*own)

    def mirrored(self, percent: int) -> Split:
        split = self.split(0)
        assert split.canary
        return replace(split, canary=replace(split.canary, mirror=percent))

    def counted(self) -> float:
        """Return how many requests the canary's pod has answered."""
        text = self.applications["app-canary"].get("/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "http_requests_total"
        )

    def answers(self, requests: int = 20, path: str = "/api", headers: Mapping[str, str] | None = None) -> Counter[str]:
        """Return who answered so many requests: service and version, or the status of what is no answer."""
        found: Counter[str] = Counter()
        for _ in range(requests):
            _http.cookies.clear()
            got = _http.get(self.url + path, headers={"Host": self.host, **(headers or {})})
            good = got.status_code == httpx2.codes.OK
            found[f"{got.headers['X-Service']} {got.headers['X-Version']}" if good else str(got.status_code)] += 1
        return found

    @contextmanager
    def without_pods(self, name: str) -> Iterator[None]:
        """Take away all pods of a Deployment for a while."""
        application = self.applications[name]

        def scaled(replicas: int) -> None:
            self.cluster.patch(Deployment, name, {"spec": {"replicas": replicas}}, namespace=self.namespace)

        scaled(0)
        eventually(lambda: not application.pods())
        try:
            yield
        finally:
            scaled(1)
            application.wait_until_ready()


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    found = Results(SERVED)
    yield found
    found.write()


@pytest.fixture(scope="module", params=SERVED)
def routed(request: pytest.FixtureRequest) -> Iterator[Routed]:
    sandbox: Sandbox = request.getfixturevalue("envoy_sandbox" if SERVED[request.param].by_envoy else "sandbox")
    cluster = Client(KubeConfig.from_file(sandbox.kubeconfig), trust_env=False)
    name = f"conformance-{request.param.split()[-1].lower()}"
    cluster.create(Namespace(metadata=ObjectMeta(name=name)))
    applications = {
        each: Application(
            cluster, name, sandbox.proxy_url, each, "canary" if each.endswith("-canary") else "stable"
        ).create()
        for each in NAMES
    }
    for application in applications.values():
        application.wait_until_served()
    yield Routed(request.param, sandbox, cluster, applications)
    cluster.delete(Namespace, name)


def told(answers: Counter[str]) -> str:
    """Return in words how requests were answered."""
    failed = {status: count for status, count in answers.items() if status.isdigit()}
    if not failed:
        return "all answered"
    ((status, count),) = failed.items()
    return f"all fail ({status})" if count == answers.total() else f"{100 * count // answers.total()} % fail ({status})"


# The header of a short path makes Traefik's rule for it longer than that of a long path, and so goes over it; in
# ingress-nginx the path decides first.
OVER_PATHS = {"nginx": "header of `/` goes over `/api`"}


def test_the_share_is_the_weight(routed: Routed, results: Results) -> None:
    for weight in WEIGHTS:
        routed.route(routed.split(weight))

        answers = routed.answers(REQUESTS)

        least, most = round_robin_bounds(REQUESTS, weight)
        assert set(answers) <= {"app stable", "app canary"}
        assert least <= answers["app canary"] <= most, weight
    results.add(routed.column, "weights " + ", ".join(map(str, WEIGHTS)), "exact")


@pytest.mark.parametrize("weight", [0, 20])
def test_the_header_decides_for_the_canary_at_any_weight(routed: Routed, results: Results, weight: int) -> None:
    split = routed.split(weight)
    assert split.canary
    routed.route(replace(split, canary=replace(split.canary, header=HEADER)))

    eventually(lambda: routed.answers(1, headers=ASKED) == {"app canary": 1})
    assert routed.answers(headers=ASKED) == {"app canary": 20}
    least, most = round_robin_bounds(20, weight)
    for headers in ({}, {HEADER.name: "false"}):
        assert least <= routed.answers(headers=headers)["app canary"] <= most
    if weight == 0:
        results.add(routed.column, "weight 0, with the header", "canary")
        results.add(routed.column, "weight 0, header with another value", "stable")


def test_a_cookie_decides_for_either_track_at_any_weight(routed: Routed, results: Results) -> None:
    for weight in (0, 100):
        split = routed.split(weight)
        assert split.canary
        routed.route(replace(split, canary=replace(split.canary, cookie=COOKIE)))
        for value, track in (("always", "canary"), ("never", "stable")):
            for sent in (f"{COOKIE}={value}", f"a=1; {COOKIE}={value}; b=2"):
                ask = partial(routed.answers, 1, headers={"Cookie": sent})
                eventually(partial(_answered_by, ask, f"app {track}"))
                assert routed.answers(headers={"Cookie": sent}) == {f"app {track}": 20}
        rest = "canary" if weight else "stable"
        assert routed.answers(headers={"Cookie": f"{COOKIE}=perhaps"}) == {f"app {rest}": 20}
    results.add(routed.column, "weight 0, cookie `always`", "canary")
    results.add(routed.column, "weight 100, cookie `never`", "stable")


def _answered_by(ask: Callable[[], Counter[str]], who: str) -> bool:
    return set(ask()) == {who}


def test_a_client_with_the_session_cookie_stays_where_it_was(routed: Routed, results: Results) -> None:
    routed.route(replace(routed.split(50), affinity=SessionAffinity("pin")))
    eventually(lambda: _asked(routed)[1])

    sent = {}
    for _ in range(4):
        track, cookies = _asked(routed)
        sent[track] = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        assert routed.answers(headers=sent[track]) == {f"app {track}": 20}
    results.add(routed.column, "session cookie at weight 50", "kept")
    routed.route(replace(routed.split(0), affinity=SessionAffinity("pin")))
    assert routed.answers(headers=sent["canary"]) == {"app stable": 20}
    results.add(routed.column, "weight 0, session cookie of a canary pod", "stable")


def _asked(routed: Routed) -> tuple[str, dict[str, str]]:
    _http.cookies.clear()
    got = _http.get(f"{routed.url}/api", headers={"Host": routed.host})
    return got.headers["X-Version"], dict(got.cookies)


MIRRORING = {ENVOY, "traefik"}
"""Traefik does not know the Gateway API's mirror, and says so (test_other_routers.py); nginx is refused."""


@pytest.mark.parametrize("percent", [100, 20])
def test_copies_of_requests_to_stable_go_to_the_canary(routed: Routed, results: Results, percent: int) -> None:
    case = f"weight 0, {percent} % mirrored"
    if routed.column not in MIRRORING:
        results.add(routed.column, case, "refused")
        pytest.skip("refused")
    routed.route(routed.mirrored(percent))
    before = routed.counted()

    assert routed.answers(REQUESTS) == {"app stable": REQUESTS}

    # Envoy draws whether it copies a request; Traefik takes turns.
    least, most = (drawn_bounds if routed.served.by_envoy else round_robin_bounds)(REQUESTS, percent)
    copies = wait_for(lambda: routed.counted() - before, lambda found: found >= least, 10)
    assert least <= copies <= most
    results.add(routed.column, case, f"answers of stable, {percent} % copied")


def test_a_mirror_fails_no_request(routed: Routed, results: Results) -> None:
    """It begins and ends under load, its canary fails and then has no pods."""
    case = "mirror under load, to a failing canary and to one without pods"
    if routed.column not in MIRRORING:
        results.add(routed.column, case, "refused")
        pytest.skip("refused")
    canary = routed.applications["app-canary"]
    with Traffic(routed.url, routed.host, {"app": "/api"}, RATE) as traffic:
        canary.order(error_rate="1")
        for percent in (100, 0, 20, 100):
            routed.route(routed.mirrored(percent))
            traffic.measure(REQUESTS)["app"].result(60)
        with routed.without_pods("app-canary"):
            traffic.measure(REQUESTS)["app"].result(60)
        routed.route(routed.split(20))
        traffic.measure(REQUESTS)["app"].result(60)
    assert [(failure.reason, failure.sent) for failure in traffic.failures] == []
    results.add(routed.column, case, "0 failed")


# Traefik's nginx provider asks again where nobody answers, and goes from one track to the other for it. ingress-nginx
# itself fails the canary's share, and all requests when stable has no pods (docs/sandbox.md).
WITHOUT_CANARY = {
    "nginx": "all answered",
    "gateway": "20 % fail (503)",
    ENVOY: "20 % fail (503)",
    "traefik": "20 % fail (503)",
}
WITHOUT_STABLE = {"nginx": "all answered", "gateway": "all answered", ENVOY: "all answered", "traefik": "all answered"}


def test_a_canary_without_pods_fails_its_share_and_no_more(routed: Routed, results: Results) -> None:
    routed.route(routed.split(20))
    with routed.without_pods("app-canary"):
        expected = WITHOUT_CANARY[routed.column]
        assert wait_for(lambda: told(routed.answers(100)), expected.__eq__, 20) == expected
        results.add(routed.column, "weight 20, canary without pods", expected)
        routed.route(routed.split(0))
        assert told(routed.answers(100)) == "all answered"
        results.add(routed.column, "weight 0, canary without pods", "all answered")


def test_what_becomes_of_requests_when_stable_has_no_pods(routed: Routed, results: Results) -> None:
    routed.route(routed.split(100))
    with routed.without_pods("app"):
        expected = WITHOUT_STABLE[routed.column]
        assert wait_for(lambda: told(routed.answers(100)), expected.__eq__, 20) == expected
        results.add(routed.column, "weight 100, stable without pods", expected)


def test_services_of_one_host_do_not_take_each_others_requests(routed: Routed, results: Results) -> None:
    """`/` with a header on it, and `/api` without one."""
    every = routed.split(0, "other", "/")
    assert every.canary
    routed.route(replace(every, canary=replace(every.canary, header=HEADER)))
    routed.route(routed.split(0))

    eventually(lambda: routed.answers(1, "/x", headers=ASKED) == {"other canary": 1})
    assert routed.answers(20, "/x") == {"other stable": 20}
    assert routed.answers(20, "/apix") == {"other stable": 20}
    for path in ("/api", "/api/x"):
        assert routed.answers(20, path) == {"app stable": 20}
        taken = {"other canary": 20} if routed.router.name in OVER_PATHS else {"app stable": 20}
        assert routed.answers(20, path, headers=ASKED) == taken
    found = OVER_PATHS.get(routed.router.name, "each its own")
    results.add(routed.column, "services with `/` and `/api`, with the header of `/`", found)


def test_a_shift_under_load_loses_no_request(routed: Routed, results: Results) -> None:
    routed.route(routed.split(0))
    with Traffic(routed.url, routed.host, {"app": "/api"}, RATE) as traffic:
        for weight in (20, 50, 100, 0, 100):
            routed.route(routed.split(weight))
            traffic.measure(REQUESTS)["app"].result(60)
    assert [(failure.reason, failure.sent) for failure in traffic.failures] == []
    results.add(routed.column, "shifts under load", "0 failed")
