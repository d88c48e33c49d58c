"""Options of a listener for HL7 v2 over MLLP: monitors' gateways and interface engines send to it.

Source: HL7 MLLP Release 1; IHE PCD-01 and WCM; DESIGN section 4.
"""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from bedside.agent.client_tls import KeyFile, show_certificate
from bedside.agent.formats.hl7.mllp import MAX_MESSAGE_BYTES
from bedside.agent.formats.hl7.whose import Pseudonyms
from bedside.agent.formats.tables.row_time import zone_of
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.mllp.bed_sessions import Lying
from bedside.agent.sources.mllp.beds import Bed, Beds
from bedside.agent.sources.mllp.intake import Intake, Rules, Tests
from bedside.agent.sources.mllp.listener import Door, Network
from bedside.agent.sources.mllp.source import MllpSource
from bedside.agent.sources.options import Fields, TimeZone, WhoseClock, codes_of
from bedside.core.errors import ConfigError
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.service.link.address import Address, parse_address
from bedside.service.platform import SystemEntropy

if TYPE_CHECKING:
    from pathlib import Path

MAX_CONNECTIONS: Final = 1_000
_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")


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
    key: KeyFile = ""
    client_ca: Annotated[str, option("PEM file of who may issue senders' certificates; they are then needed")] = ""
    connections: Annotated[int, option("at one time")] = 64
    idle_s: Annotated[float, option("seconds after which a silent connection ends")] = 3_600.0
    message_kib: Annotated[int, option("largest message, KiB")] = 256
    fields: Fields = msgspec.field(default_factory=dict)
    time_zone: TimeZone = "UTC"
    clock: WhoseClock = "sender"
    charset: Annotated[str, option("character set of messages that name none")] = "utf-8"
    test_messages: Annotated[Tests, option("MSH-11 T or D: leave-out, simulated, or take as if in use")] = "leave-out"

    def streams(self) -> tuple[str, ...]:
        """Of every bed; what other sources deliver for one is theirs."""
        beds = [Bed(stream=bed) if isinstance(bed, str) else bed for bed in self.beds.values()]
        beds += [Bed(stream=self.stream, waves=self.waves)] if self.stream else []
        return tuple(dict.fromkeys(stream for bed in beds for stream in bed.delivered))


def _build(options: MllpOptions, context: SourceContext) -> MllpSource:
    everywhere = Bed(stream=options.stream, waves=options.waves) if options.stream else None
    beds = Beds(options.name, options.beds, everywhere)
    rules = Rules(frozenset(codes_of(options.fields)), zone_of(options.time_zone), options.clock, options.test_messages)
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
    lying: Lying = {}
    return MllpSource(
        options.name,
        door,
        lambda: Intake(options.name, beds, normaliser, rules, context, lying),
        charset,
        Pseudonyms(SystemEntropy().token_bytes(32)).of,
        context,
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
        ip = ipaddress.ip_address(host)
        ip = getattr(ip, "ipv4_mapped", None) or ip  # ::ffff:0.0.0.0 is every address of IPv4
        unnamed = ip.is_unspecified or ip.is_multicast or ip == _BROADCAST
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


def _tls(options: MllpOptions, directory: Path) -> ssl.SSLContext | None:
    if not options.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        show_certificate(context, directory / options.certificate, directory / options.key)
        if options.client_ca:
            context.load_verify_locations(directory / options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # SSLError is the one, and a path with a null byte the other
        sentence = f"its certificates cannot be used: {getattr(error, 'strerror', None) or error}"
        raise _wrong(options.name, sentence, "name PEM files that belong together") from error
    return context


def _wrong(name: str, sentence: str, remedy: str) -> ConfigError:
    return ConfigError("source-config", f"source {name}: {sentence}", remedy=remedy)


KIND: Final = SourceKind(MllpOptions, _build)
