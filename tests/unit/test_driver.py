"""What a run does, step by step, in a world that the test drives."""

import json
import random
from typing import NoReturn

import pytest

from canary_service.cluster.errors import ForbiddenError
from canary_service.rollout.engine import EngineError
from canary_service.rollout.events import AnyEvent, Finished
from canary_service.rollout.stack import PodsError, PolicyError
from canary_service.rollout.steps import next_weight
from tests.unit.worlds import CANARY, NEXT, STABLE, KilledError, World, interrupt

STEPS = (5, 20, 50, 100)


def test_what_keeps_verdicts_waiting_is_said_before_the_first_step() -> None:
    world = World.of("a")
    world.found_obstacles = ["Prometheus is away"]

    world.run()

    kinds = [event.event for event in world.events]
    assert "Prometheus is away" in world.troubles
    assert kinds.index("run-started") < kinds.index("troubled") < kinds.index("step-started")


def test_a_good_canary_is_watched_at_each_step_and_promoted() -> None:
    world = World.of("a")
    assert world.run().exit_code == 0
    assert [(before, after) for _, before, after, _ in world.shifts] == [(0, 5), (5, 20), (20, 50), (50, 100)]
    assert world.sampled_at == [5] * 6 + [20] * 6 + [50] * 6 + [100] * 6
    assert (world.stable, world.running) == ({"a": CANARY}, {})
    assert [event.services for event in world.told("promoted")] == [("a",)]


def test_the_events_begin_with_the_start_and_end_with_the_end() -> None:
    world = World.of("a")
    finished = world.run()
    assert world.events[0].event == "run-started"
    assert world.events[-1] == finished


def test_a_weight_read_back_is_watched_before_it_rises() -> None:
    world = World.of("a").at(20)
    world.run()
    assert world.shifts[0] == ("a", 20, 50, "update")
    assert world.sampled_at[:6] == [20] * 6


def test_services_move_together_in_lockstep() -> None:
    world = World.of("a", "b")
    assert world.run().exit_code == 0
    assert world.updates == 5
    assert {event.weight: event.services for event in world.told("step-started")} == dict.fromkeys(STEPS, ("a", "b"))
    assert world.stable == {"a": CANARY, "b": CANARY}


def test_services_move_one_after_the_other_in_sequence() -> None:
    world = World.of("a", "b", order="sequential")
    assert world.run().exit_code == 0
    assert [service for service, *_ in world.shifts] == ["a"] * 4 + ["b"] * 4


def test_only_chosen_services_move() -> None:
    world = World.of("a", "b")
    assert world.run(services=("b",)).exit_code == 0
    assert world.stable == {"a": STABLE, "b": CANARY}
    assert {service for service, *_ in world.shifts} == {"b"}


def test_a_run_ends_at_the_step_that_is_named() -> None:
    world = World.of("a")
    assert world.run(to=20).exit_code == 0
    assert world.weights == {"a": 20}
    assert world.sampled_at == [5] * 6 + [20] * 6
    assert world.stable == {"a": STABLE}


def test_a_run_to_a_step_below_the_weight_read_back_is_refused() -> None:
    world = World.of("a").at(50)
    assert world.run(to=20).exit_code == 1
    assert world.weights == {"a": 50}


def test_without_a_canary_there_is_nothing_to_do() -> None:
    world = World.of("a")
    del world.config["services"]["a"]["canary"]
    assert world.run().exit_code == 0
    assert world.updates == 0


def bad_from(weight: int, service: str = "a") -> World:
    """Return a world in which one canary of two fails from this weight (percent) on."""
    world = World.of("a", "b")
    world.quality = lambda w, name: "bad" if name == service and w.weights.get(name, 0) >= weight else "good"
    return world


def test_a_failing_canary_takes_its_group_back_at_once() -> None:
    world = bad_from(20)
    finished = world.run()
    assert finished.exit_code == 2
    assert "error rate: fail" in finished.text
    assert world.weights == {"a": 0, "b": 0}
    assert world.config["canaryWeight"] == "0"
    assert world.shifts[-2:] == [("a", 20, 0, "cut-off"), ("b", 20, 0, "cut-off")]
    assert world.updates == 3
    assert world.sampled_at.count(20) == 1  # the first bad look decides, and no other service is looked at before


