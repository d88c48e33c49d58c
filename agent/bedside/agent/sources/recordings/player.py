"""Plays a file that a library reads: in a short-lived child, whose memory, and whose crash, are not the agent's.

The child hands over a recording in the state directory, which only its owner can read; it is removed when it was read.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.recordings.replay import ReplaySource, played
from bedside.agent.sources.recordings.signal_file import FileJob, SignalFileOptions
from bedside.core.errors import BedsideError, ConfigError, MalformedError
from bedside.core.samples import Block, Mark
from bedside.firmware_bridge.recording import Recording, read_recording, write_recording
from bedside.ondevice.confinement import (
    Limits,
    confine,
    decode_job,
    read_job,
    report_error,
    report_result,
    run_child,
)

CHILD: Final = "bedside.agent.sources.recordings.player"
DIRECTORY_NAME: Final = "reading"

_LIMITS: Final = Limits(address_space_bytes=3 << 30, timeout_s=600)


class FilePlayer:
    """A `Source` on a file that is read when it starts."""

    def __init__(self, options: SignalFileOptions, context: SourceContext, job: FileJob, file: Path) -> None:
        """Prepare.

        Args:
            options: of the source.
            context: of the source.
            job: for the child, but for its `out`.
            file: must be there.

        Raises:
            ConfigError: `recording-missing`.
        """
        if not file.is_file():
            raise ConfigError("recording-missing", f"there is no file {file}", remedy="check the path")
        self.name = options.name
        self._options = options
        self._context = context
        self._job = job
        self._player: ReplaySource | None = None

    async def events(self) -> AsyncIterator[Block | Mark]:
        """Yield the recording from its first sample; end with it, unless it loops.

        Raises:
            ConfigError: `signal-choice`, `signal-unit`.
            MalformedError: `bad-recording`, `bad-edf`, `bad-wfdb`.
            UnavailableError: `child-died`, `child-timeout`.
        """
        if self._player is None:
            self._player = played(self._options, await self._read(), self._context)
        async for event in self._player.events():
            yield event

    async def _read(self) -> Recording:
        out = self._context.state_dir / DIRECTORY_NAME / f"{self.name}.npz"
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            await run_child(CHILD, msgspec.json.encode(msgspec.structs.replace(self._job, out=str(out))), _LIMITS)
            return await asyncio.to_thread(read_recording, out)
        finally:
            for left in (out, Path(f"{out}.edf")):  # the child may have died
                left.unlink(missing_ok=True)


def main() -> None:
    """The child: confine, read, hand over."""
    confine(sys.argv[1:])
    try:
        job = decode_job(read_job(), FileJob)
        recording = _recording(job)
        write_recording(Path(job.out), recording)
        report_result(len(recording.values))
    except BedsideError as error:
        report_error(error)


def _recording(job: FileJob) -> Recording:
    if job.kind == "wfdb":
        from bedside.agent.sources.recordings.wfdb import read_wfdb as read
    else:
        from bedside.agent.sources.recordings.edf import read_edf as read
    try:
        return read(job)
    except BedsideError:
        raise
    except Exception as error:  # whatever the library meets in foreign bytes
        raise MalformedError(
            f"bad-{job.kind}",
            f"{Path(job.path).name} cannot be read: {type(error).__name__}",
            remedy="check that it is complete",
        ) from error


if __name__ == "__main__":
    main()
