"""Who stays on which track, as docs/reference.md says for Traefik."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import Client

from demo.measurement import round_robin_bounds
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import GOOD_CANARY, NAME, PATHS, Scene

HEADER = {"X-Canary": "true"}
COOKIE, SESSION_COOKIE = "early", "pin"
ALWAYS, NEVER = {COOKIE: "always"}, {COOKIE: "never"}
STICKY_CANARY = GOOD_CANARY | {"header": {"name": "X-Canary", "value": "true"}, "cookie": COOKIE}
REQUESTS = 20

_http = httpx2.Client(trust_env=False, timeout=30)


@dataclass(frozen=True)
class Answer:
    """Which track and pod answered, and the cookies that came with it."""

    track: str
    pod: str
    cookies: Mapping[str, str]


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    """A service with each means by which clients can be kept on a track, at weight 50."""
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.configure(weight=50, sessionAffinity={"cookieName": SESSION_COOKIE}, canary=STICKY_CANARY)
    scene.up()
    scene.settle()
    return scene


def ask(scene: Scene, cookies: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request of a client that has these cookies and no others."""
    _http.cookies.clear()
    sent = {"Host": f"{scene.namespace}.example", **(headers or {})}
    if cookies:
        sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    got = _http.get(f"{scene.sandbox.proxy_url}{PATHS[NAME]}", headers=sent)
    assert got.status_code == 200
    return Answer(got.headers["X-Version"], got.headers["X-Pod"], dict(got.cookies))


def tracks(
    scene: Scene, cookies: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> set[str]:
    return {ask(scene, cookies, headers).track for _ in range(REQUESTS)}


def sessions(scene: Scene) -> dict[str, Answer]:
    """Return the first answer of each track to clients that come for the first time."""
    found: dict[str, Answer] = {}
    for _ in range(REQUESTS):
        answer = ask(scene)
        found.setdefault(answer.track, answer)
    assert found.keys() == {"stable", "canary"}
    return found


def shift(scene: Scene, weight: int) -> str:
    """Take the canary to a weight (percent) and return what `pulumi up` said."""
    scene.configure(weight=weight)
    said = scene.stack.run("up", "--yes", "--skip-preview")
    scene.settle()
    return said


def canary_state(scene: Scene) -> dict[str, Any]:
    state: dict[str, Any] = scene.stack.outputs()["services"][NAME]["canary"]
    return state


def test_each_way_to_a_track_is_taken_at_every_weight_as_the_reference_says(scene: Scene) -> None:
    of_stable, of_canary = (sessions(scene)[track].cookies for track in ("stable", "canary"))
    # The session cookie holds while both tracks have a share; at 0 and 100 Traefik knows one of them only.
    stable_session = {0: "stable", 5: "stable", 50: "stable", 100: "canary"}
    canary_session = {0: "stable", 5: "canary", 50: "canary", 100: "canary"}
    for weight in (5, 0, 50, 100):
        shift(scene, weight)

        assert tracks(scene, headers=HEADER) == {"canary"}
        assert tracks(scene, ALWAYS) == {"canary"}
        assert tracks(scene, NEVER) == {"stable"}
        assert tracks(scene, of_stable) == {stable_session[weight]}
        assert tracks(scene, of_canary) == {canary_session[weight]}


def test_the_header_goes_over_the_cookie_that_over_the_session_cookie_that_over_the_weight(scene: Scene) -> None:
    of_stable, of_canary = (sessions(scene)[track].cookies for track in ("stable", "canary"))
    for weight in (5, 50):
        shift(scene, weight)

        assert tracks(scene, {**NEVER, **of_stable}, HEADER) == {"canary"}
        assert tracks(scene, {**ALWAYS, **of_stable}) == {"canary"}
        assert tracks(scene, {**NEVER, **of_canary}) == {"stable"}
        assert tracks(scene, of_canary) == {"canary"}
        assert tracks(scene) == {"stable", "canary"}


def test_a_session_keeps_its_pod_and_newcomers_follow_the_weight(scene: Scene) -> None:
    for session in sessions(scene).values():
        assert {ask(scene, session.cookies).pod for _ in range(REQUESTS)} == {session.pod}
    shift(scene, 20)
    newcomers = Counter(ask(scene).track for _ in range(100))
    least, most = round_robin_bounds(100, 20)
    assert least <= newcomers["canary"] <= most


def test_weight_0_says_whom_it_does_not_evict(scene: Scene) -> None:
    kept = [
        "header X-Canary: true",
        f"cookie {COOKIE}=always",
        f"session cookie {SESSION_COOKIE} of a canary pod, under ingress-nginx",
    ]
    assert canary_state(scene)["alsoReachedBy"] == kept

    said = shift(scene, 0)

    assert f"weight 0 does not evict clients with {', '.join(kept)}" in said
    assert canary_state(scene)["alsoReachedBy"] == kept

    scene.configure(sessionAffinity=None, canary=GOOD_CANARY)
    assert "does not evict" not in scene.stack.run("up", "--yes", "--skip-preview")
    assert "alsoReachedBy" not in canary_state(scene)


def test_removing_header_and_cookie_evicts_their_users(scene: Scene) -> None:
    shift(scene, 0)
    scene.configure(canary=GOOD_CANARY)
    scene.up()

    eventually(lambda: tracks(scene, headers=HEADER) == {"stable"})
    eventually(lambda: tracks(scene, ALWAYS) == {"stable"})


def test_another_cookie_name_evicts_sessions(scene: Scene) -> None:
    of_canary = sessions(scene)["canary"].cookies
    shift(scene, 5)
    assert tracks(scene, of_canary) == {"canary"}

    scene.configure(sessionAffinity={"cookieName": f"{SESSION_COOKIE}2"})
    scene.up()

    eventually(lambda: "stable" in tracks(scene, of_canary))


def test_removing_the_canary_evicts_everybody(scene: Scene) -> None:
    of_canary = sessions(scene)["canary"].cookies
    scene.configure(canary=None)
    scene.up()

    eventually(lambda: tracks(scene, {**ALWAYS, **of_canary}, HEADER) == {"stable"})


def test_a_canary_that_leaves_its_clients_is_not_to_be_had_from_traefik(scene: Scene) -> None:
    scene.configure(sessionAffinity={"cookieName": SESSION_COOKIE, "canaryBehavior": "legacy"})
    scene.up()

    assert tracks(scene, sessions(scene)["canary"].cookies) == {"canary"}


def test_behind_a_gateway_the_session_cookie_names_the_service_that_goes_on_answering(
    sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path
) -> None:
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.route_by("gateway", {"gateway": {"namespace": "default"}})
    scene.configure(weight=50, sessionAffinity={"cookieName": SESSION_COOKIE}, canary=GOOD_CANARY)
    scene.up()
    scene.settle()

    kept = {answer.track: answer.cookies for answer in (ask(scene) for _ in range(REQUESTS))}

    assert kept == {"stable": {SESSION_COOKIE: NAME}, "canary": {SESSION_COOKIE: f"{NAME}-canary"}}
    assert all(tracks(scene, cookies) == {track} for track, cookies in kept.items())
    scene.configure(weight=0)
    scene.up()
    scene.settle()
    assert tracks(scene, kept["canary"]) == {"stable"}
