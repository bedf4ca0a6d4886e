"""The report of a run says what its journal says, needs nothing besides itself, and takes no text for markup."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

import pytest

from canary_service.rollout.course import Course
from canary_service.rollout.event_words import line
from canary_service.rollout.events import AnyEvent, Sampled, WeightSet
from canary_service.rollout.report import page
from canary_service.rollout.summary import RunSummary, summarised
from tests.unit.journals import JOURNALS, STACK, promoted, rolled_back, unfinished

ATTACK = "</title></style></script><script>alert('x')</script><img src=x onerror=alert(1)>\x00\ud800\"'&amp;"
VOID = {"meta", "link", "br", "img"}


class Parser(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def summary(events: Iterable[AnyEvent]) -> RunSummary:
    found = summarised(Course(events))
    assert found
    return found


def attacked(events: Iterable[AnyEvent]) -> Iterator[AnyEvent]:
    """Put a text that is markup wherever an event has a text of somebody's."""
    for event in events:
        texts = {name: ATTACK for name in ("reason", "text", "by", "run") if hasattr(event, name)}
        changed = event.model_copy(update=texts)
        if isinstance(changed, Sampled):
            gates = [gate.model_copy(update={"text": ATTACK, "unit": ATTACK}) for gate in changed.verdict.gates]
            changed = changed.model_copy(update={"verdict": changed.verdict.model_copy(update={"gates": tuple(gates)})})
        yield changed


@pytest.mark.parametrize("name", JOURNALS)
def test_a_page_is_well_formed_and_loads_nothing(name: str) -> None:
    text = page(JOURNALS[name]())
    parsed = Parser(text)

    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    assert not {"src", "href", "action", "onclick"} & {key for _, attributes in parsed.tags for key in attributes}
    assert "url(" not in text
    assert "@import" not in text
    policy = next(found for tag, found in parsed.tags if tag == "meta" and "http-equiv" in found)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize("name", JOURNALS)
def test_texts_are_never_markup(name: str) -> None:
    clean, dirty = Parser(page(JOURNALS[name]())), Parser(page(attacked(JOURNALS[name]())))

    assert {tag for tag, _ in dirty.tags} == {tag for tag, _ in clean.tags}
    assert {key for _, found in dirty.tags for key in found} == {key for _, found in clean.tags for key in found}
    assert "<script>alert('x')</script>" in dirty.text
    assert "\x00" not in dirty.text


@pytest.mark.parametrize("options", [{}, {"sample_seconds": 1}, {"services": ("cart",), "sample_seconds": 1}])
def test_a_run_of_an_hour_takes_less_than_300_kb(options: dict[str, object]) -> None:
    assert len(page(promoted(**options)).encode()) < 300_000


def test_charts_have_a_title_and_their_numbers_in_words() -> None:
    text = page(rolled_back())

    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert re.match(
            r'<svg viewBox="[^"]+" role="img" aria-label="[^"]+"><title>[^<]+</title><desc>[^<]+</desc>', svg
        )
    assert "canary: 0 to 10.0 %, at the end 10.0 %" in text


def test_a_page_says_how_the_run_ended_and_how_fast_it_rolled_back() -> None:
    text = Parser(page(rolled_back())).text

    assert "✗ rolled back" in text
    assert "84 ms from the verdict to weight 0 read back" in text
    assert "cut off, 20 → 0 % read back after 31 ms" in text


def test_a_run_without_an_end_is_shown_as_far_as_it_came() -> None:
    assert "? not finished" in Parser(page(unfinished())).text


def test_a_run_without_samples_shows_its_weights() -> None:
    events = [event for event in promoted() if not isinstance(event, Sampled)]

    assert page(events).count("<figure>") == 3


def test_a_journal_in_which_nothing_began_has_no_report() -> None:
    with pytest.raises(ValueError, match="no event of a run that has begun"):
        page([])


@pytest.mark.parametrize("end", range(1, 200, 13))
def test_a_run_that_was_cut_off_anywhere_has_a_report(end: int) -> None:
    Parser(page(list(rolled_back())[:end]))


