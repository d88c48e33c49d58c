"""One connection to an MQTT 5 broker, on aiomqtt: we say when it acknowledges, and what arrives waits under a bound.

aiomqtt acknowledges what it has queued, queues without a bound or drops what is acknowledged, and tells neither the DUP
flag nor the reasons of a PUBACK. So its hooks on paho are overridden here; a test pins that they are still called.

MQTT 5 and not 3.1.1: there, the client says how much may be in flight (Receive Maximum), how large a packet may be
(Maximum Packet Size), and how long its session lasts; in 3.1.1 a broker alone decides.

Source: MQTT 5.0, sections 3.1.2.11, 3.3.1.1, 4.4 and 4.9.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from bedside.agent.client_tls import client_context
from bedside.core.errors import UnavailableError
from bedside.service.secret import read_secret

if TYPE_CHECKING:
    from ssl import SSLContext

    from paho.mqtt.client import Client as Paho
    from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from bedside.agent.mqtt.broker import Broker
    from bedside.core.clock import Clock

MAX_PACKET_BYTES: Final = 320 << 10
"""Bytes of a packet: a payload of 256 KiB and its topic. A broker does not deliver larger ones."""
MAX_IN_FLIGHT: Final = 256
"""Messages that a broker sends before it waits for an acknowledgement."""
MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 4 << 20
"""Messages, and their bytes, beyond which nothing is read until they are taken: a broker may ignore what it is told,
as mosquitto 2.0.11 does with Receive Maximum once a long queue is acknowledged."""
KEEPALIVE_S: Final = 30
TIMEOUT_S: Final = 10.0
CONNECT_S: Final = 4.0
"""It is a thread that connects, for which the end of the process waits."""

_LOGGER: Final = logging.getLogger(__name__)
_LOGGER.setLevel(logging.CRITICAL)  # of paho: what matters reaches health, and topics do not reach a log
_RETAINED_NEVER: Final = 2
_FAILURE: Final = 0x80
"""Reason codes from here on are failures; this one is unspecified, and paho's for a connection that broke."""


class Arrived(NamedTuple):
    """A message.

    Attributes:
        topic: empty when it is no text.
        again: the broker has sent it before (DUP).
        number: packet identifier, by which a QoS 1 message is acknowledged.
        arrived_ns: wall time.
    """

    topic: str
    payload: bytes
    qos: int
    again: bool
    retained: bool
    number: int
    arrived_ns: int


