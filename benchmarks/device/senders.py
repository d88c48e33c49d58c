"""Who sends: a publisher, monitors that speak HL7 over MLLP, a sensor board; as fast as it goes, or at a pace."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Protocol

import aiomqtt
import numpy as np

from bedside.firmware_bridge.frames import FrameParser, write_frame
from bedside.firmware_bridge.messages import HelloRequest
from bedside.firmware_bridge.recording import Recording
from bedside.firmware_bridge.virtual_board import VirtualBoard
from traffic.boards import Pty

T0_NS = 1_790_000_000_000_000_000
SECOND_NS = 1_000_000_000
_AT_ONCE = 200


class Sender(Protocol):
    """Sends messages, each with a number; message `n` is of the time T0 + n seconds."""

    async def send(self, first: int, count: int) -> None:
        """Send so many, as fast as they are taken."""

    async def send_one(self, number: int) -> float:
        """Send one; returns when it was written, monotonic seconds."""


async def paced(sender: Sender, first: int, count: int, pace_hz: float) -> list[float]:
    """Send so many at a pace; returns when each was written."""
    began_s, sent = time.monotonic(), []
    for at in range(count):
        await asyncio.sleep(max(0.0, began_s + at / pace_hz - time.monotonic()))
        sent.append(await sender.send_one(first + at))
    return sent


class Publisher:
    """Publishes with QoS 1."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def send(self, first: int, count: int) -> None:
        """Many at once."""
        for begin in range(first, first + count, _AT_ONCE):
            chunk = range(begin, min(begin + _AT_ONCE, first + count))
            await asyncio.gather(*(self._client.publish("vitals", _vitals(number), qos=1) for number in chunk))

    async def send_one(self, number: int) -> float:
        """One, which the broker has when this returns."""
        written_s = time.monotonic()
        await self._client.publish("vitals", _vitals(number), qos=1)
        return written_s


class Monitors:
    """Connections over each of which one message at a time is under way.

    Attributes:
        answers_s: seconds until each of the messages at a pace was acknowledged.
    """

    def __init__(self, links: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._links = links
        self.answers_s: list[float] = []

    async def send(self, first: int, count: int) -> None:
        """All connections share the load."""
        numbers = iter(range(first, first + count))

        async def speak(link: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
            for number in numbers:
                await _told(link, number)

        await asyncio.gather(*(speak(link) for link in self._links))

    async def send_one(self, number: int) -> float:
        """One, acknowledged when this returns."""
        written_s = time.monotonic()
        await _told(self._links[number % len(self._links)], number)
        self.answers_s.append(time.monotonic() - written_s)
        return written_s


class Board:
    """A board of eight channels at 250 Hz, ten samples a frame."""

    def __init__(self, pty: Pty) -> None:
        values = np.random.default_rng(5).integers(-900, 900, (2_500, 8)).astype(np.int16)
        self._pty = pty
        self._board = VirtualBoard(Recording(values, 250.0), boot_id=3)
        self._frames = self._board.frames(loop=True)

    async def greet(self) -> None:
        """Answer the host that asks who is there."""
        parser = FrameParser()
        while not any(isinstance(one, HelloRequest) for one in parser.feed(await self._pty.read())):
            pass
        await self._pty.write(write_frame(self._board.hello))

    async def send(self, first: int, count: int) -> None:
        """As fast as the pty takes them."""
        del first
        for _ in range(count):
            await self._pty.write(next(self._frames).frame)

    async def send_one(self, number: int) -> float:
        """One frame."""
        del number
        written_s = time.monotonic()
        await self._pty.write(next(self._frames).frame)
        return written_s


def _vitals(number: int) -> bytes:
    return json.dumps({"ts": (T0_NS + number * SECOND_NS) // 10**6, "hr": 60 + number % 90, "spo2": 97}).encode()


async def _told(link: tuple[asyncio.StreamReader, asyncio.StreamWriter], number: int) -> None:
    reader, writer = link
    time_text = datetime.fromtimestamp(T0_NS // SECOND_NS + number, UTC).strftime("%Y%m%d%H%M%S+0000")
    segments = (
        f"MSH|^~\\&|MONITOR|WARD|||{time_text}||ORU^R01^ORU_R01|m{number}|P|2.6",
        "PV1||I|ICU^1",
        f"OBR|1|||VITALS|||{time_text}",
        f"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC||{60 + number % 90}|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||F",
        "OBX|2|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC||97|262688^MDC_DIM_PERCENT^MDC|||||F",
    )
    writer.write(b"\x0b" + "".join(f"{one}\r" for one in segments).encode() + b"\x1c\r")
    answer = await reader.readuntil(b"\x1c\r")
    if b"MSA|AA|" not in answer:
        raise RuntimeError(f"it was not accepted: {answer!r}")