def test_requests_are_not_mirrored_to_a_canary_that_was_rolled_back() -> None:
    world = bad_from(20)
    world.config["router"] = "traefik"
    for service in world.config["services"].values():
        service["canary"]["mirrorPercent"] = 20
    mirrored: list[dict[str, int]] = []
    world.during_update = lambda: mirrored.append({name: world.settings().mirror_of(name) for name in ("a", "b")})
    assert world.settings().mirror_of("a") == 20

    assert world.run().exit_code == 2

    assert world.weights == {"a": 0, "b": 0}
    assert mirrored[-1] == {"a": 0, "b": 0}
    assert "mirrorPercent" not in json.dumps(world.config)


def test_the_canary_is_cut_off_before_the_engine_runs() -> None:
    world = bad_from(20)
    seen: list[tuple[int, int]] = []
    world.during_update = lambda: seen.append((world.updates, world.weights.get("a", 0)))
    world.run()
    assert seen == [(1, 0), (2, 5), (3, 0)]


def test_in_sequence_a_failing_service_comes_back_alone_and_those_promoted_stay() -> None:
    world = bad_from(50, "b")
    world.config["rollout"]["order"] = "sequential"
    finished = world.run()
    assert finished.exit_code == 2
    assert "a promoted before" in finished.text
    assert world.stable == {"a": CANARY, "b": STABLE}
    assert world.weights == {"b": 0}


def test_a_rollback_goes_on_when_the_engine_fails_and_says_so() -> None:
    world = bad_from(20)
    world.failing_updates = [None, None, EngineError("the backend is away"), EngineError("the backend is away")]
    finished = world.run()
    assert finished.exit_code == 2
    assert "the backend is away" in world.troubles
    assert world.weights == {"a": 0, "b": 0}


def test_a_rollback_whose_update_never_works_ends_and_says_what_is_left() -> None:
    world = bad_from(20)
    world.failing_updates = [None, None, *[EngineError("the backend is away")] * 9]
    finished = world.run()
    assert finished.exit_code == 2
    assert "Weight 0 is declared, but the update failed" in finished.text
    assert world.weights == {"a": 0, "b": 0}
    assert len(world.failing_updates) == 5


def test_a_canary_is_cut_off_although_another_update_holds_the_lock() -> None:
    world = bad_from(20)
    world.later(70, lambda: setattr(world, "locked_by", "somebody"))
    finished = world.run()
    assert finished.exit_code == 2
    assert "somebody" in finished.text
    assert world.weights == {"a": 0, "b": 0}


def test_what_another_update_raises_during_a_rollback_is_cut_off_again() -> None:
    world = bad_from(20)

    def by_another_update() -> None:
        if world.updates == 3:
            world.weights["a"] = 20

    world.during_update = by_another_update
    world.failing_updates = [None, None, EngineError("conflict"), *[EngineError("conflict")] * 9]
    assert world.run().exit_code == 2
    assert world.weights["a"] == 0


def test_a_rollback_waits_for_an_api_server_that_is_away() -> None:
    world = bad_from(20)

    def away(w: World, name: str) -> str:
        if w.weights[name] >= 20 and not w.planned:
            w.cluster_away = True
            w.later(20, lambda: setattr(w, "cluster_away", False))
        return "bad" if w.weights[name] >= 20 else "good"

    world.quality = away
    assert world.run().exit_code == 2
    (rolled_back,) = world.told("rolled-back")
    assert 20 <= rolled_back.seconds < 26
    assert world.weights == {"a": 0, "b": 0}


def test_a_canary_that_cannot_be_reached_at_all_is_said_to_get_requests() -> None:
    world = bad_from(20)
    world.quality = _away_and_bad
    finished = world.run()
    assert finished.exit_code == 4
    assert "MAY STILL GET REQUESTS" in finished.text
    assert not world.told("rolled-back")


def _away_and_bad(world: World, name: str) -> str:
    if world.weights[name] < 20:
        return "good"
    world.cluster_away = True
    return "bad"


