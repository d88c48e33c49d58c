"""WFDB and EDF files, read in a child and played: values, units, labels, gaps, refusals."""

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyedflib
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.formats.edf_annotations import read_tals
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Block, Mark, MarkKind, Quality
from bedside.ondevice.windows.part import end_ns, offset_ns
from bedside.service.platform import SystemClock
from wfdb_records import read_record

DATA = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "icu_waveforms").is_dir(), reason=f"no records in {DATA}")
T0 = 1_700_000_000_000_000_000


async def play(folder: Path, kind: str, **options: object) -> list[Block | Mark]:
    context = SourceContext(SystemClock(), lambda stream: 0, folder, state_dir=folder / "state")
    config = SourceConfig(kind=kind, name="file", options={"stream": "ecg", "speed": 0.0, "start_ns": T0, **options})
    source = build_source(kind, typed_source(config), context)
    events = [event async for event in source.events()]
    assert list((folder / "state" / "reading").iterdir()) == []  # nothing of a patient is left there
    return events


def values_of(events: list[Block | Mark]) -> np.ndarray:
    return np.concatenate([event.values for event in events if isinstance(event, Block)])


def gaps_of(events: list[Block | Mark], rate_hz: float) -> list[tuple[int, int]]:
    """(sample, samples missing before it), by the times of the blocks; every one of them is flagged, and no other."""
    blocks = [event for event in events if isinstance(event, Block)]
    found, at = [], 0
    for block in blocks:
        begins = round((block.start_ns - T0) * rate_hz / 1e9)
        assert (begins > at and at > 0) == bool(block.quality & Quality.GAP_BEFORE)
        if begins > at:
            found.append((begins, begins - at))
        at = begins + len(block.values)
    return found


def write_edf(path: Path, *, records: int = 6, rates: tuple[int, ...] = (250, 250, 25), edf_plus: bool = True) -> None:
    kind = pyedflib.FILETYPE_EDFPLUS if edf_plus else pyedflib.FILETYPE_EDF
    with pyedflib.EdfWriter(str(path), len(rates), file_type=kind) as file:
        file.setSignalHeaders(
            [
                {
                    "label": f"S{number}",
                    "dimension": "mV",
                    "sample_frequency": rate,
                    "physical_max": 10.0,
                    "physical_min": -10.0,
                    "digital_max": 1000,
                    "digital_min": -1000,
                    "transducer": "",
                    "prefilter": "",
                }
                for number, rate in enumerate(rates)
            ]
        )
        file.setStartdatetime(datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC))
        for record in range(records):
            for number, rate in enumerate(rates):
                file.writeDigitalSamples(np.arange(rate, dtype=np.int32) + record - 100 * number)
        if edf_plus:
            file.writeAnnotation(1.5, 0.5, "arousal")
            file.writeAnnotation(4, -1, "spike")
            file.writeAnnotation(4.5, -1, "Mr Miller moved")


def break_off(path: Path, *onsets: tuple[bytes, bytes]) -> None:
    """Make the file discontinuous: data records that begin later."""
    data = path.read_bytes().replace(b"DF+C", b"DF+D", 1)
    for before, after in onsets:
        assert data.count(before) == 1
        data = data.replace(before, after)
    path.write_bytes(data)


LABELS = {"arousal": "awake", "spike": "spike"}


async def test_an_edf_file_plays_exactly_what_was_written_with_the_labels_that_are_named(tmp_path) -> None:
    write_edf(tmp_path / "night.edf")
    events = await play(tmp_path, "edf", path="night.edf", channels=["S1", "S0"], labels=LABELS)
    values = values_of(events)
    first = next(event for event in events if isinstance(event, Block))
    expected = np.concatenate([np.arange(250) + record for record in range(6)])
    assert (values.dtype, first.unit, first.rate_hz) == (np.int16, "mV", 250.0)
    assert first.scale == pytest.approx(0.01)
    assert np.array_equal(values, np.stack([expected - 100, expected], axis=1))
    marks = [event for event in events if isinstance(event, Mark) and event.kind is MarkKind.LABEL]
    assert [(m.label, (m.start_ns - T0) / 1e9, (m.end_ns - T0) / 1e9) for m in marks] == [
        ("awake", 1.5, 2.0),
        ("spike", 4.0, 4.004),
    ]


async def test_a_discontinuous_edf_file_has_gaps_where_nothing_was_recorded(tmp_path) -> None:
    write_edf(tmp_path / "night.edf", rates=(250,))
    break_off(tmp_path / "night.edf", (b"+5\x14\x14\x00\x00", b"+25\x14\x14\x00"))
    events = await play(tmp_path, "edf", path="night.edf", labels=LABELS)
    assert gaps_of(events, 250.0) == [(25 * 250, 20 * 250)]
    assert len(values_of(events)) == 6 * 250
    assert values_of(events).dtype == np.int16


