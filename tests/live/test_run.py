"""`canary run` on real stacks under real traffic: what is good is promoted, what is bad comes back.

All releases share a sandbox and run beside each other; each test waits for its own.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, cast

import pytest
from lightkube import Client

from canary_service.rollout.events import Finished, RolledBack
from canary_service.rollout.journal import journals, read
from canary_service.rollout.steps import next_weight
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.releases import ApiServer, Mode, Release, Run, Stage, drawn, interrupt, moment
from tests.live.scene import CANARY_IMAGE, NAME, STABLE_IMAGE

STEPS = (20, 50, 100)
AT_ONCE = 5
"""So many releases run beside each other."""

SETTLED_REQUESTS = 100
KILLS = 10
PROXY_SECONDS = 10
"""Within this time a proxy has to know a weight, on a busy machine too; Traefik takes up to 2 s for several changes."""

MAX_STEP = 50

Found = dict[str, Any]
Scenario = Callable[[Stage], Found]


@pytest.fixture(scope="module")
def futures(
    request: pytest.FixtureRequest, sandbox: Sandbox, cluster: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Scenario, Future[Found]]]:
    """Begin what the chosen tests need, in their order: those that take long come first."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    wanted = [cast("Scenario", item.callspec.params["found"]) for item in chosen]
    with ThreadPoolExecutor(AT_ONCE) as executor:
        yield {
            each: executor.submit(each, Stage(sandbox, cluster, folder / each.__name__))
            for each in dict.fromkeys(wanted)
        }
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def found(request: pytest.FixtureRequest, futures: dict[Scenario, Future[Found]]) -> Found:
    """What a scenario has found, as soon as it is over."""
    return futures[request.param].result()


def by(*scenarios: Scenario) -> pytest.MarkDecorator:
    """Let a test judge what scenarios have found."""
    return pytest.mark.parametrize("found", scenarios, indirect=True, ids=lambda each: each.__name__)


def weights(run: Run, means: str = "update") -> list[tuple[int, int]]:
    return [(e.before, e.read_back) for e in run.events if e.event == "weight-set" and e.means == means]


def answered_after(release: Release) -> Counter[str]:
    """Return who answers from now on, once the proxy routes by what is declared."""
    release.scene.settle()
    tally = release.traffic.measure(SETTLED_REQUESTS)[NAME].result(60)
    assert not tally.failures
    return tally.by_version


def after_rollback(release: Release, run: Run) -> Found:
    """Return what a rolled back release has come to."""
    finished = run.ended()
    (back,) = (event for event in run.events if isinstance(event, RolledBack))
    answered = release.traffic.total[NAME].last_answers["canary"] - back.at
    print(f"weight 0 read back {back.seconds:.3f} s after the verdict, the canary's last answer {answered:.3f} s later")  # noqa: T201 - for `pytest -s`
    return {
        "answered": answered,
        "finished": finished,
        "gates": run.failing_gates,
        "weight": release.scene.weight(),
        "declared": release.declared_weight(),
        "answers": answered_after(release),
        "stable": release.stable_image(),
        "seconds": back.seconds,
        "again": release.start().exit_code(),
    }


def assert_rolled_back(result: Found) -> None:
    assert result["finished"].exit_code == 2, result["finished"]
    assert (result["weight"], result["declared"]) == (0, 0)
    assert result["answers"].keys() == {"stable"}
    assert result["stable"] == STABLE_IMAGE
    assert result["seconds"] < 1  # 11 to 145 ms on a busy machine
    assert result["answered"] < PROXY_SECONDS
    assert result["again"] == 1, "the same canary is not tried again unasked"


def killed_from_0(stage: Stage) -> Found:
    return _killed(stage, 0)


def killed_from_20(stage: Stage) -> Found:
    return _killed(stage, 20)


def killed_from_50(stage: Stage) -> Found:
    return _killed(stage, 50)


def _killed(stage: Stage, weight: int) -> Found:
    random = drawn(weight)
    short = {"stepSeconds": 3, "sampleSeconds": 1, "gates": {"minRequests": 10}}
    with Release.of(stage, weight=weight, rollout=short) as release:
        killed = 0
        with release.watched() as seen:
            while killed < KILLS:
                run = release.start()
                eventually(lambda: run.events or run.process.poll() is not None, 60)  # noqa: B023 - used at once
                over = moment() + random.uniform(0, 12)
                eventually(lambda: moment() >= over or run.process.poll() is not None)  # noqa: B023 - used at once
                if run.process.poll() is None:
                    run.kill(with_engine=(both := random.random() < 0.5))
                    killed += 1
                    if both:
                        release.scene.stack.run("cancel", "--yes")  # the lock of a dead engine
                elif run.exit_code() == 5:
                    _unlock(release, run)
                else:
                    assert run.exit_code() == 0, run.told
                    break
            last = release.start()
            while last.exit_code() == 5:
                _unlock(release, last)
                last = release.start()
        return {
            "killed": killed,
            "exit code": last.exit_code(),
            "weights": seen,
            "promoted": release.is_promoted(),
            "failed": dict(release.traffic.total[NAME].failures),
        }