def test_an_image_that_was_rolled_back_is_tried_again_only_when_asked_for() -> None:
    world = bad_from(20)
    assert world.run().exit_code == 2
    world.quality = lambda _w, _name: "good"
    refused = world.run()
    assert refused.exit_code == 1
    assert "--again" in refused.text
    assert world.weights == {"a": 0, "b": 0}
    assert world.run(again=True).exit_code == 0
    assert world.stable == {"a": CANARY, "b": CANARY}


def test_requests_that_are_declared_for_an_image_rolled_back_before_are_taken_from_it_with_the_way_to_try_it() -> None:
    world = bad_from(20)
    world.run()
    world.config["canaryWeight"] = "20"
    world.quality = lambda _w, _name: "good"
    finished = world.run()
    assert (finished.exit_code, world.config["canaryWeight"]) == (2, "0")
    assert "was rolled back before, and the configuration gives it requests; `canary run --again`" in finished.text
    world.config["canaryWeight"] = "20"
    assert world.run(again=True).exit_code == 0


def test_another_image_after_a_rollback_is_no_trial_of_the_same() -> None:
    world = bad_from(20)
    world.run()
    for service in world.config["services"].values():
        service["canary"]["image"] = NEXT
    world.quality = lambda _w, _name: "good"
    assert world.run().exit_code == 0
    assert world.stable == {"a": NEXT, "b": NEXT}


@pytest.mark.parametrize("found", ["nothing", "few"])
def test_without_data_a_canary_is_held_and_never_promoted(found: str) -> None:
    world = World.of("a")
    world.quality = lambda _w, _name: found
    finished = world.run()
    assert finished.exit_code == 3
    assert world.weights == {"a": 5}
    assert world.now == pytest.approx(60 + 120, abs=20)
    (held,) = world.told("held")
    assert not held.approval


def test_a_held_step_goes_on_when_data_come_back() -> None:
    world = World.of("a")
    blind = (30.0, 100.0)
    world.quality = lambda w, _name: "nothing" if blind[0] <= w.now < blind[1] else "good"
    assert world.run().exit_code == 0
    (held,) = world.told("held")
    (resumed,) = world.told("resumed")
    assert held.at == pytest.approx(60, abs=10)
    assert resumed.at == pytest.approx(100, abs=10)


def test_with_no_seconds_to_hold_an_undecided_step_ends_the_run() -> None:
    world = World.of("a", holdSeconds=0)
    world.quality = lambda _w, _name: "few"
    assert world.run().exit_code == 3
    assert world.now == pytest.approx(60, abs=10)


def test_a_weight_that_somebody_raises_is_not_judged_but_watched_anew_from_there() -> None:
    world = World.of("a")
    world.later(40, lambda: world.weights.update(a=30))
    assert world.run().exit_code == 0
    assert "30 % (a) instead of 5 % (a)" in world.troubles
    at = world.sampled_at
    assert at[at.index(30) :][:7] == [30] * 6 + [50]


def test_a_weight_that_somebody_lowers_ends_the_run() -> None:
    world = World.of("a").at(20)
    world.later(40, lambda: world.weights.update(a=0))
    finished = world.run()
    assert finished.exit_code == 3
    assert "somebody has lowered it" in finished.text
    assert world.weights == {"a": 0}


def test_another_image_in_the_canary_ends_the_run() -> None:
    world = World.of("a").at(20)
    world.later(40, lambda: world.running.update(a=NEXT))
    finished = world.run()
    assert finished.exit_code == 1
    assert NEXT in finished.text
    assert world.weights == {"a": 20}


def test_a_canary_that_somebody_removes_ends_the_run() -> None:
    world = World.of("a").at(20)
    world.later(40, lambda: (world.running.pop("a"), world.weights.pop("a")))
    finished = world.run()
    assert finished.exit_code == 1
    assert "is gone" in finished.text


def test_a_canary_that_somebody_deletes_while_requests_go_to_it_is_cut_off() -> None:
    world = World.of("a", "b").at(20)
    world.later(40, lambda: world.running.pop("a"))
    finished = world.run()
    assert finished.exit_code == 2
    assert "a: the canary is gone, and 20 % of the requests still go to it" in finished.text
    assert world.shifts == [("a", 20, 0, "cut-off"), ("b", 20, 0, "cut-off")]
    assert world.config["canaryWeight"] == "0"


