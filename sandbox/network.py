"""The kernel namespaces of a sandbox: entered through system calls, so that nothing has a name on the host."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from sandbox.errors import SandboxError

POD_NETWORK = "10.244.0.0"
"""Network address (/16) of the pods, apart from the API server's default range for Services, 10.0.0.0/24."""

NODE_ADDRESS = "10.245.0.1"
"""The namespace's own address: the API server refuses to advertise a loopback one."""

KUBELET_PORT, CADVISOR_PATH = 10250, "/metrics/cadvisor"
"""Where the kubelet shows what containers use, on the node's address."""

CLUSTER_METRICS_PORT = 8080
"""Likewise for the state of objects, and for which targets there are."""

_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000  # <linux/sched.h>
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C  # <linux/sockios.h>
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def isolate() -> None:
    """Move this process into a new network namespace and its future children into a new PID namespace.

    Without the right to do so, a user namespace of its own gives it.

    Raises:
        SandboxError: the kernel allows neither.

    """
    namespaces = _CLONE_NEWNET | _CLONE_NEWPID
    if _libc.unshare(namespaces) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER | namespaces) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SandboxError(
            f"The kernel refuses the sandbox its own network and process namespaces ({reason}). It needs root "
            "with CAP_SYS_ADMIN, or unprivileged user namespaces: sysctl user.max_user_namespaces above 0 and, "
            "where they exist, kernel.unprivileged_userns_clone=1 and "
            "kernel.apparmor_restrict_unprivileged_userns=0; in a container, a seccomp profile that permits "
            "unshare."
        )
    # user_namespaces(7): an unprivileged process may map its own ids only, and its group only without setgroups.
    # As root in there, what it starts may bind ports below 1024 on the pods' addresses.
    for file, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", file).write_text(content, encoding="ascii")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however it ends."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def bring_up() -> None:
    """Make 127.0.0.0/8, every pod's address and the node's address local to this network namespace.

    On the loopback interface the kernel takes a whole network of addresses for its own (netdevice(7)), so that
    neither links nor routes nor tools to make them are needed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def set_address(request: int, interface: str, address: str) -> None:
            sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s", interface.encode(), sockaddr))

        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        for interface, address, mask in (
            ("lo:pods", POD_NETWORK, "255.255.0.0"),
            ("lo:node", NODE_ADDRESS, "255.255.255.255"),
        ):
            set_address(_SIOCSIFADDR, interface, address)
            set_address(_SIOCSIFNETMASK, interface, mask)


def listen(preferred_port: int, attempts: int = 100) -> socket.socket:
    """Listen on the host's loopback, on the preferred port or the next free one above it.

    Raises:
        SandboxError: none of the `attempts` ports is free.

    """
    for port in range(preferred_port, preferred_port + attempts):
        try:
            return socket.create_server(("127.0.0.1", port), backlog=4096)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise SandboxError(
        f"No port from {preferred_port} to {preferred_port + attempts - 1} is free on 127.0.0.1. "
        "End other sandboxes, or whatever else listens there."
    )
