"""`python connect_proxy.py ADDRESS:PORT NAME=ADDRESS...`: an HTTP CONNECT proxy, which alone knows those names."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

LARGEST_REQUEST = 8_192


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        with suppress(OSError):
            writer.close()


async def serve(listen: str, names: dict[str, str]) -> None:
    """Serve for ever; prints each target that it connected to."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            method, target, _ = request.split("\r\n", 1)[0].split(" ")
            host, port = target.rsplit(":", 1)
            if method != "CONNECT" or host not in names:
                raise ValueError(target)
            far_reader, far_writer = await asyncio.open_connection(names[host], int(port))
        except (OSError, ValueError, asyncio.IncompleteReadError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            writer.close()
            return
        print(target, flush=True)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    host, port = listen.rsplit(":", 1)
    async with await asyncio.start_server(connect, host, int(port), limit=LARGEST_REQUEST) as server:
        print("listening", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])))