def _unlock(release: Release, run: Run) -> None:
    """Release the lock of an engine that was killed, as the run advises; one that lives is left alone."""
    if "has ended without releasing it" in run.ended().text:
        release.scene.stack.run("cancel", "--yes")


@by(killed_from_0, killed_from_20, killed_from_50)
def test_a_run_killed_at_random_moments_ends_right_and_takes_no_step_too_many(found: Found) -> None:
    for before, after in pairwise(found["weights"]):
        allowed = next_weight(before, STEPS, MAX_STEP) or 0
        assert after <= allowed, found
    assert found["exit code"] == 0, found
    assert found["promoted"], found
    assert found["failed"] == {}, found


def good(stage: Stage) -> Found:
    with Release.of(stage) as release, release.running() as run:
        finished = run.ended()
        folder = release.scene.stack.folder
        (journal,) = journals(folder, "dev")
        tally = release.traffic.measure(SETTLED_REQUESTS)[NAME].result(60)
        return {
            "finished": finished,
            "weights": weights(run),
            "promoted": release.is_promoted(),
            "images": set(tally.by_image),
            "failed": dict(release.traffic.total[NAME].failures),
            "journal": read(journal)[-1],
            "page": journal.with_suffix(".html").read_text(),
            "again": release.start().exit_code(),
        }


@by(good)
def test_a_good_canary_is_promoted_without_a_person_and_no_request_fails(found: Found) -> None:
    assert found["finished"].exit_code == 0, found["finished"]
    assert found["weights"] == [(0, 20), (20, 50), (50, 100)]
    assert found["promoted"]
    assert found["images"] == {CANARY_IMAGE}
    assert found["failed"] == {}
    assert found["again"] == 0, "a release that is done has nothing left to do"


@by(good)
def test_a_run_leaves_its_journal_and_its_page(found: Found) -> None:
    assert isinstance(found["journal"], Finished)
    assert found["journal"].exit_code == 0
    assert CANARY_IMAGE in found["page"]


def errors(stage: Stage) -> Found:
    """10 points more of the canary's requests fail, from the first one on."""
    ailing = {"env": {"SANDBOX_ERROR_RATE": "0.1"}}
    slow = {"steps": [50], "stepSeconds": 60}
    with (
        Release.of(stage, canary=ailing, rate=80, rollout=slow) as release,
        release.running() as run,
    ):
        return after_rollback(release, run)


@by(errors)
def test_a_canary_with_10_points_more_errors_is_rolled_back_by_its_error_rate(found: Found) -> None:
    assert found["gates"] == {"error-rate"}
    assert_rolled_back(found)


def latency(stage: Stage) -> Found:
    """Stable takes 60 ms, and the canary twice that."""
    canary = {"env": {"SANDBOX_LATENCY_SECONDS": "0.12"}}
    slow = {"steps": [50], "stepSeconds": 60}
    with Release.of(stage, canary=canary, rate=50, rollout=slow) as release:
        release.scene.configure(env={"SANDBOX_LATENCY_SECONDS": "0.06"})
        with release.running() as run:
            return after_rollback(release, run)


@by(latency)
def test_a_canary_twice_as_slow_is_rolled_back_by_its_latency(found: Found) -> None:
    assert found["gates"] == {"latency"}
    assert_rolled_back(found)


def crashes(stage: Stage) -> Found:
    """The canary's container crashes again and again once it has 20 percent."""
    with (
        Release.of(stage, rollout={"stepSeconds": 60}) as release,
        release.running() as run,
    ):
        run.saw("weight-set", read_back=20)
        run.saw("sampled")
        for crash in range(3):
            release.order(crash=str(crash))
        return after_rollback(release, run) | {"reached": weights(run)}


@by(crashes)
def test_a_canary_that_crashes_at_20_percent_is_rolled_back_by_its_pods(found: Found) -> None:
    assert found["gates"] & {"restarts", "availability"}
    assert not found["gates"] - {"restarts", "availability"}
    assert found["reached"][0] == (0, 20)
    assert_rolled_back(found)


def memory(stage: Stage) -> Found:
    """The canary's memory grows to its limit of 256 MiB while it is watched."""
    with (
        Release.of(stage, rollout={"stepSeconds": 60}) as release,
        release.running() as run,
    ):
        run.saw("sampled")
        for used in ("100e6", "180e6", "260e6"):
            release.order(memory_bytes=used)
            before = len(run.events)
            eventually(lambda: len(run.events) > before + 1 or run.process.poll() is not None)  # noqa: B023 - used at once
        return after_rollback(release, run)


@by(memory)
def test_a_canary_that_leaks_memory_is_rolled_back_by_its_memory(found: Found) -> None:
    assert found["gates"] == {"memory"}
    assert_rolled_back(found)


def few(stage: Stage) -> Found:
    rollout = {"gates": {"minRequests": 100000}, "holdSeconds": 6}
    with Release.of(stage, rollout=rollout) as release, release.running() as run:
        finished = run.ended()
        return {
            "finished": finished,
            "weight": release.scene.weight(),
            "declared": release.declared_weight(),
            "promoted": release.is_promoted(),
            "held": [event.event for event in run.events if event.event == "held"],
        }


