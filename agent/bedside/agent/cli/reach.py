"""How commands reach a device's store: through its agent where one runs, else on the file, as its only writer."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import click

from bedside.agent.config import BUFFER_NAME, AgentConfig, load_agent_config
from bedside.agent.naming import configured_streams, find_session, find_stream, typeable
from bedside.core.errors import BedsideError, ProtocolError, UnavailableError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.platform import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from bedside.agent.api.direct import Changes
    from bedside.agent.buffer.keys import KeyRing
    from bedside.agent.buffer.plausibility import Known
    from bedside.agent.buffer.reader import BufferReader
    from bedside.agent.client import LocalAgent

DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)

Result = TypeVar("Result")
Face = TypeVar("Face")
"""A protocol of `LocalAgent`."""


def ask(directory: Path, question: Callable[[LocalAgent], Awaitable[Result]]) -> Result:
    """Ask the running agent.

    Raises:
        UnavailableError: `agent-not-running`.
    """
    from bedside.agent.client import LocalAgent

    async def talk() -> Result:
        async with LocalAgent(directory) as agent:
            return await question(agent)

    with typeable(directory):
        return asyncio.run(talk())


def change(directory: Path, work: Callable[[Changes], Awaitable[Result]]) -> Result:
    """Change the store of a device: its agent does, or this process where none runs.

    Raises:
        UnavailableError: `store-in-use`.
        BedsideError: what the change refuses.
    """
    config = load_agent_config(directory)

    async def run() -> Result:
        async with _changes(config) as changes:
            return await work(changes)

    with typeable(directory):
        return asyncio.run(run())


def through(
    directory: Path,
    work: Callable[[Face], Coroutine[None, None, Result]],
    files: Callable[[AgentConfig], Face],
    *,
    changes: bool,
) -> Result:
    """Have the agent do it, or do it to its files where none runs: as their only writer when it `changes` something.

    Args:
        directory: of the device.
        work: to do with one of the two.
        files: what stands in for the agent; has the methods of it that `work` calls.
        changes: whether more than reading is done.

    Raises:
        UnavailableError: `store-in-use`.
        BedsideError: what is asked for is refused.
    """
    from bedside.agent.writer import become_writer, is_served

    config = load_agent_config(directory)

    async def asked() -> Result:
        from bedside.agent.client import LocalAgent

        async with LocalAgent(config.api.socket) as agent:
            return await work(cast("Face", agent))

    with typeable(directory):
        if not changes:
            return asyncio.run(asked() if is_served(config.api.socket) else work(files(config)))
        with become_writer(config.state_dir, config.api.socket, SystemClock()) as writes:
            return asyncio.run(work(files(config)) if writes else asked())


@contextmanager
def reading(directory: Path) -> Iterator[BufferReader]:
    """Read the store of a device, whether its agent runs or not.

    Raises:
        UnavailableError: `nothing-stored` before its first run.
    """
    from bedside.agent.buffer.reader import BufferReader

    config = load_agent_config(directory)
    path = config.state_dir / BUFFER_NAME
    if not path.exists():
        raise UnavailableError(
            "nothing-stored",
            "this agent has not run yet, so that nothing is stored",
            remedy=f"bedside agent run {shlex.quote(str(directory))}",
        )
    with typeable(directory), closing(BufferReader(path, keys_of(config))) as reader:
        yield reader


def named(directory: Path, reader: BufferReader, *, session: str, stream: str) -> tuple[str, str]:
    """The session and the stream that somebody asks for, each empty where it is not asked for.

    Raises:
        ProtocolError: `no-such-session`, `which-session`, `no-such-stream`, or `other-stream` for a session of another.
    """
    found = find_session(reader, session) if session else None
    name = find_stream(reader, stream, configured_streams(load_agent_config(directory))) if stream else ""
    if found is not None and name not in ("", found.stream):
        raise ProtocolError(
            "other-stream",
            f"session {found.session} is one of stream {found.stream}, not of {name}",
            remedy="leave one of the two out",
        )
    return (found.session if found is not None else ""), name


@asynccontextmanager
async def _changes(config: AgentConfig) -> AsyncIterator[Changes]:
    from bedside.agent.writer import become_writer

    clock = SystemClock()
    with become_writer(config.state_dir, config.api.socket, clock) as writes:
        if not writes:
            from bedside.agent.client import LocalAgent

            async with LocalAgent(config.api.socket) as agent:
                yield agent
            return
        from bedside.agent.alarms.desk import AlarmDesk
        from bedside.agent.api.direct import DirectChanges
        from bedside.agent.api.follow import AlarmFollowers
        from bedside.agent.api.sessions import SessionCalls
        from bedside.agent.buffer.configured import open_store
        from bedside.agent.buffer.labels import Labels
        from bedside.agent.buffer.reader import BufferReader
        from bedside.agent.device_time import DeviceTime
        from bedside.agent.erasure import erase_session, unlearn
        from bedside.agent.personal.files import PersonalFiles

        keys, path = keys_of(config), config.state_dir / BUFFER_NAME
        with (
            closing(open_store(config, keys, clock, SystemEntropy())) as store,
            closing(BufferReader(path, keys)) as reader,
        ):
            own = PersonalFiles(config.state_dir, keys)
            erase = partial(erase_session, store, config.state_dir, clock=clock, personal=own, scrub=False)
            unlearning = partial(unlearn, config.state_dir, clock=clock, personal=own)
            now = DeviceTime(config.state_dir, clock)
            sessions = SessionCalls(
                store, reader, now, config.buffer.session_gap_s, erase, configured_streams(config), unlearning
            )
            alarms = AlarmDesk(config.alarms, store, clock, AlarmFollowers())
            yield DirectChanges(store, sessions, Labels(store, partial(_known, config), unlearning), alarms)


def _known(config: AgentConfig) -> Known:
    """What the models that served last were asked; nothing where one of them cannot be read."""
    from bedside.agent.buffer.plausibility import Known, known_of
    from bedside.agent.rounds.models import ModelStore

    models = ModelStore(config.state_dir)
    try:
        manifests = [models.read_bundle(slot.model).manifest for slot in models.slots().values()]
    except BedsideError:
        return Known()
    return known_of((manifest.task == "regression", manifest.labels) for manifest in manifests)


def keys_of(config: AgentConfig) -> KeyRing:
    """The keys of a device's buffer. Raises ConfigError: see `load_key_ring`."""
    from bedside.agent.buffer.keys import load_key_ring

    return load_key_ring(find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE).directory)
