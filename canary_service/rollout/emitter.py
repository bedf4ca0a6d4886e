"""Tells of what happens in a run."""

from collections.abc import Callable, Iterable

from canary_service.rollout.events import AnyEvent, Held, Means, Troubled, WeightSet
from canary_service.rollout.tools import Clock


class Emitter:
    """Tells listeners of every event of a run; one that fails is said to have failed, and told no more.

    Args:
        stack: PROJECT/STACK.
        clock: says when an event happened.
        listeners: are told.
    """

    def __init__(self, stack: str, clock: Clock, listeners: Iterable[Callable[[AnyEvent], object]]) -> None:
        self._stack = stack
        self._clock = clock
        self._listeners = list(listeners)

    def add(self, listeners: Iterable[Callable[[AnyEvent], object]]) -> None:
        """Tell these too from now on."""
        self._listeners += listeners

    def emit(self, event: AnyEvent) -> None:
        """Tell of an event."""
        for listener in tuple(self._listeners):
            if listener not in self._listeners:
                continue  # it failed too, when it was told of the failure of one before it
            try:
                listener(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a view must not keep a canary in the traffic
                self._listeners.remove(listener)
                name = getattr(listener, "__name__", type(listener).__name__)
                self.trouble(f"{type(error).__name__}: {error}: no more events go to {name}")

    def trouble(self, text: str) -> None:
        """Tell of something that failed and does not end the run."""
        self.emit(Troubled(at=self._clock.time(), stack=self._stack, text=text))

    def held(self, services: tuple[str, ...], reason: str, *, approval: bool = False) -> None:
        """Tell that services do not rise yet, and whether a person has to approve."""
        self.emit(Held(at=self._clock.time(), stack=self._stack, services=services, reason=reason, approval=approval))

    def weight_set(self, service: str, before: int, read_back: int, seconds: float, means: Means) -> None:
        """Tell of a weight (percent) that was read back so many seconds after it was ordered."""
        self.emit(
            WeightSet(
                at=self._clock.time(),
                stack=self._stack,
                service=service,
                before=before,
                read_back=read_back,
                seconds=seconds,
                means=means,
            )
        )