@by(few)
def test_a_canary_with_too_few_requests_is_held_and_not_promoted(found: Found) -> None:
    assert found["finished"].exit_code == 3, found["finished"]
    assert (found["weight"], found["declared"], found["promoted"]) == (20, 20, False)
    assert found["held"] == ["held"]


def blind(stage: Stage) -> Found:
    """Prometheus is away when the run begins, fails in every other way afterwards, and comes back."""
    modes: list[Mode] = ["slow", "empty", "nan", "garbage"]
    with Release.of(stage, weight=20, rollout={"holdSeconds": 300}) as release:
        release.prometheus.mode = "away"
        with release.running("--to", "20") as run:
            run.saw("held")
            sampled = {}
            for mode in modes:
                release.prometheus.mode = mode
                before = len(run.events)
                # The look that began before is of no account.
                eventually(lambda: len(run.events) >= before + 2 or run.process.poll() is not None, 60)  # noqa: B023 - used at once
                sampled[mode] = run.events[-1]
            held = run.process.poll() is None and release.scene.weight() == 20
            release.prometheus.mode = "good"
            return {
                "held": held,
                "sampled": sampled,
                "finished": run.ended(),
                "events": [event.event for event in run.events],
                "weight": release.scene.weight(),
            }


@by(blind)
def test_without_a_usable_prometheus_a_run_holds_and_it_goes_on_when_that_is_back(found: Found) -> None:
    assert found["held"]
    outcomes = {mode: event.verdict.outcome for mode, event in found["sampled"].items()}
    assert outcomes == dict.fromkeys(["slow", "empty", "nan", "garbage"], "inconclusive")
    assert found["finished"].exit_code == 0, found["finished"]
    assert found["events"].count("held") == found["events"].count("resumed") == 1
    assert found["weight"] == 20


def api_server(stage: Stage) -> Found:
    with Release.of(stage, weight=20, rollout={"steps": [20, 50]}) as release:
        server = ApiServer(stage.sandbox.kubeconfig, release.folder)
        release.environment["KUBECONFIG"] = str(server.kubeconfig)
        with release.running("--to", "50") as run:
            run.saw("sampled")
            server.stop()
            begin = moment()
            run.saw("troubled")
            eventually(lambda: moment() - begin >= 20)
            server.start()
            return {
                "finished": run.ended(),
                "weight": release.scene.weight(),
                "troubles": [event.text for event in run.events if event.event == "troubled"],
            }


@by(api_server)
def test_a_run_outlives_20_seconds_without_the_api_server(found: Found) -> None:
    assert found["finished"].exit_code == 0, found["finished"]
    assert found["weight"] == 50
    assert any("answers again" in text for text in found["troubles"])


def interrupts(stage: Stage) -> Found:
    with Release.of(stage, weight=20, rollout={"stepSeconds": 120}) as release:
        with release.running() as run:
            run.saw("sampled")
            interrupt(run)
            once = run.ended(30)
            weight = release.scene.weight()
        release.configure({})
        with release.running() as run:
            # In an update, which a first interrupt ends in order, and a second one at once.
            run.saw("step-started", weight=50)
            interrupt(run)
            interrupt(run)
            twice = run.exit_code(60)
        after = release.start("--to", "50").exit_code()
        return {"once": once, "weight": weight, "twice": twice, "after": after, "in force": release.scene.weight()}


@by(interrupts)
def test_an_interrupt_ends_a_run_at_its_weight_a_second_one_at_once_and_the_next_run_goes_on(found: Found) -> None:
    assert found["once"].exit_code == 130
    assert "20 %" in found["once"].text
    assert "canary abort" in found["once"].text
    assert found["weight"] == 20
    assert found["twice"] == 130
    assert (found["after"], found["in force"]) == (0, 50)


def two_drivers(stage: Stage) -> Found:
    """Two in one folder; then two in two folders, as on two machines, with the same backend and cluster."""
    with Release.of(stage, weight=20, rollout={"stepSeconds": 8}) as release:
        other = release.folder / "other"
        with release.watched() as seen, release.running() as first:
            first.saw("run-started")
            same_folder = release.start().exit_code()
            project = release.scene.stack.folder
            shutil.copytree(project, other, symlinks=True, ignore=shutil.ignore_patterns("backend", ".canary"))
            with release.running(folder=other) as second:
                codes = {first.exit_code(), second.exit_code()}
                told = second.told
        return {
            "same folder": same_folder,
            "codes": codes,
            "told": told,
            "weights": seen,
            "promoted": release.is_promoted(),
            "failed": dict(release.traffic.total[NAME].failures),
        }


@by(two_drivers)
def test_two_drivers_never_fight(found: Found) -> None:
    assert found["same folder"] == 5
    assert found["promoted"], found
    assert found["codes"] in ({0, 1}, {0, 3}, {0, 5}), found  # gone, lowered, or under way when the other one looked
    rises = [after for before, after in pairwise(found["weights"]) if after > before]
    assert rises == [50, 100], found
    assert found["failed"] == {}
