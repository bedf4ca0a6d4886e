"""`make shell`: a shell in the checkout whose `pulumi` has stack dev selected in the sandbox's own backend."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import NoReturn

from demo.stack import CHECKOUT
from sandbox.errors import SandboxError
from sandbox.lifecycle import running
from sandbox.shell import enter

STACK = "dev"

HINT = """
pulumi up                                        deploys stable and canary of three services, canaries at 20 %
pulumi config set canaryWeight 50 && canary plan shows what that would change for traffic
pulumi up                                        moves traffic; the proxy follows within 2 s
curl -H 'Host: macromind.local' $SANDBOX_PROXY/api/auth; echo
curl -H 'Host: macromind.local' -H 'X-Canary: true' $SANDBOX_PROXY/api/auth; echo
canary status                                    what is declared, in force and measured; canary --help has the rest
exit                                             leaves the sandbox up; make sandbox-down ends it
"""


def main() -> NoReturn:
    """Enter the shell, or run the command given as arguments in its place."""
    sandbox = running(CHECKOUT / ".sandbox")
    if sandbox is None:
        sys.stderr.write("No sandbox is up: make sandbox\n")
        sys.exit(4)
    try:
        _select_stack(sandbox.environment)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"Stack {STACK} could not be made:\n{error.output}\n")
        sys.exit(4)
    if not sys.argv[1:]:
        sys.stdout.write(HINT)
        sys.stdout.flush()
    try:
        enter(sandbox, sys.argv[1:])
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(4)


def _select_stack(environment: Mapping[str, str]) -> None:
    """Make the stack if it is new, and select it for the checkout."""
    stacks = json.loads(_pulumi(environment, "stack", "ls", "--json"))
    if STACK not in {stack["name"] for stack in stacks}:
        _pulumi(environment, "stack", "init", STACK)
    _pulumi(environment, "stack", "select", STACK)


def _pulumi(environment: Mapping[str, str], *arguments: str) -> str:
    return subprocess.run(
        ["pulumi", "--non-interactive", *arguments],  # noqa: S607 - found on the sandbox's own PATH
        cwd=CHECKOUT,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout


if __name__ == "__main__":
    main()
