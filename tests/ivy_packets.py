"""Packets as an Ivy 450C sends them, made up."""

from __future__ import annotations

from collections.abc import Sequence

LINES = (
    "HR=1;72;ECG-II-DIAG;",
    "RR=1;14;APNEA: 20 SEC;",
    "ETCO2=1;;;",
    "SPO2=1;97;PR=71 ;",
    "NIBP=4;118;76;90;73;;",
    "P1=3;115;70;85;;",
    "P2=3;;;;NO TRANSDUCER;",
    "T1=1;;;",
    "T2=1;;;",
)


def packet(
    *, ecg: int = 120, pleth: int = 110, p1: Sequence[int] = (90,) * 50, lines: Sequence[str] = LINES, p2: int = 251
) -> bytes:
    """One second; the ECG counts up from `ecg`, so that a test tells packets apart."""
    waves = bytes((ecg + at) % 200 + 1 for at in range(200)) + bytes([100] * 50) + bytes([pleth] * 50)
    waves += bytes(p1) + bytes([p2] * 50)
    text = "".join(f"{line}\r" for line in lines).encode("latin-1")
    return b"\xffANSAR-B " + waves + text + b"\xfe"
