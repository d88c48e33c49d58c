"""CPU seconds of Flower's SecAgg+ per client and for its server, from its own stage functions.

Runs in a Python that has `flwr==1.41.0`. Arguments: devices, words. Prints one JSON object. All `devices` set up (the
graph is complete), two of them share keys and mask; the server's work is its unit costs times the number of times its
workflow does them, nobody dropping out.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt
from flwr.common.secure_aggregation.ndarrays_arithmetic import get_parameters_shape, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat

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


def main() -> None:
    """Measure and print."""
    logging.disable(logging.CRITICAL)
    devices, words = int(sys.argv[1]), int(sys.argv[2])
    threshold = max(2, round(2 / 3 * devices))
    stages = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
    config = {
        Key.SAMPLE_NUMBER: devices,
        Key.SHARE_NUMBER: devices,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: SETTINGS["clip"],
        Key.TARGET_RANGE: SETTINGS["target"],
        Key.MOD_RANGE: SETTINGS["modulus"],
        Key.MAX_WEIGHT: SETTINGS["weight"],
    }
    states, keys, setup_s = {}, {}, []
    for node in range(1, devices + 1):
        states[node] = stages.SecAggPlusState()
        states[node].nid = node
        start = CPU()
        reply = stages._setup(states[node], config)
        setup_s.append(CPU() - start)
        keys[str(node)] = [reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2]]
    vector = (np.random.default_rng(0).standard_normal(words) * 0.01).astype(np.float32)
    share_s, mask_s = [], []
    masked: list[bytes] = []
    shares_bytes = 0
    for node in (1, 2):
        state = states[node]
        start = CPU()
        shared = stages._share_keys(state, dict(keys))
        share_s.append(CPU() - start)
        shares_bytes = sum(map(len, shared[Key.CIPHERTEXT_LIST]))
        seed_bytes, key_bytes = len(state.rd_seed_share_dict[node]), len(state.sk1_share_dict[node])
        others = [other for other in states if other != node]
        ciphertexts = [
            encrypt(
                state.ss2_dict[other],
                share_keys_plaintext_concat(other, node, os.urandom(seed_bytes), os.urandom(key_bytes)),
            )
            for other in others
        ]
        received = {Key.CIPHERTEXT_LIST: ciphertexts, Key.SOURCE_LIST: others}
        start = CPU()
        reply = stages._collect_masked_vectors(state, received, 1000, ndarrays_to_parameters([vector]))
        mask_s.append(CPU() - start)
        masked = reply[Key.MASKED_PARAMETERS]
    seed_shares = create_shares(states[1].rd_seed, threshold, devices)
    arrays = [bytes_to_ndarray(part) for part in masked]

    def unmask_one() -> None:
        mask = pseudo_rand_gen(states[1].rd_seed, SETTINGS["modulus"], get_parameters_shape(arrays))
        parameters_subtraction(arrays, mask)

    per_client = least(lambda: combine_shares(seed_shares[:threshold]), 1) + least(unmask_one)
    per_client += least(lambda: [bytes_to_ndarray(part) for part in masked])
    per_client += least(lambda: parameters_subtraction(arrays, arrays))
    figures = {
        "client_s": min(setup_s) + min(share_s) + min(mask_s),
        "server_s": devices * per_client,
        "upload_bytes": sum(map(len, masked)) + shares_bytes,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
