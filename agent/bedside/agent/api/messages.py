"""What the buffer's tables hold, as the local API has it, and back. The wire's numbers are bounded on the way in."""

from __future__ import annotations

from collections.abc import Iterable

from bedside.agent.buffer.rows import Alarm, Label, Output, Prediction, Priority, Quarantined, Session
from bedside.core.errors import MalformedError
from bedside.core.ids import SessionId, StreamId
from bedside.core.limits import MAX_WIRE_INTEGER
from bedside.proto.v1 import local_pb2

_PRIORITIES: dict[str, Priority] = {"low": "low", "medium": "medium", "high": "high"}


def check_number(number: int, what: str) -> int:
    """Return a number that a column can hold.

    Raises:
        MalformedError: `number-too-large`.
    """
    if number > MAX_WIRE_INTEGER:
        raise MalformedError("number-too-large", f"{what} {number} is too large")
    return number


def session_message(session: Session) -> local_pb2.Session:
    """A session for the wire."""
    return local_pb2.Session(
        session=session.session,
        stream=session.stream,
        opened_ns=session.opened_ns,
        closed_ns=session.closed_ns or 0,
        consent_training=session.consent_training,
        origin=session.origin,
    )


def session_row(message: local_pb2.Session) -> Session:
    """A session from the wire."""
    return Session(
        SessionId(message.session),
        StreamId(message.stream),
        message.opened_ns,
        message.closed_ns or None,
        message.consent_training,
        message.origin,
    )


def label_message(label: Label) -> local_pb2.Label:
    """A label for the wire."""
    return local_pb2.Label(
        id=label.number,
        stream=label.stream,
        session=label.session,
        start_ns=label.start_ns,
        end_ns=label.end_ns,
        label=label.label,
        origin=label.origin,
        withdrawn=label.withdrawn,
        value=label.value,
    )


def label_row(message: local_pb2.Label) -> Label:
    """A label from the wire."""
    return Label(
        StreamId(message.stream),
        SessionId(message.session),
        message.start_ns,
        message.end_ns,
        message.label,
        message.origin,
        message.withdrawn,
        message.id,
        message.value if message.HasField("value") else None,
    )


def alarm_message(alarm: Alarm) -> local_pb2.Alarm:
    """An alarm for the wire."""
    return local_pb2.Alarm(
        id=alarm.number,
        rule=alarm.rule,
        stream=alarm.stream,
        session=alarm.session,
        priority=alarm.priority,
        raised_ns=alarm.raised_ns,
        value=alarm.value,
        prediction_id=alarm.prediction,
        cleared_ns=alarm.cleared_ns,
        acknowledged_ns=alarm.acknowledged_ns,
        acknowledged_by=alarm.acknowledged_by,
        escalated_ns=alarm.escalated_ns,
    )


def alarm_row(message: local_pb2.Alarm) -> Alarm:
    """An alarm from the wire."""
    return Alarm(
        rule=message.rule,
        stream=StreamId(message.stream),
        session=SessionId(message.session),
        priority=_PRIORITIES.get(message.priority, "high"),
        raised_ns=message.raised_ns,
        value=message.value,
        prediction=message.prediction_id,
        cleared_ns=message.cleared_ns,
        acknowledged_ns=message.acknowledged_ns,
        acknowledged_by=message.acknowledged_by,
        escalated_ns=message.escalated_ns,
        number=message.id,
    )


def prediction_row(message: local_pb2.Prediction) -> Prediction:
    """A prediction from the wire."""
    return Prediction(
        stream=StreamId(message.stream),
        session=SessionId(message.session),
        start_ns=message.start_ns,
        end_ns=message.end_ns,
        label=message.label,
        confidence=message.confidence_e6 / 1e6,
        model=message.model_digest,
        latency_s=message.latency_us / 1e6,
        model_name=message.model,
        number=message.id,
        outputs=tuple(map(output_row, message.outputs)),
    )


def prediction_message(prediction: Prediction, number: int) -> local_pb2.Prediction:
    """A prediction as the local API has it."""
    return local_pb2.Prediction(
        id=number,
        stream=prediction.stream,
        start_ns=prediction.start_ns,
        end_ns=prediction.end_ns,
        label=prediction.label,
        confidence_e6=round(prediction.confidence * 1_000_000),
        model_digest=prediction.model,
        latency_us=max(0, round(prediction.latency_s * 1_000_000)),
        model=prediction.model_name,
        session=prediction.session,
        outputs=map(output_message, prediction.outputs),
    )


def output_message(output: Output) -> local_pb2.Output:
    """An output of a prediction for the wire."""
    return local_pb2.Output(name=output.name, value=output.value, unit=output.unit)


def output_row(message: local_pb2.Output) -> Output:
    """An output of a prediction from the wire."""
    return Output(message.name, message.value, message.unit)


def prediction_messages(predictions: Iterable[Prediction]) -> list[local_pb2.Prediction]:
    """Stored predictions as the local API has them."""
    return [prediction_message(prediction, prediction.number) for prediction in predictions]


def quarantined_message(row: Quarantined) -> local_pb2.Quarantined:
    """A row of the quarantine for the wire."""
    return local_pb2.Quarantined(
        source=row.source,
        reason=row.reason,
        what=row.what,
        count=row.count,
        first_ns=row.first_ns,
        last_ns=row.last_ns,
    )


def quarantined_row(message: local_pb2.Quarantined) -> Quarantined:
    """A row of the quarantine from the wire."""
    return Quarantined(message.source, message.reason, message.what, message.count, message.first_ns, message.last_ns)
