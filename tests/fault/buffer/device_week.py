"""A week of one device in minutes: the real store and the real retention under a clock that we turn.

    python device_week.py FOLDER SIGNAL_S EVERY_S

A stream of 8 channels at 250 Hz speaks for SIGNAL_S seconds of every EVERY_S, with labels, records, predictions, and a
new session every four hours. Prints one line for each of its hours: sizes of file and log, resident memory.
"""

import json
import sys
from pathlib import Path

import numpy as np
import psutil

from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind, Record
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemEntropy

ECG, EHR = StreamId("ecg"), StreamId("ehr")
KEY = bytes(range(32))
T0_S = 1_700_000_000
HOUR_S = 3_600
WEEK_S = 7 * 24 * HOUR_S
CAP_BYTES = 4 << 20
RULES = RetentionRules(
    raw_ns=12 * HOUR_S * 10**9, windows_ns=2 * 24 * HOUR_S * 10**9, summaries_ns=4 * 24 * HOUR_S * 10**9
)
SPEC = WindowSpec(stream=ECG, channels=8, rate_hz=250.0, length=250, hop=250, offset=(0.0,) * 8, scale=(1.0,) * 8)


class TurnedClock:
    def __init__(self) -> None:
        self.at_s = 0.0

    def now_ns(self) -> int:
        return round((T0_S + self.at_s) * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s


def main() -> None:
    folder, signal_s, every_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    clock = TurnedClock()
    database = folder / "b.db"
    store = BufferStore(database, KEY, clock, SystemEntropy(), cap_bytes=CAP_BYTES, gap_s=HOUR_S)
    retention = Retention(database, KEY, RULES, SystemEntropy())
    rng = np.random.default_rng(1)
    wave = (np.cumsum(rng.integers(-30, 31, (32 * 250, 8)), 0) % 4_000).astype(np.int16)
    process, log = psutil.Process(), database.with_name("b.db-wal")
    for cycle in range(WEEK_S // every_s):
        begin_s = cycle * every_s
        clock.at_s = float(begin_s)
        at_ns = clock.now_ns()
        if begin_s % (4 * HOUR_S) == 0:
            store.mark(Mark(ECG, at_ns, at_ns, "", "adt", MarkKind.SESSION_OPEN))
        for second in range(signal_s):
            start_ns, part = at_ns + second * 10**9, (cycle * signal_s + second) % 32
            session = store.append(Block(ECG, start_ns, 250.0, wave[part * 250 : part * 250 + 250]))
            store.add_prediction(
                Prediction(ECG, session, start_ns, start_ns + 10**9, "rest", 0.5, b"m" * 32, 0.001, "week")
            )
            clock.at_s += 1.0
            store.flush_due()
        store.add_label(ECG, at_ns, at_ns + signal_s * 10**9, ("rest", "walking")[cycle % 2], "cli")
        store.add_record(Record(EHR, at_ns, {"heart-rate": 60.0, "spo2": 97.0}, {"spo2": "%"}))
        while retention.run(store, clock.now_ns(), [Question(SPEC)]):
            pass
        if begin_s % HOUR_S < every_s:
            sizes = {"file": database.stat().st_size, "log": log.stat().st_size, "rss": process.memory_info().rss}
            print(json.dumps({"hour": begin_s // HOUR_S} | sizes), flush=True)
    store.close()


if __name__ == "__main__":
    main()
