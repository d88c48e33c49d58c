"""CPU cost of discrete Gaussian noise, beside opendp's exact sampler in the same run.

    .venv/bin/python benchmarks/noise.py --json

Ours: `core.privacy` as a trustee runs it, from a key stream; a table is made once per sigma and process, and its cost
stands beside. Peer: opendp's `make_gaussian` on a vector of integers, exact by rejection, measured on fewer draws and
extrapolated in proportion.
"""

from __future__ import annotations

import importlib.metadata
import statistics
import time

from report import emit, plain_arguments

from bedside.core.codec.keystream import KeyStream
from bedside.core.privacy.gaussian import CHUNK_DRAWS, DiscreteGaussian

CPU = time.process_time
DRAWS = 1_000_000
PEER_DRAWS = 20_000
SIGMAS = (8, 64, 512)
GOAL_MS = 60
STREAMS = (b"benchmark-a", b"benchmark-b")


def ours_ms(sigma: float) -> tuple[float, float]:
    """CPU milliseconds of a million draws, and of making the tables."""
    start = CPU()
    sampler = DiscreteGaussian(round(sigma * 1e6))
    made_ms = (CPU() - start) * 1e3
    streams = [KeyStream(b"k" * 32, purpose, 0, 8 * CHUNK_DRAWS) for purpose in STREAMS[: len(sampler.tables)]]
    start = CPU()
    for first in range(0, DRAWS, CHUNK_DRAWS):
        sampler.draw(streams, min(CHUNK_DRAWS, DRAWS - first))
    return (CPU() - start) * 1e3, made_ms


def peer_ms(sigma: float) -> float:
    """CPU milliseconds of a million draws by opendp, extrapolated."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    draw = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=float(sigma))
    zeros = [0] * PEER_DRAWS
    start = CPU()
    draw(zeros)
    return (CPU() - start) * 1e3 * DRAWS / PEER_DRAWS


def noise_ms_per_1m(sigmas: tuple[int, ...] = SIGMAS, runs: int = 3) -> dict[int, dict[str, float | None]]:
    """By sigma, in milliseconds: medians of `ours` and `peer` (None without opendp), and `tables` as first made."""
    found: dict[int, dict[str, float | None]] = {}
    for sigma in sigmas:
        ours = [ours_ms(sigma) for _ in range(runs)]
        try:
            peer: float | None = statistics.median(peer_ms(sigma) for _ in range(runs))
        except ImportError:
            peer = None
        drawn, made = statistics.median(drawn for drawn, _ in ours), ours[0][1]
        found[sigma] = {"ours": drawn, "tables": made, "peer": peer}
    return found


def figure(measured: dict[int, dict[str, float | None]]) -> dict[str, object]:
    """The dearest sigma's row."""
    dearest = max(measured, key=lambda sigma: measured[sigma]["ours"] or 0)
    row = measured[dearest]
    note = f"sigma {dearest}, the dearest of {', '.join(map(str, measured))}; "
    if row["peer"] is None:
        peer, note = "opendp", note + "the peer is not installed: pip install 'bedside[dev]'"
    else:
        peer = f"opendp {importlib.metadata.version('opendp')}"
        note += f"peer extrapolated from {PEER_DRAWS:,} draws"
    return {
        "name": "noise_ms_per_1m",
        "value": row["ours"],
        "unit": "ms CPU per million draws",
        "ours": row["ours"],
        "peer": peer,
        "peer_value": row["peer"],
        "goal": GOAL_MS,
        "better": "lower",
        "note": note,
    }


def main() -> None:
    """Measure and print."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    measured = noise_ms_per_1m(runs=asked.runs)
    if not asked.json:
        for sigma, row in measured.items():
            peer = "not installed" if row["peer"] is None else f"{row['peer']:,.0f} ms"
            print(f"sigma {sigma:>4}: {row['ours']:6.1f} ms, tables {row['tables']:5.1f} ms; opendp {peer}")
    emit("noise", asked.runs, [figure(measured)], {str(sigma): row for sigma, row in measured.items()})


if __name__ == "__main__":
    main()
