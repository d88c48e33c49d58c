"""Windows that are held out: always the same ones, about a tenth, and no sample of theirs is trained on."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bedside.agent.buffer.session_ids import is_held_out
from bedside.agent.windows.holdout import HoldOut, Split
from bedside.core.bundle.manifest import WindowSpec

SECRET = b"s" * 32
SPEC = WindowSpec("wrist", 2, 50.0, 128, 64, (0.0, 0.0), (1.0, 1.0))
WINDOW_NS = 2_560_000_000
HOP_NS = WINDOW_NS // 2
SESSIONS = [f"session-{number}" for number in range(60)]
T0 = 1_750_000_000_123_456_789


def roles(hold_out: HoldOut, session: str, windows: int = 400) -> list[str]:
    return [hold_out.role(session, T0 + at * HOP_NS, T0 + at * HOP_NS + WINDOW_NS) for at in range(windows)]


def test_a_windows_role_is_the_devices_own_and_always_the_same() -> None:
    first = [roles(HoldOut(SECRET, SPEC), session) for session in SESSIONS]
    assert first == [roles(HoldOut(SECRET, SPEC), session) for session in SESSIONS]
    assert first != [roles(HoldOut(b"t" * 32, SPEC), session) for session in SESSIONS]


def test_about_a_tenth_of_sessions_and_a_tenth_of_the_others_time_is_held_out() -> None:
    hold_out = HoldOut(SECRET, SPEC)
    found = Counter(role for session in SESSIONS for role in roles(hold_out, session))
    total = found.total()
    assert 0.03 < found["session"] / total < 0.2
    assert 0.05 < found["block"] / total < 0.12
    assert found["border"] / total < 0.03
    assert found["training"] / total > 0.7


def test_no_sample_that_is_judged_with_is_trained_on() -> None:
    hold_out = HoldOut(SECRET, SPEC)
    for session in SESSIONS:
        trained, judged = set(), set()
        for at, role in enumerate(roles(hold_out, session)):
            if role != "border":
                (trained if role == "training" else judged).update((at, at + 1))  # the two hops that it covers
        assert not trained & judged


@pytest.mark.parametrize("length", [1_500, 50 * 3_600 * 48])
def test_long_windows_are_trained_on_too(length) -> None:
    spec = msgspec.structs.replace(SPEC, length=length, hop=length)
    hold_out, window_ns = HoldOut(SECRET, spec), length * 20_000_000
    found = Counter(hold_out.role("s", at * window_ns, (at + 1) * window_ns) for at in range(500))
    assert found["training"] > 300
    assert found["block"] > 10


def test_records_are_held_out_one_by_one() -> None:
    hold_out = HoldOut(SECRET, msgspec.structs.replace(SPEC, fields=("spo2", "pulse"), length=1, hop=1))
    session = next(one for one in SESSIONS if not is_held_out(one))
    found = Counter(
        hold_out.role(session, T0 + at * 3_600_000_000_000, T0 + at * 3_600_000_000_000) for at in range(500)
    )
    assert set(found) == {"training", "block"}


def test_a_split_has_the_windows_of_its_role_alone_and_passes_over_sessions_without_any() -> None:
    hold_out = HoldOut(SECRET, SPEC)
    splits = {role: Split(hold_out, role) for role in ("training", "session", "block")}
    for session in SESSIONS:
        for at, role in enumerate(roles(hold_out, session, 60)):
            start_ns = T0 + at * HOP_NS
            has = {name for name, one in splits.items() if one.has(session, start_ns, start_ns + WINDOW_NS)}
            assert has == ({role} - {"border"})
            assert role == "border" or splits[role].may_have(session)
        assert splits["session"].may_have(session) != splits["training"].may_have(session)
