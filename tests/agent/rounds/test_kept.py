"""The sealed delta: what was put in comes out, for the plans that it fits, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.agent.rounds.kept import KeptUpdate, fit_of, write_kept
from bedside.core.codec import Layout, Segment, SegmentKind, TensorSlot, TensorUpdate, encode, encode_pieces
from bedside.core.errors import StoreError
from bedside.core.securesum.plans import layout_message
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.service.platform import SystemEntropy

KEY, SEED = b"k" * 32, b"s" * 32
LAYOUT = Layout(
    (
        Segment(
            "body",
            SegmentKind.VALUE,
            (TensorSlot("w", (300, 251)), TensorSlot("b", (97,))),
            clip_e6=3_000_000,
            bits=8,
            rotation_block=256,
        ),
        Segment("head", SegmentKind.VALUE, (TensorSlot("h", (70_000,)),), clip_e6=1_000_000, bits=6),
        Segment("examples", SegmentKind.COUNT, cap=400),
    )
)


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    return {
        slot.name: generator.standard_normal(slot.shape).astype(np.float32) * np.float32(0.01)
        for segment in LAYOUT.segments[:2]
        for slot in segment.tensors
    }


@pytest.fixture
def plan(world):
    return world.plan(layout=layout_message(LAYOUT))


@pytest.fixture
def path(tmp_path, plan):
    update = TensorUpdate(tensors(), {"examples": 7}, LAYOUT, weight=0.5)
    write_kept(tmp_path / "kept", KEY, SystemEntropy(), plan, update, examples=9)
    return tmp_path / "kept"


def test_a_kept_update_is_encoded_to_the_words_of_the_update_itself(path) -> None:
    halved = {name: tensor * np.float32(0.5) for name, tensor in tensors().items()}
    expected = encode(halved, {"examples": 7}, LAYOUT, SEED, KEY, word_bits=16)
    kept = KeptUpdate(path, KEY, LAYOUT)
    words = np.concatenate([piece.copy() for piece in encode_pieces(kept, LAYOUT, SEED, KEY, word_bits=16)])
    np.testing.assert_array_equal(words, expected)
    assert kept.examples == 9
    assert kept.digest == TensorUpdate(tensors(), {"examples": 7}, LAYOUT, weight=0.5).digest


def test_no_sample_of_it_lies_in_the_clear(path) -> None:
    data = path.read_bytes()
    row = (tensors()["h"] * np.float32(0.5)).tobytes()
    assert not any(row[at : at + 16] in data for at in range(0, 4_096, 16))


@pytest.mark.parametrize("age", [-1, 0, 1, 2])
def test_it_serves_its_own_round_and_the_next(path, world, age) -> None:
    later = world.plan(layout=layout_message(LAYOUT), round_number=2, previous_result_digest=b"r" * 32)
    write_kept(path, KEY, SystemEntropy(), later, TensorUpdate(tensors(), {"examples": 7}, LAYOUT), examples=9)
    number = 2 + age
    previous = b"r" * 32 if number > 1 else b""
    asked = world.plan(layout=layout_message(LAYOUT), round_number=number, previous_result_digest=previous)
    assert KeptUpdate(path, KEY, LAYOUT).serves(asked) is (age in (0, 1))


def test_it_serves_plans_of_its_own_task_model_layout_and_training_only(plan, world, path) -> None:
    training = plan.plan.training
    other_training = type(training)()
    other_training.CopyFrom(training)
    other_training.epochs += 1
    other_layout = Layout((*LAYOUT.segments[:2], Segment("examples", SegmentKind.COUNT, cap=500)))
    changes = (
        {"task": "other"},
        {"bundle": BlobRef(digest=b"x" * 32, size_bytes=10)},
        {"training": other_training},
        {"layout": layout_message(other_layout)},
    )
    fits = {fit_of(world.plan(**{"layout": layout_message(LAYOUT), **change})) for change in ({}, *changes)}
    assert len(fits) == len(changes) + 1
    kept = KeptUpdate(path, KEY, LAYOUT)
    assert kept.serves(plan)
    assert not any(kept.serves(world.plan(**{"layout": layout_message(LAYOUT), **change})) for change in changes)


def read_all(path, key) -> None:
    kept = KeptUpdate(path, key, LAYOUT)
    for index in (0, 1):
        for _ in kept.pieces(index):
            pass


def damaged(path, key=KEY) -> str:
    with pytest.raises(StoreError) as caught:
        read_all(path, key)
    return caught.value.code


def test_another_key_opens_nothing(path) -> None:
    assert damaged(path, b"o" * 32) == "kept-damaged"


@pytest.mark.parametrize("at", [0, 2, 40, 60, 4_000, -1])
def test_a_flipped_bit_is_found(path, at) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    assert damaged(path) == "kept-damaged"


@pytest.mark.parametrize("length", [0, 3, 50, 5_000, -1])
def test_a_file_that_was_cut_short_is_found(path, length) -> None:
    path.write_bytes(path.read_bytes()[:length])
    assert damaged(path) == "kept-damaged"


def test_a_frame_of_another_file_opens_at_no_place(path, tmp_path, plan) -> None:
    other = tmp_path / "other"
    write_kept(other, KEY, SystemEntropy(), plan, TensorUpdate(tensors(), {"examples": 7}, LAYOUT), examples=9)
    first_frame = 4 + int.from_bytes(path.read_bytes()[:4], "little")
    path.write_bytes(path.read_bytes()[:first_frame] + other.read_bytes()[first_frame:])
    assert damaged(path) == "kept-damaged"


def test_a_file_that_is_not_there_says_so(tmp_path) -> None:
    assert damaged(tmp_path / "nothing") == "kept-missing"
