"""The parsers of a device: its configuration, its store, its children, its boards, and what people hand it."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import forms
import msgspec
import numpy as np
import seeds
from forms import json, plain
from registry import add
from seeds import on_file, text

from bedside.core.errors import (
    ConfigError,
    MalformedError,
    StoreError,
    UnavailableError,
)
from bedside.core.unreadable import UNREADABLE
from ivy_packets import LINES, packet


def _made_sink(config) -> None:
    """Its options, and the sink that they make, which opens nothing."""
    from bedside.agent.sinks.kind import SinkContext
    from bedside.agent.sinks.registry import build_sink, typed_sink

    build_sink(config.kind, typed_sink(config), SinkContext(None, None, Path(), "d"))


def _sinks() -> None:
    from bedside.agent.formats.fhir.operation_outcome import outcome_sentence
    from bedside.agent.formats.tables.tail import sound_bytes

    outcomes = [
        b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","diagnostics":"no bed"}]}',
        b'{"resourceType":"OperationOutcome","issue":[{"code":"x","details":{"text":"y"}}],"text":{"div":"z"}}',
    ]
    add("fhir-outcome", "agent.formats.fhir.operation_outcome.outcome_sentence", outcome_sentence, outcomes, json)
    tails = [
        b"number,id,line,lines\n1,a,1,2\n1,a,2,2\n2,b,1,2\n",
        b'7,"a ""b""",1,1\n8,c,1,1\n9,half',
    ]
    add("csv-tail", "agent.formats.tables.tail.sound_bytes", lambda data: sound_bytes(data, 4, (2, 3)), tails, plain)


def _config() -> None:
    from bedside.agent import config as agent
    from bedside.agent.sources.registry import typed_source
    from bedside.authoring.recipe import load_recipe
    from bedside.coordinator.config import DEFAULT_TOML, CoordinatorConfig
    from bedside.coordinator.database_url import parse_database_url
    from bedside.service.config import load_config

    lines = [
        line.removeprefix("# ").partition("  # ")[0].rstrip()
        for line in agent.TEMPLATE.splitlines()
        if "=" in line or line.startswith(("[", "# ["))
    ]
    sections = (
        ("\n" + "\n".join(lines)).replace("\n[sources.", "\n.[sources.").replace("\n[sinks.", "\n.[sinks.").split("\n[")
    )
    examples = [sections[0].encode(), *(("[" + one.replace("\n.", "\n")).encode() for one in sections[1:])]
    add("agent-toml", "agent.config.load_agent_config service.config.load_config",
        on_file("agent/agent.toml", lambda path: agent.load_agent_config(path.parent)),
        examples, plain, ConfigError)  # fmt: skip
    options = [
        b'{"kind":"replay","name":"a","options":{"data":"x.npz","loop":true,"speed":1.5,"stream":"wrist"}}',
        b'{"kind":"serial","name":"a","options":{"channels":[1,2],"port":"/dev/ttyACM0","stream":"wrist"}}',
        b'{"kind":"mllp","name":"a","options":{"beds":{"ICU^3":{"stream":"b","waves":{"1":"c"}}},"listen":"10.0.0.1:1"}}',
        (
            b'{"kind":"mqtt","name":"a","options":{"broker":"b:1883","client_id":"c","topics":{"w/+/v":{"stream":"v-{1}",'
            b'"places":["b1"],"payload":{"kind":"json","values":{"hr":"v.hr"},"time":"ts"}}}}}'
        ),
        (
            b'{"kind":"csv","name":"a","options":{"stream":"v","path":"v.csv","mode":"tail","time_format":"ms",'
            b'"fields":{"heart_rate":{"code":"HR","sent_unit":"/min","missing":[-1]}}}}'
        ),
        (
            b'{"kind":"sql","name":"a","options":{"stream_column":"bed","places":{"B1":"bed-1"},"url":"sqlite:///h.db",'
            b'"query":"select 1 where 1 > :since order by 1","watermark":"id","overlap_ids":5}}'
        ),
        b'{"kind":"wfdb","name":"a","options":{"stream":"e","record":"101","channels":["II"],"labels":{"N":"n"}}}',
    ]
    add("source-options", "agent.sources.registry.typed_source",
        lambda data: typed_source(_json(data, agent.SourceConfig)), options, json, ConfigError)  # fmt: skip
    sinks = [
        b'{"kind":"fhir","name":"a","options":{"url":"https://a.example/r4","codes":{"x":{"code":"1"}},"key":"id"}}',
        b'{"kind":"webhook","name":"a","options":{"url":"http://localhost:1/","mode":"scheduled","at":["06:00"]}}',
        b'{"kind":"csv","name":"a","options":{"directory":"d","send":["records"],"streams":["s"],"max_mib":1}}',
        b'{"kind":"hl7","name":"a","options":{"address":"10.0.0.9:2575","mode":"event","labels":["x"]}}',
    ]
    add("sink-options", "agent.sinks.registry.typed_sink", lambda data: _made_sink(_json(data, agent.SinkConfig)),
        sinks, json, ConfigError)  # fmt: skip
    filled = DEFAULT_TOML.format(
        service_address='service_address = "0.0.0.0:1"', enrolment_address='enrolment_address = "0.0.0.0:2"',
        public_service_address="", public_enrolment_address="",
    )  # fmt: skip
    add("coordinator-toml", "coordinator.config.CoordinatorConfig",
        on_file("coordinator/coordinator.toml", lambda path: load_config(path, CoordinatorConfig)), [_bare(filled)],
        plain, ConfigError)  # fmt: skip
    urls = [b"postgresql://fed@db:5432/bedside?sslmode=verify-full&sslrootcert=ca.pem", b"postgres:///b?host=/run/pg"]
    add("database-url", "coordinator.database_url.parse_database_url",
        lambda data: parse_database_url(text(data)), urls, plain, ConfigError)  # fmt: skip
    recipe = _bare((seeds.TESTS / "recipes" / "tiny.toml").read_text())
    add("recipe", "authoring.recipe.load_recipe",
        on_file("recipes/recipe.toml", lambda path: load_recipe(str(path)).net()), [recipe], plain,
        ConfigError)  # fmt: skip
    _data_sets()


