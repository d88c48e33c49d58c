"""Named tensors and counts to one vector of ring words, and sums of such vectors back (DESIGN section 5)."""

from bedside.core.codec.decoder import DecodedSum, check_sum, decode_sum
from bedside.core.codec.encoder import encode, encode_pieces
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.codec.rotation import FloatArray
from bedside.core.codec.update import CountArray, TensorUpdate, UpdateSource, piece_sizes

__all__ = [
    "CountArray",
    "DecodedSum",
    "FloatArray",
    "Layout",
    "Segment",
    "SegmentKind",
    "TensorSlot",
    "TensorUpdate",
    "UpdateSource",
    "check_sum",
    "decode_sum",
    "encode",
    "encode_pieces",
    "piece_sizes",
]
