"""A device's directory: identity, policy, configuration, recordings, and the bundles that it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nacl.signing import SigningKey

from bedside.authoring import recipe as recipes
from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import create_identity
from bedside.service.platform import SystemEntropy

_RECIPES = Path(recipes.__file__).parent / "recipes"  # by path: a folder here may have a recipe's name
AUTHOR = SigningKey(b"the author of benchmarks' bundle")


@dataclass(frozen=True)
class Played:
    """A stream that is replayed in real time."""

    stream: str
    values: np.ndarray
    rate_hz: float
    session_starts: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Served:
    """A bundle, and the streams that it reads."""

    tar: Path
    streams: tuple[str, ...] = field(default=())


def build_tar(recipe: str, folder: Path) -> Path:
    """Build and sign the bundle of a shipped recipe."""
    path = folder / f"{recipe}.tar"
    if not path.exists():
        path.write_bytes(build_bundle(load_recipe(str(_RECIPES / f"{recipe}.toml")), AUTHOR).tar)
    return path


def make_device(path: Path, played: list[Played], served: list[Served], *, runtime: str = "auto") -> Path:
    """Make the directory of a device that replays recordings, serves models and never calls anybody."""
    path.mkdir()
    create_identity(path / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
    (path / "policy.toml").write_text(f'[bundle_signers]\nauthor = "{bytes(AUTHOR.verify_key).hex()}"\n')
    lines = [f'[inference]\nruntime = "{runtime}"\n']
    for model in served:
        streams = ", ".join(f'"{name}"' for name in model.streams)
        lines.append(f'[[models]]\nbundle = "{model.tar}"\nstreams = [{streams}]\n')
    for one in played:
        write_recording(
            path / f"{one.stream}.npz", Recording(one.values, one.rate_hz, session_starts=one.session_starts)
        )
        lines.append(
            f'[[sources]]\nkind = "replay"\nname = "{one.stream}"\n'
            f'[sources.options]\nstream = "{one.stream}"\ndata = "{one.stream}.npz"\n'
        )
    (path / "agent.toml").write_text("\n".join(lines))
    return path
