"""The proxy itself: a fault that does not happen proves nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from chaos_proxy import ChaosProxy

from watched_rounds import wait_until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def receive(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (data := connection.recv(count - len(found))):
        found += data
    return found


def test_bytes_pass_both_ways_and_are_counted(listener: socket.socket) -> None:
    with (
        ChaosProxy(listener.getsockname()[1]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), 10) as near,
        listener.accept()[0] as far,
    ):
        far.settimeout(10)
        near.sendall(b"up" * 20_000)
        assert receive(far, 40_000) == b"up" * 20_000
        far.sendall(b"down")
        assert receive(near, 4) == b"down"
        assert proxy.upstream_bytes == 40_000


def test_a_held_link_passes_what_it_was_allowed_and_the_rest_when_it_is_released(listener: socket.socket) -> None:
    with (
        ChaosProxy(listener.getsockname()[1]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), 10) as near,
        listener.accept()[0] as far,
    ):
        far.settimeout(10)
        proxy.hold_after(5)
        near.sendall(b"0123456789")
        assert receive(far, 5) == b"01234"
        wait_until(lambda: proxy.is_holding, "the proxy holds bytes")
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)
        far.settimeout(10)
        proxy.release()
        assert receive(far, 5) == b"56789"


def is_cut(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_cut_ends_both_sides_and_new_connections_pass(listener: socket.socket) -> None:
    with ChaosProxy(listener.getsockname()[1]) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as near, listener.accept()[0] as far:
            proxy.cut()
            assert is_cut(near)
            assert is_cut(far)
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as near, listener.accept()[0] as far:
            near.sendall(b"again")
            assert receive(far, 5) == b"again"
