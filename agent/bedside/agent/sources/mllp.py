"""HL7 v2 over MLLP: monitors' gateways and interface engines send, and are answered once it is on the disk.

Invariants:
    * AA means durable. While the disk refuses, the answer is AE: the sender keeps the message and sends it again.
    * What no second try would mend is acknowledged and counted in the quarantine, or it would stand in the way of what
      comes behind it: a type that nobody wants, a place that has no stream. What is no HL7 is AR.
    * A message that comes again is acknowledged and not taken again.

Source: HL7 MLLP Release 1; HL7 v2.6 chapter 2, 2.9 (acknowledgement); IHE PCD-01 and WCM.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from bedside.agent.formats.hl7 import Message, read_head, read_message
from bedside.agent.formats.hl7_write import Verdict, write_ack, write_reject
from bedside.agent.formats.mllp import MAX_MESSAGE_BYTES, frame
from bedside.agent.formats.row_time import zone_of
from bedside.agent.sources.beds import Bed, Beds
from bedside.agent.sources.hl7_intake import Intake, Rules, Tests
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.mllp_listener import Door, Listener, Network
from bedside.agent.sources.mllp_window import Seen, Window
from bedside.core.errors import ConfigError, MalformedError, StoreError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Event, Unmapped
from bedside.core.vocabulary.clock_offset import ClockOffset
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.reading import Reason
from bedside.service.files import read_private
from bedside.service.link.address import Address, parse_address

if TYPE_CHECKING:
    from pathlib import Path
    from ssl import SSLContext

PATIENCE_S: Final = 5.0
"""A commit takes 20 ms, and a slow card a second; senders wait 10 to 60 s for an answer."""
MAX_CONNECTIONS: Final = 1_000
MAX_KEY_BYTES: Final = 64 << 10
_MAX_OFFSETS: Final = 64
_BAD_SEGMENT, _INTERNAL = "100", "207"


class MllpOptions(SourceOptions, frozen=True, kw_only=True):
    """A listener for HL7 v2."""

    listen: Annotated[str, option("address and port of this machine, such as 10.0.0.5:2575")]
    stream: Annotated[str, option("id of the stream, of a listener for one bed")] = ""
    waves: Annotated[dict[str, str], option("streams of that bed's waveforms, by their code")] = msgspec.field(
        default_factory=dict
    )
    beds: Annotated[dict[str, str | Bed], option("streams by place, PV1-3 or its first components joined with ^")] = (
        msgspec.field(default_factory=dict)
    )
    allow: Annotated[tuple[str, ...], option("networks that may connect, such as 10.0.0.0/24; else all")] = ()
    certificate: Annotated[str, option("PEM file that we show, for TLS")] = ""
    key: Annotated[str, option("PEM file of its private key, of mode 0600")] = ""
    client_ca: Annotated[str, option("PEM file of who may issue senders' certificates; they are then needed")] = ""
    connections: Annotated[int, option("at one time")] = 64
    idle_s: Annotated[float, option("seconds after which a silent connection ends")] = 3_600.0
    message_kib: Annotated[int, option("largest message, KiB")] = 256
    fields: Annotated[dict[str, FieldRule], option("fields of the records, beside the known codes")] = msgspec.field(
        default_factory=dict
    )
    time_zone: Annotated[str, option("of times without an offset, an IANA name")] = "UTC"
    clock: Annotated[Literal["sender", "arrival"], option("sender, or arrival where senders' clocks are wrong")] = (
        "sender"
    )
    charset: Annotated[str, option("character set of messages that name none")] = "utf-8"
    test_messages: Annotated[Tests, option("MSH-11 T or D: leave-out, simulated, or take as if in use")] = "leave-out"

    def streams(self) -> tuple[str, ...]:
        """Of every bed; what other sources deliver for one is theirs."""
        beds = [Bed(stream=bed) if isinstance(bed, str) else bed for bed in self.beds.values()]
        beds += [Bed(stream=self.stream, waves=self.waves)] if self.stream else []
        return tuple(dict.fromkeys(stream for bed in beds for stream in bed.delivered))


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
        self, name: str, door: Door, make_intake: Callable[[], Intake], charset: str, context: SourceContext
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            name: of the source.
            door: where, and for whom.
            make_intake: of what makes events of messages: anew whenever the source begins, from what is stored.
            charset: of messages that name none, as Python names it.
            context: of the agent.
        """
        self.name = name
        self.replaced = 0
        self._make_intake = make_intake
        self._intake = make_intake()
        self._charset = charset
        self._context = context
        self._window = Window()
        self._offsets: dict[str, ClockOffset] = {}
        self._batches: asyncio.Queue[_Batch] = asyncio.Queue()
        self._listener = Listener(door, context.clock, self._serve, self._broken)
        self._number = context.clock.now_ns()

    async def events(self) -> AsyncIterator[Event]:
        """Yield what arrives, for ever.

        Raises:
            UnavailableError: `mllp-listen`.
        """
        self._batches, self._window, self._intake = asyncio.Queue(), Window(), self._make_intake()
        listening = asyncio.create_task(self._listener.run(self._tell), name=f"listener {self.name}")
        try:
            while True:
                coming = asyncio.ensure_future(self._batches.get())
                await asyncio.wait({listening, coming}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    listening.result()  # raises: it ends in no other way
                    return
                batch = coming.result()
                for event in batch.events:
                    yield event
                if not batch.taken.done():
                    batch.taken.set_result(None)
        finally:
            self._context.gauge.connected = None
            listening.cancel()
            with contextlib.suppress(BaseException):
                await listening

    async def _serve(self, peer: str, messages: list[bytes]) -> list[bytes]:
        """Take the messages of one connection, and answer each once all of them are on the disk."""
        read = [self._read(peer, message) for message in messages]
        taken = self._hand_over([event for _, _, events in read for event in events])
        streams = frozenset(stream for _, seen, _ in read for stream in seen.streams)
        await taken
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
            message = read_message(data, self._charset)
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
        gauge.connected = connections > 0
        counts = {
            "connections refused": self._listener.refused,
            "characters replaced": self.replaced,
            "old ADT messages ignored": self._intake.ignored,
        }
        words = [f"{connections} connected", *(f"{count} {what}" for what, count in counts.items() if count)]
        gauge.detail = ", ".join(words)


def _build(options: MllpOptions, context: SourceContext) -> MllpSource:
    everywhere = Bed(stream=options.stream, waves=options.waves) if options.stream else None
    beds = Beds(options.name, options.beds, everywhere)
    codes = frozenset(rule.code or field for field, rule in options.fields.items())
    rules = Rules(codes, zone_of(options.time_zone), options.clock, options.test_messages)
    normaliser = Normaliser(options.name, options.fields)
    _check(options)
    door = Door(
        address=_address(options),
        allow=tuple(_network(options.name, text) for text in options.allow),
        connections=options.connections,
        idle_s=options.idle_s,
        message_bytes=options.message_kib << 10,
        tls=_tls(options, context.directory),
    )
    charset = options.charset.replace("8859/", "iso8859-")
    return MllpSource(
        options.name, door, lambda: Intake(options.name, beds, normaliser, rules, context), charset, context
    )


def _check(options: MllpOptions) -> None:
    rules = (
        (1 <= options.connections <= MAX_CONNECTIONS, f"`connections` must be 1 to {MAX_CONNECTIONS}"),
        (1 <= options.idle_s <= 86_400, "`idle_s` must be 1 to 86400"),
        (1 <= options.message_kib <= MAX_MESSAGE_BYTES >> 10, f"`message_kib` must be 1 to {MAX_MESSAGE_BYTES >> 10}"),
        (options.charset in ("utf-8", *(f"8859/{part}" for part in (*range(1, 10), 15))), "unknown `charset`"),
        (bool(options.certificate) == bool(options.key), "`certificate` and `key` go together"),
        (bool(options.certificate) or not options.client_ca, "`client_ca` needs a `certificate`"),
        (bool(options.stream) or not options.waves, "`waves` go with `stream`; of a bed they stand in `beds`"),
    )
    for holds, sentence in rules:
        if not holds:
            raise _wrong(options.name, sentence, "correct it in agent.toml")


def _address(options: MllpOptions) -> Address:
    """One address of this machine: a listener on all of them would serve networks that nobody has thought of."""
    address = parse_address(options.listen)
    host = "127.0.0.1" if address.host == "localhost" else address.host
    try:
        unnamed = ipaddress.ip_address(host).is_unspecified or ipaddress.ip_address(host).is_multicast
    except ValueError:
        unnamed = True
    if unnamed or not address.port:
        raise _wrong(
            options.name,
            f"{options.listen!r} is not one address and port",
            "write the IP address of the interface that senders reach, such as 10.0.0.5:2575",
        )
    return Address(host, address.port)


def _network(name: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise _wrong(name, f"{text[:60]!r} is no network", "write one such as 10.0.0.0/24") from error


def _tls(options: MllpOptions, directory: Path) -> SSLContext | None:
    if not options.certificate:
        return None
    import ssl  # 3 MB that most devices do not need

    read_private(directory / options.key, MAX_KEY_BYTES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(directory / options.certificate, directory / options.key, password="")
        if options.client_ca:
            context.load_verify_locations(directory / options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # SSLError is one
        sentence = f"its certificates cannot be used: {error.strerror or error}"
        raise _wrong(options.name, sentence, "name PEM files that belong together") from error
    return context


def _wrong(name: str, sentence: str, remedy: str) -> ConfigError:
    return ConfigError("source-config", f"source {name}: {sentence}", remedy=remedy)


KIND: Final = SourceKind(MllpOptions, _build)
