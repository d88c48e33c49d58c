"""A terminal that cannot show every character still gets everything that is said."""

import io
import json

import pytest

from bedside.agent.cli.sparks import bar, sparkline
from bedside.service.output import emit
from bedside.service.terminal import degrade


def printed(encoding: str, text: str) -> str:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding)
    degrade(stream)
    stream.write(text)
    stream.flush()
    return data.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("error: no — really…", "error: no - really~"),
        ("▁▂▃▄▅▆▇█", "_.,-~=*#"),
        ("██▌ ░▒▓", "##| .+#"),
        ("● ingest ◐ link ○ buffer", "* ingest ~ link o buffer"),
    ],
)
def test_shapes_become_ascii_of_the_same_width(text, shown) -> None:
    assert printed("ascii", text) == shown
    assert len(shown) == len(text)
    assert printed("utf-8", text) == text


def test_letters_become_escapes_and_json_stays_right() -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, "ascii")
    degrade(stream)
    emit({"label": "Vorhofflimmern, schnell: über 120", "of": "心 🫀"}, True, stream=stream)
    stream.flush()
    assert json.loads(data.getvalue().decode("ascii")) == {"label": "Vorhofflimmern, schnell: über 120", "of": "心 🫀"}


def test_what_the_encoding_has_is_left_alone() -> None:
    assert printed("latin-1", "± µ — ß") == "± µ - ß"


def test_every_character_of_bars_and_sparks_has_a_shape() -> None:
    import numpy as np

    drawn = sparkline(np.arange(64, dtype=np.float32), 64) + "".join(bar(at / 64, 8) for at in range(65))
    assert "\\u" not in printed("ascii", drawn)
