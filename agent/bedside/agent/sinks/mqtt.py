"""Publishes what leaves to an MQTT 5 broker: one JSON message a row at QoS 1, delivered when that is acknowledged.

What is published is what the webhook posts of one row, with the advisory in it. The same row comes again after a crash
under the same `message_id`, by which a subscriber knows it. Nothing is retained: an old result is no result.

Source: MQTT 5.0, section 4.3.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Final

from bedside.agent.client_tls import CaFile, CertificateFile, KeyFile, Plaintext
from bedside.agent.kinds import SecretPlace
from bedside.agent.mqtt.broker import Broker, broker_of
from bedside.agent.mqtt.topics import MAX_TOPIC_CHARS
from bedside.agent.sinks.http.client import as_json
from bedside.agent.sinks.kind import AwayError, NotTakenError, SinkContext, SinkKind, SinkOptions, option
from bedside.agent.sinks.outgoing import ADVISORY, Outgoing
from bedside.agent.sinks.rows import fields_of
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.text import bounded

if TYPE_CHECKING:
    from bedside.agent.mqtt.client import BrokerClient

_NAMES: Final = frozenset({"device", "stream", "subject", "kind"})
_BRACED: Final = re.compile(r"\{([a-z]*)\}")
_NO_TOPIC: Final = re.compile(r"[+#\x00-\x1f\x7f]|^\$")
_ROWS_FAULT: Final = frozenset({0x90, 0x95, 0x99})
"""Topic name invalid, packet too large, payload format invalid. Of the others, an administrator may mend the cause."""


class MqttSinkOptions(SinkOptions, frozen=True, kw_only=True):
    """An MQTT 5 broker."""

    broker: Annotated[str, option("host:port of the broker")]
    client_id: Annotated[str, option("names us there: another one than that of a source")]
    topic: Annotated[str, option("may hold {device}, {stream}, {subject}, {kind}")] = "bedside/{device}/{stream}/{kind}"
    tls: Annotated[bool, option("whether the connection is protected")] = True
    ca: CaFile = ""
    client_certificate: CertificateFile = ""
    client_key: KeyFile = ""
    plaintext: Plaintext = False
    user: Annotated[str, option("name of our account")] = ""
    password: SecretPlace = ""


class MqttSink:
    """A `Sink` on one broker."""

    batch_rows = 1

    def __init__(self, options: MqttSinkOptions, context: SinkContext, broker: Broker) -> None:
        self._options = options
        self._context = context
        self._broker = broker
        self._open: AsyncExitStack | None = None
        self._client: BrokerClient | None = None

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Publish each and wait for its PUBACK."""
        from aiomqtt import MqttError

        try:
            client = await self._connected()
            for one in batch:
                refusal = await client.deliver(self._topic(one), as_json(_payload(one)))
                if refusal is not None:
                    sentence = f"the broker {self._broker.address} refuses it: {bounded(str(refusal), 100)}"
                    if refusal.value in _ROWS_FAULT:
                        raise NotTakenError("sink-refused", sentence, remedy="look at it: bedside agent sinks preview")
                    raise AwayError("sink-status", sentence, remedy="see what the broker allows this user to publish")
        except MqttError as error:
            await self.close()
            raise _away(self._broker.away(str(error))) from error
        except UnavailableError as error:
            await self.close()
            raise error if isinstance(error, AwayError) else _away(error) from error

    async def close(self) -> None:
        """End the connection."""
        opened, self._open, self._client = self._open, None, None
        if opened is not None:
            await opened.aclose()

    def preview(self, batch: Sequence[Outgoing]) -> str:
        """Topic and message of each."""
        return "\n".join(
            f"{self._topic(one)}\n{json.dumps(_payload(one), ensure_ascii=False, indent=2)}\n" for one in batch
        )

    async def _connected(self) -> BrokerClient:
        """The connection, made anew where it was lost."""
        from bedside.agent.mqtt.client import connected

        if self._client is not None and self._client.is_lost:
            await self.close()
        if self._client is None:
            opened = AsyncExitStack()
            self._client = await opened.enter_async_context(connected(self._broker, self._context.clock))
            self._open = opened
        return self._client

    def _topic(self, one: Outgoing) -> str:
        kind = one.what.removesuffix("s")
        said = {"device": one.device, "stream": one.stream, "subject": one.subject or one.stream, "kind": kind}
        return _BRACED.sub(lambda name: said[name[1]], self._options.topic)


def _payload(one: Outgoing) -> dict[str, object]:
    return {**fields_of(one), "advisory": ADVISORY}


def _away(error: UnavailableError) -> AwayError:
    return AwayError("sink-unreachable", error.sentence, remedy=error.remedy)


def _build(options: MqttSinkOptions, context: SinkContext) -> MqttSink:
    names = {name[1] for name in _BRACED.finditer(options.topic)}
    sound = 0 < len(options.topic) <= MAX_TOPIC_CHARS and names <= _NAMES
    sound = sound and re.search("[{}]", _BRACED.sub("", options.topic)) is None
    if not sound or any(_NO_TOPIC.search(text) for text in (options.topic, *options.subjects.values())):
        raise ConfigError(
            "sink-config",
            f"sink {options.name}: the topic, or a subject that goes into it, is none",
            remedy="levels between slashes, without + and #; {device}, {stream}, {subject} and {kind} are filled in",
        )
    try:
        broker = broker_of(
            options.broker, options.client_id, context.directory, tls=options.tls, plaintext=options.plaintext,
            ca=options.ca, client_certificate=options.client_certificate, client_key=options.client_key,
            user=options.user, password=options.password,
        )  # fmt: skip
    except ConfigError as error:
        raise ConfigError("sink-config", f"sink {options.name}: {error.sentence}", remedy=error.remedy) from error
    return MqttSink(options, context, broker)


KIND: Final = SinkKind(MqttSinkOptions, _build)
