"""The benchmark of the device: it runs, names its figures, and would see a sample that is lost or late."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.service.platform import SystemClock, SystemEntropy

ROOT = Path(__file__).parents[2]
NAMES = (
    *("samples_lost", "load_cpu_share", "kib_written_per_s_of_50_streams", "durable_max_s"),
    *("kib_written_per_s_8x250", "buffer_x_realtime", "sensor_to_decision_p99_ms"),
    *("har_to_decision_p50_ms", "har_to_decision_p99_ms", "ecg_to_decision_p50_ms", "ecg_to_decision_p99_ms"),
    "sensor_to_decision_p99_ms_while_training",
    *("agent_rss_mb_litert", "agent_anon_mb_litert", "agent_rss_mb_onnx", "agent_anon_mb_onnx"),
)


@pytest.mark.system
def test_two_seconds_of_it_lose_nothing_and_give_every_figure() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "edge.py"), "--json", "--seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    figures = {one["name"]: one for one in told["figures"]}
    assert tuple(figures) == NAMES
    assert figures["samples_lost"]["value"] == 0, figures["samples_lost"]["note"]
    assert all(one["note"] for one in figures.values())
    absent = {name for name, one in figures.items() if one["value"] is None}
    assert absent <= {name for name in NAMES if "decision" in name or "litert" in name or "kib" in name}


@pytest.fixture
def edge(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import edge

    return edge


@pytest.mark.parametrize(("missing", "lost"), [((), 0), ((3,), 60), ((0,), 60), ((7,), 60)])
def test_a_block_that_is_not_in_the_buffer_is_counted(edge, tmp_path, missing, lost) -> None:
    device = edge.make_device(tmp_path / "device", [], [])
    values = np.arange(480, dtype=np.int16).reshape(80, 6)
    keys = load_key_ring(device / "state" / "identity")
    store = BufferStore(device / "state" / "buffer.db", keys, SystemClock(), SystemEntropy())
    for number in range(8):
        if number not in missing:
            start_ns = 1_800_000_000_000_000_000 + number * 40_000_000
            store.append(Block(StreamId("wave-0"), start_ns, 250.0, values[10 * number : 10 * number + 10]))
    store.close()
    assert (edge.lost_samples(device, {"wave-0": values}) >= lost) is True
    assert (edge.lost_samples(device, {"wave-0": values}) == 0) is not bool(missing)


def test_the_age_of_a_part_is_that_of_its_first_sample(edge) -> None:
    told = {"sources": ["other", "ecg"]}
    arrivals = np.array([(1, 40, 10.0), (0, 50, 1.0), (1, 80, 10.5), (1, 120, 11.0)], dtype="i8,i8,f8")
    watch = edge.Watch(parts={7: (3, 40, 12.0), 9: (3, 39, 12.0)}, streams={3: "ecg", 4: "unknown"})
    assert edge.durable_s(told, arrivals, watch) == [1.5, 2.0]
