"""The folder that holds everything of one sandbox, and the lock that says whether the sandbox is up."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError


@dataclass(frozen=True)
class StateFolder:
    """Paths inside the state folder. `root` is absolute."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held (`flock`) by the sandbox's processes for as long as they live; contains the supervisor's id."""
        return self.root / "sandbox.lock"

    @property
    def record(self) -> Path:
        """The addresses, as JSON; exists once the sandbox is up."""
        return self.root / "sandbox.json"

    @property
    def kubeconfig(self) -> Path:
        """Admin credentials for the API server's address on the host's loopback."""
        return self.root / "kubeconfig"

    @property
    def logs(self) -> Path:
        """One log file for each component."""
        return self.root / "logs"

    @property
    def control_plane(self) -> Path:
        """The working folder of kwokctl."""
        return self.root / "control-plane"

    @property
    def prometheus(self) -> Path:
        """Prometheus's configuration, rules and data."""
        return self.root / "prometheus"

    @property
    def envoy_gateway(self) -> Path:
        """Envoy Gateway's configuration and certificates, and what it and its Envoy write."""
        return self.root / "envoy-gateway"

    @property
    def commands(self) -> Path:
        """Links to the tools that the sandbox's shell finds first."""
        return self.root / "bin"

    @property
    def pulumi_home(self) -> Path:
        """PULUMI_HOME, with the Kubernetes provider installed as a plugin."""
        return self.root / "pulumi"

    @property
    def backend(self) -> Path:
        """The file backend that holds the Pulumi stacks."""
        return self.root / "backend"

    def write_record(self, addresses: Mapping[str, str]) -> None:
        """Write the addresses, all at once for whoever reads them."""
        unfinished = self.record.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(addresses, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(self.record)

    def claim(self) -> int | None:
        """Take the lock, creating the folder, and clear what a killed sandbox left there.

        Returns the open lock file, or None when another process holds the lock.

        Raises:
            SandboxError: the folder holds files that are not a sandbox's, or cannot be written.

        """
        if self.root.is_dir() and not self.lock.exists() and any(self.root.iterdir()):
            raise SandboxError(
                f"{self.root} holds files that are not a sandbox's; it was left as it is. "
                "Name another folder with --state."
            )
        try:
            while True:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # the folder was removed meanwhile: make it anew
                    lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    if not self._take(lock):
                        os.close(lock)
                        return None
                    if os.fstat(lock).st_ino == self.lock.stat().st_ino:
                        self._remove_contents()
                        os.truncate(lock, 0)
                        return lock
                    os.close(lock)  # the last owner removed this file after it was opened
        except OSError as error:
            raise SandboxError(
                f"Cannot use {self.root} as the sandbox's folder: {error.strerror}. Name another one with --state."
            ) from error

    def holder(self) -> int | None:
        """Return the supervisor's process id; 0 while it is not known yet, None when nothing is up."""
        try:
            lock = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return None if self._take(lock) else self.supervisor()
        finally:
            os.close(lock)

    def supervisor(self) -> int:
        """Return the process id that the lock file names, 0 if none."""
        try:
            return int(self.lock.read_text(encoding="ascii") or 0)
        except FileNotFoundError:
            return 0

    def clear(self) -> None:
        """Remove the folder. Only for the holder of the lock; the lock goes last, so that nobody intervenes."""
        if self.root.is_dir():
            self._remove_contents()
        self.lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a new sandbox may already be moving in
            self.root.rmdir()

    def clear_when_free(self) -> None:
        """Wait until nobody holds the lock, then remove the folder."""
        try:
            lock = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # its last holder has removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.clear()
        finally:
            os.close(lock)

    def _remove_contents(self) -> None:
        for entry in self.root.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)  # another process may be at it, too
            elif entry != self.lock:
                entry.unlink(missing_ok=True)

    @staticmethod
    def _take(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
