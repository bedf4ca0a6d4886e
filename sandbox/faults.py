"""Orders that make an answering pod misbehave: environment variables of its containers, annotations of the pod."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ANNOTATION_PREFIX = "sandbox/"
VARIABLE_PREFIX = "SANDBOX_"
FAULT_HEADER = "X-Ordered-Fault"
"""Of an answer that is an error because it was ordered; names the order."""


@dataclass(frozen=True)
class Faults:
    """How a container misbehaves. The default is not at all."""

    error_rate: float = 0.0
    """Share of the requests, 0 to 1, that get status 500."""
    latency_seconds: float = 0.0
    """Time added to each answer."""
    refuse: bool = False
    """Whether connections are refused, as if nothing listened."""
    crash: str = ""
    """An arbitrary value; each new one crashes the running container once."""
    crash_after_seconds: float = math.inf
    """Time from each of the container's starts to its next crash."""
    start_seconds: float = 0.0
    """Time from each of the container's starts to its listening."""
    cpu_cores: float = 0.0
    """Processor cores that its metrics say are used on top of what playing it takes."""
    memory_bytes: float = 0.0
    """Memory, likewise."""


def _amount(value: str) -> float:
    amount = float(value)
    if not 0 <= amount < math.inf:
        raise ValueError
    return amount


def _rate(value: str) -> float:
    rate = float(value)
    if not 0 <= rate <= 1:
        raise ValueError
    return rate


def _boolean(value: str) -> bool:
    return {"true": True, "false": False}[value.lower()]


@dataclass(frozen=True)
class _Order:
    parse: Callable[[str], float | bool | str]
    allowed: str


_ORDERS = {
    "error-rate": _Order(_rate, "a number from 0 to 1"),
    "latency-seconds": _Order(_amount, "seconds, 0 or more"),
    "refuse": _Order(_boolean, "true or false"),
    "crash": _Order(str, "any value"),
    "crash-after-seconds": _Order(_amount, "seconds, 0 or more"),
    "start-seconds": _Order(_amount, "seconds, 0 or more"),
    "cpu-cores": _Order(_amount, "a number, 0 or more"),
    "memory-bytes": _Order(_amount, "bytes, 0 or more"),
}


def read_faults(annotations: Mapping[str, str], variables: Mapping[str, str]) -> tuple[Faults, list[str]]:
    """Read the orders in a pod's annotations and a container's environment variables; annotations win.

    `sandbox/error-rate` and SANDBOX_ERROR_RATE are the same order, and so on for every field of Faults. Orders that
    cannot be obeyed are left out; the second result says what is wrong with each.
    """
    obeyed: dict[str, Any] = {}
    problems = []
    given = [
        (key, key.removeprefix(VARIABLE_PREFIX).lower().replace("_", "-"), value)
        for key, value in variables.items()
        if key.startswith(VARIABLE_PREFIX)
    ]
    given += [
        (key, key.removeprefix(ANNOTATION_PREFIX), value)
        for key, value in annotations.items()
        if key.startswith(ANNOTATION_PREFIX)
    ]
    for key, name, value in given:
        order = _ORDERS.get(name)
        if order is None:
            problems.append(f"{key} is no order of the sandbox. Those are: {', '.join(_ORDERS)}")
            continue
        try:
            obeyed[name.replace("-", "_")] = order.parse(value)
        except (ValueError, KeyError):
            problems.append(f'{key} is "{value}"; allowed is {order.allowed}')
    return Faults(**obeyed), problems
