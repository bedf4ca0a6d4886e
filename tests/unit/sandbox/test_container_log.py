"""Which lines of a container's log are kept and given out."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.container_log import KEPT_LINES, ContainerLog, Wanted


def read(log: ContainerLog, **query: str) -> str:
    async def main() -> str:
        return b"".join([line async for line in Wanted.read(query).of(log)]).decode()

    return asyncio.run(main())


@pytest.fixture
def log() -> ContainerLog:
    log = ContainerLog()
    for text in ("one", "two", "three"):
        log.write(text)
    return log


def test_all_of_it_is_read_unless_less_is_asked_for(log: ContainerLog) -> None:
    assert read(log) == "one\ntwo\nthree\n"
    assert read(log, tailLines="2") == "two\nthree\n"
    assert read(log, tailLines="0") == ""
    assert read(log, tailLines="9") == "one\ntwo\nthree\n"
    assert read(log, limitBytes="6") == "one\ntw"


def test_lines_are_told_by_their_time(log: ContainerLog) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    assert read(log, sinceTime=later.isoformat()) == ""
    assert read(log, sinceSeconds="60", tailLines="1") == "three\n"
    stamp, text = read(log, timestamps="true", tailLines="1").split()
    assert text == "three"
    assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(stamp) < timedelta(minutes=1)


def test_only_the_last_lines_are_kept() -> None:
    log = ContainerLog()
    for number in range(KEPT_LINES + 1):
        log.write(str(number))
    assert read(log).split() == [str(number) for number in range(1, KEPT_LINES + 1)]


def test_who_follows_gets_each_line_once_until_the_end(log: ContainerLog) -> None:
    async def main() -> list[bytes]:
        found = []
        async for line in Wanted.read({"follow": "true", "tailLines": "1"}).of(log):
            found.append(line)
            if line == b"three\n":
                log.write("four")
                asyncio.get_running_loop().call_soon(log.write, "five")
            if line == b"five\n":
                log.write("six")
                log.end()
        return found

    assert asyncio.run(main()) == [b"three\n", b"four\n", b"five\n", b"six\n"]


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="many"):
        Wanted.read({"tailLines": "many"})
