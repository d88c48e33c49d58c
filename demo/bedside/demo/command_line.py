"""Runs real `bedside` commands, as an operator would type them, a few at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from bedside.core.errors import UnavailableError
from bedside.demo.processes import QUIET_ENVIRONMENT, bedside_command

_AT_ONCE: Final = 2
"""Commands that run at the same time: the demo must be gentle on two cores."""

TIMEOUT_S: Final = 120.0


class CommandLine:
    """Runs commands and keeps a transcript of all of them."""

    def __init__(self, transcript: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._transcript = transcript
        self._environ = {**environ, **QUIET_ENVIRONMENT}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def run(self, *arguments: str | Path, words_in: str = "", statuses: tuple[int, ...] = (0,)) -> str:
        """Run `bedside ARGUMENTS` and return its standard output.

        Args:
            arguments: the command line after `bedside`.
            words_in: what the command reads from its standard input; for secrets, which have no place in `ps`.
            statuses: exit statuses that are fine.

        Raises:
            UnavailableError: `demo-command-failed`, with the line that the command printed.
        """
        async with self._gate:
            process = await asyncio.create_subprocess_exec(
                *bedside_command(*arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environ,
                start_new_session=True,
            )
            try:
                out, err = await asyncio.wait_for(process.communicate(words_in.encode()), TIMEOUT_S)
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
        words = " ".join(map(str, arguments))
        self._note(words, process.returncode, err)
        if process.returncode not in statuses:
            raise UnavailableError(
                "demo-command-failed",
                f"bedside {words[:80]} ended with status {process.returncode}: {_last_line(err)}",
                remedy=f"read {self._transcript}",
            )
        return out.decode("utf-8", "replace")

    async def run_json(self, *arguments: str | Path, statuses: tuple[int, ...] = (0,)) -> dict[str, object]:
        """Run a command with `--json` and return its document.

        Raises:
            UnavailableError: `demo-command-failed`.
        """
        return msgspec.json.decode(await self.run(*arguments, "--json", statuses=statuses), type=dict[str, object])

    def _note(self, words: str, status: int | None, err: bytes) -> None:
        """Keep what was run and what it complained about."""
        with self._transcript.open("a", encoding="utf-8") as file:
            file.write(f"$ bedside {words}\n")
            if status or err:
                file.write(f"{err.decode('utf-8', 'replace')}[status {status}]\n")


def _last_line(err: bytes) -> str:
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
