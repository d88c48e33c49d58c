"""Foreign bytes in a signed bundle: whatever they are, they end a child at most, and the parent says so."""

import asyncio
import random
import struct
from collections import Counter

import msgspec
import onnx
import pytest
from resigned import resigned

from bedside.core.errors import BedsideError
from bedside.ondevice import golden, trial
from bedside.ondevice.confinement import Limits, run_child
from bedside.ondevice.golden import DEFAULT_LIMITS

MUTANTS = 200
OPERATORS = ("Add", "Loop", "Reshape", "Conv", "QuantizeLinear", "ConstantOfShape", "Slice", "Gemm", "Scan", "Expand")
NUMBERS = (0, 1, -1, 2, 127, -128, 255, 65_536, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63))
REFUSALS = {"bad-graph", "bad-golden", "bad-manifest", "golden-mismatch"}


def flipped(data, draw):
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(data, draw):
    place = draw.randrange(1, len(data))
    return data[:place] if draw.random() < 0.5 else data[:place] + bytes(len(data) - place)


def other_fields(data, draw):
    """Fields of the ONNX messages: operators, their inputs, attributes and types, forms and types of constants."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    for _ in range(draw.choice((1, 1, 2, 3))):
        node, tensor = draw.choice(graph.node), draw.choice(graph.initializer)
        change = draw.randrange(8)
        if change == 0:
            node.op_type = draw.choice(OPERATORS)
        elif change == 1 and node.input:
            node.input[draw.randrange(len(node.input))] = draw.choice(names)
        elif change == 2 and node.attribute:
            attribute = draw.choice(node.attribute)
            attribute.i, attribute.ints[:] = draw.choice(NUMBERS), [draw.choice(NUMBERS) for _ in attribute.ints]
        elif change == 3:
            del graph.node[draw.randrange(len(graph.node))]
        elif change == 4 and tensor.dims:
            tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(NUMBERS)
        elif change == 5:
            tensor.data_type = draw.randrange(24)
        elif change == 6 and tensor.data_type == onnx.TensorProto.INT64 and tensor.raw_data:
            count = len(tensor.raw_data) // 8
            tensor.raw_data = struct.pack(f"<{count}q", *(draw.choice(NUMBERS) for _ in range(count)))
        elif change == 7:
            graph.output.add().CopyFrom(draw.choice(graph.output))
            graph.output[-1].name = draw.choice(names)
    return model.SerializeToString()


def other_numbers(built):
    """Whole numbers of the tflite file's tables: places, sizes, forms, operators."""
    parameters = {at for patch in built.manifest.patches for at in range(patch.offset, patch.offset + patch.size)}

    def change(data, draw):
        changed = bytearray(data)
        places = [at for at in range(0, len(data) - 4, 4) if at not in parameters]
        for _ in range(draw.choice((1, 1, 2, 4))):
            number = draw.choice(NUMBERS) & 0xFFFFFFFF
            struct.pack_into("<I", changed, draw.choice(places), number)
        return bytes(changed)

    return change


def mutants(built, file):
    """Each with its number, the same in every run."""
    told = other_numbers(built) if file.endswith(".tflite") else other_fields
    ways = (flipped, told, told, cut)
    made, number = 0, 0
    while made < MUTANTS:
        draw = random.Random(f"{file} {number}")
        data = ways[number % len(ways)](built.files[file], draw)
        number += 1
        if data != built.files[file]:
            made += 1
            yield number, data


def in_a_child_of_its_own(forks, tar, module, limits):
    """The code with which the real thing refuses a bundle; empty when it takes it."""
    forks.path.write_bytes(tar)
    child = {"golden": golden.CHILD, "trial": trial.CHILD}[module]
    try:
        asyncio.run(run_child(child, msgspec.json.encode(forks.replay), limits))
    except BedsideError as error:
        return error.code
    return ""


@pytest.mark.parametrize("file", ["train-q1-all-sgd.onnx", "infer.onnx", "infer.tflite"])
def test_two_hundred_mutants_are_refused_or_compute_the_same_or_end_their_child_alone(built, author, forks, file):
    module = "trial" if file.endswith(".tflite") else "golden"
    outcomes, shown = Counter(), {}
    for number, data in mutants(built, file):
        tar = resigned(built, author, {file: data})
        outcome = forks(tar, module, seconds=5)
        outcomes[outcome] += 1
        shown.setdefault(outcome, (number, tar))
    print(file, dict(outcomes))
    died = {outcome for outcome in outcomes if outcome.startswith("died of ")}
    assert set(outcomes) <= REFUSALS | {"same"} | died
    assert outcomes.total() == MUTANTS
    assert sum(outcomes[code] for code in REFUSALS) > MUTANTS / 3
    for outcome, (number, tar) in shown.items():  # one of each kind again, as an agent meets it
        late = outcome == "died of SIGALRM"
        limits = Limits(DEFAULT_LIMITS.address_space_bytes, timeout_s=5) if late else DEFAULT_LIMITS
        wanted = "child-timeout" if late else "child-died" if outcome in died else "" if outcome == "same" else outcome
        assert in_a_child_of_its_own(forks, tar, module, limits) == wanted, (outcome, number)
