"""Valid inputs of every parser: a small federation, a bundle, a recording, the files of a device."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from forms import Change, json, tensors
from mutation import mutate
from nacl.signing import SigningKey

from bedside.core.bundle.archive import pack_bundle, unpack_bundle
from bedside.core.bundle.manifest import (
    GOLDEN,
    INFER,
    INFER_FLOAT,
    INFER_TFLITE,
    MANIFEST,
    PARAMETERS,
    SIGNATURE,
    SIGNED_KIND,
    FileEntry,
    Manifest,
    TensorSpec,
    encode_manifest,
)
from bedside.core.bundle.patch import Patch
from bedside.core.bundle.preprocessing import Beat, ChannelReference, Filter, Reference, Resample
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import file_digest, first_checkpoint
from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import sign, signature_of
from bedside.core.unreadable import UNREADABLE
from bedside.firmware_bridge.recording import Label, Recording, write_recording
from bedside.proto.v1.common_pb2 import Signed

TESTS = Path(__file__).parents[1]
RAM = Path("/dev/shm")
SCRATCH = Path(tempfile.mkdtemp(prefix="bedside-fuzz-", dir=RAM if os.access(RAM, os.W_OK) else None))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def load(path: str) -> Any:
    """A module of the tests by its file."""
    name = f"fuzz_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, TESTS / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORLD = load("conftest.py").World({"alder": 3, "birch": 3, "cedar": 2})
AUTHOR = SigningKey(b"author" * 5 + b"!!")
CAPTURED = load("attack/captured.py")


def on_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser that reads a file: `read` gets its path. Nobody but the owner may read it."""
    path = SCRATCH / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def parse(data: bytes) -> object:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return read(path)

    return parse


def text(data: bytes) -> str:
    """As the command line hands over what is not UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def under(kind: str, key: SigningKey, accept: Callable[[Signed], object]) -> Callable[[bytes], object]:
    """A payload is signed before it is parsed: the sender itself is the adversary."""
    return lambda data: accept(Signed.FromString(sign(kind, data, key)))


FILES = load("tiny_manifest.py").FILES


def _manifest(files: dict[str, bytes], checkpoint: bytes) -> Manifest:
    told = load("tiny_manifest.py").make_manifest()
    return msgspec.structs.replace(
        told,
        files=tuple(FileEntry(name, len(files[name]), file_digest(files[name])) for name in FILES),
        checkpoint=hashlib.blake2b(checkpoint, digest_size=32).hexdigest(),
    )


def _net() -> Any:
    from bedside.authoring.net import Net

    return Net(load("tiny_manifest.py").STEPS)


def _graphs(parameters: dict[str, Any]) -> dict[str, bytes]:
    """Its ONNX files."""
    from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
    from bedside.authoring.training_graph import build_training_graph

    net, graph = _net(), load("tiny_manifest.py").GRAPH
    return {
        graph.file: build_training_graph(net, graph),
        INFER: build_int8_graph(net, quantise_parameters(parameters, net.quantisation)),
        INFER_FLOAT: build_float_graph(net, {name: parameters[name] for name in ("w0", "b0")}),
    }


def tflite() -> tuple[bytes, tuple[Patch, ...]]:
    """A file with most kinds of operators in it, and its table."""
    from bedside.authoring.golden import golden_batch
    from bedside.authoring.initialise import initial_parameters
    from bedside.authoring.net import Net
    from bedside.authoring.tflite_graph import build_tflite
    from bedside.core.bundle.layers import Add, Conv1d, Dense, GlobalAveragePool, GroupNorm, Relu, walk

    layers = (Conv1d(4, 3, stride=2), GroupNorm(2), Relu(), Conv1d(4, 1), Add(2), GlobalAveragePool(), Dense(2))
    net = Net(walk(layers, (8, 1), 2))
    quantised = quantise_parameters(initial_parameters(net, 0, *golden_batch(net, 0), {}), net.quantisation)
    return build_tflite(net, quantised | real_tensors(quantised, net.quantisation))


def _bundle_files() -> dict[str, bytes]:
    parameters = {"w0": np.ones((4, 2), np.float32), "b0": np.zeros(2, np.float32), "amax": np.ones(1, np.float32)}
    files = _graphs(parameters)
    files[PARAMETERS] = encode_tensors(parameters)
    files[GOLDEN] = encode_tensors({"x": np.ones((2, 4, 1), np.float32), "y": np.array([0, 1], np.int64)})
    first = first_checkpoint(load("tiny_manifest.py").make_manifest(), parameters)
    manifest = encode_manifest(_manifest(files, first))
    return {MANIFEST: manifest, SIGNATURE: signature_of(SIGNED_KIND, manifest, AUTHOR), **files}


def _graph() -> bytes:
    """A small ONNX graph with a constant and a branch."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "inner", [], [], [weight])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner),
        helper.make_node("Constant", [], ["v"], value=weight),
    ]
    return bytes(helper.make_model(helper.make_graph(nodes, "g", [], [], [weight])).SerializeToString())


