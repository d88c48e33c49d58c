"""HL7 v2 messages in their vertical-bar form, read with bounds and without what nobody here needs.

Invariants:
    * Only the segments of `READ` are looked into. What else tells of a person is skipped as bytes: it is never decoded,
      kept or shown. Of PID it is kept that it was there, for it begins what is said of another person; of PID-3 and
      PV1-19 nothing, or what `hide` makes of them (see `whose`).
    * Size and counts are checked before anything is split.

Source: HL7 v2.6 chapter 2 (control; 2.5 encoding rules, 2.7 escapes, 2.14.9 MSH).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from bedside.agent.formats.hl7.mllp import MAX_MESSAGE_BYTES
from bedside.core.errors import MalformedError

READ: Final = frozenset({"MSH", "EVN", "PV1", "OBR", "OBX", "MSA", "ERR"})
"""Segments that are looked into."""
PERSON: Final = "PID"
"""A segment of which the name alone is kept, and what `Hide` makes of PID-3."""
Hide = Callable[[str, str], str]
"""Makes of `visit` or `patient` and its number what may be kept."""
MAX_SEGMENTS: Final = 20_000
MAX_FIELDS: Final = 256
"""Fields of one segment: the longest of the standard has 60."""
MAX_PARTS: Final = 65_536
"""Repetitions and components of one field: half a minute of a waveform at 2 kHz."""
MAX_ESCAPE_CHARS: Final = 64
NULL: Final = '""'
"""A value that its sender deletes."""

_VISIT: Final = 19
_MAX_MSH_BYTES: Final = 4_096
_INSIDE: Final = re.compile(rb"\n(?:MSH|EVN|PID|PV1|OBR|OBX)[^A-Za-z0-9\s]")
_ALMOST: Final = re.compile(rb"[^A-Za-z0-9]*(?:MSH|EVN|PID|PV1|OBR|OBX)[^A-Za-z0-9]", re.IGNORECASE)
_BOM: Final = b"\xef\xbb\xbf"
_USUAL: Final = b"^~\\&"


class Delimiters(NamedTuple):
    """What separates; a message says so itself in MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    def unescape(self, text: str) -> str:
        """Text as it was meant; commands that are not known stay as they were sent: without one, 7 and 2 were 72."""
        if self.escape not in text:
            return text
        mark = re.escape(self.escape)
        meant = {"F": self.field, "S": self.component, "T": self.subcomponent, "R": self.repetition, "E": self.escape}

        def plain(found: re.Match[str]) -> str:
            command = found[1]
            if command[:1] == "X" and re.fullmatch("(?:[0-9A-Fa-f]{2})+", command[1:]):
                return bytes.fromhex(command[1:]).decode("ascii", "replace")
            return meant.get(command, found[0])

        return re.sub(f"{mark}([^{mark}]{{0,{MAX_ESCAPE_CHARS}}}){mark}", plain, text)


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment.

    Attributes:
        fields: as they were sent; item 0 is the segment's name, item n is field n.
        delimiters: of its message.
    """

    fields: tuple[str, ...]
    delimiters: Delimiters

    @property
    def name(self) -> str:
        """Three letters or digits."""
        return self.fields[0]

    def raw(self, number: int) -> str:
        """A field as it was sent; empty when it was not, and for the null value of two quotes."""
        value = self.fields[number] if number < len(self.fields) else ""
        return "" if value == NULL else value

    def repetitions(self, number: int) -> list[str]:
        """The repetitions of a field as they were sent; none of an empty field.

        Raises:
            MalformedError: `hl7-size`.
        """
        return self._split(self.raw(number), self.delimiters.repetition)

    def components(self, number: int) -> list[str]:
        """The components of a field's first repetition, unescaped; none of an empty field.

        Raises:
            MalformedError: `hl7-size`.
        """
        return self.components_of(self.raw(number).split(self.delimiters.repetition, 1)[0])

    def components_of(self, repetition: str) -> list[str]:
        """The components of a repetition, unescaped; a component is cut at its first subcomponent."""
        parts = self._split(repetition, self.delimiters.component)
        return [self._meant(part.split(self.delimiters.subcomponent, 1)[0]) for part in parts]

    def numbers_of(self, repetition: str) -> list[str]:
        """As `components_of`, whole: what has subcomponents is no number."""
        return [self._meant(part) for part in self._split(repetition, self.delimiters.component)]

    def text(self, number: int) -> str:
        """The first component of a field, unescaped."""
        return next(iter(self.components(number)), "")

    def _meant(self, part: str) -> str:
        return "" if part == NULL else self.delimiters.unescape(part)

    def _split(self, value: str, mark: str) -> list[str]:
        if value.count(mark) >= MAX_PARTS:
            raise MalformedError("hl7-size", f"a field of HL7 has more than {MAX_PARTS} parts")
        return value.split(mark) if value else []


@dataclass(frozen=True, slots=True)
class Header:
    """What MSH says.

    Attributes:
        kind: message code and trigger event, for instance `ORU^R01`; a bare `ORU` when there is no event.
        control_id: MSH-10, as it was sent.
        time: MSH-7, a DTM (see `hl7_time`).
        processing: MSH-11: P(roduction), T(raining) or D(ebugging); empty when it was not said.
        accept: MSH-15: when an acknowledgement of receipt is wanted: AL, NE, ER or SU.
        application: MSH-16: the same of an acknowledgement of the application.
    """

    kind: str
    control_id: str
    time: str
    processing: str
    accept: str
    application: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        header: what MSH says.
        segments: those that are looked into, MSH first, and bare ones that say where another person begins.
        codec: Python's name of its character set.
        replaced: characters that were not of it.
    """

    header: Header
    segments: tuple[Segment, ...]
    codec: str = "utf-8"
    replaced: int = 0

    def first(self, name: str) -> Segment | None:
        """The first segment of a name."""
        return next((segment for segment in self.segments if segment.name == name), None)


