"""Sends what leaves as HL7 v2 ORU^R01 over MLLP: one message a row, under one control id for ever.

Invariant: the same row makes the same bytes, so that a receiver which has seen the control id (MSH-10) may answer AA
and forget them. AA and CA acknowledge; AE and CE are tried again; AR and CR are a refusal.

Source: HL7 v2.6 chapters 2 and 7; HL7 table 0078 for flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from bedside.agent.client_tls import CaFile, CertificateFile, KeyFile, Plaintext, tls_fault, tls_of
from bedside.agent.formats.hl7.writing import APPLICATION, MONITORING, Report, Result, write_report
from bedside.agent.sinks.kind import AwayError, NotTakenError, SinkContext, SinkKind, SinkOptions, option
from bedside.agent.sinks.observation import SEVERITY, Coding
from bedside.agent.sinks.outgoing import Outgoing, SentAlarm, SentPrediction
from bedside.agent.sinks.rules import MAX_TIMEOUT_S
from bedside.core.errors import ConfigError, MalformedError
from bedside.service.link.address import Address, parse_address
from bedside.service.text import bounded

if TYPE_CHECKING:
    from bedside.agent.sinks.hl7.mllp_client import MllpClient

LOCAL: Final = "99BEDSIDE"
"""Coding system of our own names (HL7 table 0396)."""


class Hl7Options(SinkOptions, frozen=True, kw_only=True):
    """A receiver of ORU^R01."""

    address: Annotated[str, option("host:port of the receiver")]
    tls: Annotated[bool, option("MLLP over TLS")] = True
    ca: CaFile = ""
    client_certificate: CertificateFile = ""
    client_key: KeyFile = ""
    plaintext: Plaintext = False
    timeout_s: Annotated[float, option("seconds to wait for an acknowledgement")] = 20.0
    facility: Annotated[str, option("MSH-4")] = ""
    receiving_application: Annotated[str, option("MSH-5")] = ""
    receiving_facility: Annotated[str, option("MSH-6")] = ""
    processing: Annotated[Literal["P", "T", "D"], option("MSH-11: production, training or debugging")] = "P"
    codes: Annotated[dict[str, Coding], option("codes of classes, rules, models, fields")] = msgspec.field(
        default_factory=dict
    )


class Hl7Sink:
    """A `Sink` on one receiver."""

    batch_rows = 1

    def __init__(self, options: Hl7Options, directory: Path, address: Address) -> None:
        self._options = options
        self._directory = directory
        self._address = address
        self._client: MllpClient | None = None

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Send each and wait for its acknowledgement."""
        if self._client is None:
            self._client = self._made()
        for one in batch:
            try:
                ack = await self._client.send(write_report(self._report(one)))
            except MalformedError as error:
                raise NotTakenError("sink-unsendable", f"a row makes no message: {error.sentence}") from error
            if ack.accepted:
                continue
            sentence = f"{self._address} answers {ack.code}: {bounded(ack.words, 200)}"
            if ack.rejected:
                raise NotTakenError("sink-refused", sentence, remedy="look at it: bedside agent sinks preview")
            raise AwayError("sink-status", sentence, remedy="see the receiver's log")

    async def close(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def preview(self, batch: Sequence[Outgoing]) -> str:
        """The messages, a segment a line, without framing."""
        return "\n".join(write_report(self._report(one)).decode().replace("\r", "\n") for one in batch)

    def _made(self) -> MllpClient:
        from bedside.agent.sinks.hl7.mllp_client import MllpClient

        its = self._options
        tls = tls_of(self._directory, its.ca, its.client_certificate, its.client_key) if its.tls else None
        return MllpClient(self._address, tls, timeout_s=its.timeout_s)

    def _report(self, one: Outgoing) -> Report:
        its = self._options
        return Report(
            control_id=str(one.message_id),
            sent_ns=one.time_ns,
            device=one.device,
            place=one.subject,
            results=results_of(one, its.codes),
            service=self._service(one),
            sender=(APPLICATION, its.facility),
            receiver=(its.receiving_application, its.receiving_facility),
            processing=its.processing,
        )

    def _service(self, one: Outgoing) -> tuple[str, str, str]:
        body = one.body
        if isinstance(body, SentPrediction):
            return _coded(body.model or "prediction", self._options.codes)
        if isinstance(body, SentAlarm):
            return _coded(body.rule, self._options.codes)
        return MONITORING


def results_of(one: Outgoing, codes: dict[str, Coding]) -> list[Result]:
    """The OBX of one row."""
    body = one.body
    if isinstance(body, SentPrediction) and body.outputs:
        return [
            Result(
                *_named(one.name, codes),
                round(one.value, 6) if one.is_probability else one.value,
                one.unit or "1",
                body.end_ns,
            )
            for one in body.outputs
        ]
    if isinstance(body, SentPrediction):
        said = codes[body.label].interpretation if body.label in codes else ""
        label = Result(*_named(body.model or "prediction", codes), body.label, "", one.time_ns, flags=_flags(said))
        return [label, Result("probability", LOCAL, "probability", round(body.confidence, 6), "1", one.time_ns)]
    if isinstance(body, SentAlarm):
        status: Literal["F", "P"] = "F" if body.cleared_ns else "P"
        flag = _flags("N" if body.cleared_ns else SEVERITY[body.priority])
        at_ns = body.changed_ns
        return [
            Result(*_named(body.rule, codes), body.state, "", at_ns, status, flags=flag),
            Result("priority", LOCAL, "priority", body.priority, "", at_ns, status),
            Result("value", LOCAL, "value that raised it", body.value, "", body.raised_ns, status),
        ]
    return [
        Result(*_named(name, codes), value, body.units.get(name, ""), body.time_ns)
        for name, value in body.values.items()
    ]


def _flags(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _coded(name: str, codes: dict[str, Coding]) -> tuple[str, str, str]:
    """Identifier, text and coding system, as OBR-4 has them."""
    code, system, text = _named(name, codes)
    return code, text, system


def _named(name: str, codes: dict[str, Coding]) -> tuple[str, str, str]:
    """Identifier, coding system and text."""
    known = codes.get(name)
    if known is None or not known.code:
        return name, LOCAL, name
    return known.code, known.system or LOCAL, known.display or name


def _build(options: Hl7Options, context: SinkContext) -> Hl7Sink:
    address = parse_address(options.address)
    fault = tls_fault(tls=options.tls, ca=options.ca, certificate=options.client_certificate, key=options.client_key)
    rules = (
        (bool(address.host) and address.port > 0, "its address is no host:port", "write for instance 10.0.0.9:2575"),
        (
            options.tls or address.is_loopback or options.plaintext,
            f"results would go to {address} in plaintext",
            "use tls = true, or plaintext = true where the network itself is protected",
        ),
        (not fault, fault, "correct them, or use tls = true"),
        (0 < options.timeout_s <= MAX_TIMEOUT_S, f"timeout_s must be above 0, {MAX_TIMEOUT_S:g} at most", ""),
    )
    for holds, sentence, remedy in rules:
        if not holds:
            raise ConfigError("sink-config", f"sink {options.name}: {sentence}", remedy=remedy)
    return Hl7Sink(options, context.directory, address)


KIND: Final = SinkKind(Hl7Options, _build)
