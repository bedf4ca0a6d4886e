"""What people read when `go` fails. The outputs are recorded from the real command."""

import pytest

from sandbox.toolchain.catalog import CATALOG, Module
from sandbox.toolchain.errors import ToolchainError
from sandbox.toolchain.failures import explain

_MODULES = {module.name: module for module in CATALOG}
_LANGUAGE_HOST_OUTPUT = """\
# x
./main.go:3:15: undefined: undefinedThing
./main.go:3:37: declared and not used: a
"""


def _explained(module: Module, output: str) -> ToolchainError:
    return explain("the step", module, output)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (
            (
                "go: downloading gocloud.dev v0.46.1-0.20260101000000-abcdefabcdef\n"
                "main.go:3:8: gocloud.dev@v0.46.1-0.20260101000000-abcdefabcdef: reading "
                "https://proxy.example/gocloud.dev/@v/v0.46.1-0.20260101000000-abcdefabcdef.zip: 403 Forbidden\n"
                "\tserver response: This module version is not available.\n"
            ),
            "gocloud.dev@v0.46.1-0.20260101000000-abcdefabcdef",
        ),
        (
            (
                "main.go:3:8: github.com/google/uuid@v1.5.0: reading "
                "http://proxy.example/github.com/google/uuid/@v/v1.5.0.zip: 404 Not Found\n"
            ),
            "github.com/google/uuid@v1.5.0",
        ),
        (
            (
                "main.go:3:8: github.com/google/uuid@v1.5.0: reading "
                "http://proxy.example/github.com/google/uuid/@v/v1.5.0.zip: 410 Gone\n"
            ),
            "github.com/google/uuid@v1.5.0",
        ),
        (
            "main.go:3:8: reading github.com/canary/lib/go.mod at revision v1.0.1: unknown revision v1.0.1\n",
            "github.com/canary/lib@v1.0.1",
        ),
        (
            (
                "main.go:3:8: reading github.com/google/uuid/go.mod at revision v1.5.0: git ls-remote -q "
                "--end-of-options https://github.com/google/uuid in /cache/vcs/c3a7687c: exit status 128:\n"
                "\tfatal: unable to access 'https://github.com/google/uuid/': Could not resolve host: github.com\n"
            ),
            "github.com/google/uuid@v1.5.0",
        ),
    ],
)
def test_a_version_that_cannot_be_had_is_named_with_the_way_out(output: str, name: str) -> None:
    error = _explained(_MODULES["pulumi"], output)
    message = str(error)
    assert message.startswith(f"the step: {name} cannot be had any more; ")
    assert "sandbox/toolchain/modules/pulumi/go.mod asks for it" in message
    assert "Install Pulumi (https://www.pulumi.com/docs/install)" in message
    assert "uv.lock" in message
    assert "go: downloading" not in message
    assert not error.retry_can_help


def test_outside_of_pulumi_the_way_out_is_another_version() -> None:
    message = str(
        _explained(_MODULES["etcd"], "go: go.etcd.io/raft/v3@v3.6.0: reading https://x/v3.zip: 404 Not Found")
    )
    assert "go.etcd.io/raft/v3@v3.6.0 cannot be had any more" in message
    assert (
        "Lock another version in sandbox/toolchain/modules/etcd/go.mod, or put the locked version of etcd on PATH"
        in message
    )
    assert "Install Pulumi" not in message


def test_a_download_that_was_changed_is_named() -> None:
    error = _explained(
        _MODULES["kubernetes"],
        "go: downloading github.com/google/uuid v1.6.0\n"
        "verifying github.com/google/uuid@v1.6.0: checksum mismatch\n"
        "\tdownloaded: h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=\n"
        "\tgo.sum:     h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nSECURITY ERROR\n",
    )
    assert "what was downloaded as github.com/google/uuid@v1.6.0 does not match" in str(error)
    assert "sandbox/toolchain/modules/kubernetes/go.sum" in str(error)
    assert not error.retry_can_help


def test_a_go_release_that_cannot_be_fetched_is_to_be_installed() -> None:
    output = (
        "go: downloading go1.99.0 (linux/amd64)\n"
        "go: download go1.99.0: golang.org/toolchain@v0.0.1-go1.99.0.linux-amd64: reading "
        "https://proxy.example/v0.0.1-go1.99.0.linux-amd64.zip: 403 Forbidden\n"
    )
    message = str(_explained(_MODULES["pulumi"], output))
    assert "asks for a newer Go, and go1.99.0 cannot be fetched" in message
    assert "Install it (https://go.dev/dl)" in message
    assert "Install Pulumi" not in message


@pytest.mark.parametrize(
    "reason",
    [
        'Get "https://proxy.example/v1.5.0.zip": dial tcp: lookup proxy.example on 192.0.2.53:53: no such host',
        'Get "http://127.0.0.1:9/v1.5.0.zip": dial tcp 127.0.0.1:9: connect: connection refused',
        'Get "https://proxy.example/v1.5.0.zip": proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused',
        'Get "https://proxy.example/v1.5.0.zip": net/http: TLS handshake timeout',
        "reading https://proxy.example/v1.5.0.zip: 503 Service Unavailable",
        "reading https://proxy.example/v1.5.0.zip: 429 Too Many Requests",
    ],
)
def test_a_network_failure_says_that_running_again_helps(reason: str) -> None:
    error = _explained(_MODULES["pulumi"], f"main.go:3:8: github.com/google/uuid@v1.5.0: {reason}\n")
    assert error.retry_can_help
    assert "the Go module proxy cannot be reached" in str(error)
    assert reason in str(error)
    assert "Run it again to resume" in str(error)
    assert "cannot be had any more" not in str(error)


def test_one_reason_is_said_once() -> None:
    reason = "go.etcd.io/raft/v3@v3.6.99: reading https://proxy.example/v3.6.99.zip: 403 Forbidden\n"
    response = "\tserver response: This module version is not available.\n"
    output = "".join(f"../mod/cluster.go:{line}:2: {reason}{response}" for line in range(40))
    assert len(str(_explained(_MODULES["etcd"], output)).splitlines()) == 4


def test_a_full_disk_is_said_in_one_line_instead_of_hundreds() -> None:
    output = "# runtime\ncompile: writing output: write /tmp/go-build3072805521/b011/_pkg_.a: no space left on device\n"
    error = _explained(_MODULES["pulumi"], output * 100)
    assert "the disk is full" in str(error)
    assert len(str(error).splitlines()) == 2


def test_a_compiler_that_the_system_stopped_is_put_down_to_memory() -> None:
    error = _explained(_MODULES["pulumi"], "internal/abi: /usr/lib/go/pkg/tool/linux_amd64/compile: signal: killed\n")
    assert "want of memory" in str(error)
    assert error.retry_can_help


def test_any_other_failure_shows_the_end_of_the_output() -> None:
    output = "go: downloading x v1\n" * 50 + "early line\n" * 20 + _LANGUAGE_HOST_OUTPUT
    message = str(_explained(_MODULES["pulumi"], output))
    assert message.startswith("the step failed:\n")
    assert "./main.go:3:15: undefined: undefinedThing" in message
    assert "go: downloading" not in message
    assert len(message.splitlines()) < 12
