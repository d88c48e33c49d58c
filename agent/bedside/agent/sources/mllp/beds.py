"""Which bed a place of a hospital's message is, and what belongs to that bed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId, check_id

SEPARATOR: Final = "^"
_SHORT: Final = re.compile(r"[A-Za-z]{0,2}[0-9]{1,3}[A-Za-z]?|[A-Za-z]", re.ASCII)


class Bed(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One bed, or whatever a place of messages stands for.

    Attributes:
        stream: of its records.
        waves: streams of its waveforms, by the code or the MDC reference id that they are sent under.
        session_streams: streams that other sources deliver for this bed: its sessions are theirs.
    """

    stream: str
    waves: dict[str, str] = msgspec.field(default_factory=dict)
    session_streams: tuple[str, ...] = ()

    @property
    def delivered(self) -> tuple[str, ...]:
        """Streams that messages about this bed deliver."""
        return (self.stream, *dict.fromkeys(self.waves.values()))

    @property
    def all_streams(self) -> tuple[StreamId, ...]:
        """Every stream whose sessions are this bed's."""
        return tuple(StreamId(one) for one in dict.fromkeys((*self.delivered, *self.session_streams)))


class Beds:
    """Finds the bed of a place."""

    def __init__(self, source: str, beds: Mapping[str, str | Bed], everywhere: Bed | None = None) -> None:
        """Prepare.

        Args:
            source: name of the source, for errors.
            beds: by place, its leading components joined with ^; a stream's id alone is a bed that has that stream.
            everywhere: the bed of every place, for a listener that has only one.

        Raises:
            ConfigError: `source-config`: neither, or both; two beds or waveforms that share a stream; a place without a
                name.
        """
        self._everywhere = everywhere
        self._beds = {_trimmed(place): Bed(stream=bed) if isinstance(bed, str) else bed for place, bed in beds.items()}
        every = [*self._beds.values(), *([] if everywhere is None else [everywhere])]
        self._words = {"", *(part for place in self._beds for part in place.split(SEPARATOR))}
        streams = [stream for bed in every for stream in bed.all_streams]
        for stream in streams:
            check_id(stream, "stream")
        for holds, sentence in (
            (bool(self._beds) != (everywhere is not None), "it needs either `stream` or `beds`"),
            (len(self._beds) == len(beds) and "" not in self._beds, "two of its beds have one place, or one has none"),
            (len(set(streams)) == len(streams), "two of its beds share a stream"),
            (all(len(bed.delivered) == 1 + len(bed.waves) for bed in every), "two waveforms share a stream"),
            (all(bed.stream not in bed.waves.values() for bed in every), "records and a waveform share a stream"),
        ):
            if not holds:
                raise ConfigError(
                    "source-config",
                    f"source {source}: {sentence}",
                    remedy='write beds as "ICU^3" = "bed-3": place as PV1-3 says it, and the stream',
                )

    def shown(self, place: str) -> str:
        """A place as it may be shown: words of the configuration, and short numbers; any other word may be a name."""
        parts = (part if part in self._words or _SHORT.fullmatch(part) else "*" for part in place.split(SEPARATOR))
        return ":".join(parts) if place else ""

    @property
    def by_place(self) -> bool:
        """Whether places are told apart."""
        return self._everywhere is None

    def find(self, place: str) -> Bed | None:
        """The bed of a place: of the longest known beginning of its components; None when there is none."""
        if self._everywhere is not None:
            return self._everywhere
        parts = place.split(SEPARATOR)
        known = (self._beds.get(SEPARATOR.join(parts[:end])) for end in range(len(parts), 0, -1))
        return next((bed for bed in known if bed is not None), None)


def _trimmed(place: str) -> str:
    return SEPARATOR.join(part.strip() for part in place.split(SEPARATOR)).rstrip(SEPARATOR)
