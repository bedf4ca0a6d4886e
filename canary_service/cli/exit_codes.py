"""What the commands exit with (docs/reference.md)."""

from typing import Final

DONE: Final = 0
USAGE: Final = 1
"""The invocation or the configuration is wrong, or the guards refuse the change: a retry does not help."""

HELD: Final = 3
"""It cannot be told: too little is known."""

CLUSTER: Final = 4
"""The engine or the cluster failed: a retry may help."""

LOCKED: Final = 5
"""Another update of the stack is running: a retry helps when it has ended."""

CHECK_FAILED: Final = 6
INTERRUPTED: Final = 130
