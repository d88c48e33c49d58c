"""What a device does all day: samples kept, bytes written, time to a decision, memory of the resident process.

    .venv/bin/python benchmarks/edge.py --json
    .venv/bin/python benchmarks/edge.py --seconds 5        # quick, to see that it runs

load     A real agent process takes 50 streams of 8 channels at 250 Hz and 50 streams of one record of 8 vital signs
         per second, in real time. Then its buffer is read back and compared with what was made, sample by sample.
         Another process looks every 5 ms for what has been committed; the age of a part's first sample at that moment
         is what a power cut could take.
ingest   One stream of 8 x 250 Hz into the agent's store, as fast as it goes, on a clock that runs with the signal, so
         that it commits as on a device. Peers in the same run: one row per value, through sqlite3 and sqlite-utils.
         Written bytes are those that the kernel counts (write_bytes of /proc/self/io): log, checkpoints and all.
latency  A real agent process with the HAR and the ECG bundle, four streams each, in real time. From the arrival of the
         block that closes a window to the decision, as stored with every prediction; for HAR, where a window ends with
         a known block, also to a follower of the local API in another process. Then the same once more while a child
         trains the HAR bundle beside it, as the agent has it trained: 32 windows a step, one thread, in the background.
memory   `bedside agent run` with one stream and one model, once per runtime: resident and anonymous memory of the one
         process (/proc/PID/smaps_rollup) while it predicts, in MB of 10^6 bytes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from device.directory import Played, Served, build_tar, make_device
from device.signals import (
    LEAD_RATE_HZ,
    MOTION_RATE_HZ,
    WAVE_CHANNELS,
    WAVE_RATE_HZ,
    lead,
    motion,
    vital_signs,
    wave,
)
from device.watching import Watch, watched
from report import Figure, emit, figure, plain_arguments, table

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.core.errors import StoreError

HERE = Path(__file__).resolve().parent
STREAMS = 50
MODEL_STREAMS = 4
MIN_INGEST_S = 300
"""Seconds of signal in the ingest: what a new file costs once must not show."""

PEERS = ("rows", "sqlite-utils")
MIN_WINDOWS = 3
PATIENCE_S = 60.0
GOALS = {"litert": (80.0, 40.0), "onnx": (110.0, 50.0)}
"""Resident and anonymous MB."""


def run_loaded(device: Path, records: int, seconds: int, out: Path) -> tuple[dict[str, Any], np.ndarray, Watch]:
    """Run a loaded agent to the end of its sources: what it took, its arrivals, and what was seen from outside."""
    command = [sys.executable, str(HERE / "device" / "loaded.py"), str(device), str(records), str(seconds), str(out)]
    with watched(device) as watch:
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the agent ended with {done.returncode}: {done.stderr[-2_000:]}")
    return json.loads(out.read_text()), np.load(out.with_suffix(".npy")), watch


def open_buffer(device: Path) -> BufferReader:
    """Read what an agent has stored."""
    return BufferReader(device / "state" / "buffer.db", load_key_ring(device / "state" / "identity"))


def lost_samples(device: Path, made: dict[str, np.ndarray]) -> int:
    """Values of waveforms that the buffer does not give back as they were made, in their order and without a gap."""
    lost = 0
    with closing(open_buffer(device)) as reader:
        for stream, values in made.items():
            sessions = reader.sessions(stream)
            found = [one for session in sessions for one in reader.read_range(stream, session.session)]
            whole = np.concatenate([one.values for one in found]) if found else values[:0]
            if len(found) == 1 and np.array_equal(whole, values):
                continue
            same = min(len(whole), len(values))
            lost += values.size - int((whole[:same] == values[:same]).sum())
    return lost


def lost_records(device: Path, streams: int, seconds: int) -> int:
    """Values of records that the buffer does not give back as they were made."""
    lost = 0
    with closing(open_buffer(device)) as reader:
        for number in range(streams):
            stream = f"vitals-{number}"
            found = [dict(one.values) for s in reader.sessions(stream) for one in reader.records(stream, s.session)]
            made = [vital_signs(number, second) for second in range(seconds)]
            lost += sum(8 for at, values in enumerate(made) if at >= len(found) or found[at] != values)
    return lost


def durable_s(told: dict[str, Any], arrivals: np.ndarray, watch: Watch) -> list[float]:
    """For every part: how long its first sample had been here when a reader saw the part."""
    ages = []
    for number, name in watch.streams.items():
        if name not in told["sources"]:
            continue
        mine = arrivals[arrivals["f0"] == told["sources"].index(name)]
        for stream, start_ns, seen_s in watch.parts.values():
            if stream == number:
                first = int(np.searchsorted(mine["f1"], start_ns, side="right"))
                ages.append(seen_s - float(mine["f2"][first]))
    return ages


def measure_load(folder: Path, seconds: int) -> tuple[list[Figure], dict[str, Any]]:
    """50 streams and 50 streams of records."""
    made = {f"wave-{number}": wave(number, seconds) for number in range(STREAMS)}
    device = make_device(folder / "load", [Played(name, values, WAVE_RATE_HZ) for name, values in made.items()], [])
    told, arrivals, watch = run_loaded(device, STREAMS, seconds, folder / "load.json")
    ages = durable_s(told, arrivals, watch)
    cpu = told["cpu_s"] / told["wall_s"]
    waves, records = lost_samples(device, made), lost_records(device, STREAMS, seconds)
    values = STREAMS * seconds * 8 * (round(WAVE_RATE_HZ) + 1)
    note = f"of {values:,} values in {seconds} s: {STREAMS} streams of {WAVE_CHANNELS} x {WAVE_RATE_HZ:g} Hz and"
    note += f" {STREAMS} of 8 vital signs per second; {waves} of waveforms and {records} of records missing or changed"
    per_stream = told["written_bytes"] / STREAMS / seconds / 1024
    figures = [
        figure("samples_lost", waves + records, "values", goal=0, better="lower", note=note),
        figure("load_cpu_share", cpu / 2, "of two cores", better="lower", note="the whole agent process in that load"),
        figure(
            "kib_written_per_s_of_50_streams", per_stream, "KiB per stream and second", goal=16, better="lower",
            note="all that the agent wrote in that load, records included, by waveform streams and seconds",
        ),
        figure(
            "durable_max_s", max(ages, default=None), "s", goal=1.1, better="lower",
            note=f"of {len(ages):,} parts in that load; the reader looks every 5 ms",
        ),
    ]  # fmt: skip
    return figures, told | {"parts_seen": len(ages), "cpu_of_one_core": cpu}


def measure_ingest(folder: Path, seconds: int) -> tuple[list[Figure], dict[str, Any]]:
    """The store beside rows per value."""
    found = {}
    for layout in ("ours", "catching-up", *PEERS):
        length = max(MIN_INGEST_S // 10, seconds) if layout in PEERS else max(MIN_INGEST_S, 10 * seconds)
        command = [sys.executable, str(HERE / "device" / "layouts.py"), layout, str(folder / layout), str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[layout] = json.loads(done.stdout)
    ours, unpaced, peer = found["ours"], found["catching-up"], found["rows"]
    other = found["sqlite-utils"]
    also = f"; sqlite-utils: {other['kib_per_s']:.0f} KiB, {other['x_realtime']:.0f} times real time"
    counted = ours["kib_per_s"] > 0
    written = "one stream alone, so that nothing shares its commits" + also
    return [
        figure(
            "kib_written_per_s_8x250", ours["kib_per_s"] if counted else None, "KiB per second of signal", goal=16,
            better="lower", ours=ours["kib_per_s"], peer="one row per value, sqlite3", peer_value=peer["kib_per_s"],
            note=written if counted else "the kernel counts no bytes for this file system: set TMPDIR to a disk",
        ),
        figure(
            "buffer_x_realtime", unpaced["x_realtime"], "times real time", goal=1_000, better="higher",
            ours=unpaced["x_realtime"], peer="one row per value, sqlite3", peer_value=peer["x_realtime"],
            note=f"wall time of a store that catches up, on its group commit of 1 s; {unpaced['x_cpu']:,.0f} by"
            f" its own CPU time; with one synced commit per second of signal {ours['x_realtime']:,.0f}",
        ),
    ], found  # fmt: skip


def measure_training(folder: Path, seconds: int) -> tuple[list[Figure], dict[str, Any]]:
    """From arrival to decision while a child trains."""
    tar, out = build_tar("har", folder), folder / "trains.json"
    command = [sys.executable, str(HERE / "device" / "trains.py"), str(tar), str(out)]
    trains = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        if trains.stdout is None or not trains.stdout.readline():
            raise RuntimeError("nothing trains")
        found, detail = measure_latency(folder, seconds, name="training")
        trains.terminate()
        trains.wait(PATIENCE_S)
    finally:
        trains.kill()
        trains.wait()
    value, steps = found[0]["value"], json.loads(out.read_text())["steps"]
    note = f"the larger of the two bundles' p99 while a child trained the HAR bundle: {steps} steps of 32 windows"
    name = "sensor_to_decision_p99_ms_while_training"
    return [figure(name, value, "ms", goal=10, better="lower", note=note)], detail | {"steps": steps}


def measure_latency(folder: Path, seconds: int, name: str = "latency") -> tuple[list[Figure], dict[str, Any]]:
    """From arrival to decision."""
    numbers = range(MODEL_STREAMS)
    # A session's border sets the windows of each stream off against the others', as those of real sensors are.
    apart = [(0, 1 + 64 * number // MODEL_STREAMS) for number in numbers]
    played = [Played(f"waist-{at}", motion(at, seconds), MOTION_RATE_HZ, apart[at]) for at in numbers]
    played += [Played(f"ecg-{number}", lead(number, seconds), LEAD_RATE_HZ) for number in numbers]
    served = [
        Served(build_tar(recipe, folder), tuple(f"{stream}-{number}" for number in numbers))
        for recipe, stream in (("har", "waist"), ("ecg", "ecg"))
    ]
    device = make_device(folder / name, played, served)
    told, arrivals, watch = run_loaded(device, 0, seconds, folder / f"{name}.json")
    with closing(open_buffer(device)) as reader:
        predictions = reader.predictions(limit=1_000_000)
    figures, detail, p99s = [], dict(told), []
    for model in ("har", "ecg"):
        mine = [1e3 * one.latency_s for one in predictions if one.model_name == model]
        for share in (50, 99):
            value = float(np.percentile(mine, share)) if mine else None
            figures.append(
                figure(f"{model}_to_decision_p{share}_ms", value, "ms", better="lower", note=_windows(len(mine), model))
            )
        p99s.append(value)
        detail[model] = {"predictions": len(mine), "max_ms": max(mine, default=None)}
    ages = durable_s(told, arrivals, watch)
    outside = _outside(predictions, told, arrivals, watch)
    detail |= {"durable_max_s": max(ages, default=None), "har_to_follower_p99_ms": outside}
    worst = max((one for one in p99s if one is not None), default=None)
    note = "the larger of the two bundles' p99; told by the agent with every prediction"
    note += f"; for HAR, a follower in another process had it after {outside:.1f} ms (p99)" if outside else ""
    figures.insert(0, figure("sensor_to_decision_p99_ms", worst, "ms", goal=10, better="lower", note=note))
    return figures, detail


def _windows(count: int, model: str) -> str:
    return f"{count} windows of {MODEL_STREAMS} streams in real time" if count else f"no window of {model} in that time"


def _outside(predictions: list[Any], told: dict[str, Any], arrivals: np.ndarray, watch: Watch) -> float | None:
    """p99, in ms, from the arrival of the block that closed a HAR window to the decision at a follower."""
    took = []
    for one in predictions:
        if one.model_name == "har" and one.number in watch.decisions:
            mine = arrivals[arrivals["f0"] == told["sources"].index(one.stream)]
            last = int(np.searchsorted(mine["f1"], one.end_ns, side="left"))
            took.append(1e3 * (watch.decisions[one.number] - float(mine["f2"][min(last, len(mine) - 1)])))
    return float(np.percentile(took, 99)) if took else None


def measure_memory(folder: Path, seconds: int) -> tuple[list[Figure], dict[str, Any]]:
    """One source, one model, one process."""
    figures, detail = [], {}
    for runtime in ("litert", "onnx"):
        here = runtime == "onnx" or any(importlib.util.find_spec(name) for name in ("ai_edge_litert", "tflite_runtime"))
        used = _agent_memory(folder, runtime, seconds) if here else None
        note = "`bedside agent run`, HAR at 50 Hz x 9"
        if not here:
            note = "LiteRT is not installed: pip install 'bedside[litert]'"
        for at, (name, kind) in enumerate((("rss", "resident"), ("anon", "anonymous"))):
            figures.append(
                figure(f"agent_{name}_mb_{runtime}", used[at] if used else None, f"MB {kind}",
                       goal=GOALS[runtime][at], better="lower", note=note)
            )  # fmt: skip
        detail[runtime] = used
    return figures, detail


def _agent_memory(folder: Path, runtime: str, seconds: int) -> tuple[float, float]:
    played = [Played("waist", motion(0, 120 + 4 * seconds), MOTION_RATE_HZ)]
    device = make_device(folder / runtime, played, [Served(build_tar("har", folder))], runtime=runtime)
    command = [sys.executable, "-m", "bedside.service", "agent", "run", str(device)]
    agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_windows(device, agent)
        time.sleep(min(20.0, seconds / 2))  # what was needed at the start only goes back
        told = (Path("/proc") / str(agent.pid) / "smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in told if line.endswith("kB")}
        return sizes["Rss"], sizes["Anonymous"]
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(30)


def _await_windows(device: Path, agent: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s and agent.poll() is None:
        time.sleep(0.2)
        with suppress(StoreError), closing(open_buffer(device)) as reader:  # its tables come with its first moments
            last = reader.last_prediction()
            if last is not None and last.number >= MIN_WINDOWS:
                return
    raise RuntimeError(f"no predictions came within {PATIENCE_S:g} s; the agent's status is {agent.poll()}")


def main() -> None:
    """Measure and print."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of the loads in real time [60]")
    asked = parser.parse_args()
    figures: list[Figure] = []
    detail: dict[str, Any] = {"seconds": asked.seconds, "load_average": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="bedside-edge-") as name:
        for part in (measure_load, measure_ingest, measure_latency, measure_training, measure_memory):
            found, more = part(Path(name), asked.seconds)
            figures += found
            detail[part.__name__.removeprefix("measure_")] = more
            if not asked.json:
                print(_shown(found), flush=True)
    emit("edge", 1, figures, detail)


def _shown(figures: list[Figure]) -> str:
    rows = [
        [
            one["name"],
            "-" if one["value"] is None else f"{one['value']:,}",
            one["unit"],
            one.get("goal", ""),
            one["note"],
        ]
        for one in figures
    ]
    return table(("figure", "value", "unit", "goal", "note"), [[str(cell) for cell in row] for row in rows])


if __name__ == "__main__":
    main()
