"""HL7 v2 messages that this device writes: acknowledgements, and results as ORU^R01 in the manner of IHE PCD-01.

Sources: HL7 v2.6 chapters 2 (2.9.2 original and enhanced acknowledgement, 2.14.5 ERR, 2.14.8 MSA) and 7 (OBR, OBX);
IHE Devices Technical Framework volume 2, transaction PCD-01; HL7 tables 0008, 0085, 0357.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal

from bedside.agent.formats.hl7.message import Delimiters, Message

APPLICATION: Final = "BEDSIDE"
MONITORING: Final = ("182777000", "Monitoring of patient", "SCT")
"""OBR-4 of what monitors measure, as IHE PCD-01 has it."""
_USUAL: Final = Delimiters()
_NS_PER_S: Final = 1_000_000_000
_PROFILE: Final = "IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
_ERRORS: Final = {"100": "Segment sequence error", "207": "Application internal error"}

Status = Literal["F", "P", "C", "X", "R"]
"""HL7 table 0085: final, preliminary, correction, no result can be obtained, not verified."""


class Verdict(StrEnum):
    """MSA-1 of the original mode."""

    ACCEPT = "AA"
    ERROR = "AE"
    """Not now: the sender keeps the message and tries again."""
    REJECT = "AR"
    """Never: the same bytes will be rejected again."""


@dataclass(frozen=True, slots=True)
class Result:
    """One observation to be written.

    Attributes:
        code: identifier, for instance `8867-4` or `147842`.
        system: HL7 table 0396: `LN`, `MDC`, `99BEDSIDE` for local ones.
        text: of the code, for people, or the MDC reference id.
        value: a number, or text; None or NaN for none.
        unit: UCUM code; empty for text and counts.
        time_ns: of the observation.
        status: of the result.
        channel: OBX-4, which of several alike.
        flags: OBX-8, HL7 table 0078 and those of PCD-01.
    """

    code: str
    system: str
    text: str
    value: float | str | None
    unit: str
    time_ns: int
    status: Status = "F"
    channel: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Results of one place, which become one ORU^R01.

    Attributes:
        control_id: MSH-10: the same for the same message, however often it is sent; at most 50 characters.
        sent_ns: MSH-7: when it was made.
        device: who observed, OBX-18 and OBR-3.
        place: PV1-3, components joined with ^; empty leaves out who the results are about.
        results: in the order in which they are written.
        service: OBR-4, identifier, text and coding system.
        sender: MSH-3 and MSH-4: application and facility.
        receiver: MSH-5 and MSH-6.
        processing: MSH-11.
    """

    control_id: str
    sent_ns: int
    device: str
    place: str
    results: Sequence[Result]
    service: tuple[str, str, str] = MONITORING
    sender: tuple[str, str] = (APPLICATION, "")
    receiver: tuple[str, str] = ("", "")
    processing: Literal["P", "T", "D"] = "P"


def write_report(report: Report) -> bytes:
    """An ORU^R01 without framing, in UTF-8, its segments ended by CR. It asks for one acknowledgement, AA."""
    header = _segment(
        ["MSH", "^~\\&", *map(escaped, report.sender), *map(escaped, report.receiver), dtm(report.sent_ns)],
        ["", "ORU^R01^ORU_R01", escaped(report.control_id), report.processing, "2.6", "", "", "NE", "AL", ""],
        ["UNICODE UTF-8", "", "", _PROFILE],
    )
    segments = [header]
    if report.place:
        place = "^".join(escaped(part) for part in report.place.split("^"))
        segments += [_segment(["PID", "", "", "", "", "^^^^^^U"]), _segment(["PV1", "", "U", place])]
    times = [result.time_ns for result in report.results]
    order = "^".join((escaped(report.control_id), escaped(report.device)))
    span = [dtm(min(times)), dtm(max(times))] if times else ["", ""]
    segments.append(_segment(["OBR", "1", "", order, "^".join(map(escaped, report.service)), "", ""], span))
    device = escaped(report.device)
    segments += [_observation(number, result, device) for number, result in enumerate(report.results, 1)]
    return "".join(f"{segment}\r" for segment in segments).encode()