def test_another_image_in_the_configuration_ends_the_run() -> None:
    world = World.of("a").at(20)
    world.later(40, lambda: world.config["services"]["a"]["canary"].update(image=NEXT))
    finished = world.run()
    assert finished.exit_code == 1
    assert NEXT in finished.text
    assert world.weights == {"a": 20}
    assert world.updates == 0


def test_an_api_server_that_comes_back_is_waited_for() -> None:
    world = World.of("a").at(20)
    world.later(35, lambda: setattr(world, "cluster_away", True))
    world.later(55, lambda: setattr(world, "cluster_away", False))
    assert world.run().exit_code == 0
    assert "the cluster answers again" in world.troubles


def test_an_api_server_that_stays_away_ends_the_run_with_the_weight_as_it_is() -> None:
    world = World.of("a").at(20)
    world.later(35, lambda: setattr(world, "cluster_away", True))
    finished = world.run()
    assert finished.exit_code == 4
    assert world.weights == {"a": 20}
    assert world.now < 35 + 10 + 310


def unreadable(world: World, name: str = "b", seconds: float = 35) -> World:
    """Let the route of a service be changed by hand into something that says no weight."""
    world.later(seconds, lambda: world.unreadable.add(name))
    return world


@pytest.mark.parametrize("failing", ["a", "b"])
@pytest.mark.parametrize("seconds", [0, 35])
def test_a_canary_is_judged_while_the_weight_of_one_cannot_be_read(failing: str, seconds: float) -> None:
    world = unreadable(World.of("a", "b").at(20), seconds=seconds)
    if not seconds:
        world.unreadable.add("b")
    world.quality = lambda w, name: "bad" if name == failing and w.now > 40 else "good"
    finished = world.run()
    assert finished.exit_code == 2
    assert world.weights == {"a": 0, "b": 0}
    assert world.now < 100


@pytest.mark.parametrize("weight", [0, 20])
def test_nothing_rises_beside_a_weight_that_cannot_be_read_from_the_start(weight: int) -> None:
    world = World.of("a", "b").at(weight)
    world.unreadable.add("b")
    finished = world.run()
    assert (finished.exit_code, world.raised, world.updates) == (3, [], 0)
    assert "the weight of b cannot be read back" in finished.text
    assert "? % (b)" in finished.text
    assert world.troubles.count("the weight of b cannot be read back: two rules") == 1
    (started,) = world.told("run-started")
    assert {name: each.weight for name, each in started.services.items()} == {"a": weight, "b": None}


def test_nothing_rises_while_a_weight_cannot_be_read() -> None:
    world = unreadable(World.of("a", "b").at(20))
    assert world.run().exit_code == 3
    assert (world.raised, world.updates) == ([], 0)


@pytest.mark.parametrize("seconds", [0, 35])
def test_a_run_goes_on_when_a_weight_can_be_read_again(seconds: float) -> None:
    world = unreadable(World.of("a", "b").at(20), seconds=seconds)
    if not seconds:
        world.unreadable.add("b")
    world.later(100, world.unreadable.clear)
    assert world.run().exit_code == 0
    assert "the weight of b is read back again: 20 %" in world.troubles
    assert world.stable == {"a": CANARY, "b": CANARY}


def test_a_rollback_that_is_asked_for_waits_for_no_weight() -> None:
    world = World.of("a", "b").at(20)
    world.unreadable.add("b")
    assert world.run(roll_back="its wave fails").exit_code == 2
    assert (world.weights, world.now) == ({"a": 0, "b": 0}, 0)


def test_what_somebody_lowers_while_it_cannot_be_read_is_not_raised_again() -> None:
    world = unreadable(World.of("a", "b").at(20))
    world.later(60, lambda: world.weights.update(b=0))
    world.later(60, world.unreadable.clear)
    assert world.run().exit_code == 3
    assert world.raised == []


