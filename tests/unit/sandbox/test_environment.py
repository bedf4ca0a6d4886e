"""What is set for the commands that reach a sandbox."""

from pathlib import Path

import pytest

from sandbox.environment import environment
from sandbox.state import StateFolder

LOOPBACK = "127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        (None, None, (LOOPBACK, LOOPBACK)),
        ("", "", (LOOPBACK, LOOPBACK)),
        ("a.example", "b.example, c.example", (f"a.example,{LOOPBACK}", f"b.example,c.example,{LOOPBACK}")),
        ("a.example", None, (f"a.example,{LOOPBACK}", f"a.example,{LOOPBACK}")),
        (None, "b.example", (f"b.example,{LOOPBACK}", f"b.example,{LOOPBACK}")),
        ("localhost", LOOPBACK, ("localhost,127.0.0.1", LOOPBACK)),
        ("*", None, ("*", "*")),
    ],
)
def test_the_loopback_is_reached_without_the_users_http_proxy(
    monkeypatch: pytest.MonkeyPatch, upper: str | None, lower: str | None, expected: tuple[str, str]
) -> None:
    for name, value in (("NO_PROXY", upper), ("no_proxy", lower)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    set_for_commands = environment(StateFolder(Path("/nowhere")), "http://127.0.0.1:18080", "http://127.0.0.1:19090")
    assert (set_for_commands["NO_PROXY"], set_for_commands["no_proxy"]) == expected
