"""The serial stream of an Ivy Biomedical 450C monitor ("ANSAR-B"): five waves and the numbers on its screen.

Once a second it sends 0xFF, `ANSAR-B `, 400 bytes of waves (200 of the ECG, then 50 each of respiration, pleth,
pressure 1 and pressure 2), lines such as `HR=1;80;ECG-II-DIAG;` that end with CR, and 0xFE. A wave's byte is 0 to 250;
251 is where there is no wave. The bytes of a pressure are mmHg: the extremes of a captured wave are the numbers beside
it. What the digit after `=` and the words after the numbers mean is not published; nothing is concluded from them but
for NO TRANSDUCER and the lead of the ECG.

Invariants:
    * Received bytes = bytes of packets + skipped bytes + bytes that still wait, whatever the pieces they came in.
    * There is no checksum. A packet whose lines do not begin with a known name has lost or gained bytes, so that its
      waves are not where they seem to be: it is skipped whole.

Source: a capture of a real monitor (mdpnp/mdpnp, BSD-2), and the order of waves and fields in that project's reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bedside.core.errors import MalformedError
from bedside.core.vocabulary.reading import Reading

WAVES: Final = {"ecg": (0, 200), "resp": (200, 250), "pleth": (250, 300), "p1": (300, 350), "p2": (350, 400)}
"""First byte of each wave in a packet, and the one after its last: its samples of one second."""
HIGHEST: Final = 250
NO_WAVE: Final = 251
"""Smallest byte that is no sample."""

_HEAD: Final = b"\xffANSAR-B "
_TEXT_AT: Final = len(_HEAD) + 400
MAX_PACKET_BYTES: Final = 2_560
"""With both borders; a captured one has 562."""
_BORDER: Final = re.compile(rb"[\xfe\xff]")
_LINE: Final = re.compile(r"([A-Z][A-Z0-9]{0,7})=\d{0,3};", re.ASCII)
_LEAD: Final = re.compile(r"ECG-(I{1,3}|AV[RLF]|V\d?)-")

_BLOOD_PRESSURE: Final = ("150017", "150018", "150019")
_NUMBERS: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "HR": (("147842", "/min", ""),),
    "RR": (("151562", "/min", ""),),
    "ETCO2": (("151708", "", ""),),
    "SPO2": (("150456", "%", ""), ("149530", "/min", "")),
    "NIBP": (
        *((code, "mm[Hg]", "") for code in ("150021", "150022", "150023")),
        ("149546", "/min", ""),
    ),
    "P1": tuple((code, "mm[Hg]", "P1") for code in _BLOOD_PRESSURE),
    "P2": tuple((code, "mm[Hg]", "P2") for code in _BLOOD_PRESSURE),
    "T1": (("150344", "", "T1"),),
    "T2": (("150344", "", "T2"),),
}
"""By the name of a line: MDC code, unit and channel of its numbers. Gas and temperature come in what the monitor is set
to, which it does not say: they have no unit here."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What the monitor sends once a second.

    Attributes:
        waves: 400 bytes, cut by `WAVES`.
        lines: as sent, without their ends.
    """

    waves: bytes
    lines: tuple[str, ...]

    @property
    def lead(self) -> str:
        """Of the ECG: I, II, III, AVR, AVL, AVF or V; empty where it does not say."""
        found = next((_LEAD.search(line) for line in self.lines if line.startswith("HR=")), None)
        return found[1] if found else ""


class IvyDecoder:
    """Bytes in, packets out.

    Attributes:
        received_bytes: all that came.
        packet_bytes: of the packets that were returned.
        skipped_bytes: of no packet.
        damaged: packets that began and were skipped.
    """

    def __init__(self) -> None:
        self.received_bytes = self.packet_bytes = self.skipped_bytes = self.damaged = 0
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that end in `data`."""
        self.received_bytes += len(data)
        searched = len(self._waiting)
        self._waiting += data
        packets: list[Packet] = []
        while True:
            begin = self._waiting.find(0xFF)
            self._skip(len(self._waiting) if begin < 0 else begin)
            border = _BORDER.search(self._waiting, max(1, searched))
            searched = 0
            if border is None:
                self._give_up_if_endless()
                return packets
            if packet := self._cut(border.start()):
                packets.append(packet)

    def _cut(self, end: int) -> Packet | None:
        """Take what lies up to the border at `end`; an 0xFF there begins the next packet."""
        whole = self._waiting[end] == 0xFE
        size = end + 1 if whole else end
        packet = _packet(bytes(self._waiting[:end])) if whole and size <= MAX_PACKET_BYTES else None
        if packet is None:
            self.damaged += 1
            self._skip(size)
        else:
            self.packet_bytes += size
            del self._waiting[:size]
        return packet

    def _give_up_if_endless(self) -> None:
        if len(self._waiting) >= MAX_PACKET_BYTES:
            self.damaged += 1
            self._skip(len(self._waiting))

    def _skip(self, count: int) -> None:
        self.skipped_bytes += count
        del self._waiting[:count]


def _packet(data: bytes) -> Packet | None:
    """What lies before the end of a packet; None when it is none."""
    if not data.startswith(_HEAD) or len(data) <= _TEXT_AT:
        return None
    text = data[_TEXT_AT:].decode("latin-1")
    lines = tuple(text.removesuffix("\r").split("\r"))
    if line_name(lines[0]) not in _NUMBERS:
        return None
    return Packet(data[len(_HEAD) : _TEXT_AT], lines)


def line_name(line: str) -> str:
    """The name of a line, `HR` or another; empty where it has none."""
    found = _LINE.match(line)
    return found[1] if found else ""


def read_line(line: str) -> list[Reading]:
    """The numbers of a line, those without a value as well; none for a name that is not known.

    Raises:
        MalformedError: `bad-ivy-line`.
    """
    name = line_name(line)
    if not name or not line.isprintable():
        raise MalformedError("bad-ivy-line", "a line is NAME=digits; and words")
    numbers = _NUMBERS.get(name, ())
    if not numbers:
        return []
    words = [word.strip() for word in line.split(";")[1:]]
    meant = 3 if name == "SPO2" else len(numbers) + 2
    if len(words) != meant:
        raise MalformedError("bad-ivy-line", f"{len(words)} words after {name}; {meant} are meant")
    if name == "SPO2":  # the rate of its pulse stands where others have words
        words[1] = words[1].removeprefix("PR=").strip() if words[1].startswith("PR=") else ""
    connected = "NO TRANSDUCER" not in words
    return [
        Reading(code, word or None, "MDC", unit, channel, valid=connected and bool(word))
        for (code, unit, channel), word in zip(numbers, words, strict=False)
    ]
