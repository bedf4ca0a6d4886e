"""Turns what `go` wrote into one message that says what failed, why and what to do."""

import re
from pathlib import Path

from sandbox.toolchain.catalog import PROJECT, Module
from sandbox.toolchain.errors import ToolchainError

_AGAIN = "Run it again to resume; what is finished is kept."
_LINES = 8

_MODULE = r"(?P<module>[\w.~/-]+\.[\w.~/-]+@v[^\s:]+)"
_UNAVAILABLE = (
    rf"{_MODULE}: reading \S+: (?:403|404|410) ",
    rf"{_MODULE}: .*(?:unknown revision|invalid version|not found)",
    # Asked of the origin because no proxy has it.
    r"reading (?P<path>\S+)/go\.mod at revision (?P<version>[^\s:]+): ",
)
_RELEASE = r"go: download (go[\d.]+).*: golang\.org/toolchain@"
_CHECKSUM = rf"verifying {_MODULE}(?:/go\.mod)?: checksum mismatch"
_NETWORK = (
    r"dial tcp|no such host|Could not resolve host|connection re(?:fused|set)|i/o timeout|TLS handshake|"
    r"unexpected EOF|Client\.Timeout|: (?:429|5\d\d) [A-Z]"
)


def _named(output: str) -> str | None:
    for pattern in _UNAVAILABLE:
        if found := re.search(pattern, output):
            groups = found.groupdict()
            return groups.get("module") or f"{groups['path']}@{groups['version']}"
    return None


def relevant(output: str) -> str:
    """Cut the last lines that say something about a failure, each once and indented."""
    lines = (line.strip() for line in output.splitlines() if not line.startswith("go: downloading "))
    return "\n".join(f"    {line}" for line in list(dict.fromkeys(filter(None, lines)))[-_LINES:])


def explain(step: str, module: Module, output: str) -> ToolchainError:
    """Make the error for a step that failed in a module from all that `go` wrote to its standard error."""
    folder = module.folder.relative_to(PROJECT)
    return (
        _machine(step, output)
        or _download(step, module, folder, output)
        or ToolchainError(f"{step} failed:\n{relevant(output)}\n{_way_out(module, folder)}")
    )


def _machine(step: str, output: str) -> ToolchainError | None:
    if "no space left on device" in output:
        return ToolchainError(f"{step}: the disk is full.\nFree some space. {_AGAIN}")
    if "signal: killed" in output:
        return ToolchainError(
            f"{step}: the system stopped the compiler, most likely for want of memory; it takes up to 2 GB.\n"
            f"Close other programs. {_AGAIN}",
            retry_can_help=True,
        )
    return None


def _download(step: str, module: Module, folder: Path, output: str) -> ToolchainError | None:
    # Which file imports the module does not matter, and each that does gets a line.
    output = re.sub(r"^\S+\.go:\d+:\d+: ", "", output, flags=re.MULTILINE)
    if release := re.search(_RELEASE, output):
        return ToolchainError(
            f"{step}: {folder / 'go.mod'} asks for a newer Go, and {release[1]} cannot be fetched.\n"
            f"{relevant(output)}\nInstall it (https://go.dev/dl). {_AGAIN}"
        )
    if mismatch := re.search(_CHECKSUM, output):
        return ToolchainError(
            f"{step}: what was downloaded as {mismatch['module']} does not match {folder / 'go.sum'}.\n"
            f"It was changed after its release, or on the way: ask whoever runs your module proxy.\n"
            f"{_way_out(module, folder)}"
        )
    if name := _named(output):
        return ToolchainError(
            f"{step}: {name} cannot be had any more; {folder / 'go.mod'} asks for it.\n{relevant(output)}\n"
            f"{_way_out(module, folder)}"
        )
    if re.search(_NETWORK, output):
        return ToolchainError(
            f"{step}: the Go module proxy cannot be reached.\n{relevant(output)}\n"
            f"Check the network (and GOPROXY, HTTPS_PROXY where they are set). {_AGAIN}",
            retry_can_help=True,
        )
    return None


def _way_out(module: Module, folder: Path) -> str:
    if any(binary.pin.file.suffix == ".lock" for binary in module.binaries):
        return (
            "Install Pulumi (https://www.pulumi.com/docs/install), so that none of it needs to be built;\n"
            f"or lock another version in {folder / 'go.mod'} and in uv.lock."
        )
    names = ", ".join(binary.name for binary in module.binaries)
    if not names:
        return f"Lock another version in {folder / 'go.mod'}."
    return f"Lock another version in {folder / 'go.mod'}, or put the locked version of {names} on PATH."
