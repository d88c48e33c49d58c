"""Inputs that a parser once took badly, by what was wrong with them; each is refused as promised from now on."""

from __future__ import annotations

import base64
import io
import zipfile

import numpy as np
import pytest
from hunt import complaint
from parsers import PARSERS

NESTED = b'{"x":' * 5_000
"""Deeper than Python follows: no DecodeError."""


def pem_with(name: str, old: bytes, new: bytes) -> bytes:
    """A PEM seed with other bytes in it."""
    first, *body, last = PARSERS[name].seeds[0].strip().split(b"\n")
    der = base64.b64decode(b"".join(body))
    assert old in der
    return b"\n".join([first, base64.b64encode(der.replace(old, new, 1)), last])


def recording_with(name: str, content: bytes | np.ndarray) -> bytes:
    """A recording with another array, or other bytes in its place."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(PARSERS["recording"].seeds[0])) as seed, zipfile.ZipFile(made, "w") as archive:
        for member in seed.namelist():
            archive.writestr(member, seed.read(member) if member != name else as_array(content))
    return made.getvalue()


def as_array(content: bytes | np.ndarray) -> bytes:
    if isinstance(content, bytes):
        return content
    made = io.BytesIO()
    np.save(made, content)
    return made.getvalue()


def announcing(header: bytes) -> bytes:
    """An array of which there is only the header."""
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header


FOUND = {
    "a key that is not UTF-8": [
        ("run-note", b'{"\xbf":'),
        ("training-job", b'{"\xe5":'),
        ("contribution-job", b'{"\xe5":'),
        ("child-line", b'{"error":{"kind":"\x94"'),
        ("sealed-part", bytes.fromhex("30009ca36367a1")),
        ("daemon-report", b'{"\xbf":'),
        ("active-model", b'{"\xbf":'),
    ],
    "nesting without end": [(name, NESTED) for name in ("run-note", "active-model", "child-line", "daemon-report")]
    + [(name, NESTED) for name in ("training-job", "site-public", "coordinator-public", "pins")],
    "names that are not hexadecimal": [("active-model", b'{"bundle":"","checkpoint":"x","signer_pks":[]}')],
    "a version of X.509 that there is not": [
        ("certificate", pem_with("certificate", b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"))
    ],
    "a kind of key that there is not": [
        ("tls-key", pem_with("tls-key", bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0271")))
    ],
    "a buffer as large as the largest file": [("credential-file", b""), ("pins", b"{}")],
    "a length beyond the end of the file": [("kept-delta", bytes.fromhex("9ca5ac02"))],
    "a word of the command line that is not text": [("round-name", b"\xe2"), ("round-name", b"watch/" + b"9" * 30)],
    "a time of a label beyond every number": [("label-file", b"start_s,end_s,label\n1e4967295,1,x")],
    "an array whose header does not end": [
        ("window-array", b"\x93NUMPY\x01\0\x76\0{'descr': '<f4', 'shape': (3, 2), ")
    ],
    "a row of labels without a name": [("labels-csv", b"start_s,end_s,label\n5,2,\n2,3.25,\n2,3.25")],
    "arrays that are not what they should be": [
        ("recording", recording_with("rate_hz.npy", np.array(50 + 1j))),
        ("recording", recording_with("label_names.npy", np.array([2**31 - 1] * 2, "<u4").view("<U1"))),
        ("recording", recording_with("values.npy", announcing(b"{'descr': ('<f4', 'shape': (30, 2), "))),
        (
            "recording",
            recording_with("values.npy", announcing(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}\n")),
        ),
    ],
    "the home of nobody": [("agent-toml", b'policy = "~nobody-of-that-name/policy.toml"')],
    "windows that are none": [
        ("window-array", announcing(b"{'descr': ('<f4', 'shape': (3, 4), ")),
        ("window-array", announcing(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3000000,)}\n")),
        ("window-array", as_array(np.array([1 + 1j]))),
        ("window-lines", b"# nothing\n"),
    ],
    "an array that announces more than there is": [
        (
            "recording",
            recording_with("scale.npy", announcing(b"{'descr': '<f8', 'fortran_order': False, 'shape': (3000000,)}\n")),
        )
    ],
}
CASES = [(name, data, what) for what, cases in FOUND.items() for name, data in cases]


@pytest.mark.parametrize(("name", "data", "what"), CASES, ids=[f"{name}: {what}" for name, _, what in CASES])
def test_what_was_once_taken_badly_is_refused(name: str, data: bytes, what: str) -> None:
    assert complaint(PARSERS[name], data, weigh=True) == "", what
