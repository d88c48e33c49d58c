"""Where a run keeps things: everything below one folder, which it empties first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from bedside.core.errors import ConfigError

_MARKER: Final = ".bedside-demo"
_MARKER_TEXT: Final = "This folder belongs to `bedside demo`, which empties it at its next run.\n"


class DemoPaths:
    """Names inside the output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.result = out / "result.json"
        self.report = out / "report.html"
        self.logs = out / "logs"
        self.recordings = out / "recordings"
        self.federation = out / "state" / "federation"
        self.coordinator = out / "state" / "coordinator"
        self.model = out / "state" / "model"
        self.bundle = self.model / "bundle" / "bundle.tar"
        self.federation_file = self.federation / "federation.bin"
        self.baselines_job = out / "state" / "baselines-job.json"
        self.baselines_result = out / "state" / "baselines.json"

    def site(self, site: str) -> Path:
        """The directory of a hospital: its authority's key, its policy, its trustee."""
        return self.out / "state" / "sites" / site

    def device(self, name: str) -> Path:
        """The directory of a device's agent."""
        return self.out / "state" / "devices" / name

    def device_state(self, name: str) -> Path:
        """Where a device's agent keeps its identity, databases and models."""
        return self.device(name) / "state"

    def recording(self, name: str) -> Path:
        """The recording that a device plays."""
        return self.recordings / f"{name}.npz"

    def prepare(self) -> None:
        """Make the folder, or empty one that an earlier run has marked as its own.

        Raises:
            ConfigError: `demo-folder` when it holds something else.
        """
        marker = self.out / _MARKER
        if self.out.exists() and not marker.exists() and any(self.out.iterdir()):
            raise ConfigError(
                "demo-folder",
                f"{self.out} holds files that the demo did not write, and the demo would empty it",
                remedy="name a new folder with --out",
            )
        if self.out.exists():
            shutil.rmtree(self.out)
        self.out.mkdir(parents=True)
        marker.write_text(_MARKER_TEXT, "utf-8")
        for folder in (self.logs, self.recordings, self.federation):
            folder.mkdir(parents=True)