def _data_sets() -> None:
    """What an author's data.toml names."""
    from bedside.authoring.data.csv_rows import read_csv
    from bedside.authoring.data.npz_arrays import read_npz
    from bedside.authoring.data.spec import DataSpec, HeldOut, load_data_spec
    from bedside.authoring.recipe import load_recipe

    windows = load_recipe(str(seeds.TESTS / "recipes" / "tiny.toml")).question()
    fields = {"length": 1, "hop": 1, "fields": ("pulse", "spo2")}
    records = dataclasses.replace(windows, window=msgspec.structs.replace(windows.window, **fields))
    told = b'kind = "csv"\nfile = "a.csv"\nclient = "bed"\nlabel = "y"\n[held_out]\nshare = 0.2\nclients = ["b"]\n'
    add("data-toml", "authoring.data.spec.load_data_spec", on_file("data/data.toml", load_data_spec), [told], plain,
        ConfigError)  # fmt: skip
    spec = DataSpec(kind="csv", client="bed", label="y", held_out=HeldOut(share=0.5))
    rows = b"bed,y,pulse,spo2\na,rest,61.5,97\nb,walk,,1e2\n"
    add("data-csv", "authoring.data.csv_rows.read_csv",
        on_file("data/rows.csv", lambda path: read_csv(path, spec, records)), [rows], plain, ConfigError)  # fmt: skip
    add("data-npz", "authoring.data.npz_arrays.read_npz firmware_bridge.recording.read_arrays",
        on_file("data/windows.npz", lambda path: read_npz(path, spec, windows)), [seeds.windows()], forms.arrays,
        ConfigError)  # fmt: skip


