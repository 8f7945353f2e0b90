"""Ports for the servers of a test, never the same for two: pytest's workers start theirs at the same time."""

from __future__ import annotations

import socket
import sys

_HELD: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on and nobody else is given. On Linux each stays bound, not listening, until this
    process ends: a server that shares the address, as all of ours do, may listen on it, and the kernel gives it to no
    one who asks for any port."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        if sys.platform == "linux":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _HELD.append(probe)
        else:
            probe.close()
    return ports


def free_port() -> int:
    return free_ports(1)[0]
