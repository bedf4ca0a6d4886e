"""What the routers have in common that keep a service's whole split in ordered rules, of which the first match counts.

Requests that are told apart come first: those with the header, then those that a cookie decides for the canary, then
those that it decides for stable. The last rule has the weight and takes the rest.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from canary_service.routing.router import Feature, HeaderSyntax, Manifest, Pending, UnreadableRouteError
from canary_service.routing.split import (
    TOTAL_WEIGHT,
    Backend,
    CanaryBackend,
    Header,
    Match,
    SessionAffinity,
    Split,
    Track,
)

# A field name of RFC 9110, and a value of visible ASCII, both without the backtick, in which Traefik quotes them.
HEADER_SYNTAX: Final = HeaderSyntax(
    name=re.compile(r"[A-Za-z0-9!#$%&'*+.^_|~-]{1,256}"),
    value=re.compile(r"[!-_a-~]{1,4096}"),
    rule="a name of letters, digits and !#$%&'*+-.^_|~, and a value of visible ASCII characters but the backtick",
)


@dataclass(frozen=True, slots=True)
class Cookie:
    """Requests with this cookie.

    `always` decides for the canary, `never` for stable; a session's has the name of the Service that answered first.
    """

    name: str
    value: str


Condition: TypeAlias = Header | Cookie
Rule: TypeAlias = tuple[Condition | None, int]
"""Which requests (None: the rest), and the percent of them that go to the canary."""

Shares: TypeAlias = Sequence[tuple[Backend, int]]
"""Backends and their weights in one rule, stable's first."""

Mirror: TypeAlias = tuple[Backend, Any]
"""Where copies of requests go, and the percent of them, as it stands in a manifest."""

COOKIE_HEADER: Final = "Cookie"

# Some proxies hold it against all of the header's value, others search in it.
_COOKIE: Final = re.compile(r"\^\(\.\*;\\s\*\)\?(?P<name>[A-Za-z0-9_-]+)=(?P<value>[a-z0-9-]+)\(\\s\*;\.\*\)\?\$")
_SET_COOKIE: Final = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=[^;]+; Path=[^;]+; HttpOnly(?:; Max-Age=(?P<age>[0-9]+))?")


def cookie_pattern(cookie: Cookie) -> str:
    """Return the regular expression (RE2) for the value of a Cookie header that has this cookie."""
    return rf"^(.*;\s*)?{cookie.name}={cookie.value}(\s*;.*)?$"


def cookie_of(pattern: str) -> Cookie:
    """Return the cookie that `cookie_pattern` was made of.

    Raises:
        UnreadableRouteError: it is another pattern.
    """
    found = _COOKIE.fullmatch(pattern)
    if not found:
        raise UnreadableRouteError(f"{pattern!r} is not a pattern for one cookie")
    return Cookie(found["name"], found["value"])


def set_cookie(split: Split, backend: Backend) -> dict[str, str]:
    """Return the response header by which a session stays with the track of this backend, where the split wants that.

    Its value names the Service: cookies that services of one host have under one name are told apart.
    """
    if split.affinity is None:
        return {}
    age = "" if split.affinity.max_age is None else f"; Max-Age={split.affinity.max_age}"
    return {"Set-Cookie": f"{split.affinity.cookie_name}={backend.service}; Path={split.match.path}; HttpOnly{age}"}


def affinity_of(headers: Sequence[Mapping[str, str]]) -> SessionAffinity | None:
    """Return the affinity that the response headers of the backends in the last rule were made of.

    Raises:
        UnreadableRouteError: they come of no affinity.
    """
    if not any(headers):
        return None
    found = [_SET_COOKIE.fullmatch(each.get("Set-Cookie", "")) for each in headers]
    read = {(each["name"], each["age"]) if each else None for each in found}
    if len(read) != 1 or not (one := read.pop()) or any(len(each) > 1 for each in headers):
        raise UnreadableRouteError("the response headers that are added are not the cookie of a session")
    name, age = one
    return SessionAffinity(name, None if age is None else int(age))


