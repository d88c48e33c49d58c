"""`bedside agent top`: the device, live."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.agent.cli.alarms import alarm_fields
from bedside.agent.cli.looking import status_fields
from bedside.agent.cli.predictions import prediction_fields
from bedside.agent.cli.reach import DIRECTORY, reading
from bedside.agent.config import load_agent_config
from bedside.agent.naming import typeable
from bedside.service.output import json_option, to_json
from bedside.service.platform import SystemClock

if TYPE_CHECKING:
    from bedside.agent.cli.glance import Glance, Watcher

REFRESH_S: Final = 1.0
_QUIT: Final = frozenset("qQ\x1b\x03\x04")


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--once", is_flag=True, help="Print one frame, a second from now, and end.")
@json_option
def top(directory: Path, once: bool, as_json: bool) -> None:
    """Watch the running agent of DIRECTORY: streams, models, buffer, predictions and alarms, once a second.

    q or Ctrl-C ends it. With --json each refresh is one JSON object on a line of its own.
    """
    with suppress(KeyboardInterrupt), typeable(directory):
        asyncio.run(_watch(directory, once, as_json))


async def _watch(directory: Path, once: bool, as_json: bool) -> None:
    from bedside.agent.cli.glance import Watcher
    from bedside.agent.client import LocalAgent

    config = load_agent_config(directory)
    async with LocalAgent(config.api.socket) as agent:
        with reading(directory) as reader:
            watcher = Watcher(agent, reader, SystemClock())
            if once:
                await watcher.look()  # the rates are differences
                await asyncio.sleep(REFRESH_S)
                _print(await watcher.look(), as_json)
            elif as_json or not sys.stdout.isatty():
                async for glance in _glances(watcher, asyncio.Event()):
                    _print(glance, as_json)
            else:
                await _live(watcher)


async def _live(watcher: Watcher) -> None:
    from rich.console import Console
    from rich.live import Live

    from bedside.agent.cli.screen import draw

    console = Console()
    quit_ = asyncio.Event()
    with _keys(quit_), Live(console=console, screen=True, auto_refresh=False) as live:
        async for glance in _glances(watcher, quit_):
            live.update(draw(glance, console.height, console.width), refresh=True)


async def _glances(watcher: Watcher, quit_: asyncio.Event) -> AsyncIterator[Glance]:
    """One a second until somebody wants no more."""
    while not quit_.is_set():
        yield await watcher.look()
        with suppress(TimeoutError):
            await asyncio.wait_for(quit_.wait(), REFRESH_S)


@contextmanager
def _keys(quit_: asyncio.Event) -> Iterator[None]:
    """Take single keys from the terminal, and give it back as it was."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def look() -> None:
        if _QUIT & set(os.read(descriptor, 64).decode(errors="replace")):
            quit_.set()

    try:
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, look)
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _print(glance: Glance, as_json: bool) -> None:
    if as_json:
        click.echo(to_json(_fields(glance)))
        sys.stdout.flush()
        return
    from rich.console import Console

    from bedside.agent.cli.screen import draw

    console = Console() if sys.stdout.isatty() else Console(width=shutil.get_terminal_size().columns)
    console.print(draw(glance, width=console.width))


def _fields(glance: Glance) -> dict[str, object]:
    return {
        "time_ns": glance.now_ns,
        "status": status_fields(glance.status) if glance.status is not None else None,
        "trouble": glance.trouble,
        "predictions_per_s": {name: round(rate, 3) for name, rate in glance.predictions_per_s.items()},
        "written_bytes_per_s": glance.written_bytes_per_s,
        "predictions": [prediction_fields(one) for one in glance.stored.predictions],
        "alarms": [alarm_fields(one) for one in glance.stored.alarms],
    }