def write_ack(
    message: Message, verdict: Verdict, *, control_id: str, now_ns: int, error: str = "", words: str = ""
) -> bytes | None:
    """The acknowledgement of a message, without framing; None where its sender wants none.

    Args:
        message: what is acknowledged; its delimiters and character set are used.
        verdict: what became of it.
        control_id: of the acknowledgement itself.
        now_ns: its time.
        error: HL7 table 0357; empty for none.
        words: for people, in ERR-8.
    """
    code = _code(message, verdict)
    if code is None:
        return None
    head, header = message.segments[0], message.header
    marks = head.delimiters
    trigger = header.kind.partition("^")[2]
    kind = marks.component.join(("ACK", trigger, "ACK")) if trigger else "ACK"
    version = head.raw(12) or "2.6"
    processing = head.raw(11) or "P"
    told = "".join((marks.component, marks.repetition, marks.escape, marks.subcomponent))
    fields = ["MSH", told, head.raw(5) or APPLICATION, head.raw(6), head.raw(3), head.raw(4), dtm(now_ns), "", kind]
    fields += [control_id, processing, version, "", "", "", "", "", head.raw(18)]
    segments = [fields, ["MSA", code, header.control_id]]
    if error:
        coded = marks.component.join((error, _ERRORS[error], "HL70357"))
        segments.append(["ERR", "", "", coded, "E", "", "", "", escaped(words, marks)])
    text = "".join(marks.field.join(segment).rstrip(marks.field) + "\r" for segment in segments)
    return text.encode(message.codec, "replace")


def write_reject(*, control_id: str, now_ns: int, words: str) -> bytes:
    """The answer to bytes that name no message: AR without a control id."""
    header = _segment(["MSH", "^~\\&", APPLICATION, "", "", "", dtm(now_ns), "", "ACK", control_id, "P", "2.6"])
    error = _segment(["ERR", "", "", f"100^{_ERRORS['100']}^HL70357", "E", "", "", "", escaped(words)])
    return f"{header}\rMSA|{Verdict.REJECT}|\r{error}\r".encode()


def escaped(text: str, marks: Delimiters = _USUAL) -> str:
    """Text as a component: delimiters and control characters become escapes (HL7 v2.6, 2.7.1)."""
    escape = marks.escape
    escapes = {
        marks.field: f"{escape}F{escape}",
        marks.component: f"{escape}S{escape}",
        marks.repetition: f"{escape}R{escape}",
        escape: f"{escape}E{escape}",
        marks.subcomponent: f"{escape}T{escape}",
    }
    return "".join(
        escapes.get(one) or (f"{escape}X{ord(one):02X}{escape}" if ord(one) < 0x20 or ord(one) == 0x7F else one)
        for one in text
    )


def dtm(time_ns: int) -> str:
    """A time as DTM in UTC, to the millisecond."""
    second, rest = divmod(time_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(second, UTC):%Y%m%d%H%M%S}.{rest // 1_000_000:03d}+0000"


def _code(message: Message, verdict: Verdict) -> str | None:
    """MSA-1: of the original mode, or, where MSH-15 alone asks for one, of the enhanced mode's acceptance."""
    accept, application = message.header.accept, message.header.application
    wanted = {"AL": True, "NE": False, "ER": verdict is not Verdict.ACCEPT, "SU": verdict is Verdict.ACCEPT}
    if not accept and not application:
        return verdict
    if wanted.get(application, application != ""):
        return verdict
    return f"C{verdict[1:]}" if wanted.get(accept, False) else None


def _observation(number: int, result: Result, device: str) -> str:
    value = result.value
    if isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value):
        kind, text, status = "NM", format(Decimal(repr(value)), "f"), result.status
    elif isinstance(value, str):
        kind, text, status = "ST", escaped(value), result.status
    else:
        kind, text, status = "NM", "", "X"
    code = "^".join(map(escaped, (result.code, result.text, result.system)))
    unit = f"{escaped(result.unit)}^{escaped(result.unit)}^UCUM" if result.unit else ""
    flags = "~".join(map(escaped, result.flags))
    return _segment(
        ["OBX", str(number), kind, code, escaped(result.channel), text, unit, "", flags, "", "", status],
        ["", "", dtm(result.time_ns), "", "", "", device],
    )


def _segment(*fields: Sequence[str]) -> str:
    return "|".join(field for part in fields for field in part).rstrip("|")
