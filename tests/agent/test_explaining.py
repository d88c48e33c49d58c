"""A running agent explains every stored prediction of the shipped recipes, from the window that was decided."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bedside.agent.client import LocalAgent
from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.firmware_bridge.recording import Recording, write_recording

CONFIG = """\
[link]
enabled = false
[[models]]
bundle = "tiny.tar"
[[sources]]
kind = "replay"
name = "{stream}"
[sources.options]
stream = "{stream}"
data = "signal.npz"
speed = 4.0
loop = true
"""
SECONDS = 40
BEGINNING = 12
"""The model begins to serve in the middle of a run; thresholds and mean intervals of ten beats begin there too."""


def beats() -> Recording:
    """Lead II in the roughest outline, 360 Hz in steps of 5 microvolt, with an early beat now and then."""
    rng = np.random.default_rng(2)
    at, values = 200, rng.normal(0, 4, SECONDS * 360)
    values += 60 * np.sin(np.arange(len(values)) / 500)
    while at < len(values) - 120:
        values[at : at + 24] += np.interp(np.arange(24), [0, 5, 9, 13, 17, 23], [0, -30, 240, -60, 10, 0])
        values[at + 60 : at + 110] += 40 * np.hanning(50)
        at += int(rng.choice([180, 300, 320]))
    return Recording(values[:, np.newaxis].astype(np.int16), 360.0, unit="mV", scale=0.005)


def motion() -> Recording:
    values = np.random.default_rng(3).standard_normal((SECONDS * 50, 9)).astype(np.float32)
    return Recording(values, 50.0)


@pytest.mark.parametrize(
    ("recipe", "stream", "recording", "at_least"), [("ecg", "ecg", beats, 30), ("har", "waist", motion, 15)]
)
def test_every_prediction_of_a_shipped_recipe_is_explained(
    device, tiny_author, recipe, stream, recording, at_least
) -> None:
    (device.path / "tiny.tar").write_bytes(build_bundle(load_recipe(recipe), tiny_author).tar)
    (device.path / "agent.toml").write_text(CONFIG.format(stream=stream))
    write_recording(device.path / "signal.npz", recording())
    device.start()

    async def explain(numbers: range) -> list[str]:
        async with LocalAgent(device.path) as agent:
            found = [await agent.explain(number, segments=4) for number in numbers]
        assert all(np.isfinite(one.effects).all() for one in found)
        return [one.method for one in found]

    newest = device.await_predictions(above=at_least)
    told = asyncio.run(explain(range(1, newest + 1)))
    assert set(told[BEGINNING:]) == {"occlusion"}
    assert set(told[:BEGINNING]) <= {"occlusion", "occlusion-near"}
    for _ in range(3):  # whose signal may still be on its way to the disk
        newest = device.await_predictions(above=newest)
        assert asyncio.run(explain(range(newest, newest + 1))) == ["occlusion"]
    device.stop()
