"""docs/sinks.md: typed as it stands it works, its examples are accepted, and it names every option."""

from __future__ import annotations

import re
import sys
import time
import tomllib
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from walkthrough import File, Line, Shown, section_of, shell, steps_of

from bedside.agent.config import SinkConfig
from bedside.agent.kinds import options_of
from bedside.agent.sinks.kind import SinkContext, SinkOptions
from bedside.agent.sinks.registry import BUILT_IN, build_sink, find_kind, typed_sink
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import create_identity
from bedside.service.platform import SystemClock, SystemEntropy
from ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "sinks.md"
TEXT = PAGE.read_text()
DEADLINE_S = 60.0
EXAMPLES = [
    msgspec.convert(one, SinkConfig)
    for block in re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    for one in tomllib.loads(block)["sinks"]
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.kind}-{one.name}")
def test_every_example_is_a_sink(example, tmp_path) -> None:
    context = SinkContext(SystemClock(), SystemEntropy(), tmp_path, "d")
    assert build_sink(example.kind, typed_sink(example), context) is not None


def test_every_kind_has_an_example_and_every_option_a_word() -> None:
    assert {example.kind for example in EXAMPLES} == set(BUILT_IN)
    common = set(options_of(SinkOptions))
    table = section_of(TEXT, "Options of every sink")
    assert {name for name in common if f"`{name}`" not in table} == set()
    for kind in BUILT_IN:
        (heading,) = re.findall(rf"^## (`{kind}`: .*)$", TEXT, re.MULTILINE)
        section = section_of(TEXT, heading)
        own = set(options_of(find_kind(kind).options)) - common
        assert {name for name in own if not re.search(rf"\b{name}\b", section)} == set(), kind


@pytest.mark.system
def test_the_walk_through_is_typed_as_it_stands(tmp_path, recording_device) -> None:
    output = ""
    with shell(recording_device, {"8099": str(free_port())}) as typed:
        for step in steps_of(section_of(TEXT, "Try it")):
            match step:
                case File(name, body):
                    for old, new in typed.replaced.items():
                        body = body.replace(old, new)
                    (recording_device / name).write_text(body)
                case Shown(text):
                    head = set(re.findall(r"\b[A-Z]{2,}\b", text))
                    assert head <= set(re.findall(r"\b[A-Z]{2,}\b", output)), output
                case Line(command):
                    output = until(typed, command)
        received = output_of(recording_device)  # while the receiver is there
    assert re.search(r"^prediction \d+ (rest|walk|shake)$", received, re.MULTILINE)
    assert (recording_device / "gateway" / "export" / "predictions-again.csv").exists()


def until(typed, command: str) -> str:
    """Type a line; what needs a first decision is typed until there is one."""
    end_s = time.monotonic() + DEADLINE_S
    while True:
        status, output = typed.run(command)
        if status == 0:
            return output
        again = command.startswith(("bedside agent sinks preview", "cat received", "head"))
        assert again, f"$ {command}\n{output}"
        assert time.monotonic() < end_s, f"$ {command}\n{output}"
        time.sleep(0.1)


def output_of(folder: Path) -> str:
    end_s = time.monotonic() + DEADLINE_S
    while not (text := (folder / "received.txt").read_text()):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return text


@pytest.fixture
def recording_device(tmp_path) -> Path:
    """A folder with the device `gateway`, as device.md leaves it, with a smaller model."""
    import numpy as np
    from nacl.signing import SigningKey

    from bedside.authoring.build import build_bundle
    from bedside.authoring.recipe import load_recipe
    from bedside.firmware_bridge.recording import Recording, write_recording

    path = tmp_path / "gateway"
    create_identity(path / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
    author = SigningKey(b"author" * 5 + b"!!")
    built = build_bundle(load_recipe(str(Path(__file__).parents[1] / "recipes" / "tiny.toml")), author)
    (path / "tiny.tar").write_bytes(built.tar)
    (path / "policy.toml").write_text(f'[bundle_signers]\nauthor = "{bytes(author.verify_key).hex()}"\n')
    values = np.random.default_rng(4).standard_normal((3_000, 2)).astype(np.float32)
    write_recording(path / "signal.npz", Recording(values, 50.0, (), (0,)))
    (path / "agent.toml").write_text(
        'model = "tiny.tar"\n[link]\nenabled = false\n[[sources]]\nkind = "replay"\nname = "wrist"\n'
        '[sources.options]\nstream = "wrist"\ndata = "signal.npz"\nhistory_s = 5.0\nloop = true\n'
    )
    return tmp_path
