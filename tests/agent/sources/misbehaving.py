"""A kind of source that does what it is told to, and that is mostly wrong. It is installed as another package's."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import numpy as np

from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, Record, Unmapped

GOOD_RECORDS = 150
AT_ONCE = 10_000
T0_NS = 1_790_000_000_000_000_000


class Options(SourceOptions, frozen=True, kw_only=True):
    """What to do."""

    stream: Annotated[str, option("id of the stream")]
    mode: Annotated[str, option("what to do")]


class Misbehaving:
    """A source in the widest sense."""

    def __init__(self, options: Options) -> None:
        self.name, self._mode = options.name, options.mode.replace("-", "_")
        self._stream = StreamId(options.stream)
        self.ends = 0

    def events(self) -> Any:
        return getattr(self, f"_{self._mode}")()

    def _record(self, at: int, value: Any = 1.0) -> Record:
        return Record(self._stream, T0_NS + at * 1_000_000_000, {"value": value})

    def _block(self, values: Any, start_ns: Any = T0_NS, rate_hz: Any = 250.0) -> Block:
        return Block(self._stream, start_ns, rate_hz, values)

    async def _good(self) -> AsyncIterator[Record]:
        for at in range(GOOD_RECORDS):
            yield self._record(at, float(at))
            await asyncio.sleep(0.002)

    async def _raises(self) -> AsyncIterator[Record]:
        yield self._record(0)
        raise KeyError("nothing that Bedside knows")

    async def _exits(self) -> AsyncIterator[Record]:
        yield self._record(0)
        sys.exit("a library thinks that this is its program")

    async def _cancels(self) -> AsyncIterator[Record]:
        yield self._record(0)
        waiting = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await waiting

    def _no_generator(self) -> None:
        return None

    def _fails_to_begin(self) -> None:
        raise RuntimeError("it cannot begin")

    def _fails_to_end(self) -> Any:
        class Events:
            def __aiter__(self) -> Events:
                return self

            async def __anext__(self) -> Any:
                raise OSError("its device is gone")

            async def aclose(self) -> None:
                raise RuntimeError("and it cannot even let go of it")

        return Events()

    async def _dictionary(self) -> AsyncIterator[Any]:
        yield {"stream": self._stream, "value": 1.0}

    async def _nothing(self) -> AsyncIterator[Any]:
        yield None

    async def _list_of_samples(self) -> AsyncIterator[Any]:
        yield self._block([1, 2, 3])

    async def _wrong_time(self) -> AsyncIterator[Any]:
        yield self._block(np.zeros((2, 1), np.int16), start_ns=np.int64(T0_NS))

    async def _text_for_value(self) -> AsyncIterator[Any]:
        yield self._record(0, "97")

    async def _huge_integer(self) -> AsyncIterator[Any]:
        yield self._record(0, 10**400)

    async def _strange_stream(self) -> AsyncIterator[Any]:
        yield Record(StreamId("../../etc/passwd\n"), T0_NS, {"value": 1.0})

    async def _before_1970(self) -> AsyncIterator[Any]:
        yield self._block(np.zeros((2, 1), np.int16), start_ns=-1)
        yield self._block(np.zeros((2, 1), np.int16))

    async def _wrong_form(self) -> AsyncIterator[Any]:
        yield self._block(np.zeros((2, 1, 1), np.int16))
        yield self._block(np.zeros((2, 1), np.float64))
        yield self._block(np.zeros((2, 1), np.int16), rate_hz=float("nan"))
        yield self._block(np.zeros((2, 1), np.int16), rate_hz=1e-300)
        yield self._block(np.zeros((0, 1), np.int16))
        yield self._record(0)

    async def _infinite(self) -> AsyncIterator[Any]:
        yield self._record(0, float("inf"))
        yield self._record(1, 2.0)

    async def _infinite_samples(self) -> AsyncIterator[Any]:
        yield self._block(np.array([[np.inf], [np.nan], [1.0]], np.float32))

    async def _many(self) -> AsyncIterator[Any]:
        for at in range(AT_ONCE):
            yield Unmapped(self.name, "unknown-code", f"code-{at}", T0_NS)

    async def _huge_label(self) -> AsyncIterator[Any]:
        yield Mark(self._stream, T0_NS, T0_NS + 1, "x" * 1_000_000, "test")
        yield self._record(1)

    async def _endless(self) -> AsyncIterator[Any]:
        at = 0
        while True:
            at += 1
            yield self._record(at)

    async def _silent(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield self._record(0)

    async def _blocks_the_loop(self) -> AsyncIterator[Any]:
        yield self._record(0)
        await asyncio.sleep(0.2)
        time.sleep(2.5)  # what no event loop can stop
        yield self._record(1)
        await asyncio.Event().wait()


def _build(options: Options, context: SourceContext) -> Misbehaving:
    del context
    if options.mode == "unbuildable":
        raise LookupError("its cable is missing")
    return Misbehaving(options)


KIND = SourceKind(Options, _build)
