"""The page that Prometheus asks for: where it may listen, what it answers, and what a bad peer costs."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.service import scrape
from bedside.service.metrics_config import LocalMetricsConfig, MetricsConfig
from bedside.service.scrape import ScrapeServer

ASK = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def server():
    page = ScrapeServer(MetricsConfig(listen="127.0.0.1:0"), lambda: b"up 1\n")
    await page.start()
    yield page
    await page.stop()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def serving() -> list[asyncio.Task[None]]:
    return [task for task in asyncio.all_tasks() if "ScrapeServer._serve" in repr(task)]


async def test_it_answers_one_page_and_nothing_else(server):
    answer = await ask(server.port, ASK)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nup 1\n")
    assert b"Content-Type: text/plain; version=0.0.4" in answer
    assert (await ask(server.port, ASK.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
    assert b" 200 " in await ask(server.port, ASK.replace(b"/metrics", b"/metrics?name[]=up"))
    for request, status in (
        (ASK.replace(b"/metrics", b"/"), b" 404 "),
        (ASK.replace(b"GET", b"POST"), b" 405 "),
        (b"\x16\x03\x01\r\n\r\n", b" 400 "),
        (b"GET http://a/metrics HTTP/1.1\r\n\r\n", b" 400 "),
    ):
        assert status in (await ask(server.port, request)).partition(b"\r\n")[0] + b" "


async def test_what_cannot_be_read_is_said_and_a_long_request_is_cut_off():
    def fail() -> bytes:
        raise StoreError("store-read", "no")

    page = ScrapeServer(MetricsConfig(listen="127.0.0.1:0"), fail)
    await page.start()
    assert b" 503 " in await ask(page.port, ASK)
    assert await ask(page.port, b"GET /" + b"a" * (2 * scrape.MAX_REQUEST_BYTES)) == b""
    await page.stop()


async def test_a_silent_peer_loses_its_place(server, monkeypatch):
    monkeypatch.setattr(scrape, "REQUEST_TIMEOUT_S", 0.05)
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(scrape.MAX_CONNECTIONS)]
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()
    assert b" 200 " in await ask(server.port, ASK)


async def test_more_peers_than_can_wait_are_refused_at_once(server):
    """Each would hold a file: an agent without files stores no sample."""
    peers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(scrape.MAX_WAITING + 1)]
    assert await asyncio.wait_for(peers[-1][0].read(), 2.0) == b""
    assert not peers[0][0].at_eof()
    for _, writer in peers:
        writer.close()
    await asyncio.wait(serving(), timeout=5.0)


async def test_a_peer_that_takes_nothing_is_cut_off(monkeypatch):
    """Otherwise it holds the page for ever, and from Python 3.12 on also the end of the server."""
    monkeypatch.setattr(scrape, "REQUEST_TIMEOUT_S", 0.05)
    page = ScrapeServer(MetricsConfig(listen="127.0.0.1:0"), lambda: b"x" * (16 << 20))
    await page.start()
    with socket.create_connection(("127.0.0.1", page.port)) as peer:
        peer.sendall(ASK)
        while not serving():
            await asyncio.sleep(0)
        await asyncio.wait(serving(), timeout=5.0)
        await asyncio.sleep(0)
        peer.settimeout(5.0)
        pieces = await asyncio.to_thread(lambda: [*iter(lambda: peer.recv(1 << 20), b"")])
    assert len(b"".join(pieces)) < 16 << 20
    await page.stop()


async def test_a_port_that_is_taken_is_named(server):
    other = ScrapeServer(MetricsConfig(listen=f"127.0.0.1:{server.port}"), bytes)
    with pytest.raises(UnavailableError) as caught:
        await other.start()
    assert caught.value.code == "port-unusable"
    assert "metrics.listen" in caught.value.remedy


async def test_by_default_nothing_listens():
    page = ScrapeServer(MetricsConfig(), bytes)
    await page.start()
    assert page.port == 0
    await page.stop()


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:9464", "[::]:9464", "unix:/run/a.sock", "9464", "[::0]:1", "0:1", "0x0:1", "[::ffff:0:0]:1"]
)
def test_all_addresses_of_a_machine_are_refused(listen):
    for kind in (MetricsConfig, LocalMetricsConfig):
        with pytest.raises(ConfigError):
            kind(listen=listen)


def test_a_device_is_asked_on_its_own_machine_only_and_a_coordinator_where_it_is_named():
    MetricsConfig(listen="10.0.0.7:9464")
    MetricsConfig(listen="coordinator:9464")
    for listen in ("127.0.0.1:9465", "localhost:9465", "[::1]:9465"):
        LocalMetricsConfig(listen=listen)
    for listen in ("10.0.0.7:9465", "gateway:9465"):
        with pytest.raises(ConfigError) as caught:
            LocalMetricsConfig(listen=listen)
        assert caught.value.code == "metrics-address"
