"""Sessions by the local API: where they begin and end, consent, and erasure that is proven in the file."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from bedside.agent.api.sessions import ERASE_LOOKS
from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.ids import StreamId
from bedside.service.sqlite import open_reader

ECG = StreamId("ecg")
T0 = 1_700_000_000_000_000_000
S = 1_000_000_000
GAP_S = 60.0


async def code_of(call) -> str:
    with pytest.raises(BedsideError) as refused:
        await call
    return refused.value.code


async def test_a_session_begins_where_the_streams_signal_stands(served) -> None:
    first = served.signal(0, 4)
    served.clock.at_s = 6.5  # what was measured at 4.0 to 6.5 s is still on its way
    async with served.agent() as agent:
        opened = await agent.open_session(ECG)
        before, after = await agent.sessions(ECG)
    assert (before.session, before.closed_ns) == (first, T0 + 4 * S)
    assert after == opened
    assert (opened.opened_ns, opened.closed_ns, opened.origin) == (T0 + 4 * S, None, "api")
    assert served.signal(4, 1) == opened.session


async def test_on_a_stream_that_is_silent_it_begins_now(served) -> None:
    served.signal(0, 4)
    served.clock.at_s = 5 + GAP_S
    async with served.agent() as agent:
        assert (await agent.open_session(ECG)).opened_ns == T0 + round((5 + GAP_S) * S)
        assert (await agent.open_session("new-bed", new_stream=True)).opened_ns == T0 + round((5 + GAP_S) * S)


async def test_a_session_ends_with_the_last_sample_and_what_comes_later_is_another(served) -> None:
    first = served.signal(0, 4)
    async with served.agent() as agent:
        closed = await agent.close_session(ECG)
        assert (closed.session, closed.closed_ns) == (first, T0 + 4 * S)
        assert await code_of(agent.close_session(ECG)) == "no-open-session"
    assert served.signal(4, 1) != first


async def test_consent_is_given_and_withdrawn_by_session(served) -> None:
    async with served.agent() as agent:
        given, refused = (
            await agent.open_session(ECG, new_stream=True),
            await agent.open_session("b", consent_training=False, new_stream=True),
        )
        assert (given.consent_training, refused.consent_training) == (True, False)
        withdrawn = await agent.set_consent(given.session, training=False)
        assert (withdrawn.session, withdrawn.consent_training) == (given.session, False)
        assert (await agent.set_consent(given.session, training=True)).consent_training
        assert await code_of(agent.set_consent("no-such", training=True)) == "no-such-session"


async def test_an_open_session_is_erased_and_its_signal_goes_on_in_another(served) -> None:
    first = served.signal(0, 4)
    async with served.agent() as agent:
        await agent.add_label(ECG, T0, T0 + S, "atrial-fibrillation")
        served.store.flush()
        rows = await agent.forget(first)
        assert await agent.sessions() == []
        assert await code_of(agent.forget(first)) == "no-such-session"
    assert (rows["sessions"], rows["labels"]) == (1, 1)
    assert rows["blobs"] >= 4
    second = served.signal(4, 1)
    assert second != first
    folder = served.store.database.path.parent
    files = [path.read_bytes() for path in folder.glob("buffer.db*")]
    assert not any(first.encode() in data or b"atrial-fibrillation" in data for data in files)


async def test_an_erasure_that_waits_for_a_reader_holds_nobody_up_and_ends_when_that_has_ended(served) -> None:
    session = served.signal(0, 2)
    served.store.flush()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)

    with closing(open_reader(served.store.database.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM blobs").fetchone()
        beating = asyncio.create_task(beat())
        async with served.agent() as agent:
            assert await code_of(agent.forget(session)) == "erase-pending"
            during = beats
            reader.execute("COMMIT")
            assert (await agent.forget(session))["sessions"] == 0
        beating.cancel()
    assert during >= ERASE_LOOKS
    assert served.store.degraded == ""


async def test_rows_may_be_written_between_the_steps_of_an_erasure(served, monkeypatch) -> None:
    monkeypatch.setattr("bedside.agent.buffer.erasure._SLICE_PAGES", 8)
    victim = served.signal(0, 300)
    served.store.flush()
    other = served.signal(1_000, 2)
    served.store.flush()
    served.store.delete(victim)
    assert served.store.degraded
    with served.store.scrubbing(victim) as step:
        steps = 0
        while step() is not None:
            steps += 1
            served.signal(1_000 + 2 * steps, 2)
            served.store.flush()
    assert steps > 3
    assert served.store.degraded == ""
    assert [one.session for one in served.reader.sessions()] == [other]
    path = served.store.database.path
    assert not any(victim.encode() in file.read_bytes() for file in path.parent.glob("buffer.db*"))


async def test_what_is_no_stream_is_refused_before_it_is_stored(served) -> None:
    async with served.agent() as agent:
        for name in ("", "ECG", "a/b", "x" * 65):
            assert await code_of(agent.open_session(name)) == "bad-id"
        assert await code_of(agent.open_session("ecg", origin="gap", new_stream=True)) == "bad-origin"
        assert await agent.sessions() == []


async def test_a_list_holds_the_newest_and_is_bounded(served) -> None:
    async with served.agent() as agent:
        made = [await agent.open_session(StreamId(f"bed-{number}"), new_stream=True) for number in range(5)]
        assert await agent.sessions(limit=2) == made[-2:]
        assert await agent.sessions("bed-1") == [made[1]]


async def test_a_stream_that_is_mistyped_is_refused_and_those_that_exist_are_named(served) -> None:
    served.signal(0, 1)
    served.calls.sessions._configured = frozenset({"wrist"})
    async with served.agent() as agent:
        with pytest.raises(ProtocolError, match="there is no stream wrsit on this device: it has ecg, wrist") as error:
            await agent.open_session("wrsit", consent_training=False)
        assert error.value.code == "no-such-stream"
        assert (await agent.open_session("wrist", consent_training=False)).stream == "wrist"
        await agent.open_session("wrsit", new_stream=True)
        assert (await agent.open_session("wrsit")).stream == "wrsit", "it exists now"


async def test_a_session_is_found_by_the_beginning_of_its_id(served) -> None:
    session = served.signal(0, 1)
    async with served.agent() as agent:
        assert (await agent.set_consent(session[:8], training=False)).session == session
        assert await code_of(agent.set_consent(session[:7], training=True)) == "no-such-session"
        served.store.database.run_tx("twin", lambda tx: tx.execute(
            "INSERT INTO sessions (session, stream, opened_ns, consent_training, origin) VALUES (?, 'ecg', 1, 1, 'x')",
            (session[:8] + "x" * 8,),
        ))  # fmt: skip
        assert await code_of(agent.set_consent(session[:8], training=True)) == "which-session"
        assert (await agent.set_consent(session, training=True)).session == session
        served.store.database.run_tx("twin", lambda tx: tx.execute("DELETE FROM sessions WHERE origin = 'x'"))
        await agent.forget(session[:8])
        assert await agent.sessions() == []
    assert session.encode() not in served.store.database.path.read_bytes()


async def test_where_a_wrong_clock_ended_a_session_nothing_begins(served) -> None:
    served.signal(0, 4)
    served.store.sessions.close(ECG, T0 + 5_000_000_000 * S)
    async with served.agent() as agent:
        assert (await agent.open_session(ECG)).opened_ns == T0 + 4 * S
    assert served.signal(4, 1) == (await _newest(served)).session


async def _newest(served):
    async with served.agent() as agent:
        return (await agent.sessions(ECG))[-1]