def test_an_update_that_fails_is_tried_again() -> None:
    world = World.of("a")
    world.failing_updates = [EngineError("the registry is away")] * 2
    assert world.run().exit_code == 0
    assert "the registry is away" in world.troubles


def test_an_update_that_fails_for_good_leaves_weights_and_configuration_as_they_are() -> None:
    world = World.of("a").at(5)
    world.later(60, lambda: setattr(world, "during_update", lambda: _fail("the registry is away")))
    finished = world.run()
    assert finished.exit_code == 4
    assert world.weights == {"a": 5}
    assert world.config["canaryWeight"] == "5"


def _fail(text: str) -> None:
    raise EngineError(text)


def test_an_update_that_is_refused_is_not_tried_again() -> None:
    world = World.of("a").at(5)
    world.during_update = _refuse
    finished = world.run()
    assert finished.exit_code == 1
    assert world.updates == 1
    assert world.config["canaryWeight"] == "5"


def _refuse() -> None:
    raise EngineError("a policy does not allow it", usage=True)


def test_an_update_that_fails_because_the_canary_does_is_rolled_back() -> None:
    world = World.of("a").at(5)
    world.during_update = lambda: _fail("pods crash") if world.config["canaryWeight"] != "0" else None
    world.quality = lambda w, _name: "bad" if w.updates else "good"
    finished = world.run()
    assert finished.exit_code == 2
    assert "pods crash" in finished.text
    assert world.weights == {"a": 0}


MISSING = "Deployment a-canary: 0 of 1 pods take requests after 16 s."


def _pods_missing() -> None:
    raise PodsError(
        f"{MISSING}\n  a-canary-1: ImagePullBackOff\nRun it again.", f"{MISSING}\n  a-canary-1: ImagePullBackOff"
    )


def test_a_canary_that_cannot_start_is_rolled_back_without_a_further_update_and_that_is_said_once() -> None:
    world = World.of("a")
    world.running["a"], world.weights["a"] = CANARY, 0
    world.during_update = _pods_missing
    world.quality = lambda _w, _name: "bad"
    finished = world.run()
    assert finished.exit_code == 2
    assert (world.updates, world.config["canaryWeight"]) == (1, "0")
    assert finished.text == (
        "a rolled back to 0 %: a: error rate: fail; the update failed: Deployment a-canary: 0 of 1 pods take requests "
        "after 16 s. Weight 0 is declared. Every update waits for these pods until another image is declared, or "
        "`canary abort --remove` takes the canary out"
    )


def test_pods_that_keep_a_rollback_from_its_end_are_not_waited_for_again() -> None:
    world = World.of("a").at(20)
    world.during_update = _pods_missing
    world.quality = lambda _w, _name: "bad"
    finished = world.run()
    assert (finished.exit_code, world.updates, world.weights) == (2, 1, {"a": 0})
    assert finished.text.count(MISSING.rstrip(".")) == 1
    assert not world.troubles


def test_pods_that_do_not_become_ready_end_a_run_whose_canary_does_not_fail() -> None:
    world = World.of("a").at(5)
    world.during_update = _pods_missing
    finished = world.run()
    assert (finished.exit_code, world.updates, world.weights) == (4, 1, {"a": 5})
    assert finished.text.startswith(f"{MISSING}\n  a-canary-1: ImagePullBackOff\nNow the canary gets 5 % (a). `canary")


def test_a_lock_that_another_update_holds_ends_the_run_and_names_it() -> None:
    world = World.of("a").at(5)
    world.locked_by = "somebody"
    finished = world.run()
    assert finished.exit_code == 5
    assert "somebody" in finished.text
    assert world.weights == {"a": 5}
    assert world.config["canaryWeight"] == "5"


def test_an_interrupt_ends_the_run_at_the_present_weight() -> None:
    world = World.of("a").at(20)
    world.later(35, interrupt)
    finished = world.run()
    assert finished.exit_code == 130
    assert "20 %" in finished.text
    assert "canary abort" in finished.text
    assert world.weights == {"a": 20}


def test_an_interrupt_during_an_update_leaves_the_weight_that_is_in_force_declared() -> None:
    world = World.of("a").at(5)
    world.during_update = interrupt
    assert world.run().exit_code == 130
    assert world.weights == {"a": 5}
    assert world.config["canaryWeight"] == "5"


