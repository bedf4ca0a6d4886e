"""`make bench`: what updates, previews and the program alone cost, beside a minimal program with the same objects."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Cost, cost_of
from benchmarks.projects import minimal, product
from benchmarks.releases import Comparison, releases
from demo.stack import CHECKOUT, StackCopy, StackError
from sandbox.command_line import Parser
from sandbox.errors import SandboxError
from sandbox.lifecycle import start, stop
from sandbox.toolchain.ensure import ensure
from sandbox.toolchain.errors import ToolchainError

REPORT: Final = CHECKOUT / "build" / "bench.json"
REPETITIONS: Final = {1: 5, 3: 5, 30: 5, 100: 3}
_MOST_OF_A_RELEASE: Final = 30
"""A step of more services takes minutes, of which this product has no part."""

_WEIGHTS: Final = count(30)
_PACK: Final = CHECKOUT / "policies"
_POLICIES: Final = ("--policy-pack", str(_PACK), "--policy-pack-config", str(_PACK / "dev.json"))

DESCRIPTION: Final = """\
Deploys 1, 3, 30 and 100 services twice on a local cluster of its own: by this product's program, and by a
minimal one that registers the same objects as they stand. Measures in turns: a weight change with `pulumi up`,
`pulumi preview` with nothing changed, and import and registration without engine. Medians of 5 (3 at 100
services). Then, in turns, the product's preview with and without the policy pack; and up to 30 services a step of a
release and a cut-off beside the same by hand. Takes about half an hour; writes build/bench.json."""


@dataclass(frozen=True, slots=True)
class Result:
    """Medians of one measurement at one size: wall seconds and peak memory (MiB), and the ratio of the seconds."""

    services: int
    measurement: str
    product: Cost
    minimal: Cost
    ratio: float


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """Medians of a preview of the product without and with the policy pack, their ratio and difference in seconds."""

    services: int
    without: Cost
    with_policies: Cost
    ratio: float
    added_seconds: float


def main() -> int:
    """Measure, print a table and write the report; return the exit code."""
    parser = Parser(
        prog="python -m benchmarks", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", choices=REPETITIONS, default=list(REPETITIONS), metavar="N")
    sizes: list[int] = parser.parse_args().sizes
    console = Console(stderr=True)
    started = time.monotonic()

    def report(text: str) -> None:
        console.print(f"{time.monotonic() - started:6.0f} s  {text}", highlight=False, markup=False, soft_wrap=True)

    try:
        toolchain = ensure()
        with tempfile.TemporaryDirectory(prefix="canary-bench-") as folder:
            state = Path(folder) / "sandbox"
            try:
                sandbox = start(state, toolchain, report, outlive_starter=False)
                environment = dict(sandbox.environment)
                measured = [_measured(Path(folder), n, environment, report) for n in sizes]
                results = [result for results, _, _ in measured for result in results]
                policies = [cost for _, cost, _ in measured]
                compared = [comparison for _, _, comparisons in measured for comparison in comparisons]
            finally:
                stop(state)
    except (SandboxError, StackError, ToolchainError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 4
    except subprocess.CalledProcessError as error:
        console.print(f"{error}\n{error.output.decode()[-4000:]}", style="red", markup=False, soft_wrap=True)
        return 4
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left behind")
        return 130
    REPORT.parent.mkdir(exist_ok=True)
    machine = {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
    }
    body = {
        "machine": machine,
        "results": [asdict(result) for result in results],
        "growth": _growth(results),
        "policies": [asdict(cost) for cost in policies],
        "releases": [asdict(comparison) for comparison in compared],
    }
    REPORT.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    Console().print(_table(results))
    for cost in policies:
        Console().print(
            f"policy pack, {cost.services} services: preview {cost.without.seconds:.2f} s, "
            f"with policies {cost.with_policies.seconds:.2f} s (+{cost.added_seconds:.2f} s)"
        )
    for comparison in compared:
        Console().print(
            f"{comparison.measurement}, {comparison.services} services: {comparison.product:.3f} s, "
            f"by hand {comparison.by_hand:.3f} s, ratio {comparison.ratio:.2f}"
        )
    return 0


def _measured(
    folder: Path, services: int, environment: dict[str, str], report: Callable[[str], None]
) -> tuple[list[Result], PolicyCost, list[Comparison]]:
    report(f"{services} services: first deploys")
    ours = product(folder / f"product-{services}", services, environment)
    first_ours = _up(ours)
    theirs = minimal(folder / f"minimal-{services}", services, environment, ours)
    results = [_result(services, "first up", [first_ours], [_up(theirs)])]
    measurements: dict[str, Callable[[StackCopy], Cost]] = {
        "weight change, up": _weight_change,
        "preview, nothing changed": _preview,
        "program alone": _program_alone,
    }
    for name, measure in measurements.items():
        report(f"{services} services: {name}")
        pairs = [(measure(ours), measure(theirs)) for _ in range(REPETITIONS[services])]
        results.append(_result(services, name, [pair[0] for pair in pairs], [pair[1] for pair in pairs]))
    report(f"{services} services: preview with policies")
    policies = _policy_cost(services, ours)
    if services > _MOST_OF_A_RELEASE:
        return results, policies, []
    report(f"{services} services: a step of a release, a cut-off")
    return results, policies, releases(services, ours, _POLICIES, REPETITIONS[services])


def _policy_cost(services: int, stack: StackCopy) -> PolicyCost:
    pairs = [(_preview(stack), _preview(stack, *_POLICIES)) for _ in range(REPETITIONS[services])]
    without, with_policies = (_median(list(costs)) for costs in zip(*pairs, strict=True))
    added = with_policies.seconds - without.seconds
    ratio = with_policies.seconds / without.seconds
    return PolicyCost(services, without, with_policies, round(ratio, 3), round(added, 3))


def _growth(results: list[Result]) -> dict[str, dict[str, float]]:
    """Return what one more service costs (seconds and MiB of the product), between the smallest and largest size."""
    growth: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(result.measurement for result in results):
        ordered = sorted((r for r in results if r.measurement == name), key=lambda result: result.services)
        first, last = ordered[0], ordered[-1]
        if more := last.services - first.services:
            growth[name] = {
                "seconds_per_service": round((last.product.seconds - first.product.seconds) / more, 4),
                "mib_per_service": round((last.product.peak_mib - first.product.peak_mib) / more, 2),
            }
    return growth


def _result(services: int, name: str, ours: list[Cost], theirs: list[Cost]) -> Result:
    mine, other = _median(ours), _median(theirs)
    return Result(services, name, mine, other, round(mine.seconds / other.seconds, 3))


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        round(statistics.median(cost.seconds for cost in costs), 3),
        round(statistics.median(cost.peak_mib for cost in costs), 1),
    )


def _pulumi(stack: StackCopy, *arguments: str) -> Cost:
    environment = {**stack.environment, "PULUMI_STACK": stack.name}
    return cost_of(["pulumi", "--non-interactive", *arguments], stack.folder, environment)


def _up(stack: StackCopy) -> Cost:
    return _pulumi(stack, "up", "--yes", "--skip-preview")


def _weight_change(stack: StackCopy) -> Cost:
    stack.set("canaryWeight", str(30 + next(_WEIGHTS) % 60))
    return _up(stack)


def _preview(stack: StackCopy, *options: str) -> Cost:
    return _pulumi(stack, "preview", "--expect-no-changes", *options)


def _program_alone(stack: StackCopy) -> Cost:
    project = yaml.safe_load((stack.folder / "Pulumi.yaml").read_text(encoding="utf-8"))["name"]
    text = (stack.folder / f"Pulumi.{stack.name}.yaml").read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(text)["config"]
    raw = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    registration = Path(__file__).parent / "registration.py"
    environment = {**stack.environment, "PULUMI_CONFIG": json.dumps(raw)}
    return cost_of([sys.executable, str(registration), project, stack.name], stack.folder, environment)


def _table(results: list[Result]) -> Table:
    table = Table()
    for heading in ("services", "measurement", "product", "minimal", "ratio", "peak, product", "peak, minimal"):
        table.add_column(heading, justify="left" if heading == "measurement" else "right")
    for result in results:
        table.add_row(
            str(result.services),
            result.measurement,
            f"{result.product.seconds:.2f} s",
            f"{result.minimal.seconds:.2f} s",
            f"{result.ratio:.2f}",
            f"{result.product.peak_mib:.0f} MiB",
            f"{result.minimal.peak_mib:.0f} MiB",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
