"""Ports of this machine that nobody listens on now."""

from __future__ import annotations

import socket


def free_ports(count: int) -> list[int]:
    """So many, each another."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def free_port() -> int:
    """One."""
    return free_ports(1)[0]
