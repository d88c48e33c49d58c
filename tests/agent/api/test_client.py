"""The Python client: pleasant values, errors with a code and a remedy, and following across a restart."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.api.alarms import MAX_BY_CHARS
from bedside.agent.api.predictions import MAX_SEGMENTS
from bedside.agent.buffer.labels import WrongLabelsError
from bedside.agent.buffer.rows import Label, Output
from bedside.agent.client import LocalAgent
from bedside.core.errors import BedsideError, ConfigError, MalformedError, ProtocolError, UnavailableError
from bedside.core.ids import StreamId
from bedside.proto.v1.local_pb2 import Prediction, PredictRequest

ECG = StreamId("ecg")
T0 = 1_700_000_000_000_000_000
S = 1_000_000_000


async def test_a_folder_that_the_socket_needs_is_private_and_one_that_is_there_stays_as_it_is(served) -> None:
    """It may be /run, and the agent root's."""
    async with served.serving():
        assert served.socket.parent.stat().st_mode & 0o777 == 0o700
    served.socket.parent.chmod(0o755)
    async with served.serving():
        assert served.socket.parent.stat().st_mode & 0o777 == 0o755
        assert served.socket.stat().st_mode & 0o777 == 0o600


async def test_labels_are_added_listed_and_withdrawn(served) -> None:
    session = served.signal(0, 4)
    async with served.agent() as agent:
        one = await agent.add_label(ECG, T0, T0 + S, "af")
        assert (one.number, one.session, one.origin, one.withdrawn) == (1, session, "api", False)
        same = Label(ECG, session, T0, T0 + S, "af", "")
        more = Label(ECG, session, T0 + S, T0 + 2 * S, "sr", "csv:beats.csv")
        added = await agent.add_labels([same, more])
        assert ([label.number for label in added.labels], added.new) == ([1, 2], 1)
        assert await agent.withdraw_label(1) == replace(one, withdrawn=True)
        assert [(label.number, label.withdrawn) for label in await agent.labels(session)] == [(1, True), (2, False)]
        assert await agent.labels("another") == []


async def test_a_labels_value_arrives_and_comes_back(served) -> None:
    session = served.signal(0, 4)
    async with served.agent() as agent:
        measured = await agent.add_label(ECG, T0, T0 + S, "po2", value=0.0)
        await agent.add_label(ECG, T0, T0 + S, "af")
        assert measured.value == 0.0
        assert [(label.label, label.value) for label in await agent.labels(session)] == [("po2", 0.0), ("af", None)]


async def test_values_are_answered_and_explained_in_their_unit(served) -> None:
    async with served.agent() as agent:
        answer = await agent.predict(np.full((4, 2), 0.5), model="loudness")
        assert answer.outputs == (Output("level", 10.0, "dB"),)
        found = await agent.explain(3, segments=4, output="level")
        assert (found.output, found.unit) == ("level", "dB")
        assert found.effects.tolist() == [[0.0], [0.5], [1.0], [1.5]]


async def test_every_label_that_is_refused_is_named_by_its_place_and_what_looks_wrong_is_told(served) -> None:
    served.signal(0, 4)
    fine = Label(ECG, "", T0, T0 + S, "af", "")
    batch = [replace(fine, start_ns=T0 - S), fine, replace(fine, end_ns=T0 + 65 * S), replace(fine, session="none")]
    async with served.agent() as agent:
        for check_only in (True, False):
            with pytest.raises(WrongLabelsError, match="3 labels are refused") as refused:
                await agent.add_labels(batch, check_only=check_only)
            found = [(one.index, one.code) for one in refused.value.faults]
            assert found == [(0, "no-session-covers"), (2, "label-in-future"), (3, "no-such-session")]
        assert (await agent.add_labels([fine], check_only=True)).labels == ()
        assert (await agent.add_labels([fine])).new == 1
        again = await agent.add_labels([replace(fine, label="sr")])
        assert again.new == 1
        assert "'sr' from 2023-11-14T22:13:20.000+00:00 contradicts label 1, 'af'" in again.warnings[0]


@pytest.mark.parametrize(
    ("label", "kind", "code"),
    [
        (Label(ECG, "", T0 - S, T0, "af", ""), ProtocolError, "no-session-covers"),
        (Label(ECG, "", T0, T0, "af", ""), MalformedError, "bad-label-time"),
        (Label(ECG, "", T0, T0 + 1, "", ""), MalformedError, "bad-label"),
        (Label(ECG, "", T0, T0 + 1, "af", "replay"), MalformedError, "bad-label-origin"),
        (Label(ECG, "", 2**64 - 2, 2**64 - 1, "af", ""), MalformedError, "bad-label-time"),
    ],
)
async def test_what_the_agent_refuses_arrives_as_its_error(served, label, kind, code) -> None:
    served.signal(0, 4)
    async with served.agent() as agent:
        with pytest.raises(kind) as refused:
            await agent.add_labels([label])
    assert refused.value.code == code
    assert refused.value.remedy or code == "bad-label-origin"


async def test_a_number_that_no_column_holds_is_refused(served) -> None:
    async with served.agent() as agent:
        for call in (agent.withdraw_label(2**64 - 1), agent.acknowledge_alarm(2**63, "ward"), agent.explain(2**63)):
            with pytest.raises(MalformedError, match="too large"):
                await call
        with pytest.raises(ProtocolError, match="there is no label 9"):
            await agent.withdraw_label(9)