@pytest.mark.parametrize(("answer", "exit_code", "weight"), [("stop", 130, 20), ("roll back", 2, 0)])
def test_at_a_terminal_an_interrupt_asks(answer: str, exit_code: int, weight: int) -> None:
    world = World.of("a").at(20)
    world.present, world.answers = True, [answer]
    world.later(35, interrupt)
    assert world.run().exit_code == exit_code
    assert world.weights == {"a": weight}
    assert world.questions == ["Interrupted; the canary gets 20 % (a). go on/stop/roll back"]


def test_after_an_interrupt_a_run_can_go_on() -> None:
    world = World.of("a").at(20)
    world.present, world.answers = True, ["go on"]
    world.later(35, interrupt)
    assert world.run().exit_code == 0
    assert world.stable == {"a": CANARY}


def test_a_second_interrupt_ends_at_once() -> None:
    world = World.of("a").at(20)
    world.present = True

    def second() -> None:
        world.at_once = True
        interrupt()

    world.later(35, second)
    assert world.run().exit_code == 130
    assert not world.questions


def test_without_a_person_a_step_that_needs_approval_ends_the_run_until_it_is_given() -> None:
    world = World.of("a", approvals=[20])
    finished = world.run()
    assert finished.exit_code == 3
    assert "--approve 20" in finished.text
    assert world.weights == {"a": 20}
    assert [event.approval for event in world.told("held")] == [True]
    assert world.run(approved=frozenset({20})).exit_code == 0
    assert world.stable == {"a": CANARY}


@pytest.mark.parametrize(("answer", "exit_code"), [("go on", 0), ("stop", 130), ("roll back", 2)])
def test_at_a_terminal_a_person_decides_after_the_step(answer: str, exit_code: int) -> None:
    world = World.of("a", approvals=[20])
    world.present, world.answers = True, [answer]
    assert world.run().exit_code == exit_code
    assert len(world.questions) == 1


def test_while_approval_is_waited_for_a_failing_canary_is_rolled_back() -> None:
    world = World.of("a", approvals=[20])
    world.present = True
    world.quality = lambda w, _name: "bad" if w.questions else "good"
    assert world.run().exit_code == 2
    assert world.weights == {"a": 0}


def test_the_step_at_which_a_run_is_to_end_needs_no_approval() -> None:
    world = World.of("a", approvals=[20])
    assert world.run(to=20).exit_code == 0


def test_a_listener_that_fails_does_not_keep_a_canary_in_the_traffic() -> None:
    world = bad_from(20)

    def full_disk(_event: AnyEvent) -> None:
        raise OSError("no space left")

    assert world.run(full_disk).exit_code == 2
    assert "no space left" in world.troubles
    assert world.weights == {"a": 0, "b": 0}


def test_a_listener_that_wants_to_end_the_process_is_dropped_and_the_run_goes_on() -> None:
    world = World.of("a")

    def ending(_event: AnyEvent) -> None:
        raise SystemExit(1)

    assert world.run(ending).exit_code == 0
    assert world.events[-1].event == "finished"


def test_listeners_that_fail_at_the_same_event_are_named_and_end_no_run() -> None:
    class Page:
        def __call__(self, _event: AnyEvent) -> None:
            raise OSError("no space left")

    def noted(_event: AnyEvent) -> None:
        raise OSError("no space left")

    world = World.of("a")
    assert world.run(Page(), noted).exit_code == 0
    for name in ("Page", "noted"):
        assert f"OSError: no space left: no more events go to {name}\n" in f"{world.troubles}\n"


def test_a_second_driver_that_only_watches_never_raises_a_weight_again_that_the_first_took_back() -> None:
    world = World.of("a").at(20)
    world.later(30, lambda: world.weights.update(a=0))
    assert world.run().exit_code == 3
    assert world.weights == {"a": 0}


def test_a_signal_that_nobody_typed_ends_a_run_without_a_question() -> None:
    world = World.of("a").at(20)
    world.present, world.typed = True, False
    world.later(35, interrupt)
    assert world.run().exit_code == 130
    assert not world.questions


