"""Which changes of the configuration are a shift, a promotion, an abort. No I/O."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from canary_service.config.settings import CanarySettings, Settings

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_PART: Final = re.compile(r'\["([^"]+)"\]|([^.\["\]]+)')


@dataclass(frozen=True, slots=True)
class Copy:
    """The value of another key, which is encrypted where that is."""

    key: str


Changes: TypeAlias = Mapping[str, str | Copy | None]
"""From key, without the project's namespace and as `pulumi config set --path` takes it, to value; None removes it."""


class ReleaseError(Exception):
    """A service cannot be moved in this way. A retry does not help."""


def weight_changes(settings: Settings, services: Iterable[str], weight: int) -> Changes:
    """Return what gives the canaries of these services a weight (percent); empty when they have it.

    `canaryWeight` is changed when that moves no canary besides them, else `services.NAME.canary.weight`.

    Raises:
        ReleaseError: one of them has no canary.
    """
    canaries = _canaries(settings, services)
    followers = {
        name for name, service in settings.services.items() if service.canary and service.canary.weight is None
    }
    changes: dict[str, str | Copy | None] = {}
    for name in canaries:
        declared, key = settings.canary_weight_of(name)
        if name in followers and not followers <= canaries.keys():
            key = key_of("services", name, "canary", "weight")
        if declared != weight:
            changes[key] = str(weight)
    return changes


def withdrawal(settings: Settings, services: Iterable[str]) -> Changes:
    """Return what takes the canaries of these services out of the traffic: weight 0, and no copies of requests.

    Raises:
        ReleaseError: one of them has no canary.
    """
    mirrored = [name for name, canary in _canaries(settings, services).items() if canary.mirror_percent]
    ended = {key_of("services", name, "canary", "mirrorPercent"): None for name in mirrored}
    return {**weight_changes(settings, services, 0), **ended}


def promotion(settings: Settings, services: Iterable[str]) -> Changes:
    """Return what makes stable run what the canary of these services runs, without the canary.

    Raises:
        ReleaseError: one of them has no canary, or a stable that something else owns.
    """
    changes: dict[str, str | Copy | None] = {}
    for name, canary in _canaries(settings, services).items():
        if settings.services[name].stable == "existing":
            raise ReleaseError(
                f"{name} cannot be promoted here: something else owns its stable. Deploy {canary.image} there, wait "
                f"until it is ready, then `canary abort --remove --service {name}`"
            )
        for path in _differences(canary):
            changes[key_of("services", name, *path)] = Copy(key_of("services", name, "canary", *path))
    return {**changes, **removal(settings, services)}


def removal(settings: Settings, services: Iterable[str]) -> Changes:
    """Return what removes the canaries of these services; the last one leaves `canaryWeight` at 0 for the next.

    Raises:
        ReleaseError: one of them has no canary.
    """
    gone = _canaries(settings, services)
    changes: dict[str, str | Copy | None] = {key_of("services", name, "canary"): None for name in gone}
    left = [name for name, service in settings.services.items() if service.canary and name not in gone]
    if not left and settings.canary_weight:
        changes["canaryWeight"] = "0"
    return changes


def key_of(*path: str) -> str:
    """Return a path as the engine's command line writes it."""
    first, *others = path
    return first + "".join(f".{part}" if _PLAIN.fullmatch(part) else f'["{part}"]' for part in others)


def path_of(key: str) -> Sequence[str]:
    """Return the parts of a key."""
    return [quoted or plain for quoted, plain in _PART.findall(key)]


def _canaries(settings: Settings, services: Iterable[str]) -> dict[str, CanarySettings]:
    found = {name: settings.services[name].canary for name in services}
    if missing := [name for name, canary in found.items() if canary is None]:
        raise ReleaseError(f"no canary is declared for {', '.join(missing)}")
    return {name: canary for name, canary in found.items() if canary}


def _differences(canary: CanarySettings) -> Iterator[Sequence[str]]:
    """Yield the paths of what stable takes over; all else that a canary has ends with it."""
    yield ["image"]
    yield from (["env", key] for key in canary.env)
    for kind, configuration in (("configMap", canary.config_map), ("secret", canary.secret)):
        yield from ([kind, "data", key] for key in (configuration.data if configuration else ()))
