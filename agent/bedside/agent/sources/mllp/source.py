"""Takes HL7 v2 messages over MLLP, and answers them once they are on the disk.

Invariants:
    * AA means durable. While the disk refuses, the answer is AE: the sender keeps the message and sends it again.
    * What no second try would mend is acknowledged and counted in the quarantine, or it would stand in the way of what
      comes behind it: a type that nobody wants, a place that has no stream. What is no HL7 is AR.
    * A message that comes again is acknowledged and not taken again.

Source: HL7 MLLP Release 1; HL7 v2.6 chapter 2, 2.9 (acknowledgement).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from bedside.agent.formats.hl7.message import Hide, Message, read_head, read_message
from bedside.agent.formats.hl7.mllp import frame
from bedside.agent.formats.hl7.writing import Verdict, write_ack, write_reject
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mllp.intake import Intake
from bedside.agent.sources.mllp.listener import Door, Listener
from bedside.agent.sources.mllp.window import Seen, Window
from bedside.core.errors import MalformedError, StoreError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Event, Unmapped
from bedside.core.vocabulary.clock_offset import ClockOffset
from bedside.core.vocabulary.reading import Reason

PATIENCE_S: Final = 5.0
"""A commit takes 20 ms, and a slow card a second; senders wait 10 to 60 s for an answer."""
LINGER_S: Final = 300.0
"""A sender that connects for each message is not away between two."""
_MAX_OFFSETS: Final = 64
_BAD_SEGMENT, _INTERNAL = "100", "207"


@dataclass(frozen=True, slots=True)
class _Batch:
    """What messages of one connection said, until it has been taken."""

    events: list[Event]
    taken: asyncio.Future[None]


class MllpSource:
    """A `Source` that listens.

    Attributes:
        name: of the source.
        replaced: characters of messages that were not of their character set.
    """

    def __init__(
        self, name: str, door: Door, make_intake: Callable[[], Intake], charset: str, hide: Hide, context: SourceContext
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            name: of the source.
            door: where, and for whom.
            make_intake: of what makes events of messages: anew whenever the source begins, from what is stored.
            charset: of messages that name none, as Python names it.
            hide: what is kept of numbers of people.
            context: of the agent.
        """
        self.name = name
        self.replaced = 0
        self._make_intake = make_intake
        self._intake = make_intake()
        self._charset = charset
        self._hide = hide
        self._context = context
        self._window = Window()
        self._offsets: dict[str, ClockOffset] = {}
        self._batches: asyncio.Queue[_Batch | None] = asyncio.Queue()
        self._listener = Listener(door, context.clock, self._serve, self._broken, self._tell)
        self._number = context.clock.now_ns()
        self._seen_s = -LINGER_S
        context.gauge.listens = True
        self._later: asyncio.TimerHandle | None = None

    async def events(self) -> AsyncIterator[Event]:
        """Yield what arrives, for ever.

        Raises:
            UnavailableError: `mllp-listen`.
        """
        batches: asyncio.Queue[_Batch | None] = asyncio.Queue()
        self._batches, self._window, self._intake = batches, Window(), self._make_intake()
        listening = asyncio.create_task(self._listener.run(), name=f"listener {self.name}")
        listening.add_done_callback(lambda _: batches.put_nowait(None))
        try:
            while (batch := await batches.get()) is not None:
                for event in batch.events:
                    yield event
                if not batch.taken.done():
                    batch.taken.set_result(None)
            listening.result()  # raises: it ends in no other way
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            if self._later is not None:
                self._later.cancel()
            self._context.gauge.connected = None

    async def _serve(self, peer: str, messages: list[bytes]) -> list[bytes]:
        """Take the messages of one connection, and answer each once all of them are on the disk."""
        read, taken = [], []
        for message in messages:
            read.append(one := self._read(peer, message))
            taken.append(self._hand_over(one[2]))
            await asyncio.sleep(0)  # others have their turn
        await asyncio.gather(*taken)
        streams = frozenset(stream for _, seen, _ in read for stream in seen.streams)
        durable = await self._durable(streams)
        self._tell()
        answers = (self._answer(message, seen, durable=durable) for message, seen, _ in read)
        return [frame(answer) for answer in answers if answer is not None]

    def _read(self, peer: str, data: bytes) -> tuple[Message | None, Seen, list[Event]]:
        """What a message says, and what its sender is told of it."""
        now_ns = self._context.clock.now_ns()
        message: Message | None = None
        try:
            message = read_head(data, self._charset)
            before = self._window.find(peer, data) if message.header.control_id else None
            if before is not None:
                self._context.gauge.duplicates += 1
                return message, before, []
            message = read_message(data, self._charset, self._hide)
            events = self._intake.take(message, self._offset(peer), now_ns)
        except MalformedError as error:
            seen = Seen(Verdict.REJECT, error=_BAD_SEGMENT, words=error.sentence)
            events = [Unmapped(self.name, Reason.BAD_MESSAGE, error.code, now_ns)]
        else:
            self.replaced += message.replaced
            streams = frozenset(event.stream for event in events if not isinstance(event, Unmapped))
            seen = Seen(Verdict.ACCEPT, streams)
        if message is not None and message.header.control_id:
            self._window.note(peer, data, seen)
        return message, seen, events

    def _hand_over(self, events: list[Event]) -> asyncio.Future[None]:
        """Give events to the consumer, come what may to their connection; done when it has taken them.

        The queue needs no bound: a connection reads on when its last batch has been taken.
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batches.put_nowait(_Batch(events, taken))
        return taken

    async def _durable(self, streams: frozenset[StreamId]) -> bool:
        """Whether what was taken is on the disk, soon enough for a sender that waits.

        What the disk has refused for good is forgotten here, so that it is taken when it comes again.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._context.durable(streams)
        except TimeoutError:
            return False
        except (StoreError, UnavailableError):
            self._window, self._intake = Window(), self._make_intake()
            return False
        return True

    def _answer(self, message: Message | None, seen: Seen, *, durable: bool) -> bytes | None:
        self._number += 1
        control_id, now_ns = f"{self._number:x}", self._context.clock.now_ns()
        if message is None:
            return write_reject(control_id=control_id, now_ns=now_ns, words=seen.words)
        if not durable:
            seen = Seen(Verdict.ERROR, error=_INTERNAL, words="the disk refuses; send it again")
        return write_ack(
            message, seen.verdict, control_id=control_id, now_ns=now_ns, error=seen.error, words=seen.words
        )

    async def _broken(self, peer: str, error: MalformedError | None, count: int) -> bytes:
        """Count what a peer sent that is no message; what is HL7 and too long is rejected in words."""
        del peer
        now_ns = self._context.clock.now_ns()
        code = error.code if error is not None else "mllp-cut"
        await self._hand_over([Unmapped(self.name, Reason.BAD_MESSAGE, code, now_ns, count)])
        if error is None or error.code != "mllp-size":
            return b""
        self._number += 1
        return frame(write_reject(control_id=f"{self._number:x}", now_ns=now_ns, words=error.sentence))

    def _offset(self, peer: str) -> ClockOffset:
        if peer not in self._offsets and len(self._offsets) >= _MAX_OFFSETS:
            self._offsets.pop(next(iter(self._offsets)))
        return self._offsets.setdefault(peer, ClockOffset())

    def _tell(self) -> None:
        """Say how it goes, for people."""
        gauge, connections = self._context.gauge, self._listener.connections
        now_s = self._context.clock.monotonic_s()
        self._seen_s = now_s if connections else self._seen_s
        lingers_s = self._seen_s + LINGER_S - now_s
        gauge.connected = lingers_s > 0
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(lingers_s, self._tell) if gauge.connected else None
        counts = {
            "connections refused": self._listener.refused,
            "characters replaced": self.replaced,
            **self._intake.told,
        }
        words = [f"{connections} connected", *(f"{count} {what}" for what, count in counts.items() if count)]
        gauge.detail = ", ".join(words)
