"""CPU cost of one secure sum, device and servers, beside Flower's SecAgg+ in the same run.

    make bench                          # makes .venv-flwr for the peer
    .venv/bin/python benchmarks/secure_sum.py --json

Ours: a real plan, real openings of K trustees, `encode` and `contribute` on the device, `judge_set` and `mask_sum` on
each trustee, BLAKE3, add, subtract, check and decode on the coordinator; no network. A few devices are run and their
median is the device's figure; servers handle the whole set. Peer: Flower's own stage functions in process, two real
clients, server costs from its unit costs (a full run takes minutes); complete graph of n shares.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import blake3
import numpy as np

from bedside.core.codec import check_sum, decode_sum, encode
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.device import contribute, rounding_key
from bedside.core.securesum.messages import openings_digest
from bedside.core.securesum.plans import layout_message, rotation_seed
from bedside.core.securesum.trustee import judge_set, mask_sum
from bedside.core.signing.envelope import sign_message
from bedside.proto.v1.trustee_pb2 import HeaderEntry

ROOT = Path(__file__).parents[1]
CPU = time.process_time


def load_world() -> Any:
    """The in-memory federation of the tests: real keys, credentials, rosters and openings."""
    spec = importlib.util.spec_from_file_location("world", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["world"] = module
    spec.loader.exec_module(module)
    return module


def run_ours(devices: int, words: int, trustees: int) -> dict[str, float]:
    """One whole sum; CPU seconds per role and bytes per upload."""
    module = load_world()
    sites = {f"site-{i}": devices // trustees + (i < devices % trustees) for i in range(trustees)}
    world = module.World(sites)
    values = Segment(
        "parameters", SegmentKind.VALUE, (TensorSlot("w", (words,)),), clip_e6=1_000_000, bits=8, rotation_block=4096
    )
    layout = Layout((values, Segment("examples", SegmentKind.COUNT, cap=400)))
    plan = world.plan(layout=layout_message(layout), max_contributors=devices)
    openings, secrets = world.open_round(plan)
    seed = rotation_seed(plan.digest, openings_digest(openings))
    delta = {"w": (np.random.default_rng(0).standard_normal(words) / words**0.5).astype(np.float32)}
    device_s, uploads, entries = [], [], []
    for number, device in enumerate(world.devices):
        start = CPU()
        key = rounding_key(device.secret, world.entropy, plan.digest)
        encoded = encode(delta, {"examples": 100}, layout, seed, key, word_bits=16)
        made = contribute(
            plan,
            0,
            openings,
            device.credential,
            encoded,
            device_secret=device.secret,
            entropy=world.entropy,
            sequence=number + 1,
        )
        header = sign_message("header", made.header, device.key)
        device_s.append(CPU() - start)
        uploads.append(made.packed)
        entries.append(HeaderEntry(header=header, credential=device.credential.signed))
    headers, trust = world.header_set(entries), world.trust()
    total, coordinator_s, trustee_s = Aggregate(layout, 16), 0.0, []
    start = CPU()
    for packed in uploads:
        blake3.blake3(packed).digest()
        total.add_upload(packed)
    coordinator_s += CPU() - start
    for opening in openings:
        start = CPU()
        checked = judge_set(plan, 0, openings, headers, trust, opening, secrets[opening.opening.site])
        answer = mask_sum(plan, checked)
        trustee_s.append(CPU() - start)
        start = CPU()
        total.subtract_answer(answer)
        coordinator_s += CPU() - start
    start = CPU()
    opened = total.opened(devices, trustees)
    check_sum(opened, layout, devices, word_bits=16)
    decoded = decode_sum(opened, layout, seed, devices, word_bits=16)
    coordinator_s += CPU() - start
    error = float(np.abs(decoded.tensors["w"] / devices - delta["w"]).max())
    assert error < 1e-3, f"the opened mean is off by {error}"
    return {
        "device_s": statistics.median(device_s),
        "servers_s": coordinator_s + sum(trustee_s),
        "coordinator_s": coordinator_s,
        "trustee_s": statistics.median(trustee_s),
        "upload_bytes": len(uploads[0]) + entries[0].header.ByteSize(),
    }


def run_peer(devices: int, words: int) -> dict[str, float] | str:
    """Flower's figures, or why there are none."""
    python = Path(os.environ.get("FLWR_PYTHON", ROOT / ".venv-flwr" / "bin" / "python"))
    if not python.exists():
        return "the peer is not installed: `make bench` makes .venv-flwr, or name its Python in FLWR_PYTHON"
    script = ROOT / "benchmarks" / "peers" / "flower_secagg.py"
    done = subprocess.run([python, script, str(devices), str(words)], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the peer failed: {done.stderr.strip().splitlines()[-1][:200]}"
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def figure(name: str, ours: float, peer: float | None, goal: float, unit: str, note: str) -> dict[str, object]:
    """One row of the result."""
    return {
        "name": name,
        "value": None if peer is None else ours / peer,
        "unit": unit,
        "ours": ours,
        "peer": "flwr 1.41.0 SecAgg+",
        "peer_value": peer,
        "goal": goal,
        "better": "lower",
        "note": note,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--trustees", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    runs = [run_ours(asked.devices, asked.words, asked.trustees) for _ in range(asked.runs)]
    ours = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    peer = run_peer(asked.devices, asked.words)
    found = {} if isinstance(peer, str) else peer
    note = peer if isinstance(peer, str) else "peer: server extrapolated from its unit costs, complete graph"
    figures = [
        figure("device_cpu_ratio", ours["device_s"], found.get("client_s"), 1 / 200, "ours/peer", note),
        figure("servers_cpu_ratio", ours["servers_s"], found.get("server_s"), 1 / 200, "ours/peer", note),
        figure("upload_bytes_ratio", ours["upload_bytes"], found.get("upload_bytes"), 0.26, "ours/peer", note),
    ]
    if not asked.json:
        for name, value in ours.items():
            print(f"{name:>16}: {value:,.4f}")
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    result = {"benchmark": "secure_sum", "runs": asked.runs, "machine": machine, "detail": ours, "figures": figures}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
