"""The noise of one trustee on one answer: a fixed function of its round key, H, the cohort and the set.

The same set always gets the same noise, so that a repeated answer cannot average it away; another set gets another.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from bedside.core.codec.keystream import SEED_BYTES, KeyStream
from bedside.core.codec.layout import Layout
from bedside.core.limits import MASK_CHUNK_BYTES
from bedside.core.privacy.gaussian import CHUNK_DRAWS, gaussian
from bedside.core.privacy.mechanism import segment_sigmas_e6
from bedside.core.securesum.ring import Words, reduce_in_place, word_dtype

_KEY_PERSON: Final = b"bedside-noise-v1"
_STREAM_PURPOSES: Final = (b"bedside-noise-a", b"bedside-noise-b")
"""One stream per table of the sampler."""


def noise_key(round_secret: bytes, plan_digest: bytes, cohort: int, set_root: bytes) -> bytes:
    """Key of the noise, 32 secret bytes: BLAKE2b-256(key = BLAKE2b-256(round secret), person, H || cohort || set root).

    The round secret is longer than a key of BLAKE2b may be, hence its digest.
    """
    context = plan_digest + cohort.to_bytes(4, "big") + set_root
    key = hashlib.blake2b(round_secret, digest_size=SEED_BYTES).digest()
    return hashlib.blake2b(context, digest_size=SEED_BYTES, key=key, person=_KEY_PERSON).digest()


def add_noise(
    words: Words, layout: Layout, multiplier_e6: int, key: bytes, word_bits: int, *, subtract: bool = False
) -> None:
    """Add the whole vector's noise to `words` modulo 2^w, in place and in the words' order.

    Args:
        words: shape (`layout.words`,), dtype of the ring.
        layout: the plan's layout.
        multiplier_e6: z in millionths; 0 adds nothing.
        key: of `noise_key`.
        word_bits: w.
        subtract: take the same noise away: what is subtracted from an answer is added to the opened sum.

    Raises:
        ProtocolError: `noise-too-large`.
    """
    if not multiplier_e6:
        return
    combine = np.subtract if subtract else np.add
    for index, (sigma_e6, (_, place)) in enumerate(
        zip(segment_sigmas_e6(layout, multiplier_e6), layout.placed(), strict=True)
    ):
        sampler = gaussian(sigma_e6)
        streams = [KeyStream(key, purpose, index, MASK_CHUNK_BYTES) for purpose in _STREAM_PURPOSES]
        segment = words[place]
        for start in range(0, segment.size, CHUNK_DRAWS):
            piece = segment[start : start + CHUNK_DRAWS]
            draws = sampler.draw(streams[: len(sampler.tables)], piece.size).astype(word_dtype(word_bits))
            combine(piece, draws, out=piece)
    reduce_in_place(words, word_bits)
