"""What the command lines of this project share."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors, its subcommands' too, exit with 1; argparse's own is 2."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message on standard error, and exit with 1."""
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")
