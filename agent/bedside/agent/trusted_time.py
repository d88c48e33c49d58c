"""How far the wall clock is believed: a rule without IO, for what a clock that is wrong for a moment must not do.

Old rows expire by the trusted time, which is never later than the wall clock, and runs as the monotonic one does. A
wall clock that jumps is believed when it has stayed where it is for an hour, beyond a year for a day: a device without
a clock of its own starts in the past, and jumps when it hears from a time server.

Invariants:
    * The trusted time is not later than the wall clock.
    * A wall clock that is ahead for less than `STEADY_S` moves the trusted time by no more than `JUMP_NS`.
    * A wall clock that stays within `JUMP_NS` of one course is believed after a day at most.
"""

from __future__ import annotations

from typing import Final

NS_PER_S: Final = 1_000_000_000
JUMP_NS: Final = 300 * NS_PER_S
"""What a wall clock may be off its course without having jumped: five minutes."""
AWAY_NS: Final = 86_400 * NS_PER_S
"""For so long a device may be switched off, and believe its clock at once: a day."""
YEAR_NS: Final = 366 * AWAY_NS
UNSET_NS: Final = 1_672_531_200 * NS_PER_S
"""A wall clock before 2023 has not been set since the board has power."""
STEADY_S: Final = 3_600.0
"""Seconds after which a clock is believed that has jumped."""
STEADY_FAR_S: Final = 86_400.0
"""The same where it has jumped by more than a year."""

_SLEW: Final = 1e-3
"""What the course may follow of a wall clock that runs fast or slow: twice what time servers correct at most."""


class TrustedTime:
    """The course of the wall clock against the monotonic one.

    Attributes:
        known: whether there is a course to trust: from an earlier run, or after an hour of this one.
        off_ns: by how much the wall clock is ahead of the trusted course; negative behind it.
    """

    def __init__(self, known_ns: int | None, wall_ns: int, monotonic_s: float) -> None:
        """Begin a run.

        Args:
            known_ns: trusted time as an earlier run noted it last; None where there is none.
            wall_ns: the wall clock, nanoseconds since 1970.
            monotonic_s: seconds of a clock that nobody sets.
        """
        self.known = known_ns is not None
        believed = known_ns is None or -JUMP_NS <= wall_ns - known_ns <= AWAY_NS
        begin_ns = wall_ns if known_ns is None or believed else known_ns
        self._course_ns = begin_ns - _ns(monotonic_s)
        self._wall_ns = wall_ns
        self._monotonic_s = self._since_s = monotonic_s
        self._candidate_ns = wall_ns - _ns(monotonic_s)
        self.off_ns = wall_ns - begin_ns

    def look(self, wall_ns: int, monotonic_s: float) -> None:
        """Take both clocks' times of one moment; call it at least every minute."""
        course_ns = wall_ns - _ns(monotonic_s)
        if abs(course_ns - self._candidate_ns) > JUMP_NS:
            self._candidate_ns, self._since_s = course_ns, monotonic_s
        if not self.known and self._course_ns + _ns(monotonic_s) < UNSET_NS <= wall_ns:
            self._course_ns = course_ns  # the first run, before which nobody had set the clock
        off_ns = course_ns - self._course_ns
        slew_ns = round((monotonic_s - self._monotonic_s) * NS_PER_S * _SLEW)
        if abs(off_ns) <= JUMP_NS:
            self._course_ns += max(-slew_ns, min(off_ns, slew_ns))
        self._wall_ns, self._monotonic_s = wall_ns, monotonic_s
        if (self.jumped or not self.known) and self.wait_s <= 0:
            self._course_ns, self.known = course_ns, True
        self.off_ns = course_ns - self._course_ns

    @property
    def jumped(self) -> bool:
        """Whether the wall clock is not where it was."""
        return abs(self._wall_ns - _ns(self._monotonic_s) - self._course_ns) > JUMP_NS

    @property
    def far(self) -> bool:
        """Whether it is more than a year from there."""
        return abs(self.off_ns) > YEAR_NS

    @property
    def wait_s(self) -> float:
        """Seconds for which the wall clock must stay where it is, to be believed."""
        off_ns = self._wall_ns - _ns(self._monotonic_s) - self._course_ns
        steady_s = STEADY_FAR_S if abs(off_ns) > YEAR_NS else STEADY_S
        return max(0.0, steady_s - (self._monotonic_s - self._since_s))

    @property
    def now_ns(self) -> int:
        """Nanoseconds since 1970: the earlier of the wall clock and its trusted course, at the last look."""
        return min(self._wall_ns, self._course_ns + _ns(self._monotonic_s))

    @property
    def latest_ns(self) -> int:
        """The later of the two."""
        return max(self._wall_ns, self._course_ns + _ns(self._monotonic_s))


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
