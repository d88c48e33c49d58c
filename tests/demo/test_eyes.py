from pathlib import Path

import numpy as np

from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.demo.cast import STREAM, Device
from bedside.demo.eyes import DeviceEye
from bedside.service.files import write_durable
from bedside.service.platform import SystemClock, SystemEntropy

KEY = b"k" * 32
NS = 1_000_000_000
START_NS = 1_000 * NS
MODEL, NEXT_MODEL = b"m" * 32, b"n" * 32


class Device10:
    """A device's buffer with one labelled session of ten seconds, and its watcher."""

    def __init__(self, state_dir: Path) -> None:
        identity = state_dir / "identity"
        identity.mkdir(mode=0o700)
        write_durable(identity / "buffer.key", KEY)
        self.store = BufferStore(state_dir / BUFFER_NAME, KEY, SystemClock(), SystemEntropy())
        self.store.mark(Mark(StreamId(STREAM), START_NS, START_NS, "", "replay", MarkKind.SESSION_OPEN))
        self.store.mark(Mark(StreamId(STREAM), START_NS, START_NS + 10 * NS, "ABD", "replay"))
        values = np.linspace(0, 1, 500, dtype=np.float32).repeat(6).reshape(500, 6)
        for at in range(0, 500, 2):
            block = Block(StreamId(STREAM), START_NS + at * NS // 50, 50.0, np.ascontiguousarray(values[at : at + 2]))
            self.session = self.store.append(block)
        self.eye = DeviceEye(Device(1, "hospital-a"), state_dir, SystemClock())

    def predict(self, second: int, label: str, model: bytes = MODEL) -> None:
        start_ns = START_NS + second * NS
        stream, session = StreamId(STREAM), SessionId(self.session)
        self.store.add_prediction(Prediction(stream, session, start_ns, start_ns + 2 * NS, label, 0.9, model, 0.001))
        self.store.flush()


def test_predictions_are_joined_with_the_truth_under_them(tmp_path: Path) -> None:
    device = Device10(tmp_path)
    device.predict(0, "ABD")
    device.predict(2, "ROW")
    device.predict(9, "ABD")  # half of it lies after the label: nothing is known

    device.eye.poll()

    assert device.eye.predictions == 3
    assert (device.eye.tallies[MODEL].known, device.eye.tallies[MODEL].right) == (2, 1)
    assert device.eye.accuracy() == 0.5
    assert device.eye.truth == ""
    device.eye.close()
    device.store.close()


def test_every_model_has_its_own_tally(tmp_path: Path) -> None:
    device = Device10(tmp_path)
    device.predict(0, "ROW")
    device.eye.poll()
    device.predict(2, "ABD", NEXT_MODEL)

    device.eye.poll()

    assert device.eye.accuracy() == 1.0
    assert device.eye.tallies[MODEL].right == 0
    assert device.eye.predictions == 2
    device.eye.close()
    device.store.close()


def test_the_signal_under_the_newest_prediction_is_shown(tmp_path: Path) -> None:
    device = Device10(tmp_path)
    device.predict(2, "ABD")

    device.eye.poll(with_signal=True)

    assert device.eye.signal.shape == (100,)
    assert np.all(np.diff(device.eye.signal) > 0)
    device.eye.close()
    device.store.close()


def test_only_labelled_sessions_that_have_ended_count_as_buffered(tmp_path: Path) -> None:
    device = Device10(tmp_path)
    assert device.eye.labelled_s(StreamId(STREAM)) == 0.0

    device.store.mark(
        Mark(StreamId(STREAM), START_NS + 10 * NS, START_NS + 10 * NS, "", "replay", MarkKind.SESSION_CLOSE)
    )

    assert device.eye.labelled_s(StreamId(STREAM)) == 10.0
    device.eye.close()
    device.store.close()


def test_a_device_that_has_not_started_is_looked_at_again_later(tmp_path: Path) -> None:
    eye = DeviceEye(Device(1, "hospital-a"), tmp_path, SystemClock())

    eye.poll(with_signal=True)

    assert (eye.predictions, eye.accuracy(), eye.labelled_s(StreamId(STREAM))) == (0, None, 0.0)
