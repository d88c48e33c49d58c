"""What a kind of sink is: options, and how they become a sink. Third parties bring their own (docs/sinks.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import msgspec

from bedside.agent.kinds import option
from bedside.agent.sinks.outgoing import Outgoing, What
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ProtocolError, UnavailableError

__all__ = [
    "AnyKind",
    "AwayError",
    "Mode",
    "NotTakenError",
    "Sink",
    "SinkContext",
    "SinkKind",
    "SinkOptions",
    "option",
]

Mode = Literal["continuous", "scheduled", "event", "demand"]


class SinkOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every kind of sink takes; each field but `name` is `Annotated` with `option`.

    Attributes:
        name: of the sink, from `agent.toml`.
    """

    name: str
    mode: Annotated[Mode, option("continuous, scheduled, event or demand")] = "continuous"
    send: Annotated[tuple[What, ...], option("any of predictions, alarms, records")] = ("predictions", "alarms")
    streams: Annotated[tuple[str, ...], option("of these streams only; records need them named")] = ()
    models: Annotated[tuple[str, ...], option("predictions of these models only")] = ()
    labels: Annotated[tuple[str, ...], option("predictions of these classes only")] = ()
    min_confidence: Annotated[float, option("predictions of this probability or more")] = 0.0
    only_changes: Annotated[bool, option("a prediction only where its label is another than the one before")] = False
    within_s: Annotated[float, option("seconds in which what happens is collected before it is sent")] = 1.0
    every_s: Annotated[float, option("scheduled: seconds between two deliveries")] = 0.0
    at: Annotated[tuple[str, ...], option('scheduled: times of day, for instance ["06:00", "18:00"]')] = ()
    time_zone: Annotated[str, option("of these times, for instance Europe/Berlin")] = "UTC"
    max_waiting: Annotated[int, option("rows that may wait; beyond them the oldest are skipped and counted")] = 100_000
    subjects: Annotated[dict[str, str], option("what a stream is called outside: a place or a device")] = msgspec.field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What every sink may need.

    Attributes:
        clock: of the process.
        entropy: for nonces and jitter.
        directory: relative paths, and names of secrets, start here (`bedside.service.secret.read_secret`).
        device: pseudonymous id of this device.
    """

    clock: Clock
    entropy: Entropy
    directory: Path
    device: str


class AwayError(UnavailableError):
    """The receiver does not take anything now: everything is tried again, for ever, at growing distances.

    Attributes:
        retry_after_s: when the receiver wants to be asked again; 0 where it does not say.
    """

    def __init__(self, code: str, sentence: str, *, remedy: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(code, sentence, remedy=remedy)
        self.retry_after_s = retry_after_s


class NotTakenError(ProtocolError):
    """The receiver says that it will not take this batch as it is, however often it comes.

    A batch of several is then sent one by one, and one that is not taken after a few tries is counted and left out.
    """


class Sink(Protocol):
    """One output. Every sink has a thread and an event loop of its own: it may block, and disturbs nobody.

    Attributes:
        batch_rows: how many it takes at once; 1 where each is acknowledged for itself.
    """

    batch_rows: int

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Deliver, in this order; return when the receiver has acknowledged all of them, and raise otherwise.

        The same come again after a failure or a crash, with the same ids.

        Raises:
            AwayError: the receiver takes nothing now. Any other exception counts as this.
            NotTakenError: the receiver refuses this batch for good.
        """

    async def close(self) -> None:
        """Let go of connections and files; a `send` may follow, and opens them anew."""

    def preview(self, batch: Sequence[Outgoing]) -> str:
        """What `send` would transmit, as text for people; secrets are left out. Nothing is opened."""


Options = TypeVar("Options", bound=SinkOptions)


@dataclass(frozen=True, slots=True)
class SinkKind(Generic[Options]):
    """A kind of sink.

    Attributes:
        options: Struct of `[sinks.options]`.
        build: makes the sink. It opens no connection and reads no secret; it raises ConfigError, which names what is
            wrong with the options.
        sorts: what it can send.
    """

    options: type[Options]
    build: Callable[[Options, SinkContext], Sink]
    sorts: frozenset[What] = field(default=frozenset({"alarms", "predictions", "records"}))


AnyKind = SinkKind[Any]
