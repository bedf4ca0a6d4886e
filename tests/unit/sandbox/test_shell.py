"""Entering a sandbox with whatever the user has for a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.lifecycle import Sandbox
from sandbox.shell import enter

CHECKOUT = Path(__file__).parents[3]


def sandbox(state: Path) -> Sandbox:
    proxy, admin, prometheus = (f"http://127.0.0.1:{port}" for port in (1, 2, 3))
    return Sandbox(state, state / "kubeconfig", proxy, admin, prometheus, os.environ)


@pytest.mark.parametrize("shell", ["/no/such/shell", "", None], ids=["missing", "empty", "unset"])
def test_without_the_users_shell_it_is_bin_sh(tmp_path: Path, shell: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SHELL"}
    entering = (
        "import os; from pathlib import Path; from sandbox.lifecycle import Sandbox; from sandbox.shell import enter; "
        f"enter(Sandbox(Path({str(tmp_path)!r}), Path(), '', '', '', os.environ), [])"
    )
    done = subprocess.run(
        [sys.executable, "-c", entering],
        cwd=CHECKOUT,
        env=environment if shell is None else environment | {"SHELL": shell},
        input="echo $0; exit 7\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("/bin/sh\n", 7), done.stderr


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"^Cannot run no-such-command 'an argument': No such file or directory\.$"):
        enter(sandbox(tmp_path), ["no-such-command", "an argument"])
