"""A week of a device: its file stays under the cap and its memory does not grow.

`BEDSIDE_WEEK_SIGNAL_S` of every `BEDSIDE_WEEK_EVERY_S` seconds have signal; 4 of 300 unless they are set.
"""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from device_week import CAP_BYTES, ECG, EHR, KEY, T0_S, WEEK_S

from bedside.agent.buffer.reader import BufferReader

SIGNAL_S = int(os.environ.get("BEDSIDE_WEEK_SIGNAL_S", "4"))
EVERY_S = int(os.environ.get("BEDSIDE_WEEK_EVERY_S", "300"))
ROW_BYTES = 16 << 10
LOG_BYTES = CAP_BYTES // 8 + (512 << 10)
"""An eighth of the cap and one commit, as the store promises."""
RSS_GROWTH_BYTES = 4 << 20
SETTLED_HOURS = 72
"""When every tier of retention has begun to let go: raw after 12 hours, windows after two days."""


@pytest.mark.timeout(1_800)
def test_a_week_stays_within_the_cap_and_in_the_same_memory(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(Path(__file__).with_name("device_week.py")),
        *map(str, (tmp_path, SIGNAL_S, EVERY_S)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hours = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(hours) == WEEK_S // 3_600
    assert max(hour["file"] for hour in hours) <= CAP_BYTES + 16 * ROW_BYTES
    assert max(hour["log"] for hour in hours) <= LOG_BYTES
    settled = [hour for hour in hours if hour["hour"] >= SETTLED_HOURS]
    slope = np.polyfit([hour["hour"] for hour in settled], [hour["rss"] for hour in settled], 1)[0]
    growth = slope * 7 * 24
    print(
        f"\na week: file at most {max(h['file'] for h in hours) / 2**20:.2f} of {CAP_BYTES / 2**20:.0f} MiB, log"
        f" {max(h['log'] for h in hours) / 2**20:.2f} MiB, memory {hours[0]['rss'] / 2**20:.1f} to"
        f" {hours[-1]['rss'] / 2**20:.1f} MiB, slope {growth / 2**20:+.2f} MiB a week"
    )
    assert growth < RSS_GROWTH_BYTES
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        counters, rows = reader.counters(), reader.rows()
        newest = max(session.opened_ns for session in reader.sessions(ECG))
        kept = sum(len(part.values) for s in reader.sessions(ECG) for part in reader.parts(ECG, s.session))
        records = sum(1 for s in reader.sessions(EHR) for _ in reader.records(EHR, s.session))
        assert reader.unreadable == 0
    cycles = WEEK_S // EVERY_S
    assert kept + counters["expired-samples"] + counters.get("evicted-samples", 0) == cycles * SIGNAL_S * 250
    assert records + counters["expired-records"] + counters.get("evicted-records", 0) == cycles
    assert rows["windows"] > 0
    assert rows["summaries"] > 0
    assert newest >= (T0_S + WEEK_S - 4 * 3_600) * 10**9
