"""CPU cost of one secure sum, device and servers, beside Flower's SecAgg+ in the same run.

    make bench                          # makes .venv-flwr for the peer
    .venv/bin/python benchmarks/secure_sum.py --json

Ours: a real plan, real openings of K trustees, encoding, masking and signing on the device, `judge_set` and `mask_sum`
on each trustee, BLAKE3, add, subtract, check and decode on the coordinator; no network. Every device of the set really
contributes; the median is the device's figure, and servers handle the whole set. Peer: Flower's own stage functions in
process, two real clients, server costs from its unit costs times their number (a full run takes minutes): marked as
extrapolated. Both sides quantise. A plan has at most five trustees; the rows for 10 and 20 lift that limit to show
what one more costs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import blake3
import noise
import numpy as np
from report import emit, plain_arguments

from bedside.core.codec import TensorUpdate, check_sum, decode_sum, encode_pieces
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum import plans
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.device import Hedge, contribute_pieces, rounding_key, vector_digest
from bedside.core.securesum.messages import openings_digest
from bedside.core.securesum.plans import layout_message, rotation_seed
from bedside.core.securesum.trustee import judge_set, mask_sum
from bedside.core.signing.envelope import sign_message
from bedside.proto.v1.trustee_pb2 import HeaderEntry

ROOT = Path(__file__).parents[1]
CPU = time.process_time
PEER = "flwr 1.41.0 SecAgg+"
EXTRAPOLATED = "peer's server extrapolated from its unit costs"


@dataclass(frozen=True)
class Case:
    """One sum: n devices, d parameters, K trustees, b bits in words of 16."""

    devices: int
    words: int
    trustees: int
    bits: int = 8


def load_world() -> Any:
    """The in-memory federation of the tests: real keys, credentials, rosters and openings."""
    if "world" in sys.modules:
        return sys.modules["world"]
    spec = importlib.util.spec_from_file_location("world", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["world"] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def trustees_allowed(count: int) -> Iterator[None]:
    """Plans may name so many trustees while inside."""
    before, plans.MAX_TRUSTEES = plans.MAX_TRUSTEES, max(count, plans.MAX_TRUSTEES)  # type: ignore[misc]
    try:
        yield
    finally:
        plans.MAX_TRUSTEES = before  # type: ignore[misc]


class Sum:
    """One sum on its way; every part notes its CPU seconds."""

    def __init__(self, case: Case) -> None:
        self.case = case
        sites = {
            f"site-{i}": case.devices // case.trustees + (i < case.devices % case.trustees)
            for i in range(case.trustees)
        }
        self.world = load_world().World(sites)
        slot = TensorSlot("w", (case.words,))
        values = Segment(
            "parameters", SegmentKind.VALUE, (slot,), clip_e6=1_000_000, bits=case.bits, rotation_block=1_024
        )
        self.layout = Layout((values, Segment("examples", SegmentKind.COUNT, cap=60)))
        self.plan = self.world.plan(layout=layout_message(self.layout), max_contributors=case.devices)
        self.openings, self.secrets = self.world.open_round(self.plan)
        self.seed = rotation_seed(self.plan.digest, openings_digest(self.openings))
        self.delta = (np.random.default_rng(0).standard_normal(case.words) / case.words**0.5).astype(np.float32)
        self.device_s: list[float] = []
        self.trustee_s: list[float] = []
        self.coordinator_s = 0.0
        self.upload_bytes = 0

    def contribute(self, number: int) -> tuple[HeaderEntry, bytes]:
        """What one device does, from its delta to its signed header and packed words."""
        device, entropy = self.world.devices[number], self.world.entropy
        packed: list[bytes] = []
        start = CPU()
        key = rounding_key(device.secret, entropy, self.plan.digest)
        update = TensorUpdate({"w": self.delta}, {"examples": 50}, self.layout)
        hedge = Hedge(device.secret, entropy, vector_digest(update.digest, key), number + 1)
        pieces = encode_pieces(update, self.layout, self.seed, key, word_bits=16)
        header = contribute_pieces(self.plan, 0, self.openings, device.credential, pieces, packed.append, hedge)
        signed = sign_message("header", header, device.key)
        self.device_s.append(CPU() - start)
        words = b"".join(packed)
        self.upload_bytes = len(words) + signed.ByteSize()
        return HeaderEntry(header=signed, credential=device.credential.signed), words

    def run(self) -> dict[str, float]:
        """The whole sum, checked; CPU seconds per role and bytes per upload."""
        total, entries = Aggregate(self.layout, 16), []
        for number in range(self.case.devices):
            entry, packed = self.contribute(number)
            entries.append(entry)
            start = CPU()
            assert blake3.blake3(packed).digest()
            total.add_upload(packed)
            self.coordinator_s += CPU() - start
        headers, trust = self.world.header_set(entries), self.world.trust()
        for opening in self.openings:
            start = CPU()
            secret = self.secrets[opening.opening.site]
            checked = judge_set(self.plan, 0, self.openings, headers, trust, opening, secret)
            answer = mask_sum(self.plan, checked)
            self.trustee_s.append(CPU() - start)
            start = CPU()
            total.subtract_answer(answer)
            self.coordinator_s += CPU() - start
        start = CPU()
        opened = total.opened(self.case.devices, self.case.trustees)
        check_sum(opened, self.layout, self.case.devices, word_bits=16)
        decoded = decode_sum(opened, self.layout, self.seed, self.case.devices, word_bits=16)
        self.coordinator_s += CPU() - start
        error = float(np.linalg.norm(decoded.tensors["w"] / self.case.devices - self.delta))
        assert error < 0.05, f"the opened mean is off by {error}"
        assert int(decoded.counts["examples"]) == 50 * self.case.devices
        return {
            "device_s": statistics.median(self.device_s),
            "servers_s": self.coordinator_s + sum(self.trustee_s),
            "coordinator_s": self.coordinator_s,
            "trustee_s": statistics.median(self.trustee_s),
            "upload_bytes": float(self.upload_bytes),
        }


def run_ours(case: Case, runs: int) -> dict[str, float]:
    """Medians over `runs` sums."""
    with trustees_allowed(case.trustees):
        found = [Sum(case).run() for _ in range(runs)]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def run_peer(devices: int, words: int, shares: int, runs: int, dropped: float = 0.0) -> dict[str, float] | str:
    """Medians of Flower's figures, or why there are none."""
    python = Path(os.environ.get("FLWR_PYTHON", ROOT / ".venv-flwr" / "bin" / "python"))
    if not python.exists():
        return "the peer is not installed: `make bench` makes .venv-flwr, or name its Python in FLWR_PYTHON"
    command = [python, ROOT / "benchmarks" / "peers" / "flower_secagg.py", str(devices), str(words)]
    found = []
    for _ in range(runs):
        done = subprocess.run(
            [*command, "--shares", str(shares), "--dropped", str(dropped)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return f"the peer failed: {done.stderr.strip().splitlines()[-1][:200]}"
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def ratio(name: str, ours: float, peer: dict[str, float] | str, key: str, goal: float, note: str) -> dict[str, object]:
    """A figure beside the peer's; without a value where there is no peer."""
    other = None if isinstance(peer, str) else peer[key]
    return {
        "name": name,
        "value": None if other is None else ours / other,
        "unit": "ours/peer",
        "ours": ours,
        "peer": PEER,
        "peer_value": other,
        "goal": goal,
        "better": "lower",
        "note": peer if isinstance(peer, str) else note,
    }


def plain(name: str, value: float, unit: str, goal: float | None, note: str = "") -> dict[str, object]:
    """A figure of ours alone."""
    return {"name": name, "value": value, "unit": unit, "ours": value, "peer": None, "peer_value": None, "goal": goal,
            "better": "lower", "note": note}  # fmt: skip


def measure(runs: int, *, quick: bool) -> tuple[dict[str, dict[str, float]], list[dict[str, object]]]:
    """All rows and figures."""
    main_case = Case(100, 1_000_000, 3)
    rows = {"n=100 d=1M K=3": run_ours(main_case, runs)}
    ours = rows["n=100 d=1M K=3"]
    complete = run_peer(100, 1_000_000, 100, 1 if quick else min(runs, 3))
    dropped = run_peer(100, 1_000_000, 100, 1, dropped=0.05)
    sparse = run_peer(100, 1_000_000, 31, runs)
    figures = [
        ratio("device_cpu_ratio", ours["device_s"], complete, "client_s", 1 / 200, "complete graph"),
        ratio("server_cpu_ratio", ours["servers_s"], complete, "server_s", 1 / 200, f"complete graph; {EXTRAPOLATED}"),
        ratio(
            "server_cpu_ratio_5_dropped",
            ours["servers_s"],
            dropped,
            "server_s",
            1 / 200,
            f"5 of the peer's 100 leave, none of ours: leaving costs nothing here; {EXTRAPOLATED}",
        ),
        ratio("upload_bytes_ratio", ours["upload_bytes"], complete, "upload_bytes", 0.27, "header included"),
        ratio("device_cpu_ratio_k31", ours["device_s"], sparse, "client_s", 1.0, "31 neighbours"),
        ratio("server_cpu_ratio_k31", ours["servers_s"], sparse, "server_s", 1.0, f"31 neighbours; {EXTRAPOLATED}"),
    ]
    figures.append(noise.figure(noise.noise_ms_per_1m(runs=runs)))
    if quick:
        return rows, figures
    for trustees in (10, 20):
        label = f"n=20 d=1M K={trustees}"
        rows[label] = run_ours(Case(20, 1_000_000, trustees), 1)
        figures.append(plain(f"device_cpu_ms_k{trustees}", rows[label]["device_s"] * 1e3, "ms", None, "limit lifted"))
    figures.append(plain("device_cpu_ms_k3", ours["device_s"] * 1e3, "ms", None))
    thousand = rows["n=1000 d=1M K=3 6 bits"] = run_ours(Case(1_000, 1_000_000, 3, bits=6), 1)
    figures.append(plain("coordinator_cpu_s_n1000", thousand["coordinator_s"], "s", 1.0))
    figures.append(plain("trustee_cpu_s_n1000", thousand["trustee_s"], "s", 1.0))
    peer = run_peer(1_000, 1_000_000, 51, 1)
    figures.append(ratio("device_cpu_ratio_n1000", thousand["device_s"], peer, "client_s", 1.0, "51 neighbours"))
    note = f"51 neighbours; {EXTRAPOLATED}"
    figures.append(ratio("server_cpu_ratio_n1000", thousand["servers_s"], peer, "server_s", 1 / 20, note))
    large = rows["n=10 d=10M K=3"] = run_ours(Case(10, 10_000_000, 3), 1)
    figures.append(plain("device_cpu_ms_10m", large["device_s"] * 1e3, "ms", None))
    peer = run_peer(10, 10_000_000, 10, 1)
    figures.append(
        ratio("device_cpu_ratio_10m", large["device_s"], peer, "client_s", 1 / 5, "10 devices, complete graph")
    )
    return rows, figures


def main() -> None:
    """Measure and print."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="the main row and its peers only")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    rows, figures = measure(asked.runs, quick=asked.quick)
    if not asked.json:
        for label, row in rows.items():
            print(label, *(f"{name} {value:,.4f}" for name, value in row.items()), sep="  ")
        for one in figures:
            print(f"{one['name']:>26}: {one['value']}  (goal {one['goal']}) {one['note']}")
    emit("secure_sum", asked.runs, figures, rows)


if __name__ == "__main__":
    main()
