"""`make demo`: a local cluster, three services, a whole canary rollout under live traffic."""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from demo.measurement import Cluster, MeasurementError, settle
from demo.rollout import RATE_PER_SERVICE, Rollout, Row
from demo.stack import CHECKOUT, StackCopy, StackError
from demo.view import LinesView, TableView
from sandbox.command_line import Parser
from sandbox.errors import SandboxError
from sandbox.lifecycle import Sandbox, start, stop
from sandbox.toolchain.ensure import ensure
from sandbox.toolchain.errors import ToolchainError
from sandbox.traffic import Traffic

REPORT: Final = CHECKOUT / "build" / "demo.json"
EXIT_CLUSTER: Final = 4
EXIT_CHECK_FAILED: Final = 6
EXIT_INTERRUPTED: Final = 130

DESCRIPTION: Final = """\
Starts a local cluster of its own, deploys the three services of stack dev, and takes their canaries from
5 to 20, 50 and 100 percent and to promotion, each step by `pulumi config set canaryWeight N && pulumi up`,
while requests run. From 5 percent on one canary is ordered to answer errors, until the alert for that fires; by the
end it has to have ended. Ends with build/demo.json. The checkout and a sandbox that is up stay as they are.

exit codes: 0 done, 1 usage, 4 toolchain, engine or cluster failed, 6 a request failed or a share is off"""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = Parser(
        prog="python -m demo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    try:
        toolchain = ensure()
        with tempfile.TemporaryDirectory(prefix="canary-demo-") as folder:
            state = Path(folder) / "sandbox"
            started = time.monotonic()
            try:
                sandbox = start(
                    state,
                    toolchain,
                    lambda text: console.print(text, style="dim", highlight=False),
                    outlive_starter=False,
                )
                console.print(
                    f"the cluster is up after {time.monotonic() - started:.1f} s", style="dim", highlight=False
                )
                return _demonstrate(console, sandbox, Path(folder) / "project")
            finally:
                stop(state)
    except (StackError, SandboxError, ToolchainError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return EXIT_CLUSTER
    except MeasurementError as error:
        console.print(f"failed: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return EXIT_CHECK_FAILED
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left behind")
        return EXIT_INTERRUPTED


def _demonstrate(console: Console, sandbox: Sandbox, folder: Path) -> int:
    stack = StackCopy.create(folder, "dev", sandbox.environment)
    stack.set("canaryWeight", "0")
    lines = LinesView(console)
    lines.phase("pulumi up: deploys stable and canary of three services, the canaries at weight 0")
    up_seconds = stack.up()
    settings = stack.settings()
    paths = {name: service.path for name, service in settings.services.items()}
    rows = {name: Row() for name in paths}
    cluster = Cluster.of(sandbox)
    for name in paths:
        settle(cluster, settings, name)
    lines.phase(f"deployed in {up_seconds:.1f} s and routed; requests run from here on")
    traffic = Traffic(sandbox.proxy_url, settings.host, paths, RATE_PER_SERVICE)
    view = TableView(console, rows, traffic.total) if console.is_terminal else lines
    rollout = Rollout(stack, cluster, traffic, view, rows)
    try:
        with traffic, view:
            rollout.run()
        rollout.check_failures()
    finally:
        report = rollout.report()
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shown = REPORT.relative_to(CHECKOUT)
    failed = f"{report['failed']} failed, {report['ordered_errors']} errors by order apart"
    console.print(
        f"promoted; {report['requests']:,} requests, {failed} (numbers in {shown}). Your turn: make shell",
        style="green",
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
