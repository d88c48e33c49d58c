"""Looks at a running agent from outside: when committed rows become visible, when decisions reach a follower."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bedside.agent.buffer.schema import ID_PER_SECOND, second_of, stream_number_of
from bedside.proto.v1 import local_pb2
from bedside.proto.v1.local_pb2_grpc import AgentServiceStub

_LOOK_S = 0.005
_LATE_SECONDS = 3


@dataclass
class Watch:
    """What was seen; times are monotonic seconds.

    Attributes:
        parts: by blob id: (stream number, start_ns, seen).
        decisions: by number: when a follower of the local API got it.
        streams: names by number.
    """

    parts: dict[int, tuple[int, int, float]] = field(default_factory=dict)
    decisions: dict[int, float] = field(default_factory=dict)
    streams: dict[int, str] = field(default_factory=dict)


@contextmanager
def watched(directory: Path) -> Iterator[Watch]:
    """Watch the agent of a directory from the moment at which it is there, until this ends."""
    watch, stop = Watch(), threading.Event()
    threads = [
        threading.Thread(target=_look, args=(directory / "state" / "buffer.db", watch, stop)),
        threading.Thread(target=_follow, args=(directory / "run" / "agent.sock", watch, stop)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _look(file: Path, watch: Watch, stop: threading.Event) -> None:
    while not file.exists() and not stop.is_set():
        time.sleep(_LOOK_S)
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)) as reader:
        version, newest = -1, 0
        while not stop.is_set():
            time.sleep(_LOOK_S)
            with _until_there():
                now = int(reader.execute("PRAGMA data_version").fetchone()[0])
                if now == version:
                    continue
                after = (second_of(newest) - _LATE_SECONDS) * ID_PER_SECOND
                rows = reader.execute("SELECT id, start_ns FROM blobs WHERE id > ?", (after,)).fetchall()
                seen_s, version = time.monotonic(), now
                for number, start_ns in rows:
                    watch.parts.setdefault(number, (stream_number_of(number), start_ns, seen_s))
                    newest = max(newest, number)
        watch.streams.update(reader.execute("SELECT number, name FROM streams").fetchall())


@contextmanager
def _until_there() -> Iterator[None]:
    """The tables come with the agent's first moments."""
    try:
        yield
    except sqlite3.OperationalError:
        time.sleep(_LOOK_S)


def _follow(socket: Path, watch: Watch, stop: threading.Event) -> None:
    while not stop.is_set():
        time.sleep(_LOOK_S)
        if not socket.exists():
            continue
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            call = AgentServiceStub(channel).Follow(local_pb2.FollowRequest(since_id=0))
            ender = threading.Thread(target=lambda call=call: (stop.wait(), call.cancel()))
            ender.start()
            try:
                for told in call:
                    watch.decisions.setdefault(told.id, time.monotonic())
            except grpc.RpcError:
                continue
