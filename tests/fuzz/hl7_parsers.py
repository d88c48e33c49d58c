"""The parsers of HL7 v2."""

from __future__ import annotations

from pathlib import Path

from registry import add

from bedside.agent.formats.hl7.acknowledgement import read_ack
from bedside.agent.formats.hl7.message import Message, read_message
from bedside.agent.formats.hl7.mllp import MllpDecoder, frame
from bedside.agent.formats.hl7.whose import Pseudonyms
from bedside.agent.formats.hl7.writing import Verdict, write_ack
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mllp.beds import Bed, Beds
from bedside.agent.sources.mllp.intake import Intake, Rules
from bedside.core.samples import Event
from bedside.core.vocabulary.clock_offset import ClockOffset
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.service.platform import SystemClock

HEAD = b"MSH|^~\\&|MON|WARD|BED|HOSP|20260301080000.5+0100||ORU^R01^ORU_R01|77|P|2.6||||||8859/1\r"
VITALS = (
    HEAD + b"PID|1||4^^^H||No^Body\rPV1||I|ICU^3^B\rOBR|1|||1^x^L|||20260301075959\r"
    b"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC~8867-4^HR^LN|1.7.4.147842|61~62|264864^MDC_DIM_BEAT_PER_MIN^MDC"
    b"|50-90|H~INV|||F|||20260301080000||||MON\\T\\1^^00^EUI-64\r"
)
WAVES = (
    HEAD + b"PV1||I|ICU^3^B\rOBR|1|||69121^MDC_OBS_WAVE_CTS^MDC|||20260301080000.000\r"
    b"OBX|1|NA|131330^MDC_ECG_ELEC_POTL_II^MDC|1.2.3|1^-2^3^40000|266418^MDC_DIM_MILLI_VOLT^MDC|||||F\r"
    b"OBX|2|NM|0^MDC_ATTR_SAMP_RATE^MDC|1.2.3.1|250|264608^MDC_DIM_PER_SEC^MDC|||||F\r"
    b"OBX|3|NM|0^MDC_ATTR_NU_MSMT_RES^MDC|1.2.3.2|0.005|266418^MDC_DIM_MILLI_VOLT^MDC|||||F\r"
)
MOVES = tuple(
    HEAD.replace(b"ORU^R01^ORU_R01", kind) + b"EVN||20260301080000||||202603010759\rPID|||4^^^H~5\r"
    b"PV1||I|ICU^3^B|||ICU^4|||||||||||||V^1\r"
    b"OBX|1|SN|8867-4^HR^LN||^61|/min\r"
    for kind in (b"ADT^A01^ADT_A01", b"ADT^A02", b"ADT^A03", b"ADT^A11", b"ADT^A12", b"ADT^A13")
)
ARRIVED_NS = 1_772_352_000_000_000_000


def _taken(data: bytes) -> list[Event]:
    ward = Bed(stream="icu", waves={"131330": "icu-ecg"}, session_streams=("icu-art",))
    context = SourceContext(SystemClock(), lambda _: 0, Path())
    intake = Intake("ward", Beds("ward", {"ICU": ward}), NORMALISER, Rules(clock="arrival"), context)
    return intake.take(read_message(data, hide=Pseudonyms(bytes(32)).of), ClockOffset(), ARRIVED_NS)


NORMALISER = Normaliser("ward")


def _in_pieces(data: bytes) -> None:
    decoder = MllpDecoder(4_096)
    for at in range(0, len(data), 7):
        decoder.feed(data[at : at + 7])


def _every_field(message: Message) -> None:
    for segment in message.segments:
        for number in range(len(segment.fields) + 1):
            segment.components(number)
            segment.repetitions(number)
    for verdict in Verdict:
        write_ack(message, verdict, control_id="1", now_ns=0, error="207", words="a|b")


add("mllp", "agent.formats.hl7.mllp.MllpDecoder.feed", _in_pieces,
    [frame(VITALS) + frame(HEAD), VITALS + b"\x1c\n" + frame(HEAD)])  # fmt: skip
OWN = VITALS.replace(b"|", b"$").replace(b"8859/1", b"UNICODE UTF-8")
add("hl7", "agent.formats.hl7.message.read_message agent.formats.hl7.writing.write_ack",
    lambda data: _every_field(read_message(data)), [VITALS, OWN, VITALS.replace(b"\r", b"\n")])  # fmt: skip
add("hl7-ack", "agent.formats.hl7.acknowledgement.read_ack", read_ack,
    [b"MSH|^~\\&|A|B|C|D|20260301||ACK^R01^ACK|7|P|2.6\rMSA|AE|77|\rERR|||207^x^HL70357|E||||later\r"])  # fmt: skip
add("hl7-intake",
    "agent.sources.mllp.intake.Intake.take agent.formats.hl7.observations.visits agent.formats.hl7.waves.waves"
    " agent.formats.hl7.adt.moves agent.formats.hl7.times.time_ns", _taken, [VITALS, WAVES, *MOVES])  # fmt: skip
