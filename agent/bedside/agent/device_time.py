"""The device's trusted time, noted in the state directory so that the next run knows it (see `trusted_time`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Final

import msgspec

from bedside.agent.trusted_time import JUMP_NS, NS_PER_S, YEAR_NS, TrustedTime
from bedside.core.clock import Clock
from bedside.core.errors import RefusedError
from bedside.core.unreadable import UNREADABLE
from bedside.service.files import read_regular, write_durable
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

FILE_NAME: Final = "trusted-time.json"
SAVE_S: Final = 3_600.0
"""Seconds between two notes: a card wears."""

_NO_BOUND_NS: Final = (1 << 63) - 1
_MAX_NOTE_BYTES: Final = 4_096


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file.

    Attributes:
        trusted_ns: nanoseconds since 1970.
    """

    trusted_ns: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class DeviceTime:
    """One device's."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        """Read the note of an earlier run; without one, nothing is known of the clock until it has been steady."""
        self._path = state_dir / FILE_NAME
        self._clock = clock
        self._saved: tuple[int, float] | None = None
        self._rule = TrustedTime(self._read(), clock.now_ns(), clock.monotonic_s())
        self._told = False

    def now_ns(self) -> int:
        """The time for what people do.

        Raises:
            RefusedError: `clock-implausible`.
        """
        rule = self._look()
        if rule.far:
            raise RefusedError(
                "clock-implausible",
                f"the clock is {_span(rule.off_ns)} from where this device last trusted it",
                remedy=f"set it (timedatectl); where it is right, stop the agent, remove {self._path}, and start it",
            )
        return rule.now_ns

    def expiry_ns(self) -> int | None:
        """The time by which old rows expire; None while nothing is known of the clock."""
        rule = self._look()
        return rule.now_ns if rule.known else None

    def plausible_until_ns(self) -> int:
        """A stored time beyond this comes from a clock that was wrong."""
        rule = self._look()
        return rule.latest_ns + YEAR_NS if rule.known else _NO_BOUND_NS

    @property
    def degraded(self) -> str:
        """What is wrong with the clock; empty when it keeps its course."""
        rule = self._look()
        if not rule.jumped:
            return ""
        return (
            f"the clock jumped by {_span(rule.off_ns)}: nothing expires by it until it has been steady for"
            f" {max(1, round(rule.wait_s / 60))} min more"
        )

    def save_due(self) -> None:
        """Note the trusted time, once an hour, and where it has changed its course; in any thread.

        Raises:
            OSError: the disk refuses.
        """
        rule, now_s = self._rule, self._clock.monotonic_s()
        if not rule.known or rule.jumped:
            return
        now_ns = rule.now_ns
        if self._saved is not None:
            saved_ns, saved_s = self._saved
            if now_s - saved_s < SAVE_S and abs(now_ns - saved_ns - round((now_s - saved_s) * NS_PER_S)) <= JUMP_NS:
                return
        write_durable(self._path, msgspec.json.encode(Note(now_ns)))
        self._saved = now_ns, now_s

    def _look(self) -> TrustedTime:
        rule = self._rule
        rule.look(self._clock.now_ns(), self._clock.monotonic_s())
        if rule.jumped is not self._told:
            self._told = rule.jumped
            name = "clock-jumped" if rule.jumped else "clock-trusted"
            event(_LOGGER, name, level=logging.WARNING, off_s=rule.off_ns // NS_PER_S)
        return rule

    def _read(self) -> int | None:
        try:
            return msgspec.json.decode(read_regular(self._path, _MAX_NOTE_BYTES), type=Note).trusted_ns
        except (OSError, *UNREADABLE):  # the first run, or a note that tells nothing
            return None


def _span(off_ns: int) -> str:
    """By how much, with the sign, for people."""
    minutes = off_ns / (60 * NS_PER_S)
    return f"{minutes / 1_440:+,.0f} d" if abs(minutes) > 2 * 1_440 else f"{minutes:+,.0f} min"
