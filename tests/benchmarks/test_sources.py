"""The benchmark of sources: it runs, names its figures, and loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = {"mqtt": "message", "mllp": "message", "serial": "frame"}


@pytest.mark.system
def test_a_moment_of_it_loses_nothing_and_gives_every_figure() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "sources.py"), "--json", "--seconds", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    figures = {one["name"]: one for one in told["figures"]}
    expected = {"mllp_answer_p50_ms"}
    for kind, unit in KINDS.items():
        expected |= {f"{kind}_{unit}s_per_s", f"{kind}_cpu_us_per_{unit}", f"{kind}_lost"}
        expected |= {f"{kind}_latency_p{share}_ms" for share in (50, 99)}
    assert set(figures) == expected
    absent = {name for name, one in figures.items() if one["value"] is None}
    assert all(name.startswith("mqtt") and "apt-get" in figures["mqtt_messages_per_s"]["note"] for name in absent)
    for name in figures.keys() - absent:
        assert (figures[name]["value"] == 0) is name.endswith("_lost") or "_cpu_" in name, figures[name]
    assert figures["mllp_messages_per_s"]["peer_value"] > 0
