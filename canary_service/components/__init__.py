"""What other programs import: `from canary_service.components import CanaryService, CanaryStack` (docs/package.md).

Loaded when it is asked for: this project's own program needs none of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canary_service.components.outside import CanaryService, CanaryStack

__all__ = ["CanaryService", "CanaryStack"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from canary_service.components import outside  # noqa: PLC0415 - see above

    return getattr(outside, name)
