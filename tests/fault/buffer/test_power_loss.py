"""Power cuts at any moment of the real store's life: nothing that was acknowledged is lost, and nothing is half there.

`BEDSIDE_CRASH_IMAGES` sets how many torn images are opened; 20,000 unless it is set.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind, Record, Unmapped
from bedside.service.platform import SystemEntropy
from bedside.service.sqlite import Database

sys.path.insert(0, str(Path(__file__).parent))
from crash_images import DATABASE, KEY, Recording, state_of
from recorder import Op, recorded

IMAGES = int(os.environ.get("BEDSIDE_CRASH_IMAGES", "20000"))
NORMAL_IMAGES = 1_000
T0 = 1_700_000_000 * 10**9
ECG, WRIST, EHR = StreamId("ecg"), StreamId("wrist"), StreamId("ehr")
WORKERS = 2
CAP_BYTES = 256 << 10
SECONDS = 60


class HandClock:
    at_s = 0.0

    def now_ns(self) -> int:
        return T0 + round(self.at_s * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s


@pytest.fixture
def scratch():
    made = Path(tempfile.mkdtemp(prefix="bedside-images-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    yield made
    shutil.rmtree(made)


def record(monkeypatch, folder: Path, synchronous: str) -> Recording:
    """A minute of two streams with sessions, labels, predictions, counters, quarantine and eviction."""
    states: list[str] = []
    with recorded(monkeypatch, synchronous) as log:
        clock, rng = HandClock(), np.random.default_rng(3)
        store = BufferStore(folder / DATABASE, KEY, clock, SystemEntropy(), cap_bytes=CAP_BYTES)

        def acknowledge() -> None:
            states.append(state_of(store.database.connection))
            log.append(Op("", "ack", len(states) - 1))

        acknowledge()
        run_tx = Database.run_tx

        def acknowledged(self, name, work):
            done = run_tx(self, name, work)
            acknowledge()
            return done

        with monkeypatch.context() as patch:
            patch.setattr(Database, "run_tx", acknowledged)
            for second in range(SECONDS):
                live(store, clock, rng, second)
            store.close()
    return Recording([tuple(op) for op in log], states)


def live(store: BufferStore, clock: HandClock, rng: np.random.Generator, second: int) -> None:
    at_ns = T0 + second * 10**9
    if second % 20 == 0:
        store.mark(Mark(ECG, at_ns, at_ns, "", "replay", MarkKind.SESSION_OPEN))
    for stream, rate_hz in ((ECG, 250.0), (WRIST, 50.0)):
        for step in range(25):
            values = rng.integers(-3000, 3000, (int(rate_hz / 25), 6), np.int16)
            session = store.append(Block(stream, at_ns + step * 40_000_000, rate_hz, values))
    if second % 2 == 0:
        vitals = Record(EHR, at_ns, {"heart-rate": float(second), "spo2": 97.0}, {"spo2": "%"})
        for _ in range(1 + second % 3):  # its sender saw no acknowledgement
            store.add_record(vitals)
        store.quarantine(Unmapped("ward", "unknown-code", f"code-{second % 5}", at_ns, 2))
    if second % 3 == 0:
        store.add_label(ECG, at_ns, at_ns + 10**9, "walking", "cli")
    if second % 7 == 0:
        store.count(ECG, session, "dropped-windows", 1)
    store.add_prediction(Prediction(WRIST, session, at_ns, at_ns + 10**9, "walking", 0.9, b"m" * 32, 0.001))
    clock.at_s += 1.0
    store.flush_due()


def judged(recording: Recording, images: int, scratch: Path) -> Counter[str]:
    """Verdicts on so many images, from as many processes as there are workers."""
    (scratch / "recording").write_bytes(pickle.dumps(tuple(recording)))
    workers = []
    for number in range(WORKERS):
        (scratch / f"worker-{number}").mkdir()
        share = images // WORKERS + (number < images % WORKERS)
        arguments = (scratch / "recording", number, share, scratch / f"worker-{number}")
        command = [sys.executable, Path(__file__).with_name("crash_images.py"), *map(str, arguments)]
        workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    verdicts: Counter[str] = Counter()
    for worker in workers:
        out, err = worker.communicate()
        assert worker.returncode == 0, err
        verdicts.update(json.loads(out))
    return verdicts


@pytest.mark.timeout(1_800)
def test_no_torn_image_lacks_a_row_that_was_acknowledged(monkeypatch, tmp_path, scratch) -> None:
    recording = record(monkeypatch, tmp_path, "FULL")
    kinds = Counter(op[1] for op in recording.ops)
    assert kinds["sync"] > 60
    assert any(op[1] == "write" and op[0] == DATABASE for op in recording.ops), "no checkpoint was recorded"
    verdicts = judged(recording, IMAGES, scratch)
    print(f"\n{IMAGES} torn images of {len(recording.ops)} operations: {dict(verdicts)}")
    assert verdicts == {"ok": IMAGES}


def test_the_same_images_find_the_loss_when_commits_are_not_synced(monkeypatch, tmp_path, scratch) -> None:
    recording = record(monkeypatch, tmp_path, "NORMAL")
    verdicts = judged(recording, NORMAL_IMAGES, scratch)
    print(f"\n{NORMAL_IMAGES} torn images with synchronous=NORMAL: {dict(verdicts)}")
    assert verdicts["lost"] > NORMAL_IMAGES // 10
