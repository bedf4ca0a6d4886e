"""What runs in a namespace, looked at for all waits together, and waited for."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.core_v1 import Pod
from lightkube.resources.discovery_v1 import EndpointSlice

from canary_service.cluster.api import KubernetesApi
from canary_service.cluster.errors import ClusterError, ForbiddenError, NotReadyError
from canary_service.config.settings import Settings
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.labels import object_name, selector
from canary_service.workload.readiness import Readiness, newest_replica_set, readiness

STUCK_SECONDS: Final = 15.0
"""So long a reason that time alone will hardly mend has to last until it ends the wait: registries have hiccups."""

POLL_SECONDS: Final = 0.2
"""Time between two looks of a wait."""

_REPORT_SECONDS: Final = 1.0

_LEAST_SECONDS: Final = 0.2
"""So long a look is good, however quickly it was had."""

_PAUSE_PER_LOOK: Final = 4.0
"""What runs is looked at again after so many times the duration of a look: the engine needs the processors."""

_SERVICE_NAME: Final = "kubernetes.io/service-name"
"""The label by which an EndpointSlice names its Service (discovery/v1)."""


@dataclass(frozen=True, slots=True)
class PodsSeen:
    """Whether a track's Deployment is ready, and all pods that its selector finds."""

    readiness: Readiness
    pods: Sequence[Manifest]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What runs in the namespace: asked for at `begin` (monotonic seconds), good for `lasts` seconds from then."""

    begin: float = -math.inf
    lasts: float = 0.0
    deployments: Sequence[Manifest] = ()
    replica_sets: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    endpoint_slices: Sequence[Manifest] = ()


class Workloads:
    """What runs of the services of a configuration. May be used by several threads at once."""

    def __init__(self, settings: Settings, api: KubernetesApi) -> None:
        self._settings = settings
        self._api = api
        self._looking = threading.Lock()
        self._seen = _Seen()

    def wait_until_ready(self, name: str, track: Track, report: Callable[[str], object], at_least: int = 0) -> None:
        """Return when all pods of one track's newest revision take requests by their Service, and no older ones do.

        Args:
            name: the service.
            track: its track.
            report: takes a line on how far it is, once a second has gone and whenever that changes.
            at_least: pods to wait for even if the Deployment asks for fewer.

        Raises:
            NotReadyError: not within `readyTimeoutSeconds`, or something lasts that time alone will hardly mend.
        """
        timeout = self._settings.services[name].ready_timeout_seconds
        begin = time.monotonic()
        reported = ""
        stuck_since: float | None = None
        while True:
            found = self._readiness(name, track, at_least, begin)
            if found.complete:
                return
            now = time.monotonic()
            stuck_since = (stuck_since or now) if found.stuck else None
            stuck = stuck_since is not None and now - stuck_since >= STUCK_SECONDS
            if stuck or now - begin >= timeout:
                raise NotReadyError(_not_ready(object_name(name, track), track, found, now - begin))
            progress = f"{found.ready} of {found.wanted} pods take requests; {'; '.join(found.reasons)}"
            if progress != reported and now - begin >= _REPORT_SECONDS:
                report(progress)
                reported = progress
            time.sleep(POLL_SECONDS)

    def pods_of(self, name: str, track: Track) -> PodsSeen:
        """Return the pods of one track as they are now.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        return self._look(name, track, 0, time.monotonic())

    def _readiness(self, name: str, track: Track, at_least: int, since: float) -> Readiness:
        try:
            return self._look(name, track, at_least, since).readiness
        except ForbiddenError:
            raise
        except ClusterError as error:
            return Readiness(0, at_least, rolled_out=False, reasons=(str(error),))

    def _look(self, name: str, track: Track, at_least: int, since: float) -> PodsSeen:
        """Return the pods of one track as they were after a moment (monotonic seconds).

        Args:
            name: the service.
            track: its track.
            at_least: pods that are wanted even if the Deployment asks for fewer.
            since: the moment.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        seen = self._after(since)
        deployed = object_name(name, track)
        deployment = next((found for found in seen.deployments if found["metadata"]["name"] == deployed), None)
        labels = selector(self._settings.app_label_of(name, track), track).items()
        owner = newest_replica_set(deployment, seen.replica_sets) if deployment else None
        pods = [pod for pod in seen.pods if labels <= (pod["metadata"].get("labels") or {}).items()]
        slices = [
            found
            for found in seen.endpoint_slices
            if (found["metadata"].get("labels") or {}).get(_SERVICE_NAME) == deployed
        ]
        return PodsSeen(readiness(deployment, owner, pods, slices, at_least), pods)

    def _after(self, since: float) -> _Seen:
        """Return what runs, as it was after a moment (monotonic seconds), and for all waits together.

        One wait each would ask so often at 100 services that the engine got no processor time.
        """
        with self._looking:
            while True:
                now, due = time.monotonic(), self._seen.begin + self._seen.lasts
                if now < due and self._seen.begin < since:
                    time.sleep(due - now)
                elif now < due:
                    return self._seen
                else:
                    begin = time.monotonic()
                    lists = [self._api.listed(kind) for kind in (Deployment, ReplicaSet, Pod, EndpointSlice)]
                    lasts = max(_LEAST_SECONDS, (time.monotonic() - begin) * _PAUSE_PER_LOOK)
                    self._seen = _Seen(begin, lasts, *lists)


def _not_ready(deployment: str, track: Track, found: Readiness, seconds: float) -> str:
    reasons = "".join(f"\n  {reason}" for reason in found.reasons) or "\n  no reason was given"
    consequence = "Stable is as it was, and no weight has risen."
    if track is Track.STABLE:
        consequence = "Its older pods serve on, and a canary keeps its share."
    return (
        f"Deployment {deployment}: {found.ready} of {found.wanted} pods take requests after {seconds:.0f} s.{reasons}\n"
        f"{consequence} Correct the configuration and run `pulumi up` again."
    )