def test_a_question_that_an_interrupt_came_upon_is_put_again() -> None:
    world = World.of("a", approvals=[20])
    world.present = True

    def interrupted() -> None:
        world.answers = ["go on"]
        interrupt()

    def good(w: World, _name: str) -> str:
        if len(w.questions) == 1:
            w.later(5, interrupted)
        return "good"

    world.quality = good
    world.later(400, lambda: world.answers.append("go on"))
    assert world.run().exit_code in {0, 3}
    passed, interrupt_question, again, *_ = world.questions
    assert passed == again
    assert interrupt_question.startswith("Interrupted")


def test_a_policy_that_is_violated_ends_a_run_as_it_ends_other_commands() -> None:
    world = World.of("a").at(5)

    def violated() -> None:
        raise PolicyError("app-canary: weight-limit: 20 % is above 10 %")

    world.during_update = violated
    finished = world.run()
    assert (finished.outcome, finished.exit_code) == ("refused", 6)
    assert world.config["canaryWeight"] == "5"
    assert world.updates == 1


def test_a_service_that_cannot_be_cut_off_keeps_no_other_from_it_and_goes_back_by_the_engine() -> None:
    world = bad_from(20)
    world.stuck = {"a"}

    def mended() -> None:
        if world.weights.get("b") == 0:
            world.stuck = set()

    world.during_update = mended
    finished = world.run()
    assert finished.exit_code == 2
    assert world.weights == {"a": 0, "b": 0}
    assert ("b", 20, 0, "cut-off") in world.shifts
    assert "a: the weight is not lowered" in world.troubles


def test_a_rollback_that_was_killed_is_finished_by_the_next_run() -> None:
    world = bad_from(20)

    def kill(event: AnyEvent) -> None:
        if event.event == "troubled":
            raise KilledError

    world.failing_updates = [None, None, EngineError("the backend is away")]
    with pytest.raises(KilledError):
        world.run(kill)
    world.config["canaryWeight"] = "20"  # as if it had been killed before the file was written
    finished = world.run()
    assert finished.exit_code == 2
    assert world.config["canaryWeight"] == "0"
    assert world.run().exit_code == 1


def test_a_run_that_is_to_roll_back_releases_nothing_and_the_canary_is_not_tried_again_unasked() -> None:
    world = World.of("a", "b").at(50)
    finished = world.run(roll_back="prod-eu fails")
    assert finished.exit_code == 2
    assert "prod-eu fails" in finished.text
    assert world.weights == {"a": 0, "b": 0}
    assert world.config["canaryWeight"] == "0"
    assert not world.sampled_at
    assert world.run().exit_code == 1
    assert world.run(roll_back="once more").exit_code == 2


def test_a_run_that_is_to_roll_back_finishes_a_promotion_that_was_begun() -> None:
    world = World.of("a").at(100)
    world.failing_updates = [EngineError("stable does not become ready")] * 4
    assert world.run().exit_code == 4
    assert world.run(roll_back="prod-eu fails").exit_code == 0
    assert world.stable == {"a": CANARY}


@pytest.mark.parametrize("when", [30.0, 61.0])
def test_a_signal_that_wants_it_rolls_back_within_a_step_and_at_its_end(when: float) -> None:
    world = World.of("a", "b").at(50)

    def told() -> None:
        world.roll_back = True
        interrupt()

    world.later(when, told)
    finished = world.run()
    assert finished.exit_code == 2
    assert world.weights == {"a": 0, "b": 0}
    assert world.now == when, "at once"


def test_a_signal_that_wants_a_rollback_ends_a_promotion_as_declared_which_the_next_run_finishes() -> None:
    world = World.of("a").at(100)
    world.roll_back = True
    world.during_update = interrupt
    assert world.run().exit_code == 130
    world.during_update = lambda: None
    assert world.run(roll_back="prod-eu fails").exit_code == 0
    assert world.stable == {"a": CANARY}


