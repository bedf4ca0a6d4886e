"""`make traffic`: steady requests to the services of stack dev in the local cluster, and what comes back."""

import signal
import sys
import threading
import time
from collections import Counter
from typing import Final, NoReturn

from canary_service.config.loader import ConfigError
from demo.shell import STACK
from demo.stack import CHECKOUT, StackCopy
from sandbox.lifecycle import running
from sandbox.traffic import Traffic

RATE_PER_SERVICE: Final = 50.0
SENDERS: Final = 4
LINE_EVERY_SECONDS: Final = 2.0


def main() -> NoReturn:
    """Send until Control-C."""
    sandbox = running(CHECKOUT / ".sandbox")
    if sandbox is None:
        sys.stderr.write("No sandbox is up: make sandbox\n")
        sys.exit(4)
    try:
        settings = StackCopy(CHECKOUT, STACK, sandbox.environment).settings()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    paths = {name: service.path for name, service in settings.services.items()}
    ended = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: ended.set())
    sys.stdout.write(f"{RATE_PER_SERVICE:.0f} requests a second to each of {', '.join(paths)}; Control-C ends it\n")
    with Traffic(sandbox.proxy_url, settings.host, paths, RATE_PER_SERVICE, SENDERS) as traffic:
        before = {name: Counter[str]() for name in paths}
        while not ended.wait(LINE_EVERY_SECONDS):
            parts = []
            for name, tally in traffic.total.items():
                now = tally.by_version + tally.failures
                new, before[name] = now - before[name], now
                shares = ", ".join(f"{100 * number / new.total():.0f} % {what}" for what, number in sorted(new.items()))
                parts.append(f"{name}: {shares or 'no route yet'}")
            sys.stdout.write(f"{time.strftime('%X')}  {'; '.join(parts)}\n")
            sys.stdout.flush()
    sys.exit(0)


if __name__ == "__main__":
    main()