async def test_a_discontinuous_bdf_file_keeps_its_24_bits(tmp_path) -> None:
    path, values = tmp_path / "night.bdf", np.arange(-3_000_000, 3_000_000, 10_000, dtype=np.int32)
    with pyedflib.EdfWriter(str(path), 1, file_type=pyedflib.FILETYPE_BDFPLUS) as file:
        head = {"label": "EEG", "dimension": "uV", "sample_frequency": 100, "transducer": "", "prefilter": ""}
        limits = {"physical_max": 8000.0, "physical_min": -8000.0, "digital_max": 8_000_000, "digital_min": -8_000_000}
        file.setSignalHeaders([head | limits])
        for record in range(6):
            file.writeDigitalSamples(values[record * 100 : record * 100 + 100])
    break_off(path, (b"+5\x14\x14\x00", b"+9\x14\x14\x00"))
    events = await play(tmp_path, "edf", path="night.bdf")
    assert (values_of(events).dtype, values_of(events)[:, 0].tolist()) == (np.int32, values.tolist())
    assert next(event.scale for event in events if isinstance(event, Block)) == pytest.approx(0.001)
    assert gaps_of(events, 100.0) == [(900, 400)]


async def test_edf_records_that_overlap_are_refused(tmp_path) -> None:
    write_edf(tmp_path / "night.edf", rates=(250,))
    break_off(tmp_path / "night.edf", (b"+5\x14\x14\x00", b"+3\x14\x14\x00"))
    with pytest.raises(MalformedError, match="overlap"):
        await play(tmp_path, "edf", path="night.edf")


async def test_signals_of_several_rates_are_no_stream_and_the_refusal_lists_them(tmp_path) -> None:
    write_edf(tmp_path / "plain.edf", edf_plus=False)
    with pytest.raises(ConfigError, match=r"S2 cannot go with S0.*S1 \(250 Hz, mV\), S2 \(25 Hz, mV\)"):
        await play(tmp_path, "edf", path="plain.edf")
    with pytest.raises(ConfigError, match="0 signals 'ECG'"):
        await play(tmp_path, "edf", path="plain.edf", channels=["ECG"])
    assert len(values_of(await play(tmp_path, "edf", path="plain.edf", channels=["S2"]))) == 6 * 25


async def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path) -> None:
    (tmp_path / "night.edf").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(MalformedError, match=r"night\.edf cannot be read"):
        await play(tmp_path, "edf", path="night.edf")
    (tmp_path / "x.hea").write_text("x 1 250 10\nx.dat 212 200 11 1024 0 0 0 II\n")
    with pytest.raises(MalformedError, match="bad-wfdb"):
        await play(tmp_path, "wfdb", record="x")
    with pytest.raises(ConfigError, match="recording-missing"):
        await play(tmp_path, "wfdb", record="nothing")


def test_annotations_of_a_record_are_read_and_wrong_ones_refused() -> None:
    data = b"+2.5\x14\x14\x00+3\x150.25\x14a\x14b\x14\x00\x00\x00"
    assert [tuple(tal) for tal in read_tals(data)] == [(2.5, 0.0, ()), (3.0, 0.25, ("a", "b"))]
    for wrong in (b"2\x14\x14\x00", b"+2\x14", b"+2\x15x\x14\x14", b"+1\x14\xff\x14"):
        with pytest.raises(MalformedError):
            read_tals(wrong)


@needs_data
async def test_a_wfdb_record_plays_whole_steps_and_its_annotations_as_labels(tmp_path) -> None:
    known = read_record(DATA / "mitdb_wfdb", "101")
    events = await play(
        tmp_path, "wfdb", record=str(DATA / "mitdb_wfdb" / "101"), labels={"N": "normal", "V": "ventricular"}
    )
    values = values_of(events)
    first = next(event for event in events if isinstance(event, Block))
    assert values.dtype == np.int16
    assert np.array_equal(values, known.values - np.array(known.zero, np.int16))
    assert (first.rate_hz, first.unit, first.scale) == (360.0, "mV", 1 / known.per_mv)
    beats = [(m.start_ns, m.label) for m in events if isinstance(m, Mark) and m.kind is MarkKind.LABEL]
    named = {"N": "normal", "V": "ventricular"}
    expected = [
        (T0 + offset_ns(int(beat), 360.0), named[symbol])
        for beat, symbol in zip(known.beats, known.symbols, strict=True)
        if symbol in named
    ]
    assert beats == expected
    assert gaps_of(events, 360.0) == []


@needs_data
async def test_missing_segments_of_an_icu_record_are_gaps_and_a_lead_that_is_off_is_not_a_zero(tmp_path) -> None:
    record = str(DATA / "icu_waveforms/wfdb/s25047/s25047-2704-05-04-10-44")
    events = await play(tmp_path, "wfdb", record=record, channels=["II", "V"])
    values = values_of(events)
    first = next(event for event in events if isinstance(event, Block))
    assert round((first.start_ns - T0) / 8_000_000) >= 25_740  # the first segment of the header is empty
    assert np.count_nonzero(np.isfinite(values), axis=0).tolist() == [543_240 - 26_462, 543_240 - 25_869]  # by rdrecord
    assert not np.isnan(values).all(axis=1).any()
    last = max((e for e in events if isinstance(e, Block)), key=lambda e: e.start_ns)
    assert end_ns(last) <= T0 + offset_ns(543_240, 125.0)
    with pytest.raises(ConfigError, match=r"ABP cannot go with II in one stream.*ABP \(125 Hz, mmHg\)"):
        await play(tmp_path, "wfdb", record=record)


@needs_data
async def test_a_signal_sampled_several_times_per_frame_keeps_its_samples(tmp_path) -> None:
    record = str(DATA / "icu_waveforms/wfdb/03700181")
    events = await play(tmp_path, "wfdb", record=record, channels=["MCL1"])
    assert next(e for e in events if isinstance(e, Block)).rate_hz == 500.0
    assert values_of(events).shape == (300_000, 1)
