"""A TCP proxy that can hold a connection in the middle of what it carries, and cut it.

TLS passes through unchanged. Held bytes stay in the proxy: to both ends the link is merely slow, which is what a kill
in mid-upload needs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType

_READ_BYTES = 1 << 14


class ChaosProxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target_port`; upstream is the way to the target.

    Attributes:
        port: where it listens.
        upstream_bytes: how many bytes it has passed to the target, over all connections.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._gate = asyncio.Condition()
        self._allowance: int | None = None
        self._held = 0
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self.port = 0
        self.upstream_bytes = 0

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold_after(self, upstream_bytes: int) -> None:
        """Let so many more bytes pass upstream, over all connections; then pass nothing until `release`."""
        self._call(self._allow(upstream_bytes))

    def release(self) -> None:
        """Pass everything again, first of all what was held."""
        self._call(self._allow(None))

    @property
    def is_holding(self) -> bool:
        """Whether bytes wait in the proxy."""
        return self._held > 0

    def cut(self) -> None:
        """Break every connection, and lose what was held; new ones are taken."""
        self._call(self._cut())

    def _call(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        while self._connections:
            await self._cut()
            await asyncio.sleep(0)  # a connection that was accepted just now

    async def _allow(self, upstream_bytes: int | None) -> None:
        async with self._gate:
            self._allowance = upstream_bytes
            self._gate.notify_all()

    async def _cut(self) -> None:
        cut = dict(self._connections)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        for task, writer in cut.items():  # a task that was cancelled before its first step has closed nothing
            await _abort(writer)
            self._connections.pop(task, None)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[task] = writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._forward(reader, writer)
        finally:
            await _abort(writer)
            self._connections.pop(task, None)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            return  # the target is down: so is the link
        ways = [
            asyncio.create_task(self._pump(reader, target_writer, is_upstream=True)),
            asyncio.create_task(self._pump(target_reader, writer, is_upstream=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _abort(target_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_upstream: bool) -> None:
        while data := await reader.read(_READ_BYTES):
            while data:
                count = await self._permit(len(data)) if is_upstream else len(data)
                writer.write(data[:count])
                await writer.drain()
                data = data[count:]

    async def _permit(self, wanted: int) -> int:
        """How many of `wanted` bytes may pass now; waits while there are none."""
        async with self._gate:
            self._held += wanted
            try:
                await self._gate.wait_for(lambda: self._allowance is None or self._allowance > 0)
            finally:
                self._held -= wanted
            count = wanted if self._allowance is None else min(wanted, self._allowance)
            if self._allowance is not None:
                self._allowance -= count
            self.upstream_bytes += count
            return count


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