async def test_a_window_of_ones_own_is_decided(served) -> None:
    async with served.agent() as agent:
        answer = await agent.predict([[0.9, -0.9], [0.7, 0.7]])
        assert (answer.label, answer.model, answer.latency_s) == ("loud", "loudness", 7e-6)
        assert answer.probabilities == pytest.approx({"loud": 0.8, "quiet": 0.2})
        assert (await agent.predict(np.zeros((4, 2)), model="loudness")).label == "quiet"


async def test_a_window_that_is_not_of_the_shape_it_says_is_refused(served) -> None:
    request = PredictRequest(values=np.zeros(6, "<f4").tobytes(), length=3, channels=3)
    for wrong in (request, PredictRequest(values=request.values)):
        with pytest.raises(MalformedError, match="6 values are no window of"):
            await served.calls.predictions.predict(wrong)


@pytest.mark.parametrize(
    ("values", "model", "code"),
    [
        ([], "", "bad-window"),
        ([[1.0, math.nan]], "", "bad-window"),
        ([[1.0, math.inf]], "", "bad-window"),
        (np.zeros((1_000_001, 1)), "", "bad-window"),
        (np.zeros(4), "", "bad-window"),
        (np.zeros((1, 2, 2)), "", "bad-window"),
        ([[1.0]], "Loudness", "bad-id"),
        ([[1.0]], "other", "no-such-model"),
    ],
)
async def test_a_window_that_is_none_is_refused(served, values, model, code) -> None:
    async with served.agent() as agent:
        with pytest.raises(BedsideError) as refused:
            await agent.predict(values, model=model)
    assert refused.value.code == code


async def test_an_explanation_is_an_array_of_segments_and_channels(served) -> None:
    async with served.agent() as agent:
        found = await agent.explain(3, segments=4)
        assert found.effects.shape == (4, 2)
        assert found.effects[0, 1] == np.float32(-1e-6)
        assert (found.prediction, found.method) == (3, "occlusion")
        assert (await agent.explain(3)).effects.shape == (16, 2)
        with pytest.raises(MalformedError, match="too many"):
            await agent.explain(3, segments=MAX_SEGMENTS + 1)


async def test_alarms_are_followed_from_the_open_ones_on_and_acknowledged(served) -> None:
    served.book.raise_alarm("fall")
    served.book.raise_alarm("spo2")
    async with served.agent() as agent:
        await agent.acknowledge_alarm(1, "nurse-station-2")
        assert [(one.number, one.acknowledged_by) for one in await agent.alarms()] == [(1, "nurse-station-2"), (2, "")]
        assert [one.number for one in await agent.alarms(open_only=True)] == [2]
        followed = agent.follow_alarms()
        assert (await anext(followed)).rule == "spo2"
        served.book.raise_alarm("fall")
        changed = [await anext(followed)]
        await agent.acknowledge_alarm(3, "ward")
        changed.append(await anext(followed))
        assert [(one.number, one.acknowledged_by) for one in changed] == [(3, ""), (3, "ward")]
        await followed.aclose()
        for by in ("", " ", "x" * (MAX_BY_CHARS + 1), "a\nb"):
            with pytest.raises(MalformedError, match="who acknowledges"):
                await agent.acknowledge_alarm(3, by)


async def test_without_an_agent_the_remedy_is_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as refused:
        async with LocalAgent(tmp_path / "agent.sock"):
            pass
    assert refused.value.code == "agent-not-running"
    assert "bedside agent run" in refused.value.remedy
    told = f"agent-not-running: no agent serves {tmp_path / 'agent.sock'}. Remedy: start it: bedside agent run"
    assert str(refused.value).startswith(told), "a traceback says what to do"


async def test_remedies_name_the_directory_that_the_agent_was_named_by(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("")
    with pytest.raises(UnavailableError) as refused:
        async with LocalAgent(tmp_path):
            pass
    assert refused.value.remedy == f"start it: bedside agent run {tmp_path}"


async def test_a_directory_without_an_agent_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.toml"):
        async with LocalAgent(tmp_path):
            pass


async def test_an_agent_that_goes_away_is_an_error_of_the_next_call(served) -> None:
    async with asyncio.timeout(30):
        serving = served.serving()
        await serving.__aenter__()
        async with LocalAgent(served.socket) as agent:
            assert await agent.sessions() == []
            followed = agent.follow(0, patience_s=0.5)
            assert (await anext(followed)).number == 1
            await serving.__aexit__(None, None, None)
            with pytest.raises(UnavailableError, match="no agent serves") as refused:
                await agent.sessions()
            assert refused.value.code == "agent-not-running"
            with pytest.raises(UnavailableError, match="no agent serves"):
                async for _ in followed:
                    pass


async def test_a_follower_comes_back_with_the_agent_and_misses_nothing(served) -> None:
    async with asyncio.timeout(30):
        serving = served.serving()
        await serving.__aenter__()
        async with LocalAgent(served.socket) as agent:
            followed = agent.follow(1, patience_s=math.inf)
            assert [(await anext(followed)).number for _ in range(2)] == [2, 3]
            await serving.__aexit__(None, None, None)
            served.followers.publish(Prediction(id=4))
            async with served.serving():
                assert (await anext(followed)).number == 4
                served.followers.publish(Prediction(id=5))
                assert (await anext(followed)).number == 5
                await followed.aclose()
