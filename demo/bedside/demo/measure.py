"""Gathers the figures of a finished run into a `Result`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from statistics import median
from typing import Final

from bedside.core.errors import UnavailableError
from bedside.demo.baselines import Baselines
from bedside.demo.evaluation import score
from bedside.demo.founding import COORDINATOR, trustee_name
from bedside.demo.operators import devices_of, trustees_of
from bedside.demo.policies import MIN_TRUSTED
from bedside.demo.result import Hospital, Result
from bedside.demo.story import Story
from bedside.demo.world import World
from bedside.ondevice.training.examples import Windows
from bedside.proto.v1.operator_pb2 import Participant

_BYTES_PER_MB: Final = 1_000_000
_LIBRARIES: Final = ("bedside", "onnxruntime", "numpy", "grpcio", "cryptography", "pynacl", "seglearn")


def measure(
    world: World, story: Story, baselines: Baselines, held_out: Windows, *, seed: int, setup_seconds: float
) -> Result:
    """Return every figure of the run.

    Raises:
        UnavailableError: `demo-nothing-opened` when no round opened.
    """
    if world.board.view is None:
        raise UnavailableError(
            "demo-nothing-opened",
            "no round opened, so that there is nothing to show",
            remedy=f"read {world.paths.logs}",
        )
    scores = score(world.bundle, story.parameters, held_out)
    opened = [one for one in story.history if one.accuracy is not None]
    predictions, device_accuracy = _held_out_devices(world, story.checkpoint)
    upload_bytes = max(one.received_bytes for one in _contributions(world, opened[-1].number))
    return Result(
        local_accuracy=sum(baselines.alone.values()) / len(baselines.alone),
        local_accuracies=baselines.alone,
        federated_accuracy=scores.accuracy,
        federated_int8_accuracy=scores.int8_accuracy,
        int8_agreement=scores.agreement,
        pooled_accuracy=baselines.pooled,
        device_predictions=predictions,
        device_accuracy=device_accuracy,
        rounds=len(opened),
        devices=len(world.cast.training),
        trustees=len(world.cast.hospitals),
        windows=sum(baselines.windows.values()),
        held_out_windows=len(held_out.y),
        parameters=sum(array.size for array in world.bundle.parameters.values()),
        upload_bytes_per_round=upload_bytes,
        model_bytes=story.model_bytes,
        bundle_bytes=world.paths.bundle.stat().st_size,
        round_seconds_median=median(one.seconds for one in opened),
        agent_rss_mb=median(_rss_mb(world, device.name) for device in world.cast.devices),
        trustee_rss_mb=median(_rss_mb(world, trustee_name(site)) for site in world.cast.sites),
        coordinator_rss_mb=_rss_mb(world, COORDINATOR),
        setup_seconds=setup_seconds,
        run_seconds=world.elapsed_s(),
        seed=seed,
        history=tuple(story.history),
        scenes=tuple(world.board.scenes),
        hospitals=_hospitals(world, baselines),
        view=world.board.view,
        versions=_versions(),
    )


def _contributions(world: World, number: int) -> list[Participant]:
    return [one for one in devices_of(world.operator.rounds[number]) if one.state == "counted"]


def _rss_mb(world: World, name: str) -> float:
    return world.processes[name].rss_bytes() / _BYTES_PER_MB


def _held_out_devices(world: World, checkpoint: bytes) -> tuple[int, float | None]:
    """Predictions that the held-out devices made with this checkpoint, and how many of them were right."""
    tallies = [world.eyes[device.name].tallies.get(checkpoint) for device in world.cast.held_out]
    found = [tally for tally in tallies if tally is not None]
    known = sum(tally.known for tally in found)
    return sum(tally.predictions for tally in found), sum(tally.right for tally in found) / known if known else None


def _hospitals(world: World, baselines: Baselines) -> tuple[Hospital, ...]:
    return tuple(
        Hospital(
            site=hospital.site,
            wearers=tuple(device.wearer for device in hospital.devices if device.trains),
            held_out=tuple(device.wearer for device in hospital.devices if not device.trains),
            windows=sum(baselines.windows[device.name] for device in hospital.devices if device.trains),
            min_trusted=MIN_TRUSTED,
            answers=_answers(world, hospital.site),
            trustee_rss_mb=_rss_mb(world, trustee_name(hospital.site)),
        )
        for hospital in world.cast.hospitals
    )


def _answers(world: World, site: str) -> int:
    """Sums that this hospital's trustee has opened."""
    return sum(
        any(one.site == site and one.state == "answered" for one in trustees_of(detail))
        for detail in world.operator.rounds.values()
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    found["cpus"] = str(os.cpu_count() or 0)
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
