"""The Python language host keeps to the engine's protocol: its own tests, on the host as it was built."""

import os
import subprocess
import sys

import pytest

from sandbox.toolchain.catalog import LANGUAGE_HOST
from sandbox.toolchain.ensure import Toolchain
from sandbox.toolchain.locate import locate

SECONDS = 300


def test_the_language_host_keeps_to_the_protocol(toolchain: Toolchain) -> None:
    host = toolchain.pulumi_language_python
    if locate()[LANGUAGE_HOST.name].origin == "installed":
        pytest.skip("the language host is an installed one, which its makers test")
    environment = os.environ | {
        "LANGUAGE_HOST_TEST_VENV": sys.prefix,
        "LANGUAGE_HOST_TEST_BINARY": str(host),
        "LANGUAGE_HOST_TEST_VERSION": LANGUAGE_HOST.pin.version,
    }

    done = subprocess.run(
        [host.with_suffix(".test"), f"-test.timeout={SECONDS}s", "-test.count=1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
