"""A whole canary rollout by changing configuration and running `pulumi up`, each share measured."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from lightkube.resources.core_v1 import Pod
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import WEIGHT
from canary_service.routing.split import Track
from canary_service.workload.labels import object_name
from demo.measurement import Cluster, MeasurementError, await_alert, check_share, measure, settle
from demo.stack import StackCopy
from sandbox.traffic import Tally, Traffic

STEPS: Final = (5, 20, 50, 100)
FAILING_FROM: Final = 5
DISTURBED_AT: Final = 20
ANNOTATED: Final = 70
ERROR_RATE: Final = 0.3
ALERT: Final = "CanaryErrorRatioHigh"

# Two full rounds of any whole percentage, so that a deterministic split comes out exact.
REQUESTS_PER_SHARE: Final = 200
RATE_PER_SERVICE: Final = 50.0


@dataclass(frozen=True, slots=True)
class Shift:
    """One service at one weight: what was declared (percent) and what was counted."""

    service: str
    weight: int
    requests: int
    canary_requests: int
    up_seconds: float


@dataclass(slots=True)
class Alert:
    """The alert for a canary with errors: seconds from the order until it fired, and from its end until it ended."""

    service: str
    name: str
    fired_after: float
    ended_after: float | None = None


@dataclass(slots=True)
class Row:
    """What is known of one service at this moment; weights and share are percent."""

    declared: int | None = None
    read_back: int | None = None
    measured: float | None = None


class View(Protocol):
    """Shows how the rollout goes."""

    def phase(self, text: str) -> None:
        """Begin to show another phase."""
        ...

    def shifted(self, shift: Shift) -> None:
        """Show a share that was measured."""
        ...


@dataclass(slots=True)
class Rollout:
    """The rollout of all services of a stack, under traffic that goes on all the while."""

    stack: StackCopy
    cluster: Cluster
    traffic: Traffic
    view: View
    rows: dict[str, Row]
    shifts: list[Shift] = field(default_factory=list)
    alert: Alert | None = None
    promoted: bool = False
    _errors_began: float = 0.0
    _errors_ended: float = 0.0

    def run(self) -> None:
        """Shift step by step and promote.

        Raises:
            MeasurementError: a share is off, something did not settle, or an alert did not fire or end.
            StackError: the engine failed.
        """
        for weight in STEPS:
            self.stack.set("canaryWeight", str(weight))
            self.view.phase(f"pulumi config set canaryWeight {weight} && pulumi up")
            self._observe(self.stack.up())
            if weight == FAILING_FROM:
                self._fail_a_canary()
            if weight == DISTURBED_AT:
                self._disturb()
                self._await_alert()
        self._promote()
        self._await_end_of_alert()

    def check_failures(self) -> None:
        """Hold the traffic to its promise, once all of it has ended.

        Raises:
            MeasurementError: a request failed.
        """
        reasons = {name: dict(tally.failures) for name, tally in self.traffic.total.items() if tally.failed}
        if reasons:
            failed = sum(tally.failed for tally in self.traffic.total.values())
            raise MeasurementError(f"{failed} requests failed: {reasons}")

    def report(self) -> dict[str, Any]:
        """Return the numbers of this run."""
        totals = self.traffic.total.values()
        return {
            "requests": sum(tally.requests for tally in totals),
            "failed": sum(tally.failed for tally in totals),
            "ordered_errors": sum(tally.ordered_errors for tally in totals),
            "shifts": [asdict(shift) for shift in self.shifts],
            "alert": asdict(self.alert) if self.alert else None,
            "promoted": self.promoted,
        }

    def _disturb(self) -> None:
        """Let somebody annotate another weight and delete a route by hand; put both right."""
        first, second, *_ = self.rows
        namespace, client = self.stack.settings().namespace, self.cluster.client
        self.view.phase(f"by hand: weight {ANNOTATED} annotated for {first}, canary Ingress of {second} deleted")
        annotated = {"metadata": {"annotations": {WEIGHT: str(ANNOTATED)}}}
        client.patch(Ingress, object_name(first, Track.CANARY), annotated, namespace=namespace)
        client.delete(Ingress, object_name(second, Track.CANARY), namespace=namespace)
        self.view.phase("pulumi up: puts back what is declared")
        self._observe(self.stack.up(), shift=False)

    def _fail_a_canary(self) -> None:
        """Have one canary answer errors, which nobody notices before Prometheus does."""
        *_, service = self.rows
        self.view.phase(f"by order: {100 * ERROR_RATE:.0f} % of what the canary of {service} answers are errors")
        self._errors_began = time.monotonic()
        self._order(service, str(ERROR_RATE))

    def _await_alert(self) -> None:
        """Wait until Prometheus has noticed; let the errors end."""
        *_, service = self.rows
        self.view.phase(f"waiting for alert {ALERT} of {service}")
        await_alert(self.cluster, ALERT, service, fires=True)
        self.alert = Alert(service, ALERT, round(time.monotonic() - self._errors_began, 1))
        self._order(service, None)
        self._errors_ended = time.monotonic()
        self.view.phase(
            f"alert {ALERT} fires for {service}, {self.alert.fired_after:.0f} s after the order; errors end"
        )

    def _await_end_of_alert(self) -> None:
        assert self.alert is not None  # noqa: S101  it has fired, or this is not reached
        self.view.phase(f"waiting for the end of alert {ALERT}, whose window is a minute long")
        await_alert(self.cluster, ALERT, self.alert.service, fires=False)
        self.alert.ended_after = round(time.monotonic() - self._errors_ended, 1)

    def _order(self, service: str, error_rate: str | None) -> None:
        """Order the pods of a canary to answer errors, or to stop that."""
        settings, client = self.stack.settings(), self.cluster.client
        annotations = {"metadata": {"annotations": {"sandbox/error-rate": error_rate}}}
        pods = client.list(
            Pod,
            namespace=settings.namespace,
            labels={"app": settings.app_label_of(service, Track.CANARY), "version": Track.CANARY.value},
        )
        for pod in pods:
            client.patch(Pod, (pod.metadata and pod.metadata.name) or "", annotations, namespace=settings.namespace)

    def _promote(self) -> None:
        settings = self.stack.settings()
        self.view.phase("promote: stable takes the canary's image, the canary goes; pulumi up")
        for name, service in settings.services.items():
            if service.canary:
                self.stack.set(f"services.{name}.image", service.canary.image)
                self.stack.remove(f"services.{name}.canary")
        images = {name: service.canary.image for name, service in settings.services.items() if service.canary}
        for name, tally in self._observe(self.stack.up(), shift=False).items():
            if set(tally.by_image) != {images[name]}:
                raise MeasurementError(
                    f"{name} was promoted to {images[name]}, but answered with {dict(tally.by_image)}"
                )
        self.promoted = True

    def _observe(self, up_seconds: float, *, shift: bool = True) -> dict[str, Tally]:
        """Read back, wait until the proxy routes by it, and count."""
        settings = self.stack.settings()
        for name, row in self.rows.items():
            declared = settings.split_of(name).weight
            row.declared, row.read_back, row.measured = declared, None, None
            row.read_back = settle(self.cluster, settings, name)
        self.view.phase(f"counting {REQUESTS_PER_SHARE} requests of each service")
        tallies = measure(self.cluster, self.traffic, REQUESTS_PER_SHARE)
        for name, row in self.rows.items():
            tally = tallies[name]
            row.measured = tally.share(Track.CANARY)
            if shift:
                done = Shift(
                    name, row.declared or 0, tally.requests, tally.by_version[Track.CANARY], round(up_seconds, 2)
                )
                self.shifts.append(done)
                self.view.shifted(done)
            check_share(name, row.declared or 0, tally)
        return tallies
