"""What can go wrong with a sandbox, sorted by whether trying again helps."""


class SandboxError(Exception):
    """The sandbox cannot do this; it fails again until the cause named in the message is removed."""


class SandboxBusyError(SandboxError):
    """Another process is starting or ending this sandbox; the same call works some seconds later."""
