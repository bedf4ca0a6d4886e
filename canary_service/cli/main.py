"""`canary`: the commands of a canary's daily life."""

import signal
import sys
from io import TextIOWrapper
from typing import NoReturn

import click

from canary_service.cli.abort import abort
from canary_service.cli.doctor import doctor
from canary_service.cli.exit_codes import CLUSTER, INTERRUPTED, USAGE
from canary_service.cli.gate import gate
from canary_service.cli.logs import logs
from canary_service.cli.plan import plan
from canary_service.cli.promote import promote
from canary_service.cli.report import report
from canary_service.cli.run import run
from canary_service.cli.set_weight import set_weight
from canary_service.cli.status import status
from canary_service.cli.verify import verify
from canary_service.cli.watch import watch

NAME = "canary"


@click.group(name=NAME, context_settings={"help_option_names": ["-h", "--help"]})
def canary() -> None:
    """Progressive delivery for Kubernetes as plain Pulumi code.

    \b
    Run it in the folder of Pulumi.yaml or below, where `pulumi` itself would run:
        pulumi config set canaryWeight 50
        canary plan
        pulumi up

    Tab completion: eval "$(_CANARY_COMPLETE=bash_source canary)", with zsh_source or fish_source for those shells.
    """  # noqa: D301 - \b tells click to keep lines


for command in (abort, doctor, gate, logs, plan, promote, report, run, set_weight, status, verify, watch):
    canary.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow that a terminal cannot show is no reason to fail
    try:
        # Not standalone: click's own exit code for a wrong invocation is 2.
        code = canary.main(prog_name=NAME, standalone_mode=False)
    except click.UsageError as error:
        error.show()
        code = USAGE
    except click.ClickException as error:
        error.show()
        code = CLUSTER
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("Interrupted.\n")
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
