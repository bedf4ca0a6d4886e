"""The one error of this package."""


class ToolchainError(Exception):
    """A part of the toolchain cannot be had; the message says what, why and what to do.

    `retry_can_help` is true when the same command may succeed later without any change, as after a network failure.
    """

    def __init__(self, message: str, *, retry_can_help: bool = False) -> None:
        super().__init__(message)
        self.retry_can_help = retry_can_help
