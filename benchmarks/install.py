"""What it takes to have an agent on a device: sizes, time to install, time to the first prediction; beside its peers.

    .venv/bin/python benchmarks/install.py             # as root; about five minutes
    .venv/bin/python benchmarks/install.py --json --runs 1

Ours     bedside-agent and bedside-common, built here as `make deb` builds them, installed by apt into a small Debian 12
         that has Python and systemd, in a chroot on an overlay. Then the installed program runs as the service does, as
         its user, with a bundle and an ECG that is replayed in real time, until its first prediction is committed where
         another process reads it. Needs root and mmdebstrap; without them all figures but the size are null.
Peers    `pip install` of flwr and of nvflare into an environment of their own, from wheels that are here already, so
         that nobody's network is measured. They train; neither infers on a device, keeps a signal, or comes as a
         service, and both leave the model's framework to the user, so that there is no first prediction of theirs to
         put beside ours. What can be compared is the time of the command with --version.

Sizes are of files, in MB of 10^6 bytes, with the byte code that either installer makes; on disk, of the blocks that
they take; a peer's without the pip of its environment. CPU time is that of all processes. Medians of the runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from installing import ours, peers
from installing.spent import Size, Spent
from report import Figure, emit, figure, plain_arguments, table

sys.path.append(str(ours.ROOT / "tests" / "packaging"))
sys.path.append(str(ours.ROOT / "packaging" / "deb"))

GOAL_INSTALLED_MB = 190
OF_REPLAY = (
    "of a replay in real time; detail.first_window_end_s: when that window had ended; "
    "the peers have no inference on a device: nothing to compare with"
)
OF_PEERS = {
    "download_mb": "download",
    "installed_mb": "installed",
    "on_disk_mb": "the same, on disk",
    "install_s": "install",
    "install_cpu_s": "install, CPU",
    "version_s": "`--version`",
    "version_cpu_s": "`--version`, CPU",
}
"""What is measured of a peer too, and how a table calls it."""


def measure_ours(folder: Path, runs: int) -> dict[str, Any]:
    """Medians by name; what could not be measured is not there, and `note` says why."""
    from packages import TARGET

    found: dict[str, Any] = {"target": TARGET}
    try:
        built = ours.build_packages(folder / "debs", TARGET)
        found["agent_deb_mb"] = sum(path.stat().st_size for path in built) / 1e6
        debian = ours.clean_debian()
        done = [ours.install(debian, built, folder / f"ours-{number}") for number in range(runs)]
    except (RuntimeError, OSError) as error:
        return found | {"note": str(error)}
    found |= _sizes("agent", [one.installed for one in done])
    found["agent_bytecode_mb"] = median(one.bytecode_mb for one in done)
    found["first_window_end_s"] = median(one.signal_s for one in done)
    for name, spent in (("agent_install", "install"), ("agent_version", "version"), ("first_prediction", "first")):
        found |= _times(name, [getattr(one, spent) for one in done])
    return found


def measure_peer(name: str, folder: Path, runs: int) -> dict[str, Any]:
    """The same of a peer."""
    try:
        wheels = peers.fetch(name, folder / f"wheels-{name}")
        done = [peers.install(wheels, folder / name) for _ in range(runs)]
    except (RuntimeError, OSError) as error:
        return {"note": str(error)}
    return {
        f"{name}_download_mb": wheels.size_mb,
        **_sizes(name, [one.installed for one in done]),
        **_times(f"{name}_install", [one.install for one in done]),
        **_times(f"{name}_version", [one.version for one in done]),
    }


def _sizes(name: str, sizes: list[Size]) -> dict[str, float]:
    return {
        f"{name}_installed_mb": median(one.files_mb for one in sizes),
        f"{name}_on_disk_mb": median(one.on_disk_mb for one in sizes),
    }


def _times(name: str, spent: list[Spent]) -> dict[str, float]:
    return {f"{name}_s": median(one.wall_s for one in spent), f"{name}_cpu_s": median(one.cpu_s for one in spent)}


def figures_of(found: dict[str, Any], notes: dict[str, str]) -> list[Figure]:
    """Every figure of ours with each peer's and the ratio to it; then the peers' own."""
    listed: list[Figure] = []

    def tell(name: str, unit: str, *, of_peers: str = "", note: str = "", **facts: object) -> None:
        value = found.get(name)
        note = note if value is not None else notes["agent"]
        listed.append(figure(name, value, unit, better="lower", note=note, **facts))
        for peer in peers.PEERS if of_peers else ():
            theirs = found.get(f"{peer}_{of_peers}")
            ratio = value / theirs if value is not None and theirs else None
            why = "" if ratio is not None else notes["agent"] or notes[peer]
            beside = {"ours": value, "peer": f"{peer} {peers.PEERS[peer]}", "peer_value": theirs}
            listed.append(figure(f"{name}_per_{peer}", ratio, "ratio", better="lower", note=why, **beside))

    for name in OF_PEERS:
        goal = {"goal": GOAL_INSTALLED_MB} if name in ("installed_mb", "on_disk_mb") else {}
        tell(_of_agent(name), _unit(name), of_peers=name, **goal)
    tell("first_prediction_s", "s", note=OF_REPLAY)
    tell("first_prediction_cpu_s", "s")
    listed += [
        figure(f"{peer}_{name}", found.get(f"{peer}_{name}"), _unit(name), note=notes[peer])
        for peer in peers.PEERS
        for name in OF_PEERS
    ]
    return listed


def _of_agent(name: str) -> str:
    """Our figure that stands beside a peer's of this name."""
    return "agent_deb_mb" if name == "download_mb" else f"agent_{name}"


def _unit(name: str) -> str:
    return "MB" if name.endswith("mb") else "s"


def print_table(found: dict[str, Any]) -> None:
    """For people."""
    rows = []
    for name, words in OF_PEERS.items():
        beside = (_of_agent(name), *(f"{peer}_{name}" for peer in peers.PEERS))
        rows.append([words, *(_cell(found, full, _unit(name)) for full in beside)])
    for words, name in (
        ("first prediction", "first_prediction_s"),
        ("of that until its window had ended", "first_window_end_s"),
        ("first prediction, CPU", "first_prediction_cpu_s"),
    ):
        rows.append([words, _cell(found, name, "s"), *("none" for _ in peers.PEERS)])
    print(table(["", "bedside-agent", *(f"{name} {version}" for name, version in peers.PEERS.items())], rows))


def _cell(found: dict[str, Any], name: str, unit: str) -> str:
    value = found.get(name)
    return "" if value is None else f"{value:.{0 if value >= 100 else 2 if unit == 's' and value < 10 else 1}f} {unit}"


def main() -> None:
    """Measure and print."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="bedside-install-") as name:
        mine = measure_ours(Path(name), asked.runs)
        theirs = {peer: measure_peer(peer, Path(name), asked.runs) for peer in peers.PEERS}
    notes = {"agent": mine.pop("note", ""), **{peer: one.pop("note", "") for peer, one in theirs.items()}}
    found = mine | {key: value for one in theirs.values() for key, value in one.items()}
    if not asked.json:
        print_table(found)
        for who, note in notes.items():
            if note:
                print(f"{who}: {note}")
    detail = found | {"load_average_before": load, "load_average_after": os.getloadavg()}
    emit("install", asked.runs, figures_of(found, notes), detail)


if __name__ == "__main__":
    main()
