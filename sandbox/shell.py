"""Commands and shells inside a sandbox."""

import os
import shlex
import shutil
from typing import NoReturn

from sandbox.errors import SandboxError
from sandbox.lifecycle import Sandbox
from sandbox.state import StateFolder

_PROMPT = "(sandbox) "


def enter(sandbox: Sandbox, command: list[str]) -> NoReturn:
    """Become a command that reaches the sandbox, or without one the user's shell: $SHELL where it exists, else /bin/sh.

    Raises:
        SandboxError: the command cannot be run.

    """
    environment = dict(sandbox.environment)
    if not command:
        shell = shutil.which(environment.get("SHELL", "")) or "/bin/sh"
        command = [shell]
        if os.path.basename(shell) == "bash":  # noqa: PTH119  a name, not a file
            startup = StateFolder(sandbox.state).commands.with_name("bashrc")
            startup.write_text(
                "[ -f ~/.bashrc ] && . ~/.bashrc\n"
                f"PATH={shlex.quote(environment['PATH'])}\n"  # what ~/.bashrc put in front comes after it
                f"PS1='{_PROMPT}'$PS1\n",
                encoding="utf-8",
            )
            command = [shell, "--rcfile", str(startup)]
        else:
            environment["PS1"] = f"{_PROMPT}$ "
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  the user's own command
    except OSError as error:
        raise SandboxError(f"Cannot run {shlex.join(command)}: {error.strerror}.") from error
