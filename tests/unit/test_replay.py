"""`canary gate` says of recorded samples what the gates say, without a cluster."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from canary_service.config.settings import GateSettings
from canary_service.rollout.events import EVENTS, AnyEvent, RunStarted, Sampled, ServiceAtStart, StepStarted
from canary_service.rollout.replay import ReplayError, replayed, steps
from canary_service.rollout.samples import AlignedSample, PodsSample, Sample, TrackSample
from canary_service.rollout.verdict import Verdict
from tests.unit.commands import Commands, Result

STACK = "shop/dev"
NOT_YET = Verdict(service="app", outcome="inconclusive", gates=())


def track(requests: float, failed: float = 0) -> TrackSample:
    return TrackSample(requests=requests, failed=failed, timed=requests, buckets=((0.1, requests),))


def sample(failed: float = 0, weight: int | None = 5, service: str = "app") -> Sample:
    pods = PodsSample(wanted=1, ready=1)
    stable = track(100 * 60 - 60 * (weight or 5))
    answered = track(60 * (weight or 5), failed)
    aligned = AlignedSample(stable=stable.requests, canary=answered.requests)
    known = {"stable": stable, "canary": answered, "aligned": aligned, "pods": pods}
    return Sample(service=service, at=1.0, seconds=60.0, weight=weight, **known)


def sampled(taken: Sample, remaining: float) -> Sampled:
    return Sampled(at=1.0, stack=STACK, sample=taken, verdict=NOT_YET, remaining_seconds=remaining)


def lines(*events: AnyEvent) -> list[str]:
    return [EVENTS.dump_json(event, by_alias=True).decode() + "\n" for event in events]


def started() -> RunStarted:
    services = {"app": ServiceAtStart(stable_image="app:1", canary_image="app:2", weight=0)}
    settings = {"run": "r", "command": "run", "steps": (5, 20), "stepSeconds": 120, "sampleSeconds": 60}
    return RunStarted.model_validate({"at": 0.0, "stack": STACK, "services": services} | settings)


def step(weight: int) -> StepStarted:
    return StepStarted(at=0.0, stack=STACK, services=("app",), weight=weight)


RUN = lines(
    started(),
    step(5),
    sampled(sample(), 60),
    sampled(sample(), 0),
    step(20),
    sampled(sample(weight=20), 60),
    sampled(sample(300, weight=20), 0),
    sampled(sample(weight=20), 0),
)


def test_each_step_of_a_journal_is_judged_as_the_run_judged_it() -> None:
    found = [replayed(each, GateSettings()) for each in steps(RUN)]

    assert [(each.weight, each.verdict.outcome, each.looks, each.samples) for each in found] == [
        (5, "pass", 2, 2),
        (20, "fail", 2, 3),
    ]
    assert found[0].seconds == 120


def test_other_limits_give_other_verdicts() -> None:
    lenient = GateSettings.model_validate({"errorRateDifference": 30})

    assert [replayed(each, lenient).verdict.outcome for each in steps(RUN)] == ["pass", "pass"]


def test_a_step_that_begins_anew_at_the_same_weight_is_another_step() -> None:
    again = lines(step(5), sampled(sample(), 60), step(5), sampled(sample(), 0))

    assert [len(each.looks) for each in steps(again)] == [1, 1]
    assert replayed(steps(again)[0], GateSettings()).verdict.outcome == "inconclusive"


def test_lines_of_samples_alone_are_steps_by_service_and_weight_that_had_their_time() -> None:
    bare = [sample(), sample(service="other"), sample(weight=None), sample(weight=20)]

    found = steps([each.model_dump_json(by_alias=True) + "\n" for each in bare])

    assert [(each.service, each.weight, len(each.looks)) for each in found] == [
        ("app", 5, 2),
        ("other", 5, 1),
        ("app", 20, 1),
    ]
    assert [replayed(each, GateSettings()).verdict.outcome for each in found] == ["pass"] * 3


def test_a_last_line_that_was_cut_is_left_out_and_any_other_is_named() -> None:
    assert steps([*RUN[:3], RUN[3][:50]])[0].looks == steps(RUN[:3])[0].looks
    with pytest.raises(ReplayError, match="line 2 is neither an event of a journal nor a sample"):
        steps([RUN[0], RUN[1][:50] + "\n", *RUN[2:]])
    with pytest.raises(ReplayError, match=r"line 1 .*: service: Field required"):
        steps(["{}\n"])


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `canary gate` in a folder without a project."""
    monkeypatch.chdir(tmp_path)
    Path("run.jsonl").write_text("".join(RUN))
    Path("good.jsonl").write_text("".join(RUN[:4]))
    Path("begun.jsonl").write_text("".join(RUN[:3]))
    Path("Pulumi.dev.yaml").write_text("config:\n  shop:host: shop.example\n")
    Path("Pulumi.lax.yaml").write_text("config:\n  shop:rollout:\n    gates: {errorRateDifference: 30}\n")

    def invoke(*arguments: str) -> Result:
        return Commands(monkeypatch, capsys).run("gate", *arguments)

    return invoke


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run.jsonl", "--config", "Pulumi.dev.yaml"), 6),
        (("run.jsonl", "--config", "Pulumi.lax.yaml"), 0),
        (("good.jsonl", "--config", "Pulumi.dev.yaml"), 0),
        (("begun.jsonl", "--config", "Pulumi.dev.yaml"), 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst_step(run: Run, arguments: tuple[str, ...], code: int) -> None:
    for form in ((), ("--json",)):
        assert run("--from", *arguments, *form).code == code


def test_each_gate_says_its_numbers(run: Run) -> None:
    done = run("--from", "run.jsonl", "--config", "Pulumi.dev.yaml")

    assert "app at 5 %: pass (sample 2 of 2, 120 s)" in done.out
    assert "app at 20 %: fail (sample 2 of 3, 120 s)" in done.out
    assert "fail          error-rate: 12.5 % of the canary's 2,400 requests failed" in done.out
    found = json.loads(run("--from", "run.jsonl", "--config", "Pulumi.dev.yaml", "--json").out)
    assert [each["verdict"]["outcome"] for each in found] == ["pass", "fail"]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", (), "there is no sample in bad.jsonl"),
        ("nonsense\n", (), "bad.jsonl: line 1 is neither an event"),
        ("\xff\xfe", (), "bad.jsonl cannot be read"),
        ("".join(RUN), ("--service", "other"), "no sample of other; there are those of app"),
        ("".join(RUN), ("--stack", "dev"), "give one of them"),
    ],
)
def test_a_wrong_invocation_is_one_clear_message(run: Run, content: str, arguments: tuple[str, ...], said: str) -> None:
    Path("bad.jsonl").write_bytes(content.encode("latin-1"))

    done = run("--from", "bad.jsonl", "--config", "Pulumi.dev.yaml", *arguments)

    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "is no stack file"),
        ("a: [", "cannot be read"),
        ("config: {a:rollout: {secure: v1:x}}", "encrypted"),
        ("config: {a:rollout: {}, b:rollout: {}}", "one is allowed"),
        ("config: {a:rollout: {gates: {confidence: 100}}}", "rollout.gates.confidence = 100"),
        ("config: {a:rollout: '{\"maxStep\": 0}'}", "rollout.maxStep = 0"),
    ],
)
def test_a_stack_file_that_cannot_be_used_is_one_clear_message(run: Run, content: str, said: str) -> None:
    Path("bad.yaml").write_text(content)

    done = run("--from", "run.jsonl", "--config", "bad.yaml")

    assert done.code == 1
    assert said in done.err


def test_without_a_project_a_file_of_gates_is_asked_for(run: Run) -> None:
    done = run("--from", "run.jsonl")

    assert done.code == 1
    assert "there is no Pulumi.yaml" in done.err
