"""Where the run speaks: a live screen on a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO

import click

from bedside.core.clock import Clock
from bedside.demo.board import Board
from bedside.service.text import bounded

if TYPE_CHECKING:
    from rich.live import Live

_FRAMES_PER_S: Final = 4
_SENTENCE_CHARS: Final = 400


class Stage(Protocol):
    """Takes sentences."""

    def say(self, sentence: str) -> None:
        """Show one sentence to whoever watches."""

    def close(self) -> None:
        """Leave the terminal to others; what was shown last stays. Nothing is said afterwards."""


class PlainStage:
    """A line per sentence, with the seconds since the start."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._began_s = clock.monotonic_s()

    def say(self, sentence: str) -> None:
        """Print one line."""
        elapsed_s = self._clock.monotonic_s() - self._began_s
        click.echo(f"[{elapsed_s:5.1f} s] {bounded(sentence, _SENTENCE_CHARS)}", file=self._out)
        self._out.flush()

    def close(self) -> None:
        """Nothing to leave."""


class LiveStage:
    """A screen that redraws itself; sentences scroll at its foot."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._live: Live | None = None

    def say(self, sentence: str) -> None:
        """Add a line to the foot of the screen."""
        elapsed_s = self._clock.monotonic_s() - self._began_s
        self._board.sentences.append(f"{elapsed_s:5.1f} s  {bounded(sentence, _SENTENCE_CHARS)}")

    def close(self) -> None:
        """Draw the screen a last time, and no more."""
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def shown(self, out: TextIO) -> Iterator[None]:
        """Keep the screen on the terminal while inside, and its last state afterwards."""
        from rich.console import Console, RenderableType
        from rich.live import Live

        from bedside.demo.screen import draw

        def frame() -> RenderableType:
            now_s = self._clock.monotonic_s()
            return draw(self._board, now_s - self._began_s, now_s)

        with Live(
            console=Console(file=out),
            get_renderable=frame,
            refresh_per_second=_FRAMES_PER_S,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            yield


@contextmanager
def open_stage(board: Board, out: TextIO, clock: Clock) -> Iterator[Stage]:
    """Yield a live stage when `out` is a terminal, a plain one otherwise."""
    if out.isatty():
        stage = LiveStage(board, clock)
        with stage.shown(out):
            yield stage
    else:
        yield PlainStage(out, clock)
