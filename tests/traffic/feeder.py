"""What gives one source its input, and knows in numbers what it has given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bedside.agent.sources.supervisor import SourceHealth


@dataclass
class Sent:
    """What one source was given: readings of records, and samples (of all channels at one time) of waves.

    Attributes:
        good: that must be stored; what a device marks as "no value" is one of them, and is NaN.
        bad: that must be in the quarantine, by reason.
        lost: that were damaged on the way, so that a counter has to tell of them.
        repeated: messages that were sent once more, and must not be stored again.
    """

    good: int = 0
    lost: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    @property
    def readings(self) -> int:
        return self.good + self.lost + self.bad.total()


class Feeder:
    """One peer or device of the ward.

    Attributes:
        kind: of its source.
        needs: program without which there is no such peer; empty = none.
        name: of its source, and of its stream.
        sent: so far.
    """

    kind: ClassVar[str]
    needs: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: of the device; what must be there before the agent starts is made here.
        """
        self.name = self.kind
        self.folder = folder
        self.sent = Sent()

    async def prepare(self) -> None:
        """Begin what must be there before the agent is."""

    def options(self) -> dict[str, Any]:
        """`[sources.options]`."""
        raise NotImplementedError

    def streams(self) -> tuple[str, ...]:
        """Streams that its source delivers."""
        return (self.name,)

    async def start(self, health: SourceHealth) -> None:
        """Begin, beside the agent that runs."""

    async def minute(self, number: int, start_ns: int) -> None:
        """Give what one minute of the day brings, up to where the source has to go on."""
        raise NotImplementedError

    def taken(self, health: SourceHealth) -> int:
        """Readings and samples that the source has told of, in whatever way."""
        return health.values + health.samples + health.unmapped + health.gauge.dropped

    async def stop(self) -> None:
        """Put everything away."""


def toml(feeder: Feeder) -> str:
    """The source's part of `agent.toml`."""
    options = "".join(f"{key} = {_value(value)}\n" for key, value in feeder.options().items())
    return f'[[sources]]\nkind = "{feeder.kind}"\nname = "{feeder.name}"\n[sources.options]\n{options}'


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {_value(one)}' for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
