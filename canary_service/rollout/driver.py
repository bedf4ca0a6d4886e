"""Takes canaries from 0 to promoted, or safely back: what `canary run` does.

The stack is the state: the next weight follows from the one read back from the cluster, so a run may be killed anywhere
and started again. Why it decides as it does: docs/adr/0013-driver.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from canary_service.cluster.errors import ClusterError, ForbiddenError
from canary_service.config.loader import ConfigError
from canary_service.config.settings import Settings
from canary_service.rollout import release
from canary_service.rollout.engine import EngineError
from canary_service.rollout.events import (
    EXIT_CODES,
    AnyEvent,
    Finished,
    Held,
    Promoted,
    Resumed,
    RolledBack,
    RunEnd,
    RunStarted,
    Sampled,
    ServiceAtStart,
    StepStarted,
    Troubled,
    WeightSet,
)
from canary_service.rollout.release import Copy, ReleaseError
from canary_service.rollout.samples import Sample
from canary_service.rollout.sampling import Mark
from canary_service.rollout.stack import LockedError, PodsError, PolicyError
from canary_service.rollout.steps import next_weights
from canary_service.rollout.tools import Tools
from canary_service.rollout.verdict import Verdict
from canary_service.workload.live import LiveService

CLUSTER_SECONDS: Final = 300.0
"""So long the API server may be away before a run ends, with the weight as it is."""

CUT_OFF_SECONDS: Final = 60.0
"""So long weight 0 is tried through the API server alone, before the engine is tried too."""

UPDATE_PAUSES: Final = (5.0, 15.0, 30.0)
"""Seconds before each further attempt of an update that failed."""

POLICY_EXIT_CODE: Final = 6
"""What a run ends with that a mandatory policy refuses, as other commands do (docs/reference.md)."""

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 0.2

GO_ON, STOP, ROLL_BACK = "go on", "stop", "roll back"

Answer = TypeVar("Answer")

_WAYS: Final = "`canary run` goes on from there, `canary abort` takes the canary out"


@dataclass(frozen=True, slots=True)
class Task:
    """What a run is asked for.

    Args:
        stack: PROJECT/STACK.
        services: those to move; none means all that have a canary.
        to: the step (percent) after which it ends without a promotion; None for promotion.
        approved: steps (percent) after which a person has approved already.
        again: also an image that was rolled back before.
        roll_back: why nothing is released, but taken out of the traffic; None for a release.
        by: who started it, as USER@HOST.
    """

    stack: str
    by: str | None = None
    services: tuple[str, ...] = ()
    to: int | None = None
    approved: frozenset[int] = frozenset()
    again: bool = False
    roll_back: str | None = None


class RunEnded(Exception):  # noqa: N818 - most ends are no errors
    """A run is over; `text` says how, and what to do next. `exit_code` is that of the outcome unless told otherwise."""

    def __init__(self, outcome: RunEnd, text: str, exit_code: int | None = None) -> None:
        self.outcome = outcome
        self.text = text
        self.exit_code = EXIT_CODES[outcome] if exit_code is None else exit_code
        super().__init__(text)


class _Failing(Exception):  # noqa: N818 - an order to roll back, not an error
    """The canary has to be taken out of the traffic now.

    `since` is when that was known (monotonic seconds). `unready` tells that an update has just waited in vain for pods.
    """

    def __init__(self, reason: str, since: float, *, unready: bool = False) -> None:
        self.reason = reason
        self.since = since
        self.unready = unready
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Start:
    """A run that may begin.

    `moving` are the services it takes along, `finishing` those whose promotion was begun. `returning` are those of
    `moving` that go to weight 0 at once: one was rolled back before, and the configuration gives it requests.
    """

    settings: Settings
    live: Mapping[str, LiveService]
    moving: tuple[str, ...]
    finishing: tuple[str, ...]
    returning: tuple[str, ...] = ()


@dataclass(slots=True)
class _Watched:
    """The samples of services since `begin` (monotonic seconds), and the marks by which they are taken."""

    begin: float
    marks: dict[str, Mark]
    samples: dict[str, list[Sample]] = field(default_factory=dict)


@dataclass(slots=True)
class _Hold:
    """Why services do not rise yet: `since` when (monotonic seconds) that is so; `weight` is what they have passed."""

    names: tuple[str, ...]
    weight: int
    approved: bool = True
    asking: bool = False
    since: float | None = None


class Driver:
    """One run.

    Args:
        task: what it is asked for.
        tools: what it works with.
        listeners: are told of every event; one that fails is said to have failed, and told no more.
    """

    def __init__(self, task: Task, tools: Tools, listeners: Iterable[Callable[[AnyEvent], object]]) -> None:
        self._task = task
        self._engine, self._cluster, self._sampler = tools.engine, tools.cluster, tools.sampler
        self._judge, self._clock, self._signals, self._person = tools.judge, tools.clock, tools.signals, tools.person
        self._progress = tools.progress
        self._listeners = list(listeners)
        self._images: dict[str, str] = {}
        self._weights: dict[str, int] = {}
        self._promoted: list[str] = []
        self._question = ""
        self._answers: tuple[str, ...] = (GO_ON, STOP)
        self._settings: Settings

    def prepare(self) -> Start:
        """Read configuration and cluster, and decide what a run would move; changes nothing.

        Raises:
            RunEnded: there is nothing to do, or it may not be done.
            KeyboardInterrupt: somebody wants it to end.
        """
        settings = self._settings = self._declared()
        chosen = self._task.services or tuple(settings.services)
        live = self._read(chosen)
        moving = tuple(name for name in chosen if settings.services[name].canary)
        finishing = tuple(
            name
            for name in chosen
            if name not in moving and live[name].canary_image in {settings.services[name].image} - {None}
        )
        if not moving and not finishing:
            raise RunEnded("done", "no canary is declared, so there is nothing to release")
        self._images = {name: canary.image for name in moving if (canary := settings.services[name].canary)}
        self._weights = {name: live[name].weight for name in moving}
        start = Start(settings, live, moving, finishing)
        self._refuse(start)
        return replace(start, returning=self._returning(start))

    def run(self, start: Start, run: str, listeners: Iterable[Callable[[AnyEvent], object]] = ()) -> Finished:
        """Carry it out, and return its last event.

        Args:
            start: what `prepare` found.
            run: the name of the run.
            listeners: further ones, such as its journal.
        """
        self._listeners += listeners
        try:
            self._begin(start, run)
            for group in self._groups(start.moving):
                self._release(group)
            end = RunEnded("done", self._done(start))
        except RunEnded as ended:
            end = ended
        except KeyboardInterrupt:
            end = RunEnded("interrupted", f"ended at once; {self._at(self._weights)}, as read back last. {_WAYS}")
        finished = Finished(
            at=self._clock.time(),
            stack=self._task.stack,
            outcome=end.outcome,
            exit_code=end.exit_code,
            text=end.text,
        )
        self._emit(finished)
        return finished

    def _refuse(self, start: Start) -> None:
        """Refuse what was rolled back before, and a weight that is beyond what is asked for."""
        if self._task.to is not None:
            beyond = [name for name in start.moving if self._weights[name] > self._task.to]
            if beyond:
                raise RunEnded("refused", f"{self._at(beyond)}, above {self._task.to} %, where the run is to end")
        if not self._task.again and self._task.roll_back is None:
            again = self._formerly_rolled_back(start)
            if again and not self._unfinished_rollback(start, again):
                raise RunEnded(
                    "refused",
                    f"{_listed(again)}: this canary was rolled back before. Declare another image, or `canary run "
                    "--again` tries the same one again",
                )

    def _unfinished_rollback(self, start: Start, again: Sequence[str]) -> bool:
        """Tell whether a run was killed in its rollback: the configuration would still give the canary requests."""
        return any(not self._weights[name] and start.settings.canary_weight_of(name)[0] for name in again)

    def _returning(self, start: Start) -> tuple[str, ...]:
        if self._task.again or self._task.roll_back is not None:
            return ()
        rolled_back = set(self._formerly_rolled_back(start))
        return next((group for group in self._groups(start.moving) if rolled_back & set(group)), ())

    def _formerly_rolled_back(self, start: Start) -> list[str]:
        return [name for name in start.moving if _was_rolled_back(start.live[name], self._images[name])]

    def _begin(self, start: Start, run: str) -> None:
        rollout = start.settings.rollout
        self._emit(
            RunStarted(
                at=self._clock.time(),
                stack=self._task.stack,
                run=run,
                by=self._task.by,
                command="run",
                steps=rollout.steps,
                step_seconds=rollout.step_seconds,
                sample_seconds=rollout.sample_seconds,
                services={
                    name: ServiceAtStart(
                        stable_image=start.live[name].stable_image,
                        canary_image=self._images.get(name, start.live[name].canary_image),
                        weight=start.live[name].weight,
                    )
                    for name in (*start.finishing, *start.moving)
                },
            )
        )
        if self._task.roll_back is not None and start.moving:
            self._roll_back(start.moving, _Failing(self._task.roll_back, self._clock.monotonic()))
        for text in self._hearing(self._sampler.obstacles) if start.moving else ():
            self._emit_trouble(text)
        rolled_back = self._formerly_rolled_back(start)
        if start.returning:
            reason = (
                f"{_listed(name for name in rolled_back if name in start.returning)}: this canary was rolled back "
                "before, and the configuration gives it requests; `canary run --again` tries the same image again"
            )
            self._roll_back(start.returning, _Failing(reason, self._clock.monotonic()))
        for name in rolled_back:
            self._patiently(lambda name=name: self._cluster.mark_rolled_back(name, None))  # type: ignore[misc]
        if start.finishing:
            self._update(start.finishing, promoting=True)
            self._confirm_promotion(start.finishing)

    def _groups(self, names: tuple[str, ...]) -> list[tuple[str, ...]]:
        if not names:
            return []
        return [names] if self._settings.rollout.order == "lockstep" else [(name,) for name in names]

    def _release(self, group: tuple[str, ...]) -> None:
        """Take the services of a group up step by step, and promote them."""
        rollout = self._settings.rollout
        steps = [step for step in rollout.steps if self._task.to is None or step <= self._task.to]
        self._answers = (GO_ON, STOP, ROLL_BACK)
        try:
            self._deploy(group)
            while True:
                weights = {name: self._weights[name] for name in group}
                if any(weights.values()) and not self._watch(group, weights):
                    continue
                following = next_weights(weights, steps, rollout.max_step)
                if following is None:
                    break
                self._shift(group, following)
        except _Failing as failing:
            self._roll_back(group, failing)
        self._answers = (GO_ON, STOP)  # once a promotion is declared, stable may have begun to change
        if self._task.to is None:
            self._promote(group)

    def _deploy(self, group: tuple[str, ...]) -> None:
        """Let what gets requests be what is declared, before it is watched: the guards say whether that may be."""
        live = self._read(group)
        self._weights |= {name: live[name].weight for name in group}
        others = [name for name in group if live[name].canary_image != self._images[name]]
        if others and any(self._weights[name] for name in group):
            self._set_weights({name: self._weights[name] for name in group})
            self._update(group)
            self._unchanged(group, dict(self._weights))

    def _shift(self, group: tuple[str, ...], weights: Mapping[str, int]) -> None:
        """Give each service its weight by an update, and read it back."""
        before = dict(self._weights)
        rising = tuple(name for name in group if weights[name] != before[name])
        (weight,) = {weights[name] for name in rising}
        self._emit(StepStarted(at=self._clock.time(), stack=self._task.stack, services=rising, weight=weight))
        began = self._clock.monotonic()
        self._set_weights(dict.fromkeys(rising, weight))
        try:
            self._update(group)
        except RunEnded:
            self._put_back(group)
            raise
        self._unchanged(group, weights)
        seconds = self._clock.monotonic() - began
        for name in rising:
            self._emit_weight(name, before[name], seconds, "update")

    def _watch(self, group: tuple[str, ...], weights: Mapping[str, int]) -> bool:
        """Look at the canaries until they have passed; return False when a weight was changed meanwhile."""
        rollout, clock = self._settings.rollout, self._clock
        names = tuple(name for name in group if weights[name])
        self._wait(self._settings.router_of_stack().sync_seconds)
        watched = self._begin_watch(names)
        due = watched.begin
        hold = _Hold(names, min(weights[name] for name in names))
        hold.approved = self._needs_no_approval(hold.weight)
        passed = False
        while True:
            due = max(due + rollout.sample_seconds, clock.monotonic())
            if answer := self._pause(due - clock.monotonic()):
                self._question = ""
                self._decide(answer)
                hold.asking, hold.approved = False, True
            elif not self._unchanged(group, weights):
                return False
            else:
                verdicts = self._sampled(watched, weights)
                if verdicts is None:
                    return False
                passed = _all_pass(verdicts)
                self._hold(hold, verdicts, passed=passed, over=self._is_over(self._remaining(watched)))
            if passed and hold.approved:
                break
        if hold.since is not None:
            self._emit(Resumed(at=clock.time(), stack=self._task.stack, services=names))
        return True

    def _hold(self, hold: _Hold, verdicts: Sequence[Verdict], *, passed: bool, over: bool) -> None:
        """Begin to hold when there is a reason to, and end the run when that takes too long."""
        now = self._clock.monotonic()
        reason = _unknown(verdicts)
        if passed and not hold.approved and not hold.asking:
            hold.since, hold.asking = now, True
            self._ask_for_approval(hold)
        elif over and not passed and hold.since is None:
            hold.since = now
            self._emit_held(hold.names, reason)
        if hold.since is not None and not (passed and hold.approved):
            seconds = self._settings.rollout.hold_seconds
            if now - hold.since >= seconds:
                reason = "nobody has approved" if passed else reason
                text = f"{self._at(hold.names)}, held for {seconds} s (rollout.holdSeconds): {reason}. {_WAYS}"
                raise RunEnded("held", text)

    def _begin_watch(self, names: Iterable[str]) -> _Watched:
        watched = _Watched(self._clock.monotonic(), {name: self._sampler.begin(name) for name in names})
        watched.samples = {name: [] for name in watched.marks}
        return watched

    def _sampled(self, watched: _Watched, weights: Mapping[str, int]) -> list[Verdict] | None:
        """Take a sample of each service and return the verdicts.

        They are None when a weight has changed since it was looked at: then nothing is judged any more.

        Raises:
            _Failing: a canary is worse than it may be.
        """
        verdicts = []
        for name, mark in watched.marks.items():
            sample = self._hearing(partial(self._sampler.sample, name, mark))
            if sample.weight not in {weights[name], None}:
                return None
            remaining = self._remaining(watched)
            samples = watched.samples[name]
            samples.append(sample)
            verdict = self._judge(samples, complete=self._is_over(remaining))
            judged = self._clock.monotonic()
            verdicts.append(verdict)
            self._emit(
                Sampled(
                    at=sample.at,
                    stack=self._task.stack,
                    sample=sample,
                    verdict=verdict,
                    remaining_seconds=max(0.0, remaining),
                )
            )
            if verdict.outcome == "fail":
                # A look at the next service may take long, and requests go to this canary meanwhile.
                raise _Failing(_failures(verdict), judged)
        return verdicts

    def _unchanged(self, group: tuple[str, ...], weights: Mapping[str, int]) -> bool:
        """Read back, and tell whether the weights are still as expected; that others have changed them is said.

        Raises:
            RunEnded: a canary is another one, or gets less than before.
            _Failing: a canary is gone, and still gets requests.
        """
        live = self._read(group)
        for name in group:
            image = live[name].canary_image
            if image is None and live[name].weight:
                text = f"{name}: the canary is gone, and {live[name].weight} % of the requests still go to it"
                raise _Failing(text, self._clock.monotonic())
            if image != self._images[name]:
                raise RunEnded(
                    "refused",
                    f"{name}: the canary {self._images[name]} {'is gone' if image is None else f'is {image} now'}: "
                    "somebody else has changed it. This run ends and changes nothing any more",
                )
        former = dict(self._weights)
        self._weights |= {name: live[name].weight for name in group}
        if lowered := [name for name in group if self._weights[name] < former[name]]:
            raise RunEnded(
                "held",
                f"{self._at(lowered)} instead of {_percents(former, lowered)}: somebody has lowered it, and this run "
                f"does not raise it again by itself. {_WAYS}",
            )
        if changed := [name for name in group if self._weights[name] != weights[name]]:
            self._emit_trouble(
                f"{self._at(changed)} instead of {_percents(weights, changed)}: somebody has changed it. It is "
                "watched anew from here"
            )
        return not changed

    def _remaining(self, watched: _Watched) -> float:
        return watched.begin + self._settings.rollout.step_seconds - self._clock.monotonic()

    def _is_over(self, remaining: float) -> bool:
        """Tell whether a step with so many seconds left is over: samples do not come to the very second."""
        return remaining <= self._settings.rollout.sample_seconds / 2

    def _needs_no_approval(self, weight: int) -> bool:
        asked_for = weight in self._settings.rollout.approvals and weight != self._task.to
        return not asked_for or weight in self._task.approved

    def _ask_for_approval(self, hold: _Hold) -> None:
        reason = f"passed at {hold.weight} %; a person has to approve before it goes on"
        self._emit_held(hold.names, reason, approval=True)
        if not self._person.present:
            raise RunEnded("held", f"{_listed(hold.names)}: {reason}: `canary run --approve {hold.weight}`")
        self._question = f"{_listed(hold.names)} passed at {hold.weight} %."
        self._person.ask(self._question, self._answers)

    def _promote(self, group: tuple[str, ...]) -> None:
        services = self._settings.services
        managed = tuple(name for name in group if services[name].stable == "managed")
        if not managed:
            return
        self._attempt(lambda: self._engine.set(release.promotion(self._checked(managed), managed)))
        try:
            self._update(managed, promoting=True)
        except RunEnded as ended:
            # Nothing was begun. After any other end the next run finishes the promotion, as declared.
            if ended.outcome in {"refused", "locked"} and not self._engine.restore():
                self._emit_trouble("the configuration declares the promotion")
            raise
        self._confirm_promotion(managed)

    def _confirm_promotion(self, group: tuple[str, ...]) -> None:
        live = self._read(group)
        left = [name for name in group if live[name].canary is not None or live[name].weight]
        if left:
            raise RunEnded("failed", f"{_listed(left)}: promoted, but the canary is still there. {_WAYS}")
        self._promoted += group
        self._emit(Promoted(at=self._clock.time(), stack=self._task.stack, services=group))

    def _update(self, group: tuple[str, ...], *, promoting: bool = False) -> None:
        """Run the engine, again when it fails and that may help; roll back when the canary turns out to be why."""
        watched: _Watched | None = None
        pauses = iter(UPDATE_PAUSES)
        while True:
            try:
                with self._signals.allowed():
                    self._engine.up(self._progress)
            except KeyboardInterrupt:
                self._interrupted()
                continue
            except LockedError as error:
                where = "" if promoting else f"; {self._at(group)}, and `canary run` goes on from there"
                raise RunEnded("locked", f"{error}{where}") from error
            except EngineError as error:
                if isinstance(error, PolicyError) or error.usage:
                    raise _refused(error) from error
                watched = watched or self._begin_watch(() if promoting else group)
                pause = next(pauses, None)
                self._wait(_FIRST_PAUSE_SECONDS if pause is None else pause)
                self._judge_failure(tuple(watched.marks), watched, error)
                if pause is None or isinstance(error, PodsError):
                    where = "" if promoting else f"\nNow {self._at(group)}"
                    raise RunEnded("failed", f"{_cause(error)}{where}. {_WAYS}") from error
                self._emit_trouble(f"{error}\nThe update is tried again")
            else:
                return

    def _judge_failure(self, group: tuple[str, ...], watched: _Watched, error: EngineError) -> None:
        """Roll back if an update failed because the canary does."""
        try:
            live = self._cluster.read()
        except ClusterError:
            return
        self._weights |= {name: live[name].weight for name in group}
        if any(live[name].canary_image != self._images[name] for name in group):
            return
        try:
            self._sampled(watched, self._weights)
        except _Failing as failing:
            reason = f"{failing.reason}; the update failed: {_in_short(error)}"
            raise _Failing(reason, failing.since, unready=isinstance(error, PodsError)) from None

    def _roll_back(self, group: tuple[str, ...], failing: _Failing) -> None:
        """Take the canaries out of the traffic, first by the API server alone, then for good."""
        problem = self._cut_off(group, CUT_OFF_SECONDS, failing.since)
        if not problem:
            self._rolled_back(group, failing)
        trouble = self._make_permanent(group, unready=failing.unready)
        if problem:
            problem = self._cut_off(group, 0, failing.since)
            if problem:
                raise RunEnded(
                    "failed",
                    f"{failing.reason}. THE CANARY MAY STILL GET REQUESTS: neither through the API server nor by the "
                    f"engine could weight 0 be set and read back: {problem}. As soon as they answer: `canary abort`",
                )
            self._rolled_back(group, failing)
        text = f"{_listed(group)} rolled back to 0 %: {failing.reason}"
        promoted = f"{_listed(self._promoted)} promoted before" if self._promoted else ""
        raise RunEnded("rolled-back", ". ".join(filter(None, (text, promoted, trouble))))

    def _rolled_back(self, group: tuple[str, ...], failing: _Failing) -> None:
        seconds = self._clock.monotonic() - failing.since
        self._emit(
            RolledBack(
                at=self._clock.time(), stack=self._task.stack, services=group, reason=failing.reason, seconds=seconds
            )
        )
        for name in group:
            try:
                self._cluster.mark_rolled_back(name, self._images[name])
            except ClusterError as error:
                self._emit_trouble(f"{name}: it could not be noted that this canary was rolled back: {error}")

    def _cut_off(self, group: tuple[str, ...], seconds: float, since: float) -> str:
        """Set weight 0 through the API server and read it back; return what stands in the way, empty for nothing."""
        begin, pause, told = self._clock.monotonic(), _FIRST_PAUSE_SECONDS, False
        left = set(group)
        while True:
            problem = ""
            try:
                self._cluster.lower(dict.fromkeys(left, 0))
            except ClusterError as error:
                problem = str(error)
            took = self._clock.monotonic() - since
            for name in sorted(left - self._above_0(left) if problem else left):
                left.remove(name)
                before, self._weights[name] = self._weights[name], 0
                if before:
                    self._emit_weight(name, before, took, "cut-off")
            if not left:
                return ""
            if self._clock.monotonic() - begin >= seconds:
                return problem
            if not told:
                self._emit_trouble(f"{problem}. The cut-off is tried again")
                told = True
            self._clock.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _above_0(self, names: Iterable[str]) -> set[str]:
        """Return those of the services of which weight 0 was not read back."""
        try:
            live = self._cluster.read()
        except ClusterError:
            return set(names)
        return {name for name in names if live[name].weight or live[name].unreadable}

    def _make_permanent(self, group: tuple[str, ...], *, unready: bool) -> str:
        """Declare weight 0 and update, unless pods keep that from its end; return what did not work."""
        problem = ""
        until = "until another image is declared, or `canary abort --remove` takes the canary out"
        for pause in (*UPDATE_PAUSES, None):
            try:
                declared = self._engine.settings()
                names = [name for name in group if name in declared.services and declared.services[name].canary]
                self._engine.set(release.withdrawal(declared, names))
                if unready:
                    return f"Weight 0 is declared. Every update waits for these pods {until}"
                problem = "Weight 0 is declared, but the update failed"
                self._engine.up(self._progress)
            except PodsError as error:
                return f"{problem}: {_in_short(error)}. Every other one waits for these pods too, {until}"
            except (EngineError, ConfigError) as error:
                problem = problem or "The configuration still declares another weight"
                text = f"{problem}: {_cause(error)}"
                if pause is None:
                    return f"{text}. Run `canary abort` when that is mended"
                self._emit_trouble(f"{text}\nIt is tried again")
                self._clock.wait(pause)
                # The update that was in the way may have put the former weight back.
                self._cut_off(group, 0, self._clock.monotonic())
            else:
                return ""
        return problem

    def _set_weights(self, weights: Mapping[str, int]) -> None:
        """Declare a weight for each service."""

        def changed() -> None:
            settings = self._checked(tuple(weights))
            changes: dict[str, str | Copy | None] = {}
            for weight in sorted(set(weights.values())):
                names = [name for name in weights if weights[name] == weight]
                changes |= release.weight_changes(settings, names, weight)
            self._engine.set(changes)

        self._attempt(changed)

    def _put_back(self, group: tuple[str, ...]) -> None:
        """Declare the weights that are in force, so that somebody's next update changes nothing by surprise."""
        try:
            live = self._cluster.read()
            former = {name: self._weights[name] for name in group}
            self._weights |= {name: live[name].weight for name in group}
            if any(self._weights[name] != former[name] for name in group) or not self._engine.restore():
                self._set_weights({name: self._weights[name] for name in group})
        except (ClusterError, EngineError, RunEnded) as error:
            self._emit_trouble(f"the configuration may declare another weight than the one in force: {error}")

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except ReleaseError as error:
            raise RunEnded("refused", str(error)) from error
        except EngineError as error:
            raise _refused(error) if error.usage else RunEnded("failed", str(error)) from error

    def _declared(self) -> Settings:
        try:
            return self._engine.settings()
        except ConfigError as error:
            raise RunEnded("refused", str(error)) from error
        except EngineError as error:
            raise _refused(error) if error.usage else RunEnded("failed", str(error)) from error

    def _checked(self, group: tuple[str, ...]) -> Settings:
        """Return the configuration as it is now, if it still declares the canaries that this run moves."""
        settings = self._declared()
        for name in group:
            service = settings.services.get(name)
            image = service.canary.image if service and service.canary else "none"
            if image != self._images[name]:
                raise RunEnded(
                    "refused",
                    f"{name}: the configuration has changed meanwhile: the canary was {self._images[name]} and is "
                    f"{image} now; {self._at(group)}. `canary run` begins with what is declared",
                )
        return settings

    def _read(self, names: Iterable[str]) -> Mapping[str, LiveService]:
        """Read the cluster; when it does not answer, wait for it."""

        def read() -> Mapping[str, LiveService]:
            live = self._cluster.read()
            for name in names:
                if live[name].unreadable:
                    raise ClusterError(f"the weight of {name} cannot be read back: {live[name].unreadable}")
            return live

        names = tuple(names)
        return self._patiently(read)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        begin, pause, told = self._clock.monotonic(), _FIRST_PAUSE_SECONDS, False
        while True:
            try:
                answer = self._hearing(ask)
            except ForbiddenError as error:
                raise RunEnded("failed", str(error)) from error
            except ClusterError as error:
                seconds = self._clock.monotonic() - begin
                if seconds >= CLUSTER_SECONDS:
                    raise RunEnded("failed", f"{error}\nThat is so for {seconds:.0f} s. {_WAYS}") from error
                if not told:
                    self._emit_trouble(f"{error}\nIt is asked again, for {CLUSTER_SECONDS:.0f} s")
                    told = True
                self._wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                if told:
                    self._emit_trouble(f"the cluster answers again, after {self._clock.monotonic() - begin:.0f} s")
                return answer

    def _hearing(self, look: Callable[[], Answer]) -> Answer:
        """Look at something, which may take long; once more if it was interrupted and the run goes on."""
        while True:
            try:
                with self._signals.allowed():
                    return look()
            except KeyboardInterrupt:
                self._interrupted()

    def _wait(self, seconds: float) -> None:
        """Wait, unless somebody wants the run to end."""
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            try:
                with self._signals.allowed():
                    self._clock.wait(left)
            except KeyboardInterrupt:
                self._interrupted()

    def _pause(self, seconds: float) -> str | None:
        """Wait, or when there is a question, until it is answered."""
        end = self._clock.monotonic() + seconds
        while self._question:
            if answer := self._person.answer():
                return answer
            left = end - self._clock.monotonic()
            if left <= 0:
                return None
            self._wait(min(left, _ANSWER_SECONDS))
        self._wait(seconds)
        return None

    def _interrupted(self) -> None:
        """Return if a person wants the run to go on; without one it ends."""
        if self._signals.at_once:
            raise KeyboardInterrupt
        if self._signals.roll_back and ROLL_BACK in self._answers:
            raise _Failing(
                "it was told to by a signal, as when another stack of its wave fails", self._clock.monotonic()
            )
        if self._person.present and self._signals.typed:
            where = f"; {self._at(self._weights)}" if self._weights else ""
            self._person.ask(f"Interrupted{where}.", self._answers)
            while (answer := self._person.answer()) is None:
                self._clock.wait(_ANSWER_SECONDS)
            self._decide(answer)
            self._signals.answered()
            if self._question:  # which the answer just given was not for
                self._person.ask(self._question, self._answers)
            return
        raise self._stopped()

    def _decide(self, answer: str) -> None:
        """Return for "go on"; end or roll back otherwise."""
        if answer == ROLL_BACK:
            raise _Failing("somebody wanted it", self._clock.monotonic())
        if answer == STOP:
            raise self._stopped()

    def _stopped(self) -> RunEnded:
        where = f"; {self._at(self._weights)}. {_WAYS}" if self._weights else ""
        return RunEnded("interrupted", f"stopped{where}")

    def _done(self, start: Start) -> str:
        if self._task.to is not None and start.moving:
            return f"{self._at(start.moving)}, where the run was to end"
        text = f"{_listed(self._promoted)} promoted" if self._promoted else ""
        if existing := [name for name in start.moving if name not in self._promoted]:
            images = ", ".join(f"{self._images[name]} ({name})" for name in existing)
            text += f"{text and '; '}{self._at(existing)}, and something else owns stable: deploy {images} there, wait "
            text += "until it is ready, then `canary abort --remove`"
        return text

    def _at(self, names: Iterable[str]) -> str:
        return "the canary gets " + _percents(self._weights, names)

    def _emit_weight(self, name: str, before: int, seconds: float, means: str) -> None:
        self._emit(
            WeightSet.model_validate(
                {
                    "at": self._clock.time(),
                    "stack": self._task.stack,
                    "service": name,
                    "before": before,
                    "read_back": self._weights[name],
                    "seconds": seconds,
                    "means": means,
                }
            )
        )

    def _emit_held(self, names: tuple[str, ...], reason: str, *, approval: bool = False) -> None:
        at, stack = self._clock.time(), self._task.stack
        self._emit(Held(at=at, stack=stack, services=names, reason=reason, approval=approval))

    def _emit_trouble(self, text: str) -> None:
        self._emit(Troubled(at=self._clock.time(), stack=self._task.stack, text=text))

    def _emit(self, event: AnyEvent) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a view must not keep a canary in the traffic
                self._listeners.remove(listener)
                self._emit_trouble(f"{type(error).__name__}: {error}: no more events go to {listener}")