def read_message(data: bytes, charset: str = "utf-8", hide: Hide | None = None) -> Message:
    """Read a message without its framing.

    Args:
        data: segments that end with CR, LF or both. Where any ends with CR, a LF alone is text; where a segment seems
            to begin behind it, nobody knows which it is, and the message is refused.
        charset: Python's name of the set of messages whose MSH-18 names none.
        hide: what is kept in the place of PV1-19 and PID-3; None keeps nothing.

    Raises:
        MalformedError: `hl7-size`, `hl7-header`, `hl7-form`; `hl7-charset` for a set in which a delimiter's byte may be
            half a letter; a segment that is almost one (a blank before it, small letters) is `hl7-form`: what is said
            of another person would be the one's before.
    """
    return _read(data, charset, hide, named=True)


def read_head(data: bytes, charset: str = "utf-8") -> Message:
    """Read the first segment of a message alone: whom and what to answer, whatever the others are like.

    Raises:
        MalformedError: `hl7-header`, `hl7-size`.
    """
    head = data[: 2 * _MAX_MSH_BYTES].removeprefix(_BOM).lstrip(b"\r\n")
    return _read(head.partition(b"\r")[0].partition(b"\n")[0], charset, None, named=False)


def _read(data: bytes, charset: str, hide: Hide | None, *, named: bool) -> Message:
    """As `read_message`; where not `named`, a set that is not read here does not count."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedError("hl7-size", f"a message of HL7 exceeds {MAX_MESSAGE_BYTES} bytes")
    data = data.removeprefix(_BOM).strip(b"\r\n")
    separator = b"\r" if b"\r" in data else b"\n"
    if data.count(separator) >= MAX_SEGMENTS:
        raise MalformedError("hl7-size", f"a message of HL7 has more than {MAX_SEGMENTS} segments")
    lines = data.split(separator)
    marks = _delimiters(lines[0])
    head = _segment(lines[0], marks, "latin-1")
    charset = _codec(head.repetitions(18) if named else [], charset)
    lines = [line.strip(b"\n") for line in lines]
    if separator == b"\r" and any(_INSIDE.search(line) for line in lines if b"\n" in line):
        raise MalformedError("hl7-form", "some segments of a message seem to end with LF, and others with CR")
    kept = [line for line in lines if _is_read(line, marks)]
    if any(_ALMOST.match(line) and not _is_read(line, marks) for line in lines):
        raise MalformedError("hl7-form", "a segment has blanks before its name, or small letters in it")
    if sum(line.startswith(b"MSH") for line in kept) > 1:
        raise MalformedError("hl7-form", "there are two messages of HL7 in one frame")
    segments = tuple(_segment(line, marks, charset, hide) for line in kept)
    replaced = sum(field.count("\ufffd") for segment in segments for field in segment.fields)
    return Message(_header(segments[0]), segments, charset, replaced)


def _is_read(line: bytes, marks: Delimiters) -> bool:
    name = line[:3].decode("latin-1")
    return (name in READ or name == PERSON) and line[3:4] in (b"", marks.field.encode())


def _delimiters(line: bytes) -> Delimiters:
    """MSH-1 and MSH-2; what MSH-2 leaves out is as usual."""
    if not line.startswith(b"MSH") or len(line) > _MAX_MSH_BYTES:
        raise MalformedError("hl7-header", "a message of HL7 begins with MSH, of 4,096 bytes at most")
    field, told = line[3:4], line[4:].split(line[3:4] or b"|", 1)[0]
    marks = field + told[:4] + _USUAL[len(told) :]
    distinct = len(set(marks)) == len(marks) == 5 and len(told) in range(1, 6)
    if not distinct or not all(0x21 <= mark < 0x7F and not chr(mark).isalnum() for mark in marks):
        raise MalformedError("hl7-header", "MSH-1 and MSH-2 name no delimiters")
    return Delimiters(*marks.decode("ascii"))


def _segment(line: bytes, marks: Delimiters, charset: str, hide: Hide | None = None) -> Segment:
    if line.startswith(PERSON.encode()):
        if hide is None:
            return Segment((PERSON,), marks)
        line = marks.field.encode().join(line.split(marks.field.encode(), 4)[:4])
    if line.count(marks.field.encode()) >= MAX_FIELDS:
        raise MalformedError("hl7-size", f"a segment of HL7 has more than {MAX_FIELDS} fields")
    fields = line.decode(charset, "replace").split(marks.field)
    if fields[0] == PERSON:
        return Segment((PERSON, "", "", _hidden(Segment(tuple(fields), marks), 3, "patient", hide)), marks)
    if fields[0] == "PV1" and len(fields) > _VISIT:
        fields[_VISIT] = _hidden(Segment(tuple(fields), marks), _VISIT, "visit", hide)
    return Segment((*fields[:1], marks.field, *fields[1:]) if fields[0] == "MSH" else tuple(fields), marks)


def _hidden(segment: Segment, number: int, sort: str, hide: Hide | None) -> str:
    return hide(sort, segment.text(number)) if hide is not None else ""


def _codec(told: list[str], default: str) -> str:
    """Python's name of the set in MSH-18, HL7 table 0211; ASCII is part of every set that is read here."""
    codecs = [_codec_of(name.strip().upper(), default) for name in told] or [default]
    if None in codecs:
        raise MalformedError("hl7-charset", "MSH-18 names a character set that is not read here")
    return codecs[0] or default


def _codec_of(name: str, default: str) -> str | None:
    """None where it is not known that a byte below 0x80 is always ASCII."""
    if name in ("", "ASCII", "US-ASCII", "ISO IR6"):
        return default
    if name in ("UNICODE UTF-8", "UTF-8", "UTF8", "UNICODE"):
        return "utf-8"
    part = re.fullmatch(r"(?:ISO[- ]?)?8859[/-](15|[1-9])", name)
    windows = re.fullmatch(r"(?:WINDOWS-|CP)(125[0-8])", name)
    return f"iso8859-{part[1]}" if part is not None else f"cp{windows[1]}" if windows is not None else None


def _header(segment: Segment) -> Header:
    kind = [part for part in segment.components(9)[:2] if part]
    if not kind:
        raise MalformedError("hl7-header", "MSH-9 names no type of message")
    return Header(
        kind="^".join(kind),
        control_id=segment.raw(10),
        time=segment.text(7),
        processing=segment.text(11).upper(),
        accept=segment.text(15).upper(),
        application=segment.text(16).upper(),
    )
