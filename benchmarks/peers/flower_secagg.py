"""CPU seconds of Flower's SecAgg+ per client and for its server, from its own stage functions.

Runs in a Python that has `flwr==1.41.0`. Prints one JSON object. The neighbourhood of one client is set up (all devices
where the graph is complete), two clients share keys and mask; the server's work is its unit costs times the number of
times its workflow does them. With `--memory` it prints what masking adds to the process instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import get_parameters_shape, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

CPU = time.process_time
SETTINGS = {"clip": 8.0, "target": 1 << 22, "modulus": 1 << 32, "weight": 1000.0}


def least(work: Callable[[], object], times: int = 2) -> float:
    """The smallest CPU time of a few runs, seconds."""
    best = float("inf")
    for _ in range(times):
        start = CPU()
        work()
        best = min(best, CPU() - start)
    return best


def resident_mb(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process, MiB."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


class Neighbourhood:
    """Clients that share keys with one another, from Flower's own stages."""

    def __init__(self, shares: int) -> None:
        self.shares = shares
        self.threshold = max(2, round(2 / 3 * shares))
        self.stages = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        self.states, self.keys, self.setup_s = {}, {}, []
        config = {
            Key.SAMPLE_NUMBER: shares,
            Key.SHARE_NUMBER: shares,
            Key.THRESHOLD: self.threshold,
            Key.CLIPPING_RANGE: SETTINGS["clip"],
            Key.TARGET_RANGE: SETTINGS["target"],
            Key.MOD_RANGE: SETTINGS["modulus"],
            Key.MAX_WEIGHT: SETTINGS["weight"],
        }
        for node in range(1, shares + 1):
            state = self.states[node] = self.stages.SecAggPlusState()
            state.nid = node
            start = CPU()
            reply = self.stages._setup(state, config)
            self.setup_s.append(CPU() - start)
            self.keys[str(node)] = [reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2]]

    def share(self, node: int) -> tuple[float, int]:
        """CPU seconds of sharing keys, and bytes of the shares that are sent."""
        start = CPU()
        shared = self.stages._share_keys(self.states[node], dict(self.keys))
        return CPU() - start, sum(map(len, shared[Key.CIPHERTEXT_LIST]))

    def mask(self, node: int, vector: np.ndarray) -> tuple[float, list[bytes]]:
        """CPU seconds of quantising and masking, and the masked arrays."""
        state = self.states[node]
        seed_bytes, key_bytes = len(state.rd_seed_share_dict[node]), len(state.sk1_share_dict[node])
        others = [other for other in self.states if other != node]
        ciphertexts = [
            encrypt(
                state.ss2_dict[other],
                share_keys_plaintext_concat(other, node, os.urandom(seed_bytes), os.urandom(key_bytes)),
            )
            for other in others
        ]
        received = {Key.CIPHERTEXT_LIST: ciphertexts, Key.SOURCE_LIST: others}
        start = CPU()
        reply = self.stages._collect_masked_vectors(state, received, 1000, ndarrays_to_parameters([vector]))
        return CPU() - start, reply[Key.MASKED_PARAMETERS]


def measure(devices: int, words: int, shares: int, dropped: float) -> dict[str, float]:
    """Figures of one client, and of the server for all."""
    clients = Neighbourhood(shares)
    vector = (np.random.default_rng(0).standard_normal(words) * 0.01).astype(np.float32)
    share_s, mask_s = [], []
    masked: list[bytes] = []
    shares_bytes = 0
    for node in (1, 2):
        seconds, shares_bytes = clients.share(node)
        share_s.append(seconds)
        seconds, masked = clients.mask(node, vector)
        mask_s.append(seconds)
    unit = server_unit_costs(clients, masked, round(shares * (1 - dropped)))
    gone = round(devices * dropped)
    return {
        "client_s": min(clients.setup_s) + min(share_s) + min(mask_s),
        "server_s": (devices - gone) * unit["active_s"] + gone * unit["dropped_s"],
        "upload_bytes": sum(map(len, masked)) + shares_bytes,
    }


def server_unit_costs(clients: Neighbourhood, masked: list[bytes], answering: int) -> dict[str, float]:
    """What the workflow's unmask stage does once for an active client, and once for one that dropped out.

    It combines every share that came back, not only as many as the threshold asks for.
    """
    state = clients.states[1]
    arrays = [bytes_to_ndarray(part) for part in masked]
    seed_shares = create_shares(state.rd_seed, clients.threshold, clients.shares)[:answering]
    key_shares = create_shares(state.sk1, clients.threshold, clients.shares)[:answering]
    neighbour_pk = bytes_to_public_key(clients.keys["2"][0])

    def unmask(seed: bytes) -> None:
        mask = pseudo_rand_gen(seed, SETTINGS["modulus"], get_parameters_shape(arrays))
        parameters_subtraction(arrays, mask)

    def unmask_neighbour() -> None:
        unmask(generate_shared_key(bytes_to_private_key(state.sk1), neighbour_pk))

    active_s = least(lambda: combine_shares(seed_shares), 1) + least(lambda: unmask(state.rd_seed))
    active_s += least(lambda: [bytes_to_ndarray(part) for part in masked])
    active_s += least(lambda: parameters_subtraction(arrays, arrays))
    dropped_s = least(lambda: combine_shares(key_shares), 1) + (clients.shares - 1) * least(unmask_neighbour)
    return {"active_s": active_s, "dropped_s": dropped_s}


def measure_memory(words: int) -> dict[str, float]:
    """What masking a vector that lies in memory adds to this process, MiB."""
    clients = Neighbourhood(3)
    clients.share(1)
    vector = np.full(words, 0.01, np.float32)
    before_mb = resident_mb("VmRSS")
    clients.mask(1, vector)
    return {"above_idle_mb": resident_mb("VmHWM") - before_mb}


def main() -> None:
    """Measure and print."""
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", type=int)
    parser.add_argument("words", type=int)
    parser.add_argument("--shares", type=int, default=0, help="neighbours of a client; all devices when not given")
    parser.add_argument("--dropped", type=float, default=0.0, help="share of the devices that leave before they upload")
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args()
    if asked.memory:
        print(json.dumps(measure_memory(asked.words)))
    else:
        print(json.dumps(measure(asked.devices, asked.words, asked.shares or asked.devices, asked.dropped)))


if __name__ == "__main__":
    main()
