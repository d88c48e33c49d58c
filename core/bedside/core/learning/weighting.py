"""How much one device counts, without the coordinator learning how many examples it has.

UNIFORM: every device counts the same; the mean is the sum over |S|.
EXAMPLES: a device multiplies its delta by min(n, cap) / cap *before* the clip, and adds min(n, cap) to the secure
sum as a count. The mean is the sum over (sum of counts / cap), the example-weighted mean of FedAvg with n capped.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from bedside.core.errors import ProtocolError

FloatArray = npt.NDArray[np.float32]


class Weighting(IntEnum):
    """Numbered as on the wire."""

    UNIFORM = 1
    EXAMPLES = 2


def counted_examples(examples: int, cap: int) -> int:
    """The count that a device contributes: its examples, at most the cap.

    Raises:
        ProtocolError: `no-examples`.
    """
    if examples < 1 or cap < 1:
        raise ProtocolError("no-examples", f"a device with {examples} examples and a cap of {cap} cannot take part")
    return min(examples, cap)


def contribution_weight(weighting: Weighting, examples: int, cap: int) -> float:
    """The device's half: the factor on its delta, at most 1, before the clip.

    Raises:
        ProtocolError: `no-examples`.
    """
    counted = counted_examples(examples, cap)
    return 1.0 if weighting is Weighting.UNIFORM else float(np.float32(counted / cap))


def bounded_examples(examples: int, contributors: int, least: int, cap: int) -> int:
    """A count of examples, brought to what honest devices can have counted together.

    Each has `least` to `cap`, or declines. Noise, or a device that lies, could make the total zero or negative, and the
    mean boundless.
    """
    return min(max(examples, contributors * max(1, least)), contributors * cap)


def mean_delta(
    summed: Mapping[str, FloatArray], weighting: Weighting, contributors: int, examples: int, cap: int
) -> dict[str, FloatArray]:
    """The coordinator's half: the sum times one float32 factor, element by element.

    Args:
        summed: decoded sums by name.
        weighting: what the plan says.
        contributors: |S|.
        examples: the opened sum of `counted_examples` (EXAMPLES only).
        cap: the plan's cap of examples per device (EXAMPLES only).

    Raises:
        ProtocolError: `no-examples` when the total weight is not positive.
    """
    numerator, denominator = (1, contributors) if weighting is Weighting.UNIFORM else (cap, examples)
    if denominator < 1 or numerator < 1:
        raise ProtocolError("no-examples", f"a total weight of {denominator} examples gives no mean")
    factor = np.float32(numerator / denominator)
    return {name: part * factor for name, part in summed.items()}
