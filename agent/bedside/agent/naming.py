"""What people call things by: a session by the beginning of its id, a stream that exists, a device by its directory."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bedside.agent.sources.registry import typed_source
from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.ids import StreamId, check_id
from bedside.service.text import bounded

if TYPE_CHECKING:
    from bedside.agent.buffer.reader import BufferReader
    from bedside.agent.buffer.rows import Session
    from bedside.agent.config import AgentConfig

MIN_PREFIX_CHARS: Final = 8
"""Of a session's id: what `bedside agent predictions` shows of it."""
_DIRECTORY: Final = "DIRECTORY"
_MAX_NAMES: Final = 12
_MAX_NAMES_CHARS: Final = 300


def find_session(reader: BufferReader, name: str) -> Session:
    """The session of an id, or of the beginning of one, at least 8 characters of it.

    Raises:
        ProtocolError: `no-such-session`, `which-session`.
    """
    found = reader.sessions_named(name, prefix=len(name) >= MIN_PREFIX_CHARS)
    if not found:
        raise ProtocolError(
            "no-such-session",
            f"there is no session {bounded(name, 32)!r} on this device",
            remedy=f"bedside agent session list {_DIRECTORY}",
        )
    if len(found) > 1:
        raise ProtocolError(
            "which-session",
            f"several sessions begin with {bounded(name, 32)!r}",
            remedy="give more of its id: " + ", ".join(one.session for one in found),
        )
    return found[0]


def configured_streams(config: AgentConfig) -> frozenset[str]:
    """Streams that `agent.toml` names: of its sources, of its models, and of what it keeps differently.

    Raises:
        ConfigError: `source-config`.
    """
    of_sources = {stream for source in config.sources for stream in typed_source(source).streams()}
    of_models = {stream for model in config.models for stream in model.streams}
    return frozenset((of_sources | of_models | {one.stream for one in config.buffer.streams}) - {""})


def find_stream(reader: BufferReader, name: str, configured: Collection[str], *, remedy: str = "") -> StreamId:
    """A stream that is configured or stored.

    Args:
        reader: of the device.
        name: what somebody calls it.
        configured: streams that the configuration names.
        remedy: what else can be done.

    Raises:
        MalformedError: `bad-id`.
        ProtocolError: `no-such-stream`, naming those that exist.
    """
    stream = StreamId(check_id(name, "stream"))
    known = {*configured, *reader.streams()}
    if stream not in known:
        names = sorted(known)
        shown = ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if names[_MAX_NAMES:] else "")
        raise ProtocolError(
            "no-such-stream",
            f"there is no stream {stream} on this device: it has {bounded(shown, _MAX_NAMES_CHARS) or 'none yet'}",
            remedy=remedy or "give one of these",
        )
    return stream


@contextmanager
def typeable(directory: Path) -> Iterator[None]:
    """Name the device's directory in the remedies of what is raised inside, so that they can be typed as they are."""
    try:
        yield
    except BedsideError as error:
        error.remedy = error.remedy.replace(_DIRECTORY, shlex.quote(str(directory)))
        raise
