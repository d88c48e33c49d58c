"""Opens what a power cut may leave of a recorded buffer, as often as it is told. A script of its own: one per core.

    python crash_images.py RECORDING FIRST_SEED COUNT SCRATCH_DIRECTORY

After a power cut a file holds everything up to its last sync, and of what was written since then an arbitrary subset,
torn at sectors of 512 bytes, in an arbitrary order. The real opening must find exactly the rows of the last
transaction that was acknowledged, or of the one that was under way.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from bedside.agent.buffer.opening import open_or_salvage
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.tags import TAGGED
from bedside.core.errors import BedsideError
from bedside.service.platform import SystemEntropy

DATABASE = "b.db"
KEY = bytes(range(32))
SECTOR_BYTES = 512
SURVIVES = (0.0, 0.1, 0.5, 0.9, 1.0)


class Recording(NamedTuple):
    """Operations as plain tuples, and the digest of all rows after each acknowledged transaction."""

    ops: list[tuple[str, str, int, bytes]]
    states: list[str]


def state_of(connection) -> str:
    """Digest of every row of every table."""
    whole = hashlib.blake2b(digest_size=16)
    for table in (*TAGGED, "sqlite_sequence"):
        key = "1, 2, 3" if table in {"summaries", "counters"} else "1"
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY {key}"):
            if "torn-commits" not in row:  # what the opening itself counts
                whole.update(repr((table, *row)).encode())
    return whole.hexdigest()


class Disk:
    """What is on the disk for certain, and what was written since each file's last sync."""

    def __init__(self) -> None:
        self.durable: dict[str, bytearray] = {}
        self.pending: dict[str, list[tuple[str, int, bytes]]] = {}
        self.acknowledged = -1

    def take(self, op: tuple[str, str, int, bytes]) -> None:
        file, kind, at, data = op
        if kind == "ack":
            self.acknowledged = at
        elif kind == "sync":
            if file not in self.durable:
                self._sync_directory()
            for one in self.pending.pop(file, []):
                apply(self.durable, file, one)
        elif kind == "delete" and at:
            self.durable.pop(file, None)
            self.pending.pop(file, None)
        else:
            self.pending.setdefault(file, []).append((kind, at, data))

    def _sync_directory(self) -> None:
        """The first sync of a new log syncs its directory (SQLite's os_unix.c), and with it every deletion so far."""
        for name, changes in list(self.pending.items()):
            if any(kind == "delete" for kind, _, _ in changes):
                del self.pending[name]
                self.durable.pop(name, None)

    def after_power_cut(self, rng: random.Random) -> dict[str, bytearray]:
        files = {name: bytearray(data) for name, data in self.durable.items()}
        for name, changes in self.pending.items():
            share, torn = rng.choice(SURVIVES), []
            for kind, at, data in changes:
                if kind == "write":
                    torn += [
                        (kind, at + cut, data[cut : cut + SECTOR_BYTES])
                        for cut in range(0, len(data), SECTOR_BYTES)
                        if rng.random() < share
                    ]
                elif rng.random() < share:
                    torn.append((kind, at, data))
            if rng.random() < 0.5:
                rng.shuffle(torn)
            for one in torn:
                apply(files, name, one)
        return files


def apply(files: dict[str, bytearray], name: str, change: tuple[str, int, bytes]) -> None:
    kind, at, data = change
    if kind == "delete":
        files.pop(name, None)
        return
    content = files.setdefault(name, bytearray())
    if kind == "truncate":
        del content[at:]
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def judge(folder: Path, recording: Recording, acknowledged: int) -> str:
    """What the real opening finds: `ok`, `lost`, `damaged`, or the code of an error."""
    try:
        database, salvage = open_or_salvage(folder / DATABASE, Sealer(KEY, SystemEntropy()))
    except BedsideError as error:
        return error.code
    with closing(database):
        if salvage is not None:
            return "damaged"
        if database.connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            return "integrity"
        found = state_of(database.connection)
    if acknowledged < 0:  # the store was still being opened
        return "ok"
    return "ok" if found in recording.states[acknowledged : acknowledged + 2] else "lost"


def main() -> None:
    recording = Recording(*pickle.loads(Path(sys.argv[1]).read_bytes()))
    first_seed, images, folder = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    rng = random.Random(first_seed)
    points = sorted(rng.randrange(1, len(recording.ops) + 1) for _ in range(images))
    disk, done, verdicts = Disk(), 0, {}
    for point in points:
        for op in recording.ops[done:point]:
            disk.take(op)
        done = point
        for old in folder.iterdir():
            old.unlink()
        for name, data in disk.after_power_cut(rng).items():
            (folder / name).write_bytes(data)
        verdict = judge(folder, recording, disk.acknowledged)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    print(json.dumps(verdicts))


if __name__ == "__main__":
    main()
