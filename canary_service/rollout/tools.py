"""What a run works with, as far as it needs it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from canary_service.config.settings import Settings
from canary_service.rollout.release import Changes
from canary_service.rollout.samples import Sample
from canary_service.rollout.sampling import Mark
from canary_service.rollout.verdict import Verdict
from canary_service.workload.live import LiveService


class Engine(Protocol):
    """The stack, as the engine knows it (rollout.stack.Stack)."""

    def settings(self) -> Settings:
        """Return the configuration as it is now; ConfigError or EngineError when it cannot be used."""
        ...

    def set(self, changes: Changes) -> None:
        """Change the configuration, all or nothing. EngineError when it fails."""
        ...

    def restore(self) -> bool:
        """Take back what was set since the last update that did not fail; return whether that was possible."""
        ...

    def up(self, report: Callable[[str], object]) -> object:
        """Update the stack; EngineError when it fails, LockedError when another update is under way."""
        ...


class Cluster(Protocol):
    """The cluster of the stack (cluster.live_cluster.LiveCluster); each call may raise ClusterError."""

    def read(self) -> Mapping[str, LiveService]:
        """Return what there is of each service."""
        ...

    def mark_rolled_back(self, name: str, image: str | None) -> None:
        """Note beside the canary that this image was rolled back; None removes the note."""
        ...


class Routes(Protocol):
    """What routes the stack's services (cluster.routes.Routes); each call may raise ClusterError."""

    def lower(self, weights: Mapping[str, int]) -> object:
        """Set lower weights through the API server, as many as possible, and read them back."""
        ...


class Sampler(Protocol):
    """Looks at canaries (rollout.sampling.Sampler). Never raises for what cannot be asked."""

    def obstacles(self) -> Sequence[str]:
        """Return what would keep verdicts waiting, as it can be told before a run."""
        ...

    def begin(self, service: str) -> Mark:
        """Return the mark from which on the service's samples count."""
        ...

    def sample(self, service: str, mark: Mark) -> Sample:
        """Return what is known of the time since the last sample of this mark."""
        ...


class Judge(Protocol):
    """Gives the verdict on a step (rollout.verdict.judge with the stack's limits)."""

    def __call__(self, samples: Sequence[Sample], *, complete: bool) -> Verdict:
        """Judge the samples of one service at one step, oldest first; `complete`: the step has had its time."""
        ...


class Clock(Protocol):
    """Time, in seconds."""

    def time(self) -> float:
        """Return the time since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after so long; KeyboardInterrupt when somebody wants the run to end."""
        ...


class Signals(Protocol):
    """What becomes of SIGINT and SIGTERM: the first one is heard only where it is allowed to, the second at once."""

    def allowed(self) -> AbstractContextManager[None]:
        """Let the first signal, also one that came before, raise KeyboardInterrupt meanwhile."""
        ...

    def answered(self) -> None:
        """Forget the first signal: the run goes on."""
        ...

    @property
    def at_once(self) -> bool:
        """Whether a second one has come."""
        ...

    @property
    def typed(self) -> bool:
        """Whether the last one was SIGINT."""
        ...

    @property
    def roll_back(self) -> bool:
        """Whether one wants the canaries to be rolled back."""
        ...


class Person(Protocol):
    """Who may be asked."""

    @property
    def present(self) -> bool:
        """Whether there is somebody at a terminal."""
        ...

    def ask(self, question: str, answers: Sequence[str]) -> None:
        """Put a question."""
        ...

    def answer(self) -> str | None:
        """Return one of the answers as soon as it was given, and does not wait for it."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run works with. `progress` takes lines on how far an update is."""

    engine: Engine
    cluster: Cluster
    routes: Routes
    sampler: Sampler
    judge: Judge
    clock: Clock
    signals: Signals
    person: Person
    progress: Callable[[str], object]
