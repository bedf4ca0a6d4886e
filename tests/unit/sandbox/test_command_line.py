import pytest

from sandbox.command_line import Parser


@pytest.mark.parametrize("arguments", [["unknown"], ["known", "--unknown"]], ids=["command", "subcommand's option"])
def test_a_usage_error_exits_with_1_and_says_what_is_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser(prog="program")
    parser.add_subparsers(required=True).add_parser("known")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("usage: program")
    assert arguments[-1] in message.splitlines()[-1]