def test_a_promotion_that_failed_half_way_stays_declared_and_is_finished_by_the_next_run() -> None:
    world = World.of("a", "b").at(100)
    world.failing_updates = [EngineError("stable does not become ready")] * 4
    finished = world.run()
    assert finished.exit_code == 4
    assert world.stable["b"] == STABLE
    assert world.run().exit_code == 0
    assert world.stable == {"a": CANARY, "b": CANARY}
    assert not world.running


def test_a_promotion_that_is_refused_is_taken_back_from_the_configuration() -> None:
    world = World.of("a").at(100)
    world.during_update = _refuse
    assert world.run().exit_code == 1
    assert world.config["services"]["a"]["canary"] == {"image": CANARY}


def test_a_canary_of_a_stable_that_something_else_owns_is_not_promoted_but_said_to_be_ready() -> None:
    world = World.of("a").at(50)
    world.config["services"]["a"]["stable"] = "existing"
    finished = world.run()
    assert finished.exit_code == 0
    assert world.weights == {"a": 100}
    assert f"deploy {CANARY} (a) there" in finished.text
    assert not world.told("promoted")


def test_a_configuration_that_cannot_be_used_is_refused_before_anything_is_done() -> None:
    world = World.of("a").at(5)
    world.config["canaryWeight"] = "many"
    finished = world.run()
    assert finished.exit_code == 1
    assert "canaryWeight" in finished.text
    assert not world.events


def test_a_right_that_is_missing_is_not_waited_for() -> None:
    world = World.of("a").at(5)

    def forbidden() -> NoReturn:
        raise ForbiddenError("deployments may not be listed")

    world.read = forbidden  # type: ignore[method-assign]
    finished = world.run()
    assert finished.exit_code == 4
    assert world.now == 0


def test_services_that_an_update_left_behind_catch_up() -> None:
    world = World.of("a", "b").at(20)
    world.weights["b"] = 5
    world.run()
    rises = [(service, before, after) for service, before, after, _ in world.shifts]
    assert rises[:3] == [("b", 5, 20), ("a", 20, 50), ("b", 20, 50)]


def test_another_image_than_the_one_declared_is_updated_before_it_is_watched() -> None:
    world = World.of("a").at(20)
    world.running["a"] = NEXT
    world.run(to=20)
    assert world.updates == 1
    assert world.running == {"a": CANARY}
    assert world.sampled_at == [20] * 6


@pytest.mark.parametrize("seed", range(20))
def test_killed_anywhere_a_release_ends_right_and_never_takes_a_step_too_many(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311 - reproducible, not secret
    names = ["a", "b", "c"][: drawn.randint(1, 3)]
    order, bad = drawn.choice(["lockstep", "sequential"]), drawn.choice([None, 5, 20, 50, 100])
    failing = drawn.choice(names)

    def fresh() -> World:
        world = World.of(*names, order=order)
        world.quality = lambda w, name: (
            "bad" if bad is not None and name == failing and w.weights.get(name, 0) >= bad else "good"
        )
        return world

    whole = fresh()
    whole.run()
    for index in range(len(whole.events)):
        world = fresh()
        kill_at = {index, index + 1 + drawn.randrange(len(whole.events))}
        world.failing_updates = [KilledError() if drawn.random() < 0.2 else None for _ in range(5)]
        finished = _run_through_kills(world, kill_at)
        context = f"seed {seed}, {order}, {failing} bad from {bad}, killed at event {sorted(kill_at)}"
        assert finished.exit_code in ({0} if bad is None else {1, 2}), context
        for name, before, after in world.raised:
            assert after <= (next_weight(before, STEPS, 50) or 0), f"{context}: {name} {before} → {after}"
        if bad is None:
            assert world.stable == dict.fromkeys(names, CANARY), context
            assert not world.running, context
        else:
            assert world.stable[failing] == STABLE, context
            assert world.weights[failing] == 0, context
            assert world.settings().split_of(failing).weight == 0, context


def _run_through_kills(world: World, kill_at: set[int]) -> Finished:
    """Run again until a run is not killed; each kill comes at an event, counted over all runs."""
    count = 0

    def kill(_event: AnyEvent) -> None:
        nonlocal count
        count += 1
        if count - 1 in kill_at:
            raise KilledError

    while True:
        try:
            return world.run(kill)
        except KilledError:
            continue
