"""Start-up of a program alone: import, reading the cluster and registration, without engine, in a process of its own.

As in a preview, so that it waits for no pods.

Run in the program's folder; takes its configuration as JSON from the environment, as the language host gives it.
"""

import runpy
import sys
from pathlib import Path

import pulumi


class Accepting(pulumi.runtime.Mocks):
    """Says yes to everything at once."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, object]]:
        """Give back the inputs as outputs."""
        return args.name, args.inputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, object], list[tuple[str, str]] | None]:
        """Refuse: neither program calls a function."""
        raise NotImplementedError(args.token)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), [])
    pulumi.runtime.set_mocks(Accepting(), project=sys.argv[1], stack=sys.argv[2], preview=True)
    pulumi.runtime.test(lambda: runpy.run_path("__main__.py", run_name="__main__") and None)()  # type: ignore[no-untyped-call] # the SDK does not annotate it