def test_steps_are_told_in_numbers() -> None:
    found = summary(promoted())
    step = found.services["auth-service"].steps[1]

    assert (found.outcome, found.exit_code, found.stack) == ("done", 0, STACK)
    assert [each.weight for each in found.services["auth-service"].steps] == [5, 20, 50, 100]
    assert found.services["auth-service"].weight is None
    assert found.services["auth-service"].end == "promoted"
    assert step.verdicts == {"pass": 15, "inconclusive": 0, "fail": 0}
    assert step.verdict == "pass"
    assert step.share == pytest.approx(20)
    samples = [
        each.sample
        for each in promoted()
        if isinstance(each, Sampled) and each.sample.service == "auth-service" and each.sample.weight == 20
    ]
    assert step.canary.requests == pytest.approx(sum(each.canary.requests for each in samples if each.canary))
    assert step.canary.failed == sum(each.canary.failed for each in samples if each.canary)


def test_a_rollback_is_told_in_numbers() -> None:
    found = summary(rolled_back()).services["meal-planner-service"]

    assert (found.end, found.weight, found.rollback_seconds) == ("rolled-back", 0, 0.084)
    assert found.reason == "meal-planner-service: canary fails 9.8 points more often than stable"
    assert [each.verdicts["inconclusive"] for each in found.steps] == [9, 0]
    assert found.steps[1].verdict == "fail"
    # What follows a cut-off makes it permanent; it is no part of the step.
    assert found.steps[1].update_seconds == 2.9


def test_a_run_that_goes_on_after_another_begins_with_a_step_of_its_own() -> None:
    events = [event for event in unfinished() if event.event not in {"step-started", "weight-set"}]

    (step,) = summary(events).services["auth-service"].steps

    assert step.weight == 5
    assert step.update_seconds is None
    assert step.began == events[0].at + 2.9


def test_a_weight_that_is_not_the_one_asked_for_is_shown_as_read_back() -> None:
    events = [
        event.model_copy(update={"read_back": 3}) if isinstance(event, WeightSet) else event for event in unfinished()
    ]

    assert summary(events).services["auth-service"].weight == 3


def test_the_share_is_that_of_the_step_so_far() -> None:
    looks = [event for event in promoted(services=("cart",)) if isinstance(event, Sampled)][:2]
    stable, canary = (
        event.model_copy(
            update={
                "sample": event.sample.model_copy(
                    update={"aligned": event.sample.aligned and event.sample.aligned.model_copy(update={track: 0.0})}
                )
            }
        )
        for event, track in zip(looks, ("canary", "stable"), strict=True)
    )
    course = [event for event in promoted(services=("cart",)) if not isinstance(event, Sampled)]

    text = page([*course[:3], stable, canary])

    assert re.search(r"measured, of the step so far: 0 to (4\.\d|5\.\d|5) %, at the end (4\.\d|5\.\d|5) %", text)


def test_a_moment_without_neighbours_is_seen() -> None:
    assert 'class="dot' not in page(rolled_back())

    blind = [event for event in rolled_back() if isinstance(event, Sampled) and event.sample.canary is None]
    seen = [event for event in rolled_back() if isinstance(event, Sampled) and event.sample.canary]
    course = [event for event in rolled_back() if not isinstance(event, Sampled)]

    assert 'class="dot canary"' in page([*course[:5], blind[0], seen[0], blind[3]])


def test_samples_are_said_with_what_decides() -> None:
    looks = [event for event in rolled_back() if isinstance(event, Sampled)]
    good = next(line(event) for event in looks)
    blind = next(line(event) for event in looks if event.sample.canary is None)
    failing = next(line(event) for event in looks if event.verdict.outcome == "fail")

    assert good.startswith("auth-service: ✓ good so far; 97 requests (5.0 %); errors 0 %")
    assert blind.startswith("auth-service: ? inconclusive: error-rate, latency, share; http://prometheus")
    assert "✗ fail: canary fails 9.8 points more often than stable, at most 5 are allowed; 361 requests" in failing


def test_numbers_that_are_none_leave_gaps() -> None:
    events = [
        event.model_copy(
            update={"sample": event.sample.model_copy(update={"seconds": 0.0, "stable": None, "pods": None})}
        )
        if isinstance(event, Sampled)
        else event
        for event in unfinished()
    ]

    assert "stable: not measured" in page(events)
    assert "nan" not in page(events)
