"""How commands reach a device's store: through its agent where one runs, else on the file, as its only writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from bedside.agent.config import BUFFER_NAME, AgentConfig, load_agent_config
from bedside.core.errors import UnavailableError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.platform import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from bedside.agent.api.direct import Changes
    from bedside.agent.buffer.keys import KeyRing
    from bedside.agent.buffer.reader import BufferReader
    from bedside.agent.client import LocalAgent

DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)

Result = TypeVar("Result")


def ask(directory: Path, question: Callable[[LocalAgent], Awaitable[Result]]) -> Result:
    """Ask the running agent.

    Raises:
        UnavailableError: `agent-not-running`.
    """
    from bedside.agent.client import LocalAgent

    config = load_agent_config(directory)

    async def talk() -> Result:
        async with LocalAgent(config.api.socket) as agent:
            return await question(agent)

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

    return asyncio.run(run())


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
            "nothing-stored", "this agent has not run yet, so that nothing is stored", remedy="bedside agent run DIR"
        )
    with closing(BufferReader(path, _keys(config))) as reader:
        yield reader


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
        from bedside.agent.erasure import erase_session

        keys, path = _keys(config), config.state_dir / BUFFER_NAME
        with (
            closing(open_store(config, keys, clock, SystemEntropy())) as store,
            closing(BufferReader(path, keys)) as reader,
        ):
            erase = partial(erase_session, store, config.state_dir, clock=clock, scrub=False)
            sessions = SessionCalls(store, reader, clock, config.buffer.session_gap_s, erase)
            alarms = AlarmDesk(config.alarms, store, clock, AlarmFollowers())
            yield DirectChanges(sessions, Labels(store), alarms)


def _keys(config: AgentConfig) -> KeyRing:
    from bedside.agent.buffer.keys import load_key_ring

    return load_key_ring(find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE).directory)