def session_rules(affinity: SessionAffinity | None, stable: Backend, canary: CanaryBackend | None) -> list[Rule]:
    """Return the rules that keep a client on its track while both get requests, for routers that cannot by themselves.

    At weight 0 and 100 there are none: all go where the weight says, as with Traefik's own cookie.
    """
    if affinity is None or canary is None or canary.weight in {0, TOTAL_WEIGHT}:
        return []
    name = affinity.cookie_name
    return [(Cookie(name, canary.backend.service), TOTAL_WEIGHT), (Cookie(name, stable.service), 0)]


def rules_with_sessions(split: Split) -> list[Rule]:
    """Return the rules of a split in their order, with those of sessions before the rest."""
    *chosen, rest = rules(split.canary)
    return [*chosen, *session_rules(split.affinity, split.stable, split.canary), rest]


def rules(canary: CanaryBackend | None) -> list[Rule]:
    """Return the rules of a split in their order."""
    if canary is None:
        return [(None, 0)]
    chosen: list[Rule] = [(canary.header, TOTAL_WEIGHT)] if canary.header else []
    if canary.cookie:
        chosen += [(Cookie(canary.cookie, "always"), TOTAL_WEIGHT), (Cookie(canary.cookie, "never"), 0)]
    return [*chosen, (None, canary.weight)]


def shares(split: Split, percent: int) -> list[tuple[Backend, int]]:
    """Return the backends of a rule with their weights: always both, so that metrics tell them by their place."""
    if split.canary is None:
        return [(split.stable, TOTAL_WEIGHT)]
    return [(split.stable, TOTAL_WEIGHT - percent), (split.canary.backend, percent)]


def backends_of(
    found: Sequence[tuple[Condition | None, Shares]],
    mirror: Mirror | None = None,
    affinity: SessionAffinity | None = None,
) -> tuple[Backend, CanaryBackend | None]:
    """Return stable and canary of the rules that were made of them, and of the mirror of the last one.

    The weight is rounded to whole percent where somebody has set other weights than those that add up to 100. Where
    somebody has set one above 0 beside a mirror, it alone is told. Rules of sessions, which come of `affinity`, may be
    missing.

    Raises:
        UnreadableRouteError: they are not the rules of one split.
    """
    if not found:
        raise UnreadableRouteError("it has no rules")
    sides = {tuple(backend for backend, _ in shared) for _, shared in found}
    if len(sides) != 1 or found[-1][0] is not None:
        raise UnreadableRouteError("the rules do not share requests between the same Services, the rest last")
    match sides.pop():
        case (stable,) if len(found) == 1 and mirror is None:
            return stable, None
        case (stable, backend):
            read = [(condition, _percent(shared)) for condition, shared in found]
        case others:
            raise UnreadableRouteError(f"{len(found)} rules lead to {len(others)} Services")
    ours = affinity.cookie_name if affinity else None
    sessions = [rule for rule in read if isinstance(rule[0], Cookie) and rule[0].name == ours]
    read = [rule for rule in read if rule not in sessions]
    header = next((condition for condition, _ in read if isinstance(condition, Header)), None)
    cookie = next((condition.name for condition, _ in read if isinstance(condition, Cookie)), None)
    weight, (target, percent) = read[-1][1], mirror or (backend, 0)
    if not (_is_number(percent) and 0 <= percent <= TOTAL_WEIGHT):
        raise UnreadableRouteError(f"{percent} is no percent of the requests, of which copies could be sent")
    if target != backend:
        raise UnreadableRouteError(f"copies of requests go to Service {target.service}, which is not the canary's")
    canary = CanaryBackend(backend, weight, header, cookie, 0 if weight else round(percent))
    # Whatever weight somebody has set by hand meanwhile.
    kept = session_rules(affinity, stable, replace(canary, weight=1, mirror=0))
    if rules(canary) != read or sessions not in ([], kept):
        raise UnreadableRouteError("the rules that tell requests apart are not one header and one cookie")
    return stable, canary


