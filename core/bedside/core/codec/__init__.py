"""Named tensors and counts to one vector of ring words, and sums of such vectors back (DESIGN section 5)."""

from bedside.core.codec.decoder import DecodedSum, check_sum, decode_sum
from bedside.core.codec.encoder import CountArray, encode
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.codec.rotation import FloatArray

__all__ = [
    "CountArray",
    "DecodedSum",
    "FloatArray",
    "Layout",
    "Segment",
    "SegmentKind",
    "TensorSlot",
    "check_sum",
    "decode_sum",
    "encode",
]
