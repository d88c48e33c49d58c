"""Messages of an MQTT 5 broker.

A message of QoS 1 is acknowledged after what it became is on the disk. The broker keeps our session while we are away,
and sends then what was not acknowledged, so that nothing is lost; what comes twice is taken once (see `intake`).
A message without a time of its own is worth something only now: it is subscribed at QoS 0, which no broker keeps.
What a broker retains is an old value without a date, and is not taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from bedside.agent.client_tls import CaFile, CertificateFile, KeyFile, Plaintext
from bedside.agent.formats.payload.clinical import ApduPayload, FhirPayload, Hl7Payload
from bedside.agent.formats.payload.plain import JsonPayload, NumberPayload, SamplesPayload
from bedside.agent.kinds import SecretPlace
from bedside.agent.mqtt.acknowledger import Acknowledger
from bedside.agent.mqtt.broker import Broker, broker_of
from bedside.agent.mqtt.topics import TopicFilter, check_filters, fill_all, numbers_in
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.mqtt.intake import Intake, Route, Taken
from bedside.agent.sources.options import Fields, TimeZone, WhoseClock, codes_of
from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Unmapped
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.core.vocabulary.reading import shown

if TYPE_CHECKING:
    from bedside.agent.mqtt.client import BrokerClient

AnyPayload = JsonPayload | NumberPayload | SamplesPayload | Hl7Payload | FhirPayload | ApduPayload

MAX_SESSION_S: Final = 30 * 86_400
_TURN_BYTES: Final = 64 << 10
"""Bytes of messages after which other sources have their turn."""
_TURN_MESSAGES: Final = 32


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the messages of one topic filter are.

    Attributes:
        stream: id; `{1}` is what the filter's first wildcard stands for, one of `places`.
        payload: what they look like.
        places: what the wildcard in `stream` may stand for; other topics are counted, and no stream is made for them.
        qos: absent = 1, and 0 for messages without a time of their own.
    """

    stream: str
    payload: AnyPayload
    places: tuple[str, ...] = ()
    qos: Literal[0, 1] | None = None

    def __post_init__(self) -> None:
        """Refuse a wildcard that nothing may stand for."""
        if "{" in self.stream and not self.places:
            raise ValueError(f"stream {shown(self.stream)} needs places: what its wildcard may stand for")


class MqttOptions(SourceOptions, frozen=True, kw_only=True):
    """Messages of an MQTT 5 broker."""

    broker: Annotated[str, option("host:port of the broker")]
    client_id: Annotated[str, option("names our session there: one per device")]
    topics: Annotated[dict[str, Topic], option("by topic filter: stream, places, qos, payload")]
    tls: Annotated[bool, option("whether the connection is protected")] = True
    ca: CaFile = ""
    client_certificate: CertificateFile = ""
    client_key: KeyFile = ""
    plaintext: Plaintext = False
    user: Annotated[str, option("name of our account")] = ""
    password: SecretPlace = ""
    session_s: Annotated[int, option("seconds for which the broker keeps messages while we are away")] = 7 * 86_400
    fields: Fields = msgspec.field(default_factory=dict)
    time_zone: TimeZone = "UTC"
    clock: WhoseClock = "sender"

    def streams(self) -> tuple[str, ...]:
        """Every stream that a topic may lead to."""
        found = [fill_all(its.stream, place) for its in self.topics.values() for place in its.places or ("",)]
        return tuple(dict.fromkeys(found))

    def qos(self, topic: Topic) -> int:
        """How messages of a topic are subscribed."""
        return int(self.is_timed(topic)) if topic.qos is None else topic.qos

    def is_timed(self, topic: Topic) -> bool:
        """Whether a message says when it was."""
        return topic.payload.has_time and self.clock == "sender"