class BrokerClient(aiomqtt.Client):
    """A connection, open inside `connected`.

    Attributes:
        session_kept: whether the broker still had our session.
    """

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        *,
        password: str | None,
        tls: SSLContext | None,
        session_s: int,
    ) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = session_s
        properties.ReceiveMaximum = MAX_IN_FLIGHT
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        super().__init__(
            broker.address.host,
            broker.address.port,
            identifier=broker.client_id,
            username=broker.user or None,
            password=password,
            logger=_LOGGER,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=not session_s,
            keepalive=KEEPALIVE_S,
            timeout=TIMEOUT_S,
            properties=properties,
            tls_context=tls,
        )
        self._client.manual_ack_set(True)
        self._client.connect_timeout = CONNECT_S
        self.session_kept = False
        self._clock = clock
        self._inbox: deque[Arrived] = deque()
        self._inbox_bytes = 0
        self._paused = False
        self._lost: aiomqtt.MqttCodeError | None = None
        self._wake = asyncio.Event()
        self._refusal: ReasonCode | None = None

    async def subscribe_to(self, filters: Iterable[tuple[str, int]]) -> dict[str, str]:
        """Subscribe to (filter, QoS), without what the broker retains; the reason by filter that is refused.

        Raises:
            MqttError: the connection is lost.
        """
        wanted = [(text, SubscribeOptions(qos=qos, retainHandling=_RETAINED_NEVER)) for text, qos in filters]
        reasons = await self.subscribe(wanted)
        return {
            text: str(reason)
            for (text, _), reason in zip(wanted, reasons, strict=True)
            if getattr(reason, "value", 0) >= _FAILURE
        }

    async def arrived(self) -> list[Arrived]:
        """Whatever has arrived since the last call; waits for it, or for `wake`.

        Raises:
            MqttError: the connection is lost.
        """
        if not self._inbox and self._failure() is None:
            await self._wake.wait()
        self._wake.clear()
        if not self._inbox and (failure := self._failure()) is not None:
            raise failure
        batch = list(self._inbox)
        self._inbox.clear()
        self._inbox_bytes = 0
        self._resume()
        return batch

    def wake(self) -> None:
        """Let `arrived` return."""
        self._wake.set()

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Send PUBACK for these messages. On a connection that is lost nothing happens: they come again."""
        for number in numbers:
            self._client.ack(number, 1)

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._failure() is not None

    async def deliver(self, topic: str, payload: bytes) -> ReasonCode | None:
        """Publish at QoS 1, one at a time; return when the broker has it, or with its reason where it refuses.

        Raises:
            MqttError: the connection is lost, or there was no answer in time.
        """
        self._refusal = None
        publishing = asyncio.create_task(self.publish(topic, payload, qos=1))
        try:
            await asyncio.wait((publishing, self._disconnected), return_when=asyncio.FIRST_COMPLETED)
            if not publishing.done():
                raise aiomqtt.MqttError("it was lost")
            await publishing
        finally:
            publishing.cancel()
        return self._refusal

    def watch(self) -> None:
        """Be woken when the connection ends by what paho does not tell: an error of its own in reading."""
        self._disconnected.add_done_callback(self._ended)

    def _ended(self, disconnected: asyncio.Future[None]) -> None:
        if not disconnected.cancelled():
            disconnected.exception()  # looked at, lest asyncio complains
        self._wake.set()

    def _failure(self) -> aiomqtt.MqttError | None:
        """Why nothing more will arrive; None while something may."""
        if self._lost is not None:
            return self._lost
        if self._disconnected.done():
            return aiomqtt.MqttError(str(self._disconnected.exception() or "it hung up"))
        return None

    def _on_connect(
        self,
        client: Paho,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.session_kept = flags.session_present
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: Paho,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        """Keep the reason: aiomqtt forgets it when it comes right behind the CONNACK."""
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if self._disconnected.done():
            self._disconnected.exception()
        self._lost = aiomqtt.MqttCodeError(reason_code)
        self._wake.set()

    def _on_message(self, client: Paho, userdata: Any, message: MQTTMessage) -> None:
        del client, userdata
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._inbox.append(
            Arrived(
                topic,
                bytes(message.payload),
                message.qos,
                message.dup,
                message.retain,
                message.mid,
                self._clock.now_ns(),
            )
        )
        self._inbox_bytes += len(message.payload)
        self._wake.set()
        if len(self._inbox) >= MAX_WAITING or self._inbox_bytes >= MAX_WAITING_BYTES:
            self._pause()

    def _pause(self) -> None:
        """Leave to TCP what comes; `_resume` reads on."""
        socket = self._client.socket()
        if socket is not None and not self._paused:
            self._paused = True
            self._loop.remove_reader(socket.fileno())

    def _resume(self) -> None:
        socket = self._client.socket()
        if self._paused and socket is not None and self._failure() is None:
            self._loop.add_reader(socket.fileno(), self._read)
        self._paused = False

    def _read(self) -> None:
        """As aiomqtt's own reader: TLS may hold more than the socket tells of."""
        try:
            self._client.loop_read()
            while getattr(self._client.socket(), "pending", int)() > 0:
                self._client.loop_read()
        except Exception as error:  # noqa: BLE001 - paho may fail in any way; the connection is then of no use
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _on_publish(
        self, client: Paho, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.is_failure:
            self._refusal = reason_code
        super()._on_publish(client, userdata, mid, reason_code, properties)


@asynccontextmanager
async def connected(broker: Broker, clock: Clock, *, session_s: int = 0) -> AsyncIterator[BrokerClient]:
    """A connection.

    Args:
        broker: where, and as whom.
        clock: stamps what arrives.
        session_s: seconds for which the broker keeps our session after the connection; 0 = none, and nothing of before.

    Raises:
        ConfigError: `secret-...`, `mqtt-tls`, `key-...`: a password or a file of TLS cannot be read.
        UnavailableError: `mqtt-refused`, `mqtt-tls`, `mqtt-away`; also for what is lost inside.
    """
    password, tls = await asyncio.to_thread(_opened, broker)
    client = BrokerClient(broker, clock, password=password, tls=tls, session_s=session_s)
    try:
        await client.__aenter__()
        client.watch()
        try:
            yield client
        finally:
            with suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
    except aiomqtt.MqttError as error:
        raise _unavailable(broker, error) from error


def _opened(broker: Broker) -> tuple[str | None, SSLContext | None]:
    """Password and TLS; both read files, and so beside the loop."""
    password = read_secret(broker.directory, broker.password, option="password") if broker.password else None
    return password, client_context(broker.tls, "mqtt-tls") if broker.tls is not None else None


def _unavailable(broker: Broker, error: aiomqtt.MqttError) -> UnavailableError:
    reason = getattr(error, "rc", None)
    if reason is None or isinstance(reason, int):
        return broker.away(str(error))
    return broker.away("it was lost") if reason.value == _FAILURE else broker.refused(reason.value, str(reason))
