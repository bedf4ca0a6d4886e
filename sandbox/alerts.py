"""Which alerts fire at this moment."""

import json
import urllib.request
from collections.abc import Mapping

_TIMEOUT_SECONDS = 5

# Prometheus is on the loopback interface, where no HTTP proxy of the user's environment leads.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def firing(prometheus_url: str) -> list[Mapping[str, str]]:
    """Return the labels of each alert that fires; `alertname` is one of them.

    Raises:
        OSError: Prometheus does not answer; a retry may help.
    """
    with _direct.open(f"{prometheus_url}/api/v1/alerts", timeout=_TIMEOUT_SECONDS) as response:
        alerts = json.load(response)["data"]["alerts"]
    return [alert["labels"] for alert in alerts if alert["state"] == "firing"]
