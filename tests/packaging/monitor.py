"""A bedside monitor that sends HL7 v2 over MLLP as fast as it is acknowledged, and keeps what was until it is."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

ANSWER_S: Final = 30.0
PAUSE_S: Final = 0.2
FIRST: Final = 40.0
STEP: Final = 0.001
_MOST_BYTES: Final = 1 << 16
_NS_PER_MS: Final = 1_000_000


class Monitor:
    """Sends until it is left. Each message has one heart rate, which no other one has; what had no AA is sent again.

    Attributes:
        acknowledged: every heart rate that was accepted, in this order.
        sent: how many messages have been sent for the first time.
    """

    def __init__(self, port: int) -> None:
        self.acknowledged: list[float] = []
        self.sent = 0
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor")

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, when what is under way is acknowledged or the link breaks."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        message = b""
        while not self._ended.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), ANSWER_S) as link:
                while not self._ended.is_set():
                    message = message or self._next()
                    link.sendall(b"\x0b" + message + b"\x1c\r")
                    if b"MSA|AA|" in _answer(link):
                        self.acknowledged.append(heart_rate(self.sent))
                        message = b""
            self._ended.wait(PAUSE_S)  # the other end is away

    def _next(self) -> bytes:
        self.sent += 1
        at_ns = time.time_ns() // _NS_PER_MS * _NS_PER_MS
        moment = datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y%m%d%H%M%S.%f")[:-3] + "+0000"
        return (
            f"MSH|^~\\&|MON|WARD|BED|HOSP|{moment}||ORU^R01|{self.sent}|P|2.6\r"
            f"OBR|1|||MON|||{moment}\r"
            f"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.7.4|{heart_rate(self.sent):.3f}|264864^MDC_DIM_BEAT_PER_MIN^MDC"
            f"|||||F|||{moment}\r"
        ).encode()


def heart_rate(number: int) -> float:
    """The heart rate of a message, per minute."""
    return round(FIRST + number * STEP, 3)


def _answer(link: socket.socket) -> bytes:
    told = b""
    while not told.endswith(b"\x1c\r"):
        more = link.recv(_MOST_BYTES)
        if not more:
            raise ConnectionResetError
        told += more
    return told
