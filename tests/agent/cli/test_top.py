"""`bedside agent top`: right at any width, whatever is in it, and ended cleanly."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from bedside.agent.buffer.rows import Alarm, Prediction
from bedside.agent.cli.glance import Glance, Stored, Watcher
from bedside.agent.cli.screen import draw
from bedside.agent.cli.sparks import bar, sparkline
from bedside.proto.v1 import device_pb2, local_pb2

T0 = 1_772_352_000_000_000_000
S = 1_000_000_000
TOP = [sys.executable, "-m", "bedside.service", "agent", "top"]


def shown(glance: Glance, width: int, height: int | None = 40) -> str:
    console = Console(width=width, height=height or 200, force_terminal=False, record=True, file=io.StringIO())
    console.print(draw(glance, height, width))
    return console.export_text()


def busy(streams: int = 3, rows: int = 8) -> Glance:
    """A device in trouble, with names as long as ids may be."""
    long = "a-very-long-name-of-a-stream-that-no-column-of-a-terminal-holds"
    stages = [local_pb2.StageLatency(stage=name, count=9, p50_us=120, p99_us=9_950, max_us=10**6)
              for name in ("cut", "wait", "infer", "decide")]  # fmt: skip
    status = local_pb2.AgentStatus(
        device="d-5e0c491f1ae30faf", site="ward-a", uptime_s=90_000, rss_bytes=80 << 20, predictions=10**9,
        components=[
            device_pb2.ComponentHealth(component="ingest", state=1, sentence="samples arrive"),
            device_pb2.ComponentHealth(component="link", state=3, sentence="the coordinator is away " * 20),
        ],
        streams=[
            local_pb2.StreamStatus(
                stream=f"{at}-{long}"[:64], rate_hz=250.0, blocks=10**9, last_seen_age_ms=10**9, records=at,
                quality=local_pb2.StreamQuality(missing_e6=10**6, flat_e6=10**6, drift_psi_e3=99_999),
            )
            for at in range(streams)
        ],
        models=[
            local_pb2.ModelStatus(name=long, runtime="litert", predictions=10**9, dropped_windows=10**9, stages=stages,
                                  error="[red]it does not load[/red] " * 20)
        ],
        buffer=local_pb2.BufferStatus(bytes=2**62, cap_bytes=2**40, oldest_age_s=10**9, evicted_parts=10**12,
                                      dropped_parts=10**12),
    )  # fmt: skip
    predictions = [Prediction("s" * 64, "x", T0, T0, "atrial\x1b[2Jfibrillation", 0.5, b"", 0.0, long, at)
                   for at in range(rows)]  # fmt: skip
    alarms = [Alarm("r" * 64, "s" * 64, "x", "high", T0 - at * S, 0.99, number=at) for at in range(rows)]
    wave = np.sin(np.arange(1_000) / 20).astype(np.float32)
    stored = Stored({stream.stream: wave for stream in status.streams}, predictions, alarms)
    return Glance(T0, stored, status, {long: 1e9}, 1e12)


@pytest.mark.parametrize("width", [60, 79, 80, 81, 100, 132, 240])
def test_no_line_is_wider_than_the_terminal_and_every_border_closes(width) -> None:
    lines = shown(busy(), width).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    opened = sum(line.count("╭") for line in lines)
    assert opened == sum(line.count("╯") for line in lines) == sum(line.count("╮") for line in lines) == 5
    bodies = [line for line in lines if line.startswith("│")]
    assert all(line.endswith("│") and cell_len(line) == width for line in bodies)


@pytest.mark.parametrize("height", [24, 30, 50])
def test_the_screen_is_no_higher_than_the_terminal(height) -> None:
    calm = busy(streams=2)
    assert len(shown(calm, 80, height).splitlines()) <= height
    assert len(shown(calm, 80, 50).splitlines()) > len(shown(calm, 80, 24).splitlines())


def test_at_ten_rows_alarms_and_predictions_come_first() -> None:
    top = shown(busy(), 80, 10).splitlines()[:10]
    assert any("alarms" in line for line in top)
    assert sum("△" in line or "▲" in line for line in top) == 3
    paper = shown(busy(16), 80, None).splitlines()
    assert "alarms" in paper[-5], "on paper there is room for everything in its order"


def test_sixty_columns_cut_no_clock_no_model_and_no_legend() -> None:
    stage = local_pb2.StageLatency(stage="decide", count=9, p50_us=480, p99_us=12_300)
    status = local_pb2.AgentStatus(
        device="d-5e0c491f1ae30faf", site="hospital-north", uptime_s=90_000, rss_bytes=80 << 20,
        models=[local_pb2.ModelStatus(name="activity-ward-3", runtime="litert", stages=[stage])],
    )  # fmt: skip
    text = shown(Glance(T0, Stored(), status, {"activity-ward-3": 1.5}), 60)
    for words in ("hospital-north", "activity-ward-3", ".48/12", "p50/p99 in ms ─"):
        assert words in text
    assert re.search(r"\d\d:\d\d:\d\d", text)


async def test_rates_are_means_over_ten_seconds_and_begin_anew_with_the_agent() -> None:
    class Reader:
        def last_prediction(self):
            return None

        def alarms(self, *_args, **_named):
            return []

    class Agent:
        made, uptime_s = 0, 100

        async def status(self):
            return local_pb2.AgentStatus(
                uptime_s=self.uptime_s, models=[local_pb2.ModelStatus(name="har", predictions=self.made)]
            )

    class Clock:
        at_s = 0.0

        def now_ns(self):
            return T0

        def monotonic_s(self):
            return self.at_s

    agent, clock = Agent(), Clock()
    watcher = Watcher(agent, Reader(), clock)
    rates = []
    for second in range(31):  # one decision in one second, two in the next
        clock.at_s, agent.uptime_s, agent.made = float(second), 100 + second, second + second // 2
        rates.append((await watcher.look()).predictions_per_s.get("har"))
    assert rates[0] is None
    assert rates[10:] == [1.5] * 21
    clock.at_s, agent.uptime_s, agent.made = 31.0, 0, 2
    assert (await watcher.look()).predictions_per_s == {}


def test_what_streams_and_models_are_called_reaches_no_terminal_as_commands() -> None:
    text = shown(busy(), 100)
    assert "\x1b" not in text
    assert "[red]it does not load[/red]" in text, "words of a model are no markup"


def test_numbers_that_matter_are_there_at_eighty_columns() -> None:
    status = local_pb2.AgentStatus(
        device="d-1", uptime_s=61, rss_bytes=80 << 20,
        streams=[local_pb2.StreamStatus(stream="wrist", rate_hz=50.0, blocks=9, last_seen_age_ms=20)],
        models=[local_pb2.ModelStatus(name="har", runtime="onnx", dropped_windows=7, stages=[
            local_pb2.StageLatency(stage="decide", count=9, p50_us=480, p99_us=12_300)])],
        buffer=local_pb2.BufferStatus(bytes=128 << 20, cap_bytes=512 << 20, oldest_age_s=7200, evicted_parts=5),
    )  # fmt: skip
    stored = Stored({}, [Prediction("wrist", "x", T0, T0, "walk", 0.98, b"", 0.0, "har", 3)],
                    [Alarm("fall", "wrist", "x", "high", T0 - 120 * S, 0.97, number=1)])  # fmt: skip
    text = shown(Glance(T0, stored, status, {"har": 1.5625}, 14_500.0), 80)
    for words in ("50 Hz", "1.56", ".48/12", "7", "128.0 MiB of 512.0 MiB", "25%", "2 h", "14.2 KiB/s", "walk", "0.98",
                  "fall", "2 min", "no site yet"):  # fmt: skip
        assert words in text


def test_a_prediction_has_an_age_and_an_old_one_is_dim() -> None:
    made = [Prediction("wrist", "x", T0, T0 - age_s * S, label, 0.98, b"", 0.0, "har", 3)
            for label, age_s in (("walk", 20), ("rest", 200 * 60))]  # fmt: skip
    console = Console(width=100, height=40, force_terminal=True, color_system="standard", file=io.StringIO())
    console.print(draw(Glance(T0, Stored({}, made)), 40))
    fresh, old = (line for line in console.file.getvalue().splitlines() if "wrist" in line)
    assert "20 s" in fresh
    assert "3 h" in old
    green, dim = "\x1b[32m", "\x1b[2m"
    assert f"{green}walk" in fresh
    assert f"{dim}rest" in old


def test_an_agent_that_is_away_is_said_and_what_is_stored_still_shown() -> None:
    stored = Stored({}, [Prediction("wrist", "x", T0, T0, "walk", 0.98, b"", 0.0)])
    text = shown(Glance(T0, stored, trouble="no agent serves run/agent.sock"), 80)
    assert "no agent serves" in text
    assert "walk" in text


def test_fifty_streams_leave_room_and_say_how_many_are_not_shown() -> None:
    assert "and 34 more" in shown(busy(50), 100)


def test_a_spark_keeps_the_peaks_and_bears_anything() -> None:
    beats = np.zeros(1_000, np.float32)
    beats[500] = 1
    assert sparkline(beats, 10) == "▁▁▁▁▁█▁▁▁▁"
    assert sparkline(np.array([np.nan, np.inf], np.float32), 5) == ""
    assert sparkline(np.ones(3, np.float32), 5) == "▁▁▁"
    assert [bar(share, 4) for share in (-1, 0, 0.5, 0.53, 1, 9)] == ["    ", "    ", "██  ", "██▏ ", "████", "████"]


def test_one_frame_needs_no_terminal(running) -> None:
    running.await_predictions()
    done = subprocess.run([*TOP, str(running.path), "--once"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert max(cell_len(line) for line in done.stdout.splitlines()) <= 80
    for words in ("streams", "wrist", "tiny", "predictions", "none is open", "of 512.0 MiB"):
        assert words in done.stdout
    signal_row = next(line for line in done.stdout.splitlines() if "wrist" in line)
    assert set(signal_row) & set("▁▂▃▄▅▆▇█"), "the newest seconds of the signal are drawn"


def test_paper_is_as_wide_as_columns_says(running) -> None:
    environ = os.environ | {"COLUMNS": "60"}
    done = subprocess.run([*TOP, str(running.path), "--once"], capture_output=True, text=True, timeout=60, env=environ)
    assert max(cell_len(line) for line in done.stdout.splitlines()) == 60


def test_json_is_an_object_per_refresh_and_ctrl_c_ends_it_cleanly(running) -> None:
    running.await_predictions()
    with subprocess.Popen([*TOP, str(running.path), "--json"], stdout=subprocess.PIPE, text=True) as process:
        frames = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert frames[0]["predictions_per_s"] == {}
    assert frames[1]["predictions_per_s"]["tiny"] > 0
    assert frames[1]["status"]["models"][0]["model"] == "tiny"
    assert frames[1]["predictions"][0]["id"] > frames[1]["predictions"][1]["id"]


def test_q_gives_the_terminal_back_as_it_was(running) -> None:
    running.await_predictions()
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    before = termios.tcgetattr(slave)
    environ = os.environ | {"TERM": "xterm-256color"}
    with subprocess.Popen([*TOP, str(running.path)], stdin=slave, stdout=slave, stderr=slave, env=environ) as process:
        seen = b""
        ends_s = time.monotonic() + 60
        while b"tiny" not in seen:
            assert time.monotonic() < ends_s, seen
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 65_536)
        os.write(master, b"q")
        while process.poll() is None:
            assert time.monotonic() < ends_s
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65_536)
        assert process.returncode == 0, seen
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)
    assert b"\x1b[?1049h" in seen
    assert b"Traceback" not in seen


def test_a_training_that_waits_says_why_though_nothing_is_wrong() -> None:
    waits = device_pb2.ComponentHealth(component="trainer", state=1, sentence="waiting: temperature 83 C, limit 80")
    glance = Glance(T0, Stored(), local_pb2.AgentStatus(device="d", components=[waits]))
    assert "trainer: waiting: temperature 83 C, limit 80" in shown(glance, 80)
