"""Which changes of the configuration a shift and a promotion are. No I/O."""

from collections.abc import Iterable

from config.settings import Settings


def weight_changes(settings: Settings, services: Iterable[str], weight: int) -> dict[str, str | None]:
    """Return what gives these services a weight."""
    names = set(services)
    with_canary = {name for name, service in settings.services.items() if service.canary}
    if names == with_canary and not any(
        service.canary and service.canary.weight is not None for service in settings.services.values()
    ):
        return {"canaryWeight": str(weight)}
    return {f"services.{name}.canary.weight": str(weight) for name in sorted(names)}


def promotion(settings: Settings, services: Iterable[str]) -> dict[str, str | None]:
    """Return what makes the canary's version the stable one."""
    changes: dict[str, str | None] = {}
    for name in services:
        canary = settings.services[name].canary
        if canary:
            changes[f"services.{name}.image"] = canary.image
            changes[f"services.{name}.canary"] = None
    return changes
