"""Takes canaries out of the traffic: what comes before everything else (docs/adr/0013-driver.md)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import ConfigError
from canary_service.rollout import pauses, release
from canary_service.rollout.emitter import Emitter
from canary_service.rollout.ends import FailingCanary, RunEnded, cause, in_short
from canary_service.rollout.engine import EngineError
from canary_service.rollout.event_words import joined
from canary_service.rollout.events import RolledBack
from canary_service.rollout.stack import PodsError
from canary_service.rollout.tools import Tools

CUT_OFF_SECONDS: Final = 60.0
"""So long weight 0 is tried through the API server alone, before the engine is tried too."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """The rollback of a run.

    Args:
        tools: what the run works with.
        emitter: is told of what happens.
        stack: PROJECT/STACK.
        images: the image of each service's canary, which is noted as rolled back.
        weights: percent by service as read back last; changed as they fall.
    """

    tools: Tools
    emitter: Emitter
    stack: str
    images: Mapping[str, str]
    weights: dict[str, int]

    def carry_out(self, group: tuple[str, ...], failing: FailingCanary, promoted: Sequence[str]) -> RunEnded:
        """Take canaries out of the traffic, first by the API server alone, then for good; return how the run ends.

        Args:
            group: their services.
            failing: why, and since when that is known.
            promoted: services that the run has promoted before.
        """
        problem = self._cut_off(group, CUT_OFF_SECONDS, failing.since)
        if not problem:
            self._rolled_back(group, failing)
        trouble = self._make_permanent(group, unready=failing.unready)
        if problem:
            problem = self._cut_off(group, 0, failing.since)
            if problem:
                return RunEnded(
                    "failed",
                    f"{failing.reason}. THE CANARY MAY STILL GET REQUESTS: neither through the API server nor by the "
                    f"engine could weight 0 be set and read back: {problem}. As soon as they answer: `canary abort`",
                )
            self._rolled_back(group, failing)
        text = f"{joined(group)} rolled back to 0 %: {failing.reason}"
        before = f"{joined(promoted)} promoted before" if promoted else ""
        return RunEnded("rolled-back", ". ".join(filter(None, (text, before, trouble))))

    def _rolled_back(self, group: tuple[str, ...], failing: FailingCanary) -> None:
        seconds = self.tools.clock.monotonic() - failing.since
        self.emitter.emit(
            RolledBack(
                at=self.tools.clock.time(), stack=self.stack, services=group, reason=failing.reason, seconds=seconds
            )
        )
        for name in group:
            try:
                self.tools.cluster.mark_rolled_back(name, self.images[name])
            except ClusterError as error:
                self.emitter.trouble(f"{name}: it could not be noted that this canary was rolled back: {error}")

    def _cut_off(self, group: tuple[str, ...], seconds: float, since: float) -> str:
        """Set weight 0 through the API server and read it back; return what stands in the way, empty for nothing."""
        begin, between, told = self.tools.clock.monotonic(), pauses.growing(), False
        left = set(group)
        while True:
            problem = ""
            try:
                self.tools.routes.lower(dict.fromkeys(left, 0))
            except ClusterError as error:
                problem = str(error)
            took = self.tools.clock.monotonic() - since
            for name in sorted(left - self._above_0(left) if problem else left):
                left.remove(name)
                before, self.weights[name] = self.weights[name], 0
                if before:
                    self.emitter.weight_set(name, before, 0, took, "cut-off")
            if not left:
                return ""
            if self.tools.clock.monotonic() - begin >= seconds:
                return problem
            if not told:
                self.emitter.trouble(f"{problem}. The cut-off is tried again")
                told = True
            self.tools.clock.wait(next(between))

    def _above_0(self, names: Iterable[str]) -> set[str]:
        """Return those of the services of which weight 0 was not read back."""
        try:
            live = self.tools.cluster.read()
        except ClusterError:
            return set(names)
        return {name for name in names if live[name].weight or live[name].unreadable}

    def _make_permanent(self, group: tuple[str, ...], *, unready: bool) -> str:
        """Declare weight 0 and update, unless pods keep that from its end; return what did not work."""
        problem = ""
        until = "until another image is declared, or `canary abort --remove` takes the canary out"
        for pause in (*pauses.BEFORE_UPDATES, None):
            try:
                declared = self.tools.engine.settings()
                names = [name for name in group if name in declared.services and declared.services[name].canary]
                self.tools.engine.set(release.withdrawal(declared, names))
                if unready:
                    return f"Weight 0 is declared. Every update waits for these pods {until}"
                problem = "Weight 0 is declared, but the update failed"
                self.tools.engine.up(self.tools.progress)
            except PodsError as error:
                return f"{problem}: {in_short(error)}. Every other one waits for these pods too, {until}"
            except (EngineError, ConfigError) as error:
                problem = problem or "The configuration still declares another weight"
                text = f"{problem}: {cause(error)}"
                if pause is None:
                    return f"{text}. Run `canary abort` when that is mended"
                self.emitter.trouble(f"{text}\nIt is tried again")
                self.tools.clock.wait(pause)
                # The update that was in the way may have put the former weight back.
                self._cut_off(group, 0, self.tools.clock.monotonic())
            else:
                return ""
        return problem