def _bare(told: str) -> bytes:
    """A configuration without its comments, which take most of the time."""
    return "\n".join(line for line in told.splitlines() if line and not line.startswith("#")).encode()


def _json(data: bytes, kind: Any) -> Any:
    """A value that another parser has made of these bytes; what it would refuse is not the matter here."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise MalformedError("no-value", "not what is tried here") from error


def _agent() -> None:
    from itertools import islice

    from nacl.secret import SecretBox

    from bedside.agent.api.models import slot_message
    from bedside.agent.api.predictions import window_values
    from bedside.agent.buffer.codec import decode_samples, encode_samples
    from bedside.agent.buffer.derived import open_summary, seal_summary, summary_place
    from bedside.agent.buffer.outputs import decode_outputs, encode_outputs
    from bedside.agent.buffer.records import decode_record, encode_record
    from bedside.agent.buffer.rows import Moments, Output, Summary
    from bedside.agent.buffer.seal import Sealer
    from bedside.agent.cli.label_file import parse_labels
    from bedside.agent.cli.window_file import read_window
    from bedside.agent.device_time import DeviceTime
    from bedside.agent.health.runs import RunNote
    from bedside.agent.inference.choice import Choice, Measured, read_choice
    from bedside.agent.rounds.contribution import ContributionJob
    from bedside.agent.rounds.slots import ActiveModel, Candidate, Origin, Slot, SlotNote, Verdict
    from bedside.agent.serving.view import slot_view
    from bedside.agent.sources.recordings.marks import read_track
    from bedside.agent.training.job import Job
    from bedside.core.ids import SessionId, StreamId
    from bedside.core.samples import Quality, Record
    from bedside.ondevice.confinement import decode_job
    from bedside.ondevice.training.train import Schedule
    from bedside.ondevice.windows.part import Part
    from bedside.service.platform import SystemClock, SystemEntropy

    values = np.arange(40, dtype=np.int16).reshape(20, 2)
    add("signal", "agent.buffer.codec.decode_samples", lambda data: decode_samples(data, 20, 2, "int16"),
        [encode_samples(values)])  # fmt: skip
    box, entropy = SecretBox(b"k" * 32), SystemEntropy()
    sealed = Sealer(b"k" * 32, entropy).seal(
        Part(StreamId("ecg"), SessionId("s"), 7, 7 * 10**9, 20.0, values, "mV", "", 0.5, Quality.GOOD)
    )
    add("sealed-part", "agent.buffer.seal.Sealer.open",
        lambda data: Sealer(b"k" * 32).open(box.encrypt(data, bytes(24)), "ecg", "s", 7), [box.decrypt(sealed)],
        plain, StoreError, base_bytes=34 << 20)  # fmt: skip
    add("sealed-bytes", "agent.buffer.seal.Sealer.open", lambda data: Sealer(b"k" * 32).open(data, "ecg", "s", 7),
        [sealed], plain, StoreError)  # fmt: skip
    vitals = Record(StreamId("bed"), 7, {"spo2": 97.0, "hr": math.nan}, {"spo2": "%"})
    add("record-row", "agent.buffer.records.decode_record", lambda data: decode_record(data, StreamId("bed"), 7),
        [encode_record(vitals)])  # fmt: skip
    summary = Summary(StreamId("s"), SessionId("x"), 1, (Moments("0", "mV", 9, 0.5, 0.0, 1.0, 0.1),), 0, Quality.GOOD)
    sealer, place = Sealer(b"k" * 32, entropy), summary_place("s", "x", 1)
    add("summary-row", "agent.buffer.derived.open_summary",
        lambda data: open_summary(sealer, sealer.seal_row(place, data), summary.stream, summary.session, 1),
        [sealer.open_row(seal_summary(sealer, summary), place)], plain, StoreError)  # fmt: skip
    outputs = encode_outputs([Output("po2", 11.5, "kPa"), Output("af", 0.25)])
    add("prediction-outputs", "agent.buffer.outputs.decode_outputs", decode_outputs, [outputs, b""])
    add("run-note", "agent.health.runs.RunNote", on_file("runs/runs.json", lambda path: RunNote(path.parent).restarts),
        [b'{"starts":3,"clean":false}'], json)  # fmt: skip
    add("time-note", "agent.device_time.DeviceTime",
        on_file("time/trusted-time.json", lambda path: DeviceTime(path.parent, SystemClock()).degraded),
        [b'{"trusted_ns":1800000000000000000}'], json)  # fmt: skip
    active = ActiveModel("0a" * 32, "0b" * 32, ("0c" * 32,))

    def served(path: Path) -> object:
        slots = SlotNote(path).read()
        models = [model for slot in slots.values() for model in slot.needed()]
        shown = [slot_message(slot_view(name, slot)) for name, slot in slots.items()]
        return shown, [(one.digest, [bytes.fromhex(key) for key in one.signer_pks]) for one in models]

    verdict = Verdict("0b" * 32, "passed", "better", "accuracy", 120, 0.5, 0.75, 1_800_000_000)
    origin, candidate = Origin("har.tar", "0d" * 32), Candidate(active, "held")
    slots = {"slots": {"har": Slot(active, origin, active, candidate, Candidate(active), (active,), (verdict,), True)}}
    add("active-model", "agent.rounds.slots.SlotNote.read", on_file("active.json", served),
        [msgspec.json.encode(active), msgspec.json.encode(slots)], json, StoreError)  # fmt: skip
    measured = (Measured("litert", 7.5, 9.0), Measured("onnx", 22.0, 30.5))
    add("runtime-choice", "agent.inference.choice.read_choice", on_file("choice.json", read_choice),
        [msgspec.json.encode(Choice("litert", "auto 1 2", measured))], json)  # fmt: skip
    add("labels-csv", "agent.sources.recordings.marks.read_track",
        on_file("labels.csv", lambda path: list(islice(read_track(path, loop=False).timeline(), 99))),
        [b"start_s,end_s,label\n0.5,2,rest\n2,3.25,walk\n", b'label,start_s,end_s\n"a, b",1e3,2e3\n'], plain,
        ConfigError)  # fmt: skip
    add("label-file", "agent.cli.label_file.parse_labels", lambda data: parse_labels(data, "beats.csv", stream="ecg"),
        [b"start_s,end_s,label\n0.5,2,rest\n1e1,11.25,walk\n", b"start_ns,end_ns,label,session\n5,6,x,0a\n",
         b"start_s,end_s,label,value\n5,6,po2,11.5\n6,7,x,\n",
         b'label,start,end,stream\n"a, b",2026-03-01T08:00:00Z,2026-03-01 09:00+00:30,ecg\n'])  # fmt: skip
    window, array = np.arange(6, dtype=np.float32).reshape(3, 2), io.BytesIO()
    np.save(array, window)
    add("window-values", "agent.api.predictions.window_values", window_values, [window.tobytes()])
    add("window-array", "agent.cli.window_file.read_window", on_file("window.npy", read_window), [array.getvalue()],
        plain, ConfigError)  # fmt: skip
    add("window-lines", "agent.cli.window_file.read_window", on_file("window.csv", read_window),
        [b"0.5,1\n-2e3,nan\n"], plain, ConfigError)  # fmt: skip
    job = Job("b.tar", ("0a" * 32,), Schedule(0.1, 0.9, 0.0, 32, 2, 64, 4, 7))
    add("training-job", "ondevice.confinement.decode_job", lambda data: decode_job(data, Job),
        [msgspec.json.encode(job)], json)  # fmt: skip
    kept = ContributionJob(b"offer", "identity", "state", active, "words", "kept", "", 7, "round-1")
    add("contribution-job", "ondevice.confinement.decode_job", lambda data: decode_job(data, ContributionJob),
        [msgspec.json.encode(kept)], json)  # fmt: skip


def _local() -> None:
    """What people type."""
    from bedside.agent.cli.label_file import parse_moment

    add("moment", "agent.cli.label_file.parse_moment", lambda data: parse_moment(text(data)),
        [b"2026-03-01T08:00:00Z", b"1700000000.25"])  # fmt: skip


def _children() -> None:
    """What a parent and its child say to each other."""
    from bedside.ondevice.confinement import read_line

    add("child-line", "ondevice.confinement.read_line", read_line,
        [b'{"progress":{"epoch":1}}\n', b'{"result":{"counts":{}}}\n',
         b'{"error":{"kind":"TrustError","code":"bad","sentence":"it is bad","remedy":""}}\n'], json,
        UnavailableError)  # fmt: skip


def _unfinished() -> None:
    """What a training leaves on the disk between two sittings."""
    from bedside.agent.frames import FrameReader, FrameWriter
    from bedside.agent.training.saved import _PURPOSE, SavedTraining, read_facts
    from bedside.agent.windows.training import Horizon
    from bedside.ondevice.training.position import Position, Saved
    from bedside.service.platform import SystemEntropy

    key, path = b"k" * 32, seeds.SCRATCH / "seed.state"
    state = {"w": np.ones((3, 2), np.float32), "q": np.ones(5, np.int8), "steps": np.array(1, np.float32)}
    saved = Saved(Position(losses=(0.5,), step=1), state)
    SavedTraining(path, key).write(saved, SystemEntropy(), fit=b"f" * 32, horizon=Horizon(3, 9), spent_s=1.5)
    whole = path.read_bytes()
    with path.open("rb") as file:
        facts = FrameReader(key, _PURPOSE).read(file, 0, 1 << 20)

    def resealed(data: bytes) -> object:
        again = seeds.SCRATCH / "facts.state"
        with again.open("wb") as file:
            frames = FrameWriter(file, key, _PURPOSE, SystemEntropy())
            frames.write(data)
            frames.write(bytes(24))
        with again.open("rb") as file:
            read_facts(file, FrameReader(key, _PURPOSE))
        return SavedTraining(again, key).read()

    add("unfinished-training", "agent.training.saved.SavedTraining agent.frames.FrameReader",
        on_file("state", lambda path: SavedTraining(path, key).read()), [whole])  # fmt: skip
    add("unfinished-facts", "agent.training.saved.read_facts", resealed, [facts])


def _personal() -> None:
    from bedside.agent.api.personal import personal_message, personal_row
    from bedside.agent.frames import FrameWriter
    from bedside.agent.personal.files import _PURPOSE, Personal, PersonalFacts, read_personal
    from bedside.agent.personal.report import Figures, Report
    from bedside.agent.personal.view import PersonalView
    from bedside.core.bundle.tensors import encode_tensors
    from bedside.service.platform import SystemEntropy

    key, tensors = b"k" * 32, encode_tensors({"mean1": np.ones(3, np.float32)})
    figures = Figures(0.5, 0.25, 0.1)
    report = Report(at_s=9, sentence="s", windows=50, sessions=2, of_all=figures, serves=figures)
    facts = msgspec.msgpack.encode(PersonalFacts("tiny", "ab" * 32, "cd" * 32, b"t" * 16, False, 1.5, report))

    def sealed(*contents: bytes) -> bytes:
        whole = io.BytesIO()
        frames = FrameWriter(whole, key, _PURPOSE, SystemEntropy())
        for content in contents:
            frames.write(content)
        return whole.getvalue()

    def read(path: Path) -> Personal:
        with path.open("rb") as file:
            return read_personal(file, key)

    def resealed(data: bytes) -> Personal:
        again = seeds.SCRATCH / "facts.personal"
        again.write_bytes(sealed(data, tensors))
        return read(again)

    assert personal_row(personal_message(PersonalView("tiny", report=report))).report == report
    add("personal", "agent.personal.files.read_personal", on_file("personal", read), [sealed(facts, tensors)])
    add("personal-facts", "agent.personal.files.PersonalFacts", resealed, [facts])


def _bluetooth() -> None:
    """The first byte chooses the characteristic."""
    from bedside.agent.formats.gatt import DECODERS, decode_report

    kinds = list(DECODERS)
    add("gatt", "agent.formats.gatt.decode_report",
        lambda data: decode_report(kinds[data[0] % len(kinds)], data[1:]) if data else None,
        [bytes.fromhex(one) for one in (
            "00 16485401ec02", "00 1f48003412000400030102", "01 0f62004800ea07031a0e1e0f2000000000 17f0",
            "02 1f620048006100490063004700200000000017f0", "03 07cb0300ffea07031a0e1e0f06",
            "04 1e79004b005c00ea07031a0e1e0f5000020200", "05 009600ff07ff07",
        )])  # fmt: skip


def _monitors() -> None:
    from bedside.agent.formats.ivy450c import IvyDecoder, read_line

    sent = packet(lines=("HR=1;72;ECG-II-DIAG;", "P2=3;;;;NO TRANSDUCER;"))
    add("ivy450c", "agent.formats.ivy450c.IvyDecoder.feed", lambda data: IvyDecoder().feed(data),
        [sent, sent[300:] + sent])  # fmt: skip
    add("ivy450c-line", "agent.formats.ivy450c.read_line", lambda data: read_line(text(data)),
        [line.encode() for line in LINES])  # fmt: skip


def _industrial_io() -> None:
    """A scan's elements by their forms, one a line, and after an empty line its bytes."""
    from bedside.agent.formats.iio import ScanLayout, parse_form, parse_number

    def scans(data: bytes) -> object:
        forms, _, rest = data.partition(b"\n\n")
        layout = ScanLayout([parse_form(one) for one in text(forms).split("\n")])
        return layout.decode(rest)

    add("iio-scan", "agent.formats.iio.parse_form agent.formats.iio.ScanLayout.decode", scans,
        [b"le:s16/16>>0\nbe:u12/16>>4\nle:s64/64>>0\n\n" + bytes(range(32)),
         b"le:s32/32X4>>0\n\n" + bytes(16)])  # fmt: skip
    add("iio-number", "agent.formats.iio.parse_number", lambda data: parse_number(text(data)), [b"21500\n", b"-0.061"])


