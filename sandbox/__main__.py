"""`python -m sandbox up | down | status | shell`."""

import argparse
import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sandbox.command_line import Parser
from sandbox.errors import SandboxError
from sandbox.lifecycle import Sandbox, running, start, stop
from sandbox.shell import enter
from sandbox.toolchain.ensure import ensure
from sandbox.toolchain.errors import ToolchainError

_DONE, _FAILED, _INTERRUPTED = 0, 4, 130
_DEFAULT_STATE = Path(__file__).resolve().parents[1] / ".sandbox"


def main() -> int:
    """Run one command and return its exit code: 0 done, 1 usage, 4 the sandbox failed, 130 interrupted."""
    parser = Parser(prog="python -m sandbox", description="A local Kubernetes without containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    descriptions = {
        "up": "start the sandbox",
        "down": "end the sandbox and remove everything of it",
        "status": "say whether the sandbox is up, and where",
        "shell": "open a shell, or run a command, that reaches the sandbox; start it if it is not up",
    }
    parsers = {name: commands.add_parser(name, help=text, description=text) for name, text in descriptions.items()}
    for command in parsers.values():
        command.add_argument(
            "--state", type=Path, default=_DEFAULT_STATE, metavar="DIR", help="the sandbox's folder (%(default)s)"
        )
    parsers["status"].add_argument("--json", action="store_true", help="print JSON")
    parsers["shell"].add_argument("run", nargs="*", metavar="COMMAND", help="what to run instead of $SHELL")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except (SandboxError, ToolchainError) as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return _INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    state: Path = arguments.state
    if arguments.command == "up":
        up = running(state)
        again = "already " if up else ""
        sys.stdout.write(f"The sandbox is {again}up.\n{_description(up or _start(state))}")
    elif arguments.command == "down":
        sys.stdout.write("The sandbox has ended; nothing of it is left.\n" if stop(state) else "No sandbox is up.\n")
    elif arguments.command == "status":
        sys.stdout.write((_json if arguments.json else _text)(running(state)))
    else:
        enter(running(state) or _start(state), arguments.run)
    return _DONE


def _start(state: Path) -> Sandbox:
    with _progress() as report:
        return start(state, ensure(), report)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show each step with the time at which it began; on a terminal the running time, too."""
    begin = time.monotonic()
    console = Console(stderr=True, highlight=False)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting the sandbox")

        def report(step: str) -> None:
            console.print(f"{time.monotonic() - begin:5.1f} s  {step}", soft_wrap=True)
            progress.update(task, description=step)

        yield report


def _json(sandbox: Sandbox | None) -> str:
    status: dict[str, bool | str] = {"up": sandbox is not None}
    if sandbox is not None:
        status |= {
            "state": str(sandbox.state),
            "kubeconfig": str(sandbox.kubeconfig),
            "proxy_url": sandbox.proxy_url,
            "proxy_admin_url": sandbox.proxy_admin_url,
            "prometheus_url": sandbox.prometheus_url,
        }
    return json.dumps(status, indent=2) + "\n"


def _text(sandbox: Sandbox | None) -> str:
    return f"The sandbox is up.\n{_description(sandbox)}" if sandbox else "No sandbox is up.\n"


def _description(sandbox: Sandbox) -> str:
    shell, down = "make shell", "make sandbox-down"
    if sandbox.state != _DEFAULT_STATE:
        state = shlex.quote(str(sandbox.state))
        shell, down = (f"python -m sandbox {command} --state {state}" for command in ("shell", "down"))
    return (
        f"  proxy        {sandbox.proxy_url}\n"
        f"  proxy admin  {sandbox.proxy_admin_url}/dashboard/\n"
        f"  Prometheus   {sandbox.prometheus_url}\n"
        f"  kubeconfig   {sandbox.kubeconfig}\n"
        f"Enter it with `{shell}`, end it with `{down}`.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
