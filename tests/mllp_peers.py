"""Peers that speak MLLP through python-hl7, and certificates for them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import hl7
from hl7.mllp import open_hl7_connection, start_hl7_server

from bedside.service.tls import create_ca, create_csr, create_tls_key, issue_certificate

NOW_NS = 1_772_352_000_000_000_000
Answer = Callable[[hl7.Message, int], list[bytes]]
"""What a receiver sends to a message, framed, given how many came before."""


def accepted(message: hl7.Message, count: int = 0) -> list[bytes]:
    return [framed(str(message.create_ack("AA")).encode())]


def framed(message: bytes) -> bytes:
    return b"\x0b" + message + b"\x1c\r"


@asynccontextmanager
async def receiver(
    answer: Answer = accepted, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """A python-hl7 server; gives its port, and what it has received."""
    received: list[str] = []
    writers = []

    async def serve(reader, writer) -> None:
        writers.append(writer)
        try:
            while True:
                message = await reader.readmessage()
                received.append(str(message))
                told = answer(message, len(received) - 1)
                if not told:
                    break
                writer.write(b"".join(told))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await start_hl7_server(serve, "127.0.0.1", 0, ssl=tls, encoding="utf-8")
    try:
        yield server.sockets[0].getsockname()[1], received
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def sender(
    port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, local: str = ""
) -> AsyncIterator[Callable[[bytes], object]]:
    """A python-hl7 client; gives a function that sends a message, and returns MSA-1 and MSA-2 of the answer."""
    options = {"local_addr": (local, 0)} if local else {}
    reader, writer = await open_hl7_connection(host, port, ssl=tls, encoding="utf-8", **options)

    async def send(message: bytes) -> tuple[str, str]:
        writer.writeblock(message)
        await writer.drain()
        msa = (await asyncio.wait_for(reader.readmessage(), 20)).segment("MSA")
        return str(msa[1]), str(msa[2]) if len(msa) > 2 else ""

    try:
        yield send
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, and of one certificate for 127.0.0.1 under it."""

    ca: Path
    certificate: Path
    key: Path

    def server(self, *, client_ca: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED if client_ca is not None else ssl.CERT_NONE
        return context

    def client(self, *, shown: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if shown:
            context.load_cert_chain(self.certificate, self.key)
        return context


def certificates(folder: Path) -> Certificates:
    folder.mkdir()
    files = Certificates(folder / "ca.pem", folder / "own.pem", folder / "own.key")
    authority = create_ca("hospital", NOW_NS)
    request = create_csr(create_tls_key(files.key), "engine")
    files.ca.write_bytes(authority.certificate_pem)
    own = issue_certificate(
        authority, request, "spiffe://hospital/engine", now_ns=NOW_NS, days=3_650, ip_addresses=["127.0.0.1"]
    )
    files.certificate.write_bytes(own)
    return files