class MqttSource:
    """A `Source` on one broker."""

    def __init__(self, options: MqttOptions, context: SourceContext, broker: Broker, intake: Intake) -> None:
        self.name = options.name
        self._options = options
        self._context = context
        self._broker = broker
        self._intake = intake
        self._acknowledger = Acknowledger(context.durable)
        self._had_session = False

    async def events(self) -> AsyncIterator[Taken]:
        """Yield what messages become until the connection is lost.

        Raises:
            UnavailableError: `mqtt-refused`, `mqtt-tls`, `mqtt-away`.
            ConfigError: a password or a file of TLS cannot be read.
            StoreError: the disk has refused what a message became; it is not acknowledged.
        """
        from bedside.agent.mqtt.client import connected

        opening = connected(self._broker, self._context.clock, session_s=self._options.session_s)
        try:
            async with opening as client, aclosing(self._messages(client)) as taken:
                async for event in taken:
                    yield event
        except StoreError:
            self._intake.forget()  # the disk has refused something: what comes again is taken again
            raise
        finally:
            self._context.gauge.connected = False

    async def _messages(self, client: BrokerClient) -> AsyncGenerator[Taken, None]:
        """Take what arrives; a broker that kept our session sends before it answers a subscription."""
        self._acknowledger.begin()
        beside = {
            asyncio.create_task(self._acknowledger.run(client.acknowledge)),
            asyncio.create_task(self._subscribe(client)),
        }
        for task in beside:
            task.add_done_callback(lambda _: client.wake())
        handled = handled_bytes = 0
        try:
            while True:
                arrived = await client.arrived()
                for ended in [task for task in beside if task.done()]:
                    ended.result()
                    beside.discard(ended)
                for message in arrived:
                    for event in self._intake.take(message):
                        yield event
                        if not isinstance(event, Unmapped):
                            self._acknowledger.written(event.stream)
                    if message.qos:
                        self._acknowledger.add(message.number)
                    handled, handled_bytes = handled + 1, handled_bytes + len(message.payload)
                    if handled >= _TURN_MESSAGES or handled_bytes >= _TURN_BYTES:
                        handled = handled_bytes = 0
                        await asyncio.sleep(0)
                await self._acknowledger.room()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _subscribe(self, client: BrokerClient) -> None:
        """Say what we want, and tell health what people should know."""
        wanted = [(text, self._options.qos(topic)) for text, topic in self._options.topics.items()]
        refused = await client.subscribe_to(wanted)
        first = "".join(f"{text[:80]}: {reason[:80]}" for text, reason in list(refused.items())[:1])
        if len(refused) == len(wanted):
            raise UnavailableError(
                "mqtt-refused",
                f"the broker {self._broker.address} gives us none of our topics: {first}",
                remedy="see what the broker allows this user to read",
            )
        detail = ""
        if refused:
            detail = f"the broker refuses {len(refused)} of {len(wanted)} topic filters: {first}"
        elif self._had_session and not client.session_kept:
            detail = "the broker had no session of ours any more: what was sent meanwhile is lost"
        self._had_session = True
        self._context.gauge.detail = detail
        self._context.gauge.connected = True


def _build(options: MqttOptions, context: SourceContext) -> MqttSource:
    broker = broker_of(
        options.broker, options.client_id, context.directory, tls=options.tls, plaintext=options.plaintext,
        ca=options.ca, client_certificate=options.client_certificate, client_key=options.client_key,
        user=options.user, password=options.password,
    )  # fmt: skip
    routes = [_route(options, text, topic) for text, topic in options.topics.items()]
    check_filters(route.filter for route in routes)
    if not routes or not 0 < options.session_s <= MAX_SESSION_S:
        raise ConfigError(
            "mqtt-options", "there are no topics, or no such session", remedy="session_s is 1 s to 30 days"
        )
    intake = Intake(
        options.name,
        routes,
        Normaliser(options.name, options.fields),
        context.gauge,
        context.last_end_ns,
        context.open_session,
    )
    return MqttSource(options, context, broker, intake)


def _route(options: MqttOptions, text: str, topic: Topic) -> Route:
    filter_ = TopicFilter(text)
    code = topic.payload.code if isinstance(topic.payload, NumberPayload) else ""
    numbers = numbers_in(topic.stream)
    faults = {
        f"{text[:80]} has {filter_.wildcards} wildcards, and {{n}} names one of them": (
            max(numbers | numbers_in(code), default=0) > filter_.wildcards
        ),
        f"{text[:80]}: a stream with {{n}} takes one wildcard and its `places`, and a stream without takes none": (
            len(numbers) > 1 or bool(numbers) != bool(topic.places)
        ),
        f"{text[:80]}: samples of several topics are no one waveform: put {{n}} into `stream`": (
            isinstance(topic.payload, SamplesPayload) and filter_.wildcards > len(numbers)
        ),
        f"{text[:80]}: a message without a time of its own is taken at QoS 0: kept by a broker, it would be taken for"
        " one of now": (options.qos(topic) > 0 and not options.is_timed(topic)),
    }
    for fault in (fault for fault, there in faults.items() if there):
        raise ConfigError("mqtt-options", fault, remedy="see `topics` in docs/sources.md")
    streams = {place: StreamId(fill_all(topic.stream, place)) for place in topic.places or ("",)}
    kind = type(topic.payload).__struct_config__.tag
    reader = topic.payload.reader(options.time_zone, codes_of(options.fields))
    return Route(
        filter_, reader, str(kind), code, streams, wildcard=max(numbers, default=0), timed=options.is_timed(topic)
    )


KIND: Final = SourceKind(MqttOptions, _build)
