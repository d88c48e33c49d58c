"""What becomes of every message of real devices that is at hand: docs/fixtures.md says it, and this compares."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from bedside.agent.formats.delivery import Delivery
from bedside.agent.formats.fhir.observations import read_fhir
from bedside.agent.formats.gatt import decode_report
from bedside.agent.formats.hl7.message import read_message
from bedside.agent.formats.hl7.observations import moments, visits
from bedside.agent.formats.hl7.times import time_ns
from bedside.agent.formats.ieee11073.apdu import ApduReader
from bedside.agent.formats.ivy450c import IvyDecoder, line_name, read_line
from bedside.core.errors import MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Record
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.core.vocabulary.reading import Reading

ROOT: Final = Path(__file__).parents[3]
DATA: Final = Path(os.environ.get("BEDSIDE_DATA", ROOT.parent / "shared" / "data")) / "device_fixtures"
PAGE: Final = ROOT / "docs" / "fixtures.md"
NOW_NS: Final = 1_800_000_000 * 10**9
FEW: Final = 4
"""Values that are shown one by one."""

READ_AFTER: Final = {
    "Measure10415PrstAPDUtest": "Aarq10415APDUtest",
    "RealMeasure10415PrstAPDUtest": "Aarq10415APDUtest",
    "ExtendedMeasure10415APDUtest": "ExtendedCfg10415",
    "Measure10417PrstAPDUtest": "Aarq10417APDUtest",
    "ExtendedMeasure10408APDUtest": "ExtendedCfg10408",
    "ExtendedMeasure10404APDUtest": "ExtendedCfg10404",
}
"""A report can be read once its configuration is known."""


class Told:
    """What becomes of one message, in words; every reading is counted."""

    def __init__(self, normaliser: Normaliser) -> None:
        self._normaliser = normaliser
        self._records: list[Record] = []
        self._left: Counter[tuple[str, str]] = Counter()
        self.event = ""

    def take(self, readings: Iterable[Reading], time_ns: int) -> None:
        sent = tuple(readings)
        record, left = self._normaliser.record(StreamId("bed"), time_ns, sent, NOW_NS)
        assert len(record.values if record else ()) + sum(one.count for one in left) == len(sent)
        self._records += [record] if record else []
        for one in left:
            self.leave(one.reason, one.what, one.count)

    def leave(self, reason: str, what: str, count: int = 1) -> None:
        self._left[reason, what] += count

    def deliver(self, delivery: Delivery) -> None:
        for moment, readings in delivery.readings.items():
            assert not moment.bad
            time = moment.time
            placed = time if time is None or time.tzinfo else time.replace(tzinfo=UTC)
            self.take(readings, NOW_NS if placed is None else int(placed.timestamp()) * 10**9)
        for one in delivery.left:
            self.leave(one.reason, one.what)
        self.event = delivery.event

    def words(self) -> str:
        return "; ".join(part for part in (self.event, self._values(), self._left_out()) if part) or "nothing"

    def _values(self) -> str:
        values = [(name, value, one.units[name]) for one in self._records for name, value in one.values.items()]
        if len(values) <= FEW and len(self._records) == 1:
            time = datetime.fromtimestamp(self._records[0].time_ns / 1e9, UTC)
            shown = ", ".join(
                f"`{name}` none" if math.isnan(value) else f"`{name}` {value:g} {unit}" for name, value, unit in values
            )
            return f"{shown} at {time:%Y-%m-%d %H:%M:%S}" if self._records[0].time_ns != NOW_NS else shown
        if not values:
            return ""
        fields = ", ".join(f"`{name}`" for name in dict.fromkeys(name for name, _, _ in values))
        return f"{len(self._records)} records of {len(values)} values: {fields}"

    def _left_out(self) -> str:
        left = [f"`{what}` {reason}" + f" ({count})" * (count > 1) for (reason, what), count in self._left.items()]
        return f"left out: {', '.join(left)}" if left else ""


def told(fill: Callable[[Told], None]) -> str:
    words = Told(Normaliser("fixture"))
    try:
        fill(words)
    except MalformedError as error:
        return f"left out: the whole message, bad-message ({error.code})"
    return words.words()


def apdus() -> dict[str, list[str]]:
    found = json.loads((DATA / "ieee11073_20601" / "apdus.json").read_text())
    rows = {}
    for name, fixture in found.items():
        reader, before = ApduReader(), READ_AFTER.get(name, "")
        if before:
            reader.read(bytes.fromhex(found[before]["hex"]))
        data = bytes.fromhex(fixture["hex"])
        rows[name] = [f"`{before}`" if before else "", told(lambda words: words.deliver(reader.read(data)))]  # noqa: B023
    return rows


def resources(folder: str) -> dict[str, list[str]]:
    files = sorted(path for path in (DATA / folder).iterdir() if path.suffix in {".json", ".xml"})
    return {path.name: [told(lambda words: words.deliver(read_fhir(path.read_bytes())))] for path in files}  # noqa: B023


def hl7_messages() -> dict[str, list[str]]:
    return {path.name: [told(lambda words: _hl7(words, path))] for path in sorted((DATA / "hl7v2").glob("*.hl7"))}  # noqa: B023


def _hl7(words: Told, path: Path) -> None:
    for visit in visits(read_message(path.read_bytes())):
        found, left = moments(visit.observations, lambda text: time_ns(text, UTC, NOW_NS) if text else NOW_NS)
        for moment in found:
            words.take(moment.readings, moment.time_ns)
        for reason, what in left:
            words.leave(reason, what)


def notifications() -> dict[str, list[str]]:
    found = json.loads((DATA / "ble" / "heart_rate_measurement.json").read_text())
    rows = {}
    for number, fixture in enumerate(found):
        report = decode_report(0x2A37, bytes.fromhex(fixture["hex"]))

        def fill(words: Told, groups: tuple[tuple[Reading, ...], ...]) -> None:
            for group in groups:
                words.take(group, NOW_NS)

        groups = (report.readings, *((interval,) for interval in report.intervals))
        rows[f"heart_rate_measurement.json {number}"] = [told(lambda words: fill(words, groups))]  # noqa: B023
    return rows


def captures() -> dict[str, list[str]]:
    decoder, words = IvyDecoder(), Told(Normaliser("fixture"))
    packets = decoder.feed((DATA / "serial_ivy450c" / "Ivy450C.1.data").read_bytes())
    for second, packet in enumerate(packets):
        readings = [reading for line in packet.lines if line_name(line) for reading in read_line(line)]
        words.take(readings, NOW_NS - (len(packets) - second) * 10**9)
    words.event = f"{len(packets)} packets with the waves of one second each, {decoder.skipped_bytes} bytes of none"
    return {"Ivy450C.1.data": [words.words()]}


TABLES: Final[dict[str, Callable[[], dict[str, list[str]]]]] = {
    "ieee11073_20601": apdus,
    "fhir_phd": lambda: resources("fhir_phd"),
    "fhir_pocd": lambda: resources("fhir_pocd"),
    "hl7v2": hl7_messages,
    "ble": notifications,
    "serial_ivy450c": captures,
}


def table_on_the_page(name: str) -> dict[str, list[str]]:
    section = PAGE.read_text().split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in line.removeprefix("| ").removesuffix("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    return {first.strip("`"): rest for first, *rest in cells}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_says_what_becomes_of_every_fixture(name: str) -> None:
    if not DATA.is_dir():
        pytest.skip("the device fixtures are not here: set BEDSIDE_DATA")
    found = TABLES[name]()
    expected = "\n".join(f"| `{first}` | {' | '.join(rest)} |" for first, rest in found.items())
    assert table_on_the_page(name) == found, f"under {name} the page should have\n{expected}"


def test_no_fixture_is_forgotten() -> None:
    if not DATA.is_dir():
        pytest.skip("the device fixtures are not here: set BEDSIDE_DATA")
    assert {path.name for path in DATA.iterdir() if path.is_dir()} == set(TABLES)
