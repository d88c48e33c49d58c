import hashlib
import importlib.util
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.core.errors import ConfigError, TrustError
from bedside.demo import recordings
from bedside.demo.recordings import EXERCISES, find_watch_file, read_wearers


class Bomb:
    """Leaves a trace when somebody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def small_file(path: Path) -> str:
    rng = np.random.default_rng(1)
    series = [rng.normal(size=(length, 6)) for length in (200, 150, 180)]
    content = {"X": series, "y": np.array([0, 3, 0]), "subject": np.array([2, 2, 1])}
    out = io.BytesIO()
    np.save(out, np.array(content, dtype=object), allow_pickle=True)
    path.write_bytes(out.getvalue())
    return hashlib.sha256(out.getvalue()).hexdigest()


def test_wearers_come_in_order_with_a_session_and_a_label_per_exercise(tmp_path: Path) -> None:
    sha256 = small_file(tmp_path / "watch.npy")

    first, second = read_wearers(tmp_path / "watch.npy", sha256)

    assert (first.number, second.number) == (1, 2)
    assert second.recording.values.shape == (350, 6)
    assert second.recording.values.dtype == np.float32
    assert second.recording.sessions == [(0, 200), (200, 350)]
    assert [(one.start, one.end, one.name) for one in second.recording.labels] == [
        (0, 200, EXERCISES[0]),
        (200, 350, EXERCISES[3]),
    ]


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    sha256 = small_file(tmp_path / "watch.npy")
    data = bytearray((tmp_path / "watch.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "watch.npy").write_bytes(data)

    with pytest.raises(TrustError) as refused:
        read_wearers(tmp_path / "watch.npy", sha256)

    assert refused.value.code == "demo-data-changed"


def test_a_file_with_another_hash_is_never_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    bomb = tmp_path / "bomb.npy"
    np.save(bomb, np.array(Bomb(trace), dtype=object), allow_pickle=True)

    with pytest.raises(TrustError):
        read_wearers(bomb)

    assert not trace.exists()
    # The bomb itself works: had it been interpreted, it would have left its trace.
    np.load(bomb, allow_pickle=True)
    assert trace.exists()
    assert pickle.DEFAULT_PROTOCOL


def test_absent_recordings_are_one_sentence_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(ConfigError) as missing:
        find_watch_file()

    assert missing.value.code == "demo-data-missing"
    assert "seglearn==1.2.5" in missing.value.remedy


@pytest.mark.skipif(importlib.util.find_spec("seglearn") is None, reason="seglearn 1.2.5 is not installed")
def test_the_real_recordings_are_found_and_read_without_importing_their_package() -> None:
    wearers = read_wearers(find_watch_file())

    assert [wearer.number for wearer in wearers] == list(range(1, 11))
    assert all(len(wearer.recording.labels) == 14 for wearer in wearers)
    assert all({label.name for label in wearer.recording.labels} == set(EXERCISES) for wearer in wearers)
    assert "seglearn" not in sys.modules
    assert set(recordings.EXERCISE_WORDS) == set(EXERCISES)
