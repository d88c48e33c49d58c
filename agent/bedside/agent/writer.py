"""One writer of a device's store at a time: its agent, or a command while no agent runs.

Invariants:
    * Whoever writes to the databases of a state directory holds `agent.lock` in it (flock), from before the first is
      opened until after the last is closed. The kernel lets go of it when the process ends, however it ends.
    * A command that finds an agent serving does not write: it asks the agent.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from bedside.core.clock import Clock
from bedside.core.errors import StoreError, UnavailableError
from bedside.service.files import private_opener

LOCK_NAME: Final = "agent.lock"
WAIT_S: Final = 15.0
"""Seconds to wait for another command, or for an agent that starts or stops: its last commit takes far less."""

_LOOK_S: Final = 0.05


@contextmanager
def become_writer(state_dir: Path, api_socket: Path, clock: Clock, wait_s: float = WAIT_S) -> Iterator[bool]:
    """Hold the lock inside the block; yields False, without it, when an agent serves `api_socket` instead.

    Raises:
        UnavailableError: `store-in-use`, when neither came about in `wait_s` seconds.
        StoreError: `store-open`, when the state directory cannot be written.
    """
    deadline_s = clock.monotonic_s() + wait_s
    with ExitStack() as held:
        descriptor = _open_lock(state_dir)
        held.callback(os.close, descriptor)
        while not (serves := is_served(api_socket)):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if clock.monotonic_s() > deadline_s:
                raise UnavailableError(
                    "store-in-use",
                    f"another program writes to {state_dir} and does not end",
                    remedy=f"find it (fuser {state_dir / LOCK_NAME}), wait for it or end it",
                )
            time.sleep(_LOOK_S)
        yield not serves


def is_served(api_socket: Path) -> bool:
    """Whether some process accepts connections there."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(api_socket))
        except OSError:
            return False
    return True


def _open_lock(state_dir: Path) -> int:
    path = state_dir / LOCK_NAME
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        return private_opener(str(path), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StoreError(
            "store-open",
            f"{path} cannot be opened: {error.strerror}",
            remedy="run this as the user of the agent, and check the permissions of its state directory",
        ) from error
