"""What a model's streams look like to its author: quantiles of a recording, for devices to measure drift against."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.authoring.recipe import Recipe
from bedside.core.bundle.preprocessing import ChannelReference, Reference, signal_channels
from bedside.core.errors import ConfigError
from bedside.firmware_bridge.recording import Recording

BINS: Final = 10
"""Deciles, as the population stability index is usually taken."""


def reference_of(recipe: Recipe, recording: Recording) -> Reference:
    """Describe the channels of `recording` that the model of `recipe` takes, in physical units.

    The physically possible range is the recipe's; without one it is what the recording has.

    Raises:
        ConfigError: `bad-reference`: the recording lacks a channel or values, or the range is not one per channel.
    """
    window = recipe.window
    wanted = signal_channels(window)
    picked = window.pick or tuple(range(wanted))
    ranges = recipe.physical_range
    if window.fields or recording.values.shape[1] <= max(picked) or len(ranges) not in (0, wanted):
        raise ConfigError(
            "bad-reference",
            f"a recording of {recording.values.shape[1]} channels with {len(ranges)} physical ranges does not describe "
            f"the {wanted} channels of a stream that {recipe.name} takes",
            remedy="name a recording of the stream, and one range per channel or none",
        )
    physical = recording.values[:, list(picked)].astype(np.float64) * recording.scale
    return describe(recipe, physical)


def describe(recipe: Recipe, physical: npt.NDArray[np.float64]) -> Reference:
    """Describe the channels (samples, channels) that the model of `recipe` takes, in physical units.

    Raises:
        ConfigError: `bad-reference`: a channel never moves.
    """
    ranges, picked = recipe.physical_range, recipe.window.pick or tuple(range(physical.shape[1]))
    return Reference(
        tuple(
            _describe(physical[:, at], ranges[at] if ranges else None, f"channel {channel}")
            for at, channel in enumerate(picked)
        )
    )


def _describe(values: npt.NDArray[np.float64], limits: tuple[float, float] | None, name: str) -> ChannelReference:
    values = values[np.isfinite(values)]
    inner = np.quantile(values, np.arange(1, BINS) / BINS) if len(values) else values
    edges = np.unique(inner)  # a channel with few different values has fewer bins
    if not len(values) or values.min() == values.max():
        raise ConfigError("bad-reference", f"{name} of the recording never moves", remedy="name another recording")
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    low, high = limits if limits is not None else (float(values.min()), float(values.max()))
    return ChannelReference(tuple(edges.tolist()), tuple((counts / counts.sum()).tolist()), low, high)