def full_manifests() -> list[bytes]:
    """Manifests with everything that may be left out: stages, patches, a reference; and one of beats."""
    told = load("tiny_manifest.py").make_manifest()
    staged = msgspec.structs.replace(
        told.window,
        pick=(0,),
        resample=Resample(8, 8.0),
        filter=Filter(((0.1, 0.2, 0.1, -0.5, 0.2),), 1.0),
        detrend="linear",
        normalise="zscore",
    )
    files = (*told.files, FileEntry(INFER_TFLITE, 100, "0" * 64))
    patches = (Patch("w0", 0, 8), Patch("w0_scale", 16, 8, (1, 0)))
    reference = Reference((ChannelReference((0.0, 1.0), (0.25, 0.5, 0.25), -5.0, 5.0),))
    whole = msgspec.structs.replace(told, window=staged, files=files, patches=patches, reference=reference)
    beats = msgspec.structs.replace(told.window, rate_hz=250.0, hop=4, beat=Beat(0, 2, 2, rr=False))
    record = msgspec.structs.replace(told.window, length=1, hop=1, fields=("spo2",))
    tensors_of_it = (TensorSpec("w0", (1, 2)), *told.parameters[1:])
    return [
        encode_manifest(whole),
        encode_manifest(msgspec.structs.replace(told, window=beats)),
        encode_manifest(msgspec.structs.replace(told, window=record, parameters=tensors_of_it)),
    ]


BUNDLE_FILES = _bundle_files()
BUNDLE = pack_bundle(BUNDLE_FILES)
ONNX = _graph()


def bundle(data: bytes, rng: Random, others: Any) -> bytes:
    """A form: one file of a bundle is changed, its digest and the author's signature follow."""
    try:
        files = unpack_bundle(data)
        told = msgspec.json.decode(files[MANIFEST], type=dict[str, Any])
    except (MalformedError, *UNREADABLE):
        return mutate(data, rng, others)
    name = rng.choice((MANIFEST, *FILES))
    change: Change = json if name == MANIFEST else tensors
    files[name] = change(files[name], rng, [files[name]])
    if name != MANIFEST:
        for entry in told["files"] if isinstance(told.get("files"), list) else ():
            if isinstance(entry, dict) and entry.get("name") == name:
                entry |= {"size": len(files[name]), "blake2b": file_digest(files[name])}
        files[MANIFEST] = msgspec.json.encode(told, order="sorted")
    files[SIGNATURE] = signature_of(SIGNED_KIND, files[MANIFEST], AUTHOR)
    return pack_bundle(files)


def recording() -> bytes:
    """A small recording."""
    path = SCRATCH / "seed.npz"
    values = np.arange(60, dtype=np.float32).reshape(30, 2)
    write_recording(path, Recording(values, 50.0, (Label(0, 10, "rest"), Label(10, 25, "walk")), (0, 10), "g", "", 0.5))
    return path.read_bytes()


def windows() -> bytes:
    """Two windows of the tiny model, of two clients."""
    path = SCRATCH / "seed-windows.npz"
    x = np.arange(128, dtype=np.float32).reshape(2, 32, 2)
    np.savez(path, x=x, y=np.array([0, 2]), bed=np.array(["a", "b"]))
    return path.read_bytes()


def toml(value: Any, prefix: str = "") -> str:
    """A configuration as a file, with every value that has a default spelt out."""
    lines, tables = [], []
    for name, one in msgspec.to_builtins(value, enc_hook=str).items() if not isinstance(value, dict) else value.items():
        if isinstance(one, dict):
            tables.append(f"[{prefix}{name}]\n" + toml(one, f"{prefix}{name}."))
        elif one is not None:
            lines.append(f"{name} = {msgspec.json.encode(one).decode()}")
    return "\n".join([*lines, *tables]) + "\n"
