"""What a model takes and what arrives instead, in words for the person who set it up."""

from __future__ import annotations

import math

from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import signal_channels
from bedside.core.samples import Block


def taken(spec: WindowSpec) -> str:
    """What windows of `spec` are cut from, for instance `3 channels at 50 Hz`."""
    if spec.fields:
        return "records"
    count = max(spec.pick) + 1 if spec.pick else signal_channels(spec)
    channels = _channels(count) + (" or more" if spec.pick else "")
    rate = f"{spec.rate_hz:g} Hz"
    return f"{channels} at {rate}" if spec.resample is None else f"{channels} at a rate that resamples to {rate}"


def arrived(block: Block) -> str:
    """What a block is in the same words."""
    scale = "" if math.isfinite(block.scale) else ", on a scale without an end"
    return f"{_channels(block.values.shape[1])} at {block.rate_hz:g} Hz{scale}"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
