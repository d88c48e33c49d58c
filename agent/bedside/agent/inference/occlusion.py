"""Why a window was decided as it was: cover a piece of a channel, and see how the decision changes.

A covered piece holds its channel's mean over the window, so that nothing but what happens in it goes away; a field of a
record, which has one sample, is 0 as if it were missing. The effect is the fall of an output, of the predicted class's
probability or of a value: positive speaks for it, negative against it. It needs nothing of a model but its answers,
and so works for every runtime.

Source: M. D. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from bedside.ondevice.runtimes import Float32

METHOD: Final = "occlusion"
NEAR_METHOD: Final = "occlusion-near"
"""Of a window that is decided alike, but not to the last bit the decided one: part of what its stages remember has
expired, the model had begun to serve seconds before, in the middle of a run, or it computes on another runtime."""
MAX_BATCH_BYTES: Final = 1 << 20
"""Covered windows that are decided at once; the windows of the stream wait no longer than that takes."""


def borders(length: int, segments: int) -> list[int]:
    """First sample of each piece, and the end of the last; there are never more pieces than samples."""
    pieces = max(1, min(segments, length))
    return [length * piece // pieces for piece in range(pieces + 1)]


def covered(window: Float32, segments: int) -> Iterator[Float32]:
    """Yield the covered windows in batches (n, L, C), segment by segment and within each channel by channel.

    Args:
        window: (L, C) as the model sees it.
        segments: pieces of time.
    """
    length, channels = window.shape
    edges, mean = borders(length, segments), window.mean(axis=0, dtype=np.float64).astype(np.float32)
    if length == 1:
        mean = np.zeros_like(mean)
    places = [(first, end, channel) for first, end in pairwise(edges) for channel in range(channels)]
    per_batch = max(1, MAX_BATCH_BYTES // window.nbytes)
    for at in range(0, len(places), per_batch):
        some = places[at : at + per_batch]
        batch = np.repeat(window[np.newaxis], len(some), axis=0)
        for row, (first, end, channel) in enumerate(some):
            batch[row, first:end, channel] = mean[channel]
        yield batch


def effects(whole: float, parts: Float32, channels: int) -> Float32:
    """Return (segments, channels) float32: how much an output falls.

    Args:
        whole: the output, a probability or a value.
        parts: (segments * channels,) the same in the order of `covered`.
        channels: of the window.
    """
    fallen: Float32 = (np.float32(whole) - parts).reshape(-1, channels).astype(np.float32)
    return fallen
