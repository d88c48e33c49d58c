"""Talking to the agent of this machine from a program of one's own.

    async with LocalAgent("gateway") as agent:
        session = await agent.open_session("ecg")
        async for prediction in agent.follow():
            print(prediction.label, prediction.confidence)

Times are nanoseconds since 1970, as the agent's clock has them. Every failure is a `BedsideError` with a code, a
sentence and a remedy; `agent-not-running` when there is nobody to talk to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from bedside.agent.api.messages import (
    alarm_row,
    label_message,
    label_row,
    output_row,
    prediction_row,
    quarantined_row,
    session_row,
)
from bedside.agent.api.models import slot_row
from bedside.agent.api.personal import personal_row
from bedside.agent.buffer.labels import Added, Fault, WrongLabelsError
from bedside.agent.buffer.rows import Alarm, Label, Prediction, Quarantined, Session
from bedside.agent.client_rows import Answer, Explanation, explanation_of
from bedside.agent.config import CONFIG_NAME, ApiConfig, load_agent_config
from bedside.agent.naming import typeable
from bedside.agent.personal.view import PersonalView
from bedside.agent.serving.view import SlotView
from bedside.agent.writer import is_served
from bedside.core.errors import ConfigError, MalformedError, UnavailableError
from bedside.core.ids import SessionId, StreamId
from bedside.proto.v1 import local_pb2 as wire
from bedside.proto.v1.common_pb2 import Empty
from bedside.proto.v1.local_pb2_grpc import AgentServiceStub
from bedside.service.link.address import parse_address
from bedside.service.link.channel import open_channel
from bedside.service.link.errors import remote_errors

if TYPE_CHECKING:
    import grpc

    from bedside.proto.v1.local_pb2_grpc import AgentServiceAsyncStub

NOT_RUNNING: Final = "agent-not-running"
TIMEOUT_S: Final = 10.0
_AGAIN_S: Final = 0.25
"""Seconds between two looks for an agent that is away."""

Stream = TypeVar("Stream", bound="grpc.aio.Call")
Float32 = npt.NDArray[np.float32]


class LocalAgent:
    """A connection to the agent, to be used in `async with`; it connects by itself again when the agent was away."""

    def __init__(self, where: Path | str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Name the agent; nothing is opened yet.

        Args:
            where: its directory (the one with agent.toml), or its socket.
            timeout_s: for every call but `follow` and `follow_alarms`.
        """
        self._where = Path(where)
        self._timeout_s = timeout_s
        self._socket = self._where

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UnavailableError: `agent-not-running`.
            ConfigError: from agent.toml.
        """
        if (self._where / CONFIG_NAME).exists() or self._where.is_dir():
            self._socket = _socket_of(self._where)
        with self._errors():
            if not is_served(self._socket):
                raise not_running(self._socket)
        self._channel = open_channel(parse_address(f"unix:{self._socket.absolute()}"), None, max_reconnect_s=_AGAIN_S)
        self._stub: AgentServiceAsyncStub = AgentServiceStub(self._channel)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close the connection."""
        await self._channel.close()

    async def status(self) -> wire.AgentStatus:
        """Everything that the agent says about itself: the message as it comes over the wire.

        What its fields mean is in `protos/bedside/proto/v1/local.proto`; the other calls return rows of their own.
        """
        with self._errors():
            return await self._stub.Status(Empty(), timeout=self._timeout_s)

    async def follow(self, since: int | None = None, *, patience_s: float = 60.0) -> AsyncIterator[Prediction]:
        """Yield predictions as they are made, each once and in order, for ever.

        When the agent goes away, it is looked for, and what was made in the meantime comes first.

        Args:
            since: number of the last prediction that is known: the stored ones after it come first (0: all that are
                stored). None: from now on.
            patience_s: seconds to wait for an agent that went away; `math.inf` for ever.

        Raises:
            UnavailableError: `agent-not-running`, after `patience_s`.
        """
        last = (await self.status()).predictions if since is None else since
        away_s = 0.0
        while True:
            try:
                with self._errors(), _ended(self._stub.Follow(wire.FollowRequest(since_id=last))) as call:
                    async for message in call:
                        last, away_s = message.id, 0.0
                        yield prediction_row(message)
            except UnavailableError:
                if away_s >= patience_s:
                    raise
            away_s += _AGAIN_S
            await asyncio.sleep(_AGAIN_S)

    async def predict(self, values: npt.ArrayLike, *, model: str = "") -> Answer:
        """Have a served model decide one window; nothing of it is stored.

        Args:
            values: (length, channels), in the physical unit of the model's stream.
            model: its name; may be left out when one serves.

        Raises:
            MalformedError: `bad-window`: the window has another shape than the model's, or holds what is no number.
            ProtocolError: `no-such-model`, or `which-model`.
        """
        window = np.ascontiguousarray(values, "<f4")
        if np.ndim(values) != 2:
            raise MalformedError(
                "bad-window",
                f"an array of {np.ndim(values)} dimensions is no window",
                remedy="give (length, channels): a row per sample, a column per channel",
            )
        length, channels = window.shape
        request = wire.PredictRequest(model=model, values=window.tobytes(), length=length, channels=channels)
        with self._errors():
            answer = await self._stub.Predict(request, timeout=self._timeout_s)
        probabilities = {one.label: one.probability_e6 / 1e6 for one in answer.probabilities}
        outputs = tuple(map(output_row, answer.outputs))
        return Answer(answer.model, answer.model_digest, answer.label, probabilities, answer.latency_us / 1e6, outputs)

    async def explain(self, prediction: int, *, segments: int = 16, output: str = "") -> Explanation:
        """Find out which pieces of the signal an output of a stored prediction rests on: of its label where empty.

        Raises:
            ProtocolError: there is no such prediction, or its signal or model is gone.
        """
        request = wire.ExplainRequest(prediction_id=prediction, segments=segments, output=output)
        with self._errors():
            return explanation_of(await self._stub.Explain(request, timeout=self._timeout_s))

    async def sessions(self, stream: str = "", *, limit: int = 1_000) -> list[Session]:
        """The newest sessions, in the order in which they were opened."""
        request = wire.ListSessionsRequest(stream=stream, limit=limit)
        with self._errors():
            answer = await self._stub.ListSessions(request, timeout=self._timeout_s)
        return [session_row(message) for message in answer.sessions]

    async def open_session(
        self, stream: str, *, consent_training: bool | None = None, origin: str = "api", new_stream: bool = False
    ) -> Session:
        """Begin a session on a stream, and end the one before; what arrives from now on belongs to it.

        Args:
            stream: its id.
            consent_training: whether its windows may be trained on. None: no where it was refused for the stream
                before, else what agent.toml says.
            origin: who asks: `api` or `cli`.
            new_stream: the stream may be one that is neither configured nor stored.

        Raises:
            ProtocolError: `no-such-stream`.
        """
        request = wire.OpenSessionRequest(
            stream=stream, consent_training=consent_training, origin=origin, new_stream=new_stream
        )
        with self._errors():
            return session_row(await self._stub.OpenSession(request, timeout=self._timeout_s))

    async def close_session(self, stream: str) -> Session:
        """End the stream's session. Raises ProtocolError `no-open-session`."""
        with self._errors():
            return session_row(
                await self._stub.CloseSession(wire.CloseSessionRequest(stream=stream), timeout=self._timeout_s)
            )

    async def set_consent(self, session: str, *, training: bool) -> Session:
        """Give or withdraw consent to train on a session. Raises ProtocolError `no-such-session`."""
        request = wire.SetConsentRequest(session=session, consent_training=training)
        with self._errors():
            return session_row(await self._stub.SetConsent(request, timeout=self._timeout_s))

    async def forget(self, session: str) -> Mapping[str, int]:
        """Erase everything of a session, and return the rows that went by table.

        It returns when the pages are overwritten, which takes longer for a long session than other calls do.

        Raises:
            ProtocolError: `no-such-session`.
        """
        with self._errors():
            return dict((await self._stub.ForgetSession(wire.SessionRef(session=session))).rows)

    async def labels(self, session: str) -> list[Label]:
        """All labels of a session by number, the withdrawn ones among them."""
        found: list[Label] = []
        with self._errors():
            while page := await self._page(session, found[-1].number if found else 0):
                found += page
        return found

    async def add_label(
        self, stream: str, start_ns: int, end_ns: int, label: str, *, value: float | None = None
    ) -> Label:
        """Say what the time from `start_ns` to `end_ns` on a stream was, or its value; `add_labels` for many."""
        one = Label(StreamId(stream), SessionId(""), start_ns, end_ns, label, "api", value=value)
        return (await self.add_labels([one])).labels[0]

    async def add_labels(self, labels: Sequence[Label], *, check_only: bool = False) -> Added:
        """Store labels, all or none; the same one again adds nothing. What looks wrong is in the answer's `warnings`.

        Raises:
            WrongLabelsError: `no-session-covers`, `label-crosses-session`, `label-in-future` or `no-such-session`; it
                says which labels, and also with `check_only`, which stores nothing.
            MalformedError: the name or the time of one is none.
        """
        request = wire.AddLabelsRequest(labels=map(label_message, labels), check_only=check_only)
        with self._errors():
            answer = await self._stub.AddLabels(request, timeout=self._timeout_s)
            if answer.faults:
                raise WrongLabelsError([Fault(one.index, one.code, one.sentence, one.remedy) for one in answer.faults])
        return Added(tuple(map(label_row, answer.labels)), answer.added, tuple(answer.warnings))

    async def withdraw_label(self, number: int) -> Label:
        """Mark a label as withdrawn: nothing uses it any more. Raises ProtocolError `no-such-label`."""
        with self._errors():
            return label_row(await self._stub.WithdrawLabel(wire.LabelRef(id=number), timeout=self._timeout_s))

    async def alarms(self, *, open_only: bool = False, limit: int = 1_000) -> list[Alarm]:
        """The newest alarms, in the order in which they were raised."""
        request = wire.ListAlarmsRequest(open_only=open_only, limit=limit)
        with self._errors():
            answer = await self._stub.ListAlarms(request, timeout=self._timeout_s)
        return [alarm_row(message) for message in answer.alarms]

    async def follow_alarms(self) -> AsyncIterator[Alarm]:
        """Yield every open alarm, and then each change of one as it is durable.

        Raises:
            UnavailableError: `agent-not-running`, when the agent goes away: begin again, with the open ones.
        """
        with self._errors(), _ended(self._stub.FollowAlarms(Empty())) as call:
            async for message in call:
                yield alarm_row(message)

    async def acknowledge_alarm(self, number: int, by: str) -> Alarm:
        """Say that somebody has seen an alarm: `by` is a role or a place. Raises ProtocolError `no-such-alarm`."""
        request = wire.AcknowledgeAlarmRequest(id=number, by=by)
        with self._errors():
            return alarm_row(await self._stub.AcknowledgeAlarm(request, timeout=self._timeout_s))

    async def quarantine(self, source: str = "", reason: str = "") -> list[Quarantined]:
        """What sources could not understand, of a source and a reason, of all where empty; a count each, no value."""
        request = wire.QuarantineQuery(source=source, reason=reason)
        with self._errors():
            answer = await self._stub.ListQuarantine(request, timeout=self._timeout_s)
        return [quarantined_row(message) for message in answer.rows]

    async def clear_quarantine(self, source: str = "", reason: str = "") -> list[Quarantined]:
        """Remove what `quarantine` would return, and return it; what comes is counted anew."""
        request = wire.QuarantineQuery(source=source, reason=reason)
        with self._errors():
            answer = await self._stub.ClearQuarantine(request, timeout=self._timeout_s)
        return [quarantined_row(message) for message in answer.rows]

    async def send_now(self, sink: str, since_ns: int | None = None) -> tuple[int, int, str]:
        """Deliver what waits for a sink, or again what is stored from a time on.

        Returns how many rows were delivered, how many were not, and why the first was not. It takes as long as that.

        Raises:
            ProtocolError: `no-such-sink`.
        """
        with self._errors():
            answer = await self._stub.SendNow(wire.SendNowRequest(sink=sink, since_ns=since_ns))
        return answer.sent, answer.failed, answer.error

    async def model_slots(self) -> list[SlotView]:
        """Which models serve, may come to serve, and were put away."""
        with self._errors():
            answer = await self._stub.ListModelSlots(Empty(), timeout=self._timeout_s)
        return [slot_row(message) for message in answer.slots]

    async def roll_back_model(self, name: str) -> SlotView:
        """Serve the previous model again; the one that served does not come back by itself.

        Raises:
            ProtocolError: `no-such-model`, `no-previous-model`.
        """
        with self._errors():
            return slot_row(await self._stub.RollBackModel(wire.ModelRef(name=name)))

    async def accept_model(self, name: str) -> SlotView:
        """Serve the newest model that was put away after all. Raises as `roll_back_model`; `nothing-withdrawn`."""
        with self._errors():
            return slot_row(await self._stub.AcceptModel(wire.ModelRef(name=name)))

    async def promote_model(self, name: str) -> SlotView:
        """Serve the candidate now. Raises as `roll_back_model`; `no-candidate`."""
        with self._errors():
            return slot_row(await self._stub.PromoteModel(wire.ModelRef(name=name)))

    async def reject_model(self, name: str) -> SlotView:
        """Let the candidate go, or agree that one was refused. Raises as `promote_model`."""
        with self._errors():
            return slot_row(await self._stub.RejectModel(wire.ModelRef(name=name)))

    async def personal_models(self) -> list[PersonalView]:
        """What this device has for itself of every model."""
        with self._errors():
            answer = await self._stub.ListPersonal(Empty(), timeout=self._timeout_s)
        return [personal_row(message) for message in answer.models]

    async def make_personal(self, name: str) -> PersonalView:
        """Tune and fit now what agent.toml wants of a model, which takes its time. Raises as `PersonalDesk.make`."""
        with self._errors():
            return personal_row(await self._stub.MakePersonal(wire.ModelRef(name=name)))

    async def reset_personal(self, name: str) -> PersonalView:
        """Throw away what this device has for itself of a model. Raises ProtocolError `no-such-model`."""
        with self._errors():
            return personal_row(await self._stub.ResetPersonal(wire.ModelRef(name=name)))

    async def _page(self, session: str, after: int) -> list[Label]:
        request = wire.ListLabelsRequest(session=session, since_id=after)
        answer = await self._stub.ListLabels(request, timeout=self._timeout_s)
        return [label_row(message) for message in answer.labels]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._typeable(), remote_errors("the agent"):
                yield
        except UnavailableError as error:
            if error.code == "peer-unavailable":
                with self._typeable():
                    raise not_running(self._socket) from error
            raise

    def _typeable(self) -> AbstractContextManager[None]:
        """Remedies with the agent's directory, where that is what it was named by."""
        return typeable(self._where) if self._where.is_dir() else nullcontext()


@contextmanager
def _ended(call: Stream) -> Iterator[Stream]:
    """End a stream with the block that reads it, instead of when it is collected."""
    try:
        yield call
    finally:
        call.cancel()


def not_running(socket: Path) -> UnavailableError:
    """The error of an agent that is not there, at its socket, or at what is neither that nor a directory."""
    return UnavailableError(
        NOT_RUNNING, f"no agent serves {socket.absolute()}", remedy="start it: bedside agent run DIRECTORY"
    )


def _socket_of(directory: Path) -> Path:
    """The socket that agent.toml names; with a mistake in it, the usual one, where an agent goes on as it was."""
    try:
        return load_agent_config(directory).api.socket
    except ConfigError:
        usual = directory / ApiConfig().socket
        if not is_served(usual):
            raise
        return usual