def _percent(shared: Shares) -> int:
    for backend, weight in shared:
        if not _is_number(weight):
            raise UnreadableRouteError(f"weight {weight} of Service {backend.service} is not a number")
    weights = [weight for _, weight in shared]
    if min(weights) < 0 or not sum(weights):
        raise UnreadableRouteError(
            f"weights {' and '.join(map(str, weights))} share out nothing: at least one has to be above 0, none below"
        )
    return round(TOTAL_WEIGHT * weights[1] / sum(weights))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def metadata(split: Split, annotations: dict[str, str] | None = None) -> Manifest:
    """Return the metadata of an object that routes to both tracks: it lives as long as stable."""
    return {
        "name": split.name,
        "namespace": split.namespace,
        "labels": {"app": split.name, "version": str(Track.STABLE)},
        "annotations": dict(split.annotations if annotations is None else annotations),
    }


def services(split: Split) -> frozenset[str]:
    """Return the Services of both tracks."""
    return frozenset({split.stable.service} | ({split.canary.backend.service} if split.canary else set()))


def only(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """Return the one object of a kind.

    Raises:
        UnreadableRouteError: there is none, or more than one.
    """
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    if len(found) != 1:
        raise UnreadableRouteError(f"expected one {kind}, found {len(found)}")
    return found[0]


def one(values: Sequence[Any], what: str) -> Any:  # noqa: ANN401 - of a manifest
    """Return the one value of a list.

    Args:
        values: the list.
        what: its values are, in words.

    Raises:
        UnreadableRouteError: there is none, or more than one.
    """
    if len(values) != 1:
        raise UnreadableRouteError(f"it has {len(values)} {what} instead of one")
    return values[0]


@contextmanager
def reading(described: str) -> Iterator[None]:
    """Tell in words, which begin with what object it is, why it cannot be read.

    Raises:
        UnreadableRouteError: it lacks a field, or has another form than this program gives it.
    """
    try:
        yield
    except UnreadableRouteError as error:
        raise UnreadableRouteError(f"{described}: {error}") from error
    except KeyError as error:
        raise UnreadableRouteError(f"{described}: it lacks {error.args[0]}") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UnreadableRouteError(f"{described}: it has another form than this program gives it") from error


def by_element(match: Match) -> list[tuple[Literal["exact", "prefix"], str]]:
    """Return what an exact or a plain string prefix match has to find; the path as it was declared comes first.

    A Prefix goes by whole elements of the path: `/api` and `/api/auth`, but not `/apis`.
    """
    if match.path_type == "Exact":
        return [("exact", match.path)]
    bare = match.path.rstrip("/")
    alternatives: list[tuple[Literal["exact", "prefix"], str]] = [("exact", bare), ("prefix", f"{bare}/")]
    if not bare:
        return alternatives[1:]
    return alternatives[::-1] if match.path.endswith("/") else alternatives


def match_of(host: str, found: Sequence[tuple[str, str]]) -> Match:
    """Return the match that `by_element` was given.

    Raises:
        UnreadableRouteError: it does not come of one.
    """
    for path_type in ("Exact", "Prefix"):
        match = Match(host, found[0][1] if found else "", "Exact" if path_type == "Exact" else "Prefix")
        if by_element(match) == list(found):
            return match
    paths = ", ".join(f"{how} {path}" for how, path in found)
    raise UnreadableRouteError(f"what it matches of {host} is not one path, or what is below one: {paths or 'nothing'}")


class SharedObjects:
    """What holds for routers whose objects have both tracks in them: nothing of others can be attached to."""

    def pod_annotations(self, service: str, track: Track) -> dict[str, str]:  # noqa: ARG002 - the seam's
        """Return nothing: Services tell the pods apart."""
        return {}

    def pending(self, manifests: Sequence[Manifest]) -> Pending | None:  # noqa: ARG002 - the seam's
        """Return nothing: the objects do not say who obeys them."""
        return None

    def demands(self, split: Split) -> Mapping[Feature, frozenset[str]]:  # noqa: ARG002 - the seam's
        """Return nothing: the objects are those of one implementation."""
        return {}

    def narrowed(self, manifests: Sequence[Manifest], match: Match) -> list[Manifest]:  # noqa: ARG002 - the seam's
        """Return nothing: an object of somebody else cannot hold a canary of ours."""
        return []

    def taken_along(self, manifests: Sequence[Manifest], split: Split) -> list[str]:  # noqa: ARG002 - the seam's
        """Return nothing: only the object that names the canary sends requests to it."""
        return []
