"""Time and memory of one command and everything it starts."""

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall time in seconds, and the peak of the memory of all processes together in MiB (their resident sets)."""

    seconds: float
    peak_mib: float


def cost_of(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command and return what it cost.

    Raises:
        subprocess.CalledProcessError: it failed; `output` says why.
    """
    started = time.monotonic()
    with subprocess.Popen(
        command, cwd=folder, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        peak = 0
        ended = threading.Event()

        def sample() -> None:
            nonlocal peak
            while not ended.wait(_SAMPLE_SECONDS):
                peak = max(peak, _resident(process.pid))

        sampler = threading.Thread(target=sample)
        sampler.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - started
        ended.set()
        sampler.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Cost(seconds, peak / 2**20)


def _resident(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
