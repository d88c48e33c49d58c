"""An intake of HL7 messages for tests, and what it made of them."""

from collections import Counter
from pathlib import Path

from bedside.agent.formats.hl7.message import read_message
from bedside.agent.formats.hl7.whose import Pseudonyms
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mllp.beds import Bed, Beds
from bedside.agent.sources.mllp.intake import Intake, Rules
from bedside.core.samples import Mark, MarkKind, Record, Unmapped
from bedside.core.vocabulary.clock_offset import ClockOffset
from bedside.core.vocabulary.normaliser import Normaliser

NS = 1_000_000_000
T0 = 1_772_352_000 * NS
"""2026-03-01T08:00:00Z."""
HEAD = "MSH|^~\\&|MON|WARD|BED|HOSP|20260301080000||{kind}|{id}|P|2.6"
HIDE = Pseudonyms(bytes(32)).of


class Ward:
    """An intake, and what it made of everything."""

    def __init__(self, beds=None, *, fields=None, ends=None, sessions=None, **rules) -> None:
        self.ends: dict[str, int] = dict(ends or {})
        self.context = SourceContext(
            None,
            lambda stream: self.ends.get(stream, 0),
            Path(),
            open_session=lambda stream: (sessions or {}).get(stream),
        )
        names = frozenset(rule.code or name for name, rule in (fields or {}).items())
        found = Beds("ward", beds) if beds else Beds("ward", {}, Bed(stream="bed"))
        self.lying: dict = {}
        self.make = lambda: Intake(
            "ward", found, Normaliser("ward", fields), Rules(codes=names, **rules), self.context, self.lying
        )
        self.intake = self.make()
        self.offset = ClockOffset()
        self.number = 0

    def take(self, *segments: str, kind: str = "ORU^R01", arrived_ns: int = T0 + NS, head: str = HEAD) -> list:
        self.number += 1
        text = "\r".join((head.format(kind=kind, id=self.number), *segments)) + "\r"
        return self.intake.take(read_message(text.encode(), hide=HIDE), self.offset, arrived_ns)


def records(events) -> list[tuple[str, int, dict[str, float]]]:
    return [(one.stream, (one.time_ns - T0) // NS, dict(one.values)) for one in events if isinstance(one, Record)]


def left(events) -> Counter:
    found: Counter = Counter()
    for one in events:
        if isinstance(one, Unmapped):
            found[one.reason, one.what] += one.count
    return found


HR = "OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.7.4|{value}|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||{status}|||{time}"


def hr(value="61", status="F", time="") -> str:
    return HR.format(value=value, status=status, time=time)


BED_3 = {"ICU^3": Bed(stream="bed-3", session_streams=("bed-3-ecg",)), "ICU^4": "bed-4"}


def marks(events) -> list[tuple[str, MarkKind, int]]:
    assert all(mark.origin == "adt" and mark.start_ns == mark.end_ns for mark in events if isinstance(mark, Mark))
    return [(mark.stream, mark.kind, (mark.start_ns - T0) // NS) for mark in events if isinstance(mark, Mark)]


def evn(second: int) -> str:
    return f"EVN||2026030108{second // 60:02}{second % 60:02}"