def _boards() -> None:

    from bedside.firmware_bridge.frames import FrameParser, write_frame
    from bedside.firmware_bridge.messages import (
        Hello,
        HelloRequest,
        Samples,
        SampleType,
        StreamInfo,
        decode_message,
        encode_message,
    )
    from bedside.firmware_bridge.recording import read_recording

    info = StreamInfo("ecg", 2, 250_000, SampleType.INT16, "mV", "MDC_ECG_ELEC_POTL", 0.25)
    hello = Hello(7, "board-1", "1.0", (info,))
    samples = Samples(0, 3, 8_000, np.array([[1, -1], [0, 5]], np.int16))
    wire = [encode_message(one) for one in (hello, samples, HelloRequest())]
    add("board-message", "firmware_bridge.messages.decode_message", lambda data: decode_message(data, (info,)), wire)
    stream = write_frame(hello) + write_frame(samples) + write_frame(Samples(0, 9, 9_000, samples.values))
    add("frames", "firmware_bridge.frames.FrameParser.feed", lambda data: FrameParser().feed(data), [stream],
        forms.frames)  # fmt: skip
    add("recording", "firmware_bridge.recording.read_recording core.arrays.announced_bytes",
        on_file("recording.npz", read_recording), [seeds.recording()], forms.arrays, ConfigError,
        base_bytes=4 << 20)  # fmt: skip


_config()
_agent()
_local()
_children()
_unfinished()
_personal()
_bluetooth()
_monitors()
_industrial_io()
_sinks()
_boards()
