"""More windows than fit into memory: the same batches, sealed on the disk, and nothing left of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bedside.agent.buffer.store import BufferStore
from bedside.agent.windows.room import Aside, Room
from bedside.agent.windows.training import Horizon, Wanted, gather
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemClock, SystemEntropy

KEY = b"k" * 32
S = StreamId("wrist")
T0 = 1_700_000_000_000_000_000
SHAPE = (4, 2)
SPEC = WindowSpec("wrist", 2, 50.0, 4, 4, (0.0, 0.0), (1.0, 1.0))
SAMPLE_NS = 20_000_000


@pytest.fixture
def room(tmp_path):
    """Of which one chunk is in memory."""
    made = Room(SHAPE, Aside(0, tmp_path, SystemEntropy()))
    yield made
    made.close()


def windows(count: int, seed: int = 1):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def test_windows_come_back_as_they_went_in_whichever_side_of_the_bound_they_lie(room) -> None:
    put = windows(700)
    for place, window in enumerate(put):
        room.put(place, window)
    picked = np.random.default_rng(2).permutation(700)
    assert room.take(picked.tolist()).tobytes() == put[picked].tobytes()
    room.put(3, put[600])
    room.put(650, put[601])
    assert room.take([3, 650]).tobytes() == put[[600, 601]].tobytes()


def test_nothing_of_a_window_is_on_the_disk_in_the_clear_and_the_file_has_no_name(room, tmp_path, monkeypatch) -> None:
    written: list[bytes] = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: written.append(bytes(data)) or pwrite(fd, data, at))
    put = windows(300)
    for place, window in enumerate(put):
        room.put(place, window)
    assert len(written) == 300 - 256
    assert all(window[:1].tobytes() not in data for window, data in zip(put[256:], written, strict=True))
    assert list(tmp_path.iterdir()) == []
    room.put(299, put[299])
    assert written[-1] != written[-2], "another nonce each time"


def test_a_window_that_rotted_or_stands_elsewhere_is_not_taken(room, monkeypatch) -> None:
    for place, window in enumerate(windows(300)):
        room.put(place, window)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, size, at + size))
    with pytest.raises(StoreError) as caught:
        room.take([270])
    assert caught.value.code == "room-read"
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, size, at)[:-1] + b"?")
    with pytest.raises(StoreError, match="read again"):
        room.take([270])


def test_a_disk_without_room_is_told(monkeypatch, room) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        room.put(256, windows(1)[0])
    assert caught.value.code == "room-write"


def test_half_a_window_on_a_full_disk_is_told(monkeypatch, room) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:10], at))
    with pytest.raises(StoreError, match="No space left") as caught:
        room.put(256, windows(1)[0])
    assert caught.value.code == "room-write"


def test_what_samples_may_need_of_the_disk_is_not_taken(tmp_path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    tight = Room(SHAPE, Aside(0, tmp_path, SystemEntropy(), reserve_bytes=free_bytes + (1 << 30)))
    with pytest.raises(StoreError, match="are free, which samples may need"):
        tight.put(256, windows(1)[0])
    tight.close()


def fill(path: Path, sessions: int, windows_each: int) -> list[int]:
    """Sessions of labelled windows; the numbers of the labels."""
    store, values = BufferStore(path, KEY, SystemClock(), SystemEntropy()), np.random.default_rng(5)
    numbers = []
    for session in range(sessions):
        samples = windows_each * SPEC.length
        start_ns = T0 + session * (samples + 100) * SAMPLE_NS
        store.mark(Mark(S, start_ns, start_ns, "", "t", MarkKind.SESSION_OPEN))
        numbers.append(store.add_label(S, start_ns, start_ns + samples * SAMPLE_NS, f"l{session % 2}", "t"))
        for at in range(0, samples, 50):
            piece = values.normal(size=(min(50, samples - at), 2)).astype(np.float32)
            store.append(Block(S, start_ns + at * SAMPLE_NS, 50.0, piece))
        store.mark(
            Mark(S, start_ns + samples * SAMPLE_NS, start_ns + samples * SAMPLE_NS, "", "t", MarkKind.SESSION_CLOSE)
        )
    store.close()
    return numbers


def collected(path: Path, *, labels=("l0", "l1"), memory_bytes: int | None = None, **options) -> SimpleNamespace:
    aside = Aside(memory_bytes, path.parent, SystemEntropy()) if memory_bytes is not None else None
    found = gather(path, KEY, Wanted(Question(SPEC, labels), **options), Room(SHAPE, aside))
    x, y = found.take(np.arange(len(found)))
    found.close()
    return SimpleNamespace(
        x=x, y=y, sessions=found.sessions, start_ns=found.start_ns, digest=found.digest, until_ns=found.until_ns
    )


@pytest.fixture(scope="module")
def buffer(tmp_path_factory):
    path = tmp_path_factory.mktemp("room") / "b.db"
    return path, fill(path, 3, 200)


def test_a_set_beyond_memory_is_the_set_in_memory_also_where_only_the_newest_count(buffer) -> None:
    path, _ = buffer
    whole = collected(path, max_windows=10_000)
    for most in (10_000, 600, 450, 333, 200, 70, 1):
        wide = collected(path, max_windows=most)
        tight = collected(path, max_windows=most, memory_bytes=0)
        assert (tight.x.tobytes(), tight.digest) == (wide.x.tobytes(), wide.digest)
        if most <= 200:  # of the newest session
            assert wide.start_ns.tolist() == whole.start_ns.tolist()[-most:]
            assert wide.x.tobytes() == whole.x[-most:].tobytes()
            assert wide.y.tolist() == whole.y.tolist()[-most:]
            assert wide.sessions == whole.sessions[-most:]
    assert collected(path, max_windows=0).x.shape == (0, *SHAPE)


def test_what_comes_or_is_labelled_later_changes_neither_the_set_nor_its_digest(buffer) -> None:
    path, numbers = buffer
    early = collected(path, max_windows=10_000, horizon=Horizon(numbers[1]))
    everything = collected(path, max_windows=10_000)
    assert len(early.x) == 400
    assert early.x.tobytes() == everything.x[:400].tobytes()
    assert early.digest != everything.digest
    again = collected(path, max_windows=10_000, horizon=Horizon(until_ns=early.until_ns))
    assert again.digest == early.digest


def test_the_digest_tells_classes_and_windows_apart(buffer) -> None:
    path, _ = buffer
    first = collected(path, max_windows=300)
    turned = collected(path, labels=("l1", "l0"), max_windows=300)
    fewer = collected(path, max_windows=299)
    assert len({first.digest, turned.digest, fewer.digest}) == 3


GROWTH = """
import sys
import numpy as np
from pathlib import Path
from bedside.agent.windows.room import Aside, Room
from bedside.service.platform import SystemEntropy

room = Room((4096, 4), Aside(4 << 20, Path(sys.argv[1]), SystemEntropy()) if sys.argv[2] == "aside" else None)
window = np.ones((4096, 4), np.float32)
peak_kb = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before_kb = peak_kb()
for place in range(1_500):
    window[0, 0] = place
    room.put(place, window)
order = np.random.default_rng(1).permutation(1_500)
for first in range(0, 1_500, 32):
    picked = order[first : first + 32].tolist()
    assert [taken[0, 0] for taken in room.take(picked)] == picked
print((peak_kb() - before_kb) / 1024)
"""


@pytest.mark.parametrize(("where", "least_mib", "most_mib"), [("aside", 0, 40), ("memory", 80, 1_000)])
def test_the_memory_of_a_process_does_not_grow_with_its_windows(tmp_path, where, least_mib, most_mib) -> None:
    command = [sys.executable, "-c", GROWTH, str(tmp_path), where]
    grown_mib = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert least_mib <= grown_mib < most_mib, "of 94 MiB"
