"""Takes canaries from 0 to promoted, or safely back: what `canary run` does.

The stack is the state: the next weight follows from the one read back from the cluster, so a run may be killed anywhere
and started again. Why it decides as it does: docs/adr/0013-driver.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

from canary_service.cluster.errors import ClusterError
from canary_service.config.settings import Settings
from canary_service.rollout import pauses, release
from canary_service.rollout.attention import Attention
from canary_service.rollout.emitter import Emitter
from canary_service.rollout.ends import WAYS, FailingCanary, RunEnded, attempted, cause, in_short, refused
from canary_service.rollout.engine import EngineError
from canary_service.rollout.event_words import joined
from canary_service.rollout.events import (
    AnyEvent,
    Finished,
    Promoted,
    Resumed,
    RunStarted,
    Sampled,
    ServiceAtStart,
    StepStarted,
)
from canary_service.rollout.rollback import Rollback
from canary_service.rollout.samples import Sample
from canary_service.rollout.sampling import Mark
from canary_service.rollout.stack import LockedError, PodsError, PolicyError
from canary_service.rollout.steps import next_weights
from canary_service.rollout.tools import Tools
from canary_service.rollout.verdict import Verdict
from canary_service.workload.live import LiveService


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
        self._tools = tools
        self._engine, self._cluster, self._sampler = tools.engine, tools.cluster, tools.sampler
        self._judge, self._clock = tools.judge, tools.clock
        self._emitter = Emitter(task.stack, tools.clock, listeners)
        self._attention = Attention(tools, self._emitter, lambda: self._at(self._weights) if self._weights else "")
        self._images: dict[str, str] = {}
        self._weights: dict[str, int] = {}
        self._unread: dict[str, str] = {}
        self._promoted: list[str] = []
        self._settings: Settings

    def prepare(self) -> Start:
        """Read configuration and cluster, and decide what a run would move; changes nothing.

        Raises:
            RunEnded: there is nothing to do, or it may not be done.
            KeyboardInterrupt: somebody wants it to end.
        """
        settings = self._settings = attempted(self._engine.settings)
        chosen = self._task.services or tuple(settings.services)
        live = self._look()
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
        self._emitter.add(listeners)
        try:
            self._begin(start, run)
            for group in self._groups(start.moving):
                self._release(group)
            end = RunEnded("done", self._done(start))
        except RunEnded as ended:
            end = ended
        except KeyboardInterrupt:
            end = RunEnded("interrupted", f"ended at once; {self._at(self._weights)}, as read back last. {WAYS}")
        finished = Finished(
            at=self._clock.time(),
            stack=self._task.stack,
            outcome=end.outcome,
            exit_code=end.exit_code,
            text=end.text,
        )
        self._emitter.emit(finished)
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
                    f"{joined(again)}: this canary was rolled back before. Declare another image, or `canary run "
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
        self._emitter.emit(
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
                        weight=None if start.live[name].unreadable else start.live[name].weight,
                    )
                    for name in (*start.finishing, *start.moving)
                },
            )
        )
        if self._task.roll_back is not None and start.moving:
            self._roll_back(start.moving, FailingCanary(self._task.roll_back, self._clock.monotonic()))
        for text in self._attention.hear(self._sampler.obstacles) if start.moving else ():
            self._emitter.trouble(text)
        rolled_back = self._formerly_rolled_back(start)
        if start.returning:
            reason = (
                f"{joined(name for name in rolled_back if name in start.returning)}: this canary was rolled back "
                "before, and the configuration gives it requests; `canary run --again` tries the same image again"
            )
            self._roll_back(start.returning, FailingCanary(reason, self._clock.monotonic()))
        for name in rolled_back:
            self._attention.patiently(lambda name=name: self._cluster.mark_rolled_back(name, None))  # type: ignore[misc]
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
        self._attention.may_roll_back = True
        try:
            self._deploy(group)
            while True:
                weights = {name: self._weights[name] for name in group}
                if (any(weights.values()) or self._unread) and not self._watch(group, weights):
                    continue
                following = next_weights(weights, steps, rollout.max_step)
                if following is None:
                    break
                self._shift(group, following)
        except FailingCanary as failing:
            self._roll_back(group, failing)
        self._attention.may_roll_back = False  # once a promotion is declared, stable may have begun to change
        if self._task.to is None:
            self._promote(group)

    def _deploy(self, group: tuple[str, ...]) -> None:
        """Let what gets requests be what is declared, before it is watched: the guards say whether that may be."""
        live = self._look()
        self._note(group, live)
        others = [name for name in group if live[name].canary_image != self._images[name]]
        if others and self._unread:
            live = self._read(group)
            self._note(group, live)
        if others and any(self._weights[name] for name in group):
            self._set_weights({name: self._weights[name] for name in group})
            self._update(group)
            self._unchanged(group, dict(self._weights))

    def _shift(self, group: tuple[str, ...], weights: Mapping[str, int]) -> None:
        """Give each service its weight by an update, and read it back."""
        before = dict(self._weights)
        rising = tuple(name for name in group if weights[name] != before[name])
        (weight,) = {weights[name] for name in rising}
        self._emitter.emit(StepStarted(at=self._clock.time(), stack=self._task.stack, services=rising, weight=weight))
        began = self._clock.monotonic()
        self._set_weights(dict.fromkeys(rising, weight))
        try:
            self._update(group)
        except RunEnded:
            self._put_back(group)
            raise
        self._unchanged(group, weights)
        seconds = self._clock.monotonic() - began
        for name in (each for each in rising if each not in self._unread):
            self._emitter.weight_set(name, before[name], self._weights[name], seconds, "update")

    def _watch(self, group: tuple[str, ...], weights: Mapping[str, int]) -> bool:
        """Look at the canaries until they have passed; return False when a weight was changed meanwhile."""
        rollout, clock = self._settings.rollout, self._clock
        unread = set(self._unread)
        names = tuple(name for name in group if weights[name] or name in unread)
        self._attention.wait(self._settings.router_of_stack().sync_seconds)
        watched = self._begin_watch(names)
        due = watched.begin
        hold = _Hold(names, min((weights[name] for name in names if weights[name]), default=0))
        hold.approved = self._needs_no_approval(hold.weight)
        passed = False
        while True:
            due = max(due + rollout.sample_seconds, clock.monotonic())
            if self._attention.pause(due - clock.monotonic()):
                hold.asking, hold.approved = False, True
            elif not self._unchanged(group, weights) or unread - self._unread.keys():
                return False
            else:
                verdicts = self._sampled(watched, weights)
                if verdicts is None:
                    return False
                passed = _all_pass(verdicts) and not self._unread
                self._hold(hold, verdicts, passed=passed, over=self._is_over(self._remaining(watched)))
            if passed and hold.approved:
                break
        if hold.since is not None:
            self._emitter.emit(Resumed(at=clock.time(), stack=self._task.stack, services=names))
        return True

    def _hold(self, hold: _Hold, verdicts: Sequence[Verdict], *, passed: bool, over: bool) -> None:
        """Begin to hold when there is a reason to, and end the run when that takes too long."""
        now = self._clock.monotonic()
        unread = f"the weight of {joined(self._unread)} cannot be read back" if self._unread else ""
        reason = "; ".join(filter(None, (unread, _unknown(verdicts))))
        if passed and not hold.approved and not hold.asking:
            hold.since, hold.asking = now, True
            self._ask_for_approval(hold)
        elif over and not passed and hold.since is None:
            hold.since = now
            self._emitter.held(hold.names, reason)
        if hold.since is not None and not (passed and hold.approved):
            seconds = self._settings.rollout.hold_seconds
            if now - hold.since >= seconds:
                reason = "nobody has approved" if passed else reason
                text = f"{self._at(hold.names)}, held for {seconds} s (rollout.holdSeconds): {reason}. {WAYS}"
                raise RunEnded("held", text)

    def _begin_watch(self, names: Iterable[str]) -> _Watched:
        watched = _Watched(self._clock.monotonic(), {name: self._sampler.begin(name) for name in names})
        watched.samples = {name: [] for name in watched.marks}
        return watched

    def _sampled(self, watched: _Watched, weights: Mapping[str, int]) -> list[Verdict] | None:
        """Take a sample of each service and return the verdicts.

        They are None when a weight has changed since it was looked at: then nothing is judged any more.

        Raises:
            FailingCanary: a canary is worse than it may be.
        """
        verdicts = []
        for name, mark in watched.marks.items():
            sample = self._attention.hear(partial(self._sampler.sample, name, mark))
            if sample.weight not in {weights[name], None}:
                return None
            remaining = self._remaining(watched)
            samples = watched.samples[name]
            samples.append(sample)
            verdict = self._judge(samples, complete=self._is_over(remaining))
            judged = self._clock.monotonic()
            verdicts.append(verdict)
            self._emitter.emit(
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
                raise FailingCanary(_failures(verdict), judged)
        return verdicts

    def _unchanged(self, group: tuple[str, ...], weights: Mapping[str, int]) -> bool:
        """Read back, and tell whether the weights are still as expected; that others have changed them is said.

        One that cannot be read counts as the last that could.

        Raises:
            RunEnded: a canary is another one, or gets less than before.
            FailingCanary: a canary is gone, and still gets requests.
        """
        live, former = self._look(), dict(self._weights)
        self._note(group, live)
        for name in group:
            image = live[name].canary_image
            if image is None and self._weights[name]:
                text = f"{name}: the canary is gone, and {self._weights[name]} % of the requests still go to it"
                raise FailingCanary(text, self._clock.monotonic())
            if image != self._images[name]:
                raise RunEnded(
                    "refused",
                    f"{name}: the canary {self._images[name]} {'is gone' if image is None else f'is {image} now'}: "
                    "somebody else has changed it. This run ends and changes nothing any more",
                )
        if lowered := [name for name in group if self._weights[name] < former[name]]:
            raise RunEnded(
                "held",
                f"{self._at(lowered)} instead of {_percents(former, lowered)}: somebody has lowered it, and this run "
                f"does not raise it again by itself. {WAYS}",
            )
        if changed := [name for name in group if self._weights[name] != weights[name]]:
            self._emitter.trouble(
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
        self._emitter.held(hold.names, reason, approval=True)
        if not self._tools.person.present:
            raise RunEnded("held", f"{joined(hold.names)}: {reason}: `canary run --approve {hold.weight}`")
        self._attention.ask(f"{joined(hold.names)} passed at {hold.weight} %.")

    def _promote(self, group: tuple[str, ...]) -> None:
        services = self._settings.services
        managed = tuple(name for name in group if services[name].stable == "managed")
        if not managed:
            return
        attempted(lambda: self._engine.set(release.promotion(self._checked(managed), managed)))
        try:
            self._update(managed, promoting=True)
        except RunEnded as ended:
            # Nothing was begun. After any other end the next run finishes the promotion, as declared.
            if ended.outcome in {"refused", "locked"} and not self._engine.restore():
                self._emitter.trouble("the configuration declares the promotion")
            raise
        self._confirm_promotion(managed)

    def _confirm_promotion(self, group: tuple[str, ...]) -> None:
        live = self._read(group)
        left = [name for name in group if live[name].canary is not None or live[name].weight]
        if left:
            raise RunEnded("failed", f"{joined(left)}: promoted, but the canary is still there. {WAYS}")
        self._promoted += group
        self._emitter.emit(Promoted(at=self._clock.time(), stack=self._task.stack, services=group))

    def _update(self, group: tuple[str, ...], *, promoting: bool = False) -> None:
        """Run the engine, again when it fails and that may help; roll back when the canary turns out to be why."""
        watched: _Watched | None = None
        left = iter(pauses.BEFORE_UPDATES)
        while True:
            try:
                self._attention.hear(lambda: self._engine.up(self._tools.progress))
            except LockedError as error:
                where = "" if promoting else f"; {self._at(group)}, and `canary run` goes on from there"
                raise RunEnded("locked", f"{error}{where}") from error
            except EngineError as error:
                if isinstance(error, PolicyError) or error.usage:
                    raise refused(error) from error
                watched = watched or self._begin_watch(() if promoting else group)
                pause = next(left, None)
                self._attention.wait(pauses.SHORTEST if pause is None else pause)
                self._judge_failure(tuple(watched.marks), watched, error)
                if pause is None or isinstance(error, PodsError):
                    where = "" if promoting else f"\nNow {self._at(group)}"
                    raise RunEnded("failed", f"{cause(error)}{where}. {WAYS}") from error
                self._emitter.trouble(f"{error}\nThe update is tried again")
            else:
                return

    def _judge_failure(self, group: tuple[str, ...], watched: _Watched, error: EngineError) -> None:
        """Roll back if an update failed because the canary does."""
        try:
            live = self._cluster.read()
        except ClusterError:
            return
        self._note(group, live)
        if any(live[name].canary_image != self._images[name] for name in group):
            return
        try:
            self._sampled(watched, self._weights)
        except FailingCanary as failing:
            reason = f"{failing.reason}; the update failed: {in_short(error)}"
            raise FailingCanary(reason, failing.since, unready=isinstance(error, PodsError)) from None

    def _roll_back(self, group: tuple[str, ...], failing: FailingCanary) -> NoReturn:
        raise Rollback(self._tools, self._emitter, self._task.stack, self._images, self._weights).carry_out(
            group, failing, self._promoted
        )

    def _set_weights(self, weights: Mapping[str, int]) -> None:
        """Declare a weight for each service."""

        def changed() -> None:
            settings = self._checked(tuple(weights))
            changes: dict[str, str | release.Copy | None] = {}
            for weight in sorted(set(weights.values())):
                names = [name for name in weights if weights[name] == weight]
                changes |= release.weight_changes(settings, names, weight)
            self._engine.set(changes)

        attempted(changed)

    def _put_back(self, group: tuple[str, ...]) -> None:
        """Declare the weights that are in force, so that somebody's next update changes nothing by surprise."""
        try:
            live = self._cluster.read()
            former = {name: self._weights[name] for name in group}
            self._note(group, live)
            if any(self._weights[name] != former[name] for name in group) or not self._engine.restore():
                self._set_weights({name: self._weights[name] for name in group})
        except (ClusterError, EngineError, RunEnded) as error:
            self._emitter.trouble(f"the configuration may declare another weight than the one in force: {error}")

    def _checked(self, group: tuple[str, ...]) -> Settings:
        """Return the configuration as it is now, if it still declares the canaries that this run moves."""
        settings = attempted(self._engine.settings)
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

    def _look(self) -> Mapping[str, LiveService]:
        """Read the cluster; when it does not answer, wait for it."""
        return self._attention.patiently(self._cluster.read)

    def _note(self, names: Iterable[str], live: Mapping[str, LiveService]) -> None:
        """Keep the weights that were read back, and tell of which services none can be."""
        for name in names:
            if why := live[name].unreadable:
                if name not in self._unread:
                    self._emitter.trouble(
                        f"the weight of {name} cannot be read back: {why}. As long as that is so, nothing rises beside "
                        "it, and what is measured is judged"
                    )
                self._unread[name] = why
                continue
            if self._unread.pop(name, None):
                self._emitter.trouble(f"the weight of {name} is read back again: {live[name].weight} %")
            self._weights[name] = live[name].weight

    def _read(self, names: Iterable[str]) -> Mapping[str, LiveService]:
        """Read the cluster and the weights of services; when it does not answer, or they cannot be read, wait."""

        def read() -> Mapping[str, LiveService]:
            live = self._cluster.read()
            for name in names:
                if live[name].unreadable:
                    raise ClusterError(f"the weight of {name} cannot be read back: {live[name].unreadable}")
            return live

        names = tuple(names)
        return self._attention.patiently(read)

    def _done(self, start: Start) -> str:
        if self._task.to is not None and start.moving:
            return f"{self._at(start.moving)}, where the run was to end"
        text = f"{joined(self._promoted)} promoted" if self._promoted else ""
        if existing := [name for name in start.moving if name not in self._promoted]:
            images = ", ".join(f"{self._images[name]} ({name})" for name in existing)
            text += f"{text and '; '}{self._at(existing)}, and something else owns stable: deploy {images} there, wait "
            text += "until it is ready, then `canary abort --remove`"
        return text

    def _at(self, names: Iterable[str]) -> str:
        known = {name: "?" if name in self._unread else weight for name, weight in self._weights.items()}
        return "the canary gets " + _percents(known, names)


def _failures(verdict: Verdict) -> str:
    return "; ".join(f"{verdict.service}: {gate.text}" for gate in verdict.gates if gate.outcome == "fail")


def _unknown(verdicts: Iterable[Verdict]) -> str:
    """Return which gates have too little to go by, and of which services."""
    services: dict[str, list[str]] = {}
    for verdict in verdicts:
        gates = ", ".join(gate.gate for gate in verdict.gates if gate.outcome == "inconclusive")
        if gates:
            services.setdefault(gates, []).append(verdict.service)
    return "; ".join(f"too little is known of {gates} ({joined(names)})" for gates, names in services.items())


def _all_pass(verdicts: Iterable[Verdict]) -> bool:
    return all(verdict.outcome == "pass" for verdict in verdicts)


def _percents(weights: Mapping[str, int | str], names: Iterable[str]) -> str:
    names = tuple(names)
    if len({weights[name] for name in names}) == 1:
        return f"{weights[names[0]]} % ({joined(names)})"
    return ", ".join(f"{weights[name]} % ({name})" for name in names)


def _was_rolled_back(live: LiveService, image: str) -> bool:
    return live.canary is not None and live.canary.rolled_back == image
