"""A serial port under asyncio: the event loop waits on its descriptor, and reads when the consumer wants more."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Final

import serial

from bedside.core.errors import UnavailableError

_READ_BYTES: Final = 4_096


class SerialPort:
    """An open port; closed at the end of its `with`."""

    def __init__(self, path: str, baud: int) -> None:
        """Open it for this process alone, without parity; a pty ignores the speed.

        Args:
            path: device file.
            baud: bits per second.

        Raises:
            UnavailableError: `serial-open`.
        """
        self._path = path
        try:
            self._port = serial.Serial(path, baud, timeout=0, exclusive=True)
        except (OSError, ValueError) as error:
            raise UnavailableError(
                "serial-open",
                f"{path} cannot be opened: {error}",
                remedy="check the cable and that this user may use serial ports (group dialout)",
            ) from error

    def __enter__(self) -> SerialPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._port.close()

    def write(self, data: bytes) -> None:
        """Send a few bytes.

        Raises:
            UnavailableError: `serial-lost`.
        """
        try:
            os.write(self._port.fileno(), data)
        except OSError as error:
            raise UnavailableError("serial-lost", f"{self._path} was lost: {error.strerror}") from error

    async def read(self, limit_s: float | None, sender: str) -> bytes:
        """The next bytes.

        Args:
            limit_s: seconds in which they have to come; None for ever.
            sender: what is at the other end, for the error.

        Raises:
            UnavailableError: `serial-silent`, `serial-lost`.
        """
        descriptor = self._port.fileno()
        while True:
            try:
                await asyncio.wait_for(readable(descriptor), limit_s)
            except TimeoutError as error:
                raise UnavailableError(
                    "serial-silent",
                    f"the {sender} on {self._path} says nothing",
                    remedy="check its power, its cable and the baud rate",
                ) from error
            try:
                data = os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise UnavailableError("serial-lost", f"{self._path} was lost: {error.strerror}") from error
            if not data:
                raise UnavailableError("serial-lost", f"{self._path} was closed by the other side")
            return data


async def readable(descriptor: int) -> None:
    """Wait until `descriptor` has bytes or an end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
