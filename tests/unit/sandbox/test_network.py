import socket

import pytest

from sandbox.errors import SandboxError
from sandbox.network import listen


def test_the_preferred_port_is_taken_or_the_next_free_one() -> None:
    with listen(23400) as first, listen(23400) as second:
        preferred, next_one = first.getsockname()[1], second.getsockname()[1]
        assert 23400 <= preferred < next_one < 23500
        assert first.getsockname()[0] == "127.0.0.1"


def test_when_every_port_is_taken_the_range_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SandboxError, match=r"No port from \d+ to \d+ is free on 127\.0\.0\.1"),
    ):
        listen(taken.getsockname()[1], attempts=1)
