"""A plan in words, the same for every form of output. No I/O."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from canary_service.rollout.event_words import listed
from canary_service.rollout.plan import (
    ObjectPlan,
    Operation,
    Plan,
    PolicyFinding,
    Refusal,
    Requests,
    ServicePlan,
    TrackPlan,
    Weight,
)

_DONE: Final[dict[Operation, str]] = {
    "create": "created",
    "update": "updated",
    "replace": "replaced",
    "delete": "deleted",
    "release": "left in the cluster",
    "restore": "put back as declared",
}


def headline(plan: Plan) -> str:
    """Return the answer in one line."""
    match plan.outcome:
        case "unchanged":
            asked = plan.weights_from == "cluster"
            return "nothing changes" if asked else "nothing changes since the last update; no cluster could be asked"
        case "invalid":
            return f"the configuration cannot be used: {_count(len(plan.refusals), 'problem')}"
        case "refused":
            return f"refused: {_count(len(plan.refusals), 'change')} that would lose requests or surprise users"
        case "violated":
            return f"stopped by policy: {_count(len(plan.mandatory), 'mandatory finding')}"
        case "failed":
            return "the preview failed"
        case _:
            return _traffic(plan)


def table(plan: Plan) -> list[tuple[str, ...]]:
    """Return a row for each service to which something happens, under one of headings; no column is empty."""
    rows = [("service", "change", "canary weight", "requests")]
    rows += [(each.name, each.change, weight(each), requests(each)) for each in plan.changed]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return list(zip(*columns, strict=True))


def weight(service: ServicePlan) -> str:
    """Return the canary's weight before and after."""
    return _percents(service.weight) if service.unreadable is None else f"? → {_percent(service.weight.after)}"


def requests(service: ServicePlan) -> str:
    """Return the requests per second that another version answers afterwards; empty when they were not counted."""
    rate = service.requests_per_second
    if rate is None or service.change in ("first deploy", "unchanged"):
        return ""
    where = {
        "promotion": " meet the new image for the first time",
        "canary image": " meet the new image",
        "stable image": " meet another version",
        "route": " lose their route",
        "abort": " back to stable",
        "removed": " lose their route",
    }.get(service.change)
    if where is None:
        rises = (service.weight.after or 0) > (service.weight.before or 0)
        where = (" to the canary" if rises else " back to stable") if rate.moved else ""
    return f"{_rate(rate)}{where}"


def facts(service: ServicePlan) -> Iterator[str]:
    """Yield what runs where, and what changes besides the weight."""
    for name, track in (("stable", service.stable), ("canary", service.canary)):
        if text := _track(track):
            yield f"{name}: {text}"
    yield from service.changes
    if service.mirror:
        yield f"copies to the canary: {_percents(service.mirror)} of the requests"
    if service.always_canary:
        yield f"always to the canary: {', '.join(service.always_canary)}"


def refusal(found: Refusal) -> str:
    """Return what cannot be, and what helps, in three lines."""
    return f"{found.key} = {found.value}\n  allowed: {found.allowed}\n  fix:     {found.fix}"


def finding(found: PolicyFinding) -> str:
    """Return what a rule says of an object."""
    return f"{found.object}: {found.rule}: {found.message}"


def objects(plan: Plan) -> str:
    """Return how many objects are touched."""
    counted = Counter(found.operation for found in plan.objects)
    parts = [f"{counted[operation]} {text}" for operation, text in _DONE.items() if counted[operation]]
    return ", ".join([*parts, f"{plan.unchanged_objects} unchanged"])


def fields(found: ObjectPlan) -> str:
    """Return what of an object changes, in short."""
    return ", ".join(dict.fromkeys(map(_field, found.fields)))


def _field(path: str) -> str:
    if annotation := re.fullmatch(r'metadata\.(annotation|label)s\["(?:.*/)?(.*)"\]', path):
        return " ".join(annotation.groups())
    # Of a PrometheusRule, whose first group is what the stack declares.
    path = re.sub(r"^spec\.groups\[0\].*", "declared weights", path)
    path = re.sub(r"^spec\.groups\[.*", "rules", path)
    path = re.sub(r"^spec\.template\.metadata\.labels\[.*", "pod labels", path)
    path = re.sub(r"^spec\.(template\.spec\.)?(containers\[\d+\]\.)?", "", path)
    return re.sub(r"^(env|envFrom)\b.*", r"\1", path)


def _traffic(plan: Plan) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for service in plan.changed:
        groups.setdefault((service.change, _verb(service)), []).append(service.name)
    parts = [f"{listed(names)}: {verb}" for (_, verb), names in groups.items()]
    if not parts:
        return f"traffic stays as it is; objects: {objects(plan)}"
    return "; ".join(parts)


def _verb(service: ServicePlan) -> str:
    before, after = service.weight.before or 0, service.weight.after
    known = before if service.unreadable is None else "?"
    return {
        "first deploy": "first deploy" + ("" if after is None else f", canary at {after} %"),
        "canary added": f"a canary, at {after} %",
        "canary image": f"another image in the canary, {weight(service)}",
        "stable image": f"stable changes to {service.stable.image_after}"
        + ("" if after == known else f", canary {weight(service)}"),
        "route": "its route moves",
        "promotion": f"promotion at {known} %",
        "abort": f"the canary is removed, {known} % back to stable",
        "removed": "removed, with its route",
        "shift": f"canary {weight(service)}",
    }.get(service.change, _still(service))


def _still(service: ServicePlan) -> str:
    if service.mirror and service.mirror.before != service.mirror.after:
        return f"no traffic moves, copies to the canary {_percents(service.mirror)}"
    if service.risks:
        return "no weight changes, but requests are at risk"
    return "no traffic moves, pods or settings change"


def _track(track: TrackPlan) -> str:
    image = _changing(track.image_before, track.image_after, "unknown image")
    if image is None:
        return ""
    pods = _changing(track.pods_before, track.pods_after, "")
    return image if not pods or track.image_after is None else f"{image}, {pods} {'pod' if pods == '1' else 'pods'}"


def _changing(before: str | int | None, after: str | int | None, unknown: str) -> str | None:
    if before is None and after is None:
        return None
    if after is None:
        return f"{before} → removed"
    if before in (None, after):
        return f"{after}"
    return f"{before or unknown} → {after}"


def _rate(rate: Requests) -> str:
    return f"about {_short(rate.moved)} of {_short(rate.total)}/s" if rate.moved else f"0 of {_short(rate.total)}/s"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 1 else f"{value:.2g}"  # noqa: PLR2004 - three digits are enough


def _percents(found: Weight) -> str:
    if found.before == found.after:
        return _percent(found.after)
    return f"{_percent(found.before)} → {_percent(found.after)}"


def _percent(value: int | None) -> str:
    return "none" if value is None else f"{value} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
