"""Decimal floats of personal health devices: FLOAT-Type (32 bits) and SFLOAT-Type (16 bits).

Both are words here, because Bluetooth sends them little-endian and an APDU sends them big-endian.

Source: ISO/IEEE 11073-20601 annex F.7; Bluetooth GATT Specification Supplement, "IEEE 11073 Data Types".
"""

from __future__ import annotations

from typing import Final

_FLOAT_MANTISSA_BITS: Final = 24
_FLOAT_BITS: Final = 32
_SFLOAT_MANTISSA_BITS: Final = 12
_SFLOAT_BITS: Final = 16

_SPECIAL: Final = 2
"""Mantissas this near to either end are no numbers: 2^n - 1 NaN, 2^n - 2 +INFINITY, -2^n NRes, -2^n + 1 reserved,
-2^n + 2 -INFINITY. They are so under any exponent: devices send some beside the zero that the standard asks for."""


def decode_float(word: int) -> float | None:
    """The value of a FLOAT-Type word, 0 to 2^32 - 1; None for NaN, NRes, the infinities and the reserved value."""
    return _decode(word, _FLOAT_BITS, _FLOAT_MANTISSA_BITS)


def decode_sfloat(word: int) -> float | None:
    """The value of an SFLOAT-Type word, 0 to 2^16 - 1; None for NaN, NRes, the infinities and the reserved value."""
    return _decode(word, _SFLOAT_BITS, _SFLOAT_MANTISSA_BITS)


def _decode(word: int, bits: int, mantissa_bits: int) -> float | None:
    mantissa = _signed(word & ((1 << mantissa_bits) - 1), mantissa_bits)
    exponent = _signed(word >> mantissa_bits, bits - mantissa_bits)
    half = 1 << (mantissa_bits - 1)
    if not -half + _SPECIAL < mantissa < half - _SPECIAL:
        return None
    # whole numbers until the end: 36.6 comes out as the nearest double to 36.6, as if it had been typed
    return float(mantissa * 10**exponent) if exponent >= 0 else mantissa / 10**-exponent


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> (bits - 1) else number
