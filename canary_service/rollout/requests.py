"""Sends requests to the services of a stack through their router, and counts who answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import httpx2

from canary_service.rollout.counting import Count
from canary_service.rollout.prometheus import client
from canary_service.rollout.verification import Sent
from canary_service.routing.split import Track

USER_AGENT: Final = "canary-verify"

_SENDERS: Final = 8
"""So many requests of a service are under way at a time."""
_MOST_SENDERS: Final = 64
"""Fewer than the connections that the client opens at most, which the others would wait for."""

_REDIRECT: Final = 300
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Target:
    """Where a service's requests go, and how versions tell themselves apart.

    `versions` are, by track, the values of the answers' header `version_header` that mean it; without such a header
    nothing is told apart.
    """

    host: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    version_header: str | None = None
    versions: Mapping[Track, Sequence[str]] = field(default_factory=dict)


def send(url: str, targets: Mapping[str, Target], requests: int) -> dict[str, Sent]:
    """Send so many GET requests to each service, and return what became of them.

    Half of them come over connections of their own, as clients without keep-alive send them. Nothing is sent again,
    no redirect is followed, and nothing goes to any other address than that of the URL.

    Args:
        url: of the router; a path in it comes before those of the services.
        targets: the services, by name.
        requests: how many of each.
    """
    with client(url) as http, ThreadPoolExecutor(min(_SENDERS * len(targets), _MOST_SENDERS)) as senders:
        answers = {
            name: [
                senders.submit(_answer, http, url.rstrip("/") + target.path, target, kept=bool(number % 2))
                for number in range(requests)
            ]
            for name, target in targets.items()
        }
        return {name: _sent(targets[name], [each.result() for each in found]) for name, found in answers.items()}


def _answer(http: httpx2.Client, url: str, target: Target, *, kept: bool) -> httpx2.Response | httpx2.HTTPError:
    headers = {"Host": target.host, "User-Agent": USER_AGENT, **target.headers}
    try:
        return http.get(
            url,
            headers=headers if kept else {**headers, "Connection": "close"},
            extensions={"sni_hostname": target.host},  # the certificate has to be that of the host
        )
    except httpx2.HTTPError as error:
        return error


def _sent(target: Target, answers: Sequence[httpx2.Response | httpx2.HTTPError]) -> Sent:
    failures: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    answered: Counter[Track | None] = Counter()
    for answer in answers:
        if isinstance(answer, httpx2.HTTPError):
            failures[type(answer).__name__] += 1
            continue
        if answer.status_code >= _SERVER_ERROR:
            failures[f"status {answer.status_code}"] += 1
        elif answer.status_code >= _REDIRECT:
            refusals[f"status {answer.status_code}"] += 1
        if target.version_header:
            answered[_track(target, answer.headers.get(target.version_header))] += 1
    if answered[None]:
        refusals[f"no {target.version_header} of either version"] += answered[None]
    told = Count(answered[Track.STABLE], answered[Track.CANARY]) if target.version_header else None
    return Sent(len(answers), failures, refusals, told)


def _track(target: Target, value: str | None) -> Track | None:
    return next((track for track, values in target.versions.items() if value in values), None)