def _failures(verdict: Verdict) -> str:
    return "; ".join(f"{verdict.service}: {gate.text}" for gate in verdict.gates if gate.outcome == "fail")


def _unknown(verdicts: Iterable[Verdict]) -> str:
    """Return which gates have too little to go by, and of which services."""
    services: dict[str, list[str]] = {}
    for verdict in verdicts:
        gates = ", ".join(gate.gate for gate in verdict.gates if gate.outcome == "inconclusive")
        if gates:
            services.setdefault(gates, []).append(verdict.service)
    return "; ".join(f"too little is known of {gates} ({_listed(names)})" for gates, names in services.items())


def _all_pass(verdicts: Iterable[Verdict]) -> bool:
    return all(verdict.outcome == "pass" for verdict in verdicts)


def _percents(weights: Mapping[str, int], names: Iterable[str]) -> str:
    names = tuple(names)
    if len({weights[name] for name in names}) == 1:
        return f"{weights[names[0]]} % ({_listed(names)})"
    return ", ".join(f"{weights[name]} % ({name})" for name in names)


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _cause(error: Exception) -> str:
    """Return what an error says, without its advice, so that a sentence can follow."""
    return (error.cause if isinstance(error, PodsError) else str(error)).rstrip(".")


def _in_short(error: EngineError) -> str:
    """Return what an update failed by, without the reasons of pods, which the samples have."""
    return _cause(error).partition("\n")[0].rstrip(".") if isinstance(error, PodsError) else _cause(error)


def _refused(error: EngineError) -> RunEnded:
    return RunEnded("refused", str(error), POLICY_EXIT_CODE if isinstance(error, PolicyError) else None)


def _was_rolled_back(live: LiveService, image: str) -> bool:
    return live.canary is not None and live.canary.rolled_back == image
