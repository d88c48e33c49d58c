"""The parsers of HL7 v2."""

from __future__ import annotations

from registry import add

from bedside.agent.formats.hl7 import Message, read_message
from bedside.agent.formats.hl7_ack import read_ack
from bedside.agent.formats.hl7_write import Verdict, write_ack
from bedside.agent.formats.mllp import MllpDecoder, frame

HEAD = b"MSH|^~\\&|MON|WARD|BED|HOSP|20260301080000.5+0100||ORU^R01^ORU_R01|77|P|2.6||||||8859/1\r"
VITALS = (
    HEAD + b"PID|1||4^^^H||No^Body\rPV1||I|ICU^3^B\rOBR|1|||1^x^L|||20260301075959\r"
    b"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC~8867-4^HR^LN|1.7.4.147842|61~62|264864^MDC_DIM_BEAT_PER_MIN^MDC"
    b"|50-90|H~INV|||F|||20260301080000||||MON\\T\\1^^00^EUI-64\r"
)


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


add("mllp", "agent.formats.mllp.MllpDecoder.feed", _in_pieces,
    [frame(VITALS) + frame(HEAD), VITALS + b"\x1c\n" + frame(HEAD)])  # fmt: skip
OWN = VITALS.replace(b"|", b"$").replace(b"8859/1", b"UNICODE UTF-8")
add("hl7", "agent.formats.hl7.read_message agent.formats.hl7_write.write_ack",
    lambda data: _every_field(read_message(data)), [VITALS, OWN, VITALS.replace(b"\r", b"\n")])  # fmt: skip
add("hl7-ack", "agent.formats.hl7_ack.read_ack", read_ack,
    [b"MSH|^~\\&|A|B|C|D|20260301||ACK^R01^ACK|7|P|2.6\rMSA|AE|77|\rERR|||207^x^HL70357|E||||later\r"])  # fmt: skip
