"""No author can make golden vectors pass everything: a tolerance is capped by its own vector."""

import msgspec
import numpy as np
import pytest

from bedside.core.bundle import verify
from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.layers import Conv1d, Dense, GlobalAveragePool, walk
from bedside.core.bundle.manifest import MANIFEST, SIGNATURE, SIGNED_KIND, Tolerance, encode_manifest
from bedside.core.bundle.tolerances import check_tolerances
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import signature_of

KEY = "q1-all-sgd"
CAPPED = ("logits", "logits_litert", "logits_float", f"{KEY}/loss", f"{KEY}/w0", f"{KEY}/b0", f"{KEY}/amax")


def widened(manifest, tensor, factor=1.0, absolute=None):
    tolerances = tuple(
        Tolerance(one.tensor, one.absolute * factor if absolute is None else absolute) if one.tensor == tensor else one
        for one in manifest.golden.tolerances
    )
    assert any(one.tensor == tensor for one in tolerances)
    return msgspec.structs.replace(manifest, golden=msgspec.structs.replace(manifest.golden, tolerances=tolerances))


@pytest.mark.parametrize("tensor", CAPPED)
def test_what_a_build_states_has_room_and_more_than_a_few_times_that_is_refused(bundle, tensor):
    check_tolerances(widened(bundle.manifest, tensor, 1.4), bundle.parameters, bundle.golden)
    with pytest.raises(MalformedError, match=f"tolerance of {tensor}") as caught:
        check_tolerances(widened(bundle.manifest, tensor, 60), bundle.parameters, bundle.golden)
    assert caught.value.code == "bad-golden"


def test_a_parameter_that_stays_where_it_was_is_outside_every_tolerance_that_is_allowed(bundle):
    way = bundle.golden[f"{KEY}/w0"] - bundle.parameters["w0"]
    still = float(np.sqrt(np.mean(np.square(way))))
    with pytest.raises(MalformedError):
        check_tolerances(widened(bundle.manifest, f"{KEY}/w0", absolute=still), bundle.parameters, bundle.golden)


def test_a_tolerance_of_a_vector_that_is_no_number_is_refused(bundle):
    golden = dict(bundle.golden) | {"logits": np.full_like(bundle.golden["logits"], np.nan)}
    with pytest.raises(MalformedError, match="tolerance of logits"):
        check_tolerances(bundle.manifest, bundle.parameters, golden)


def test_a_device_refuses_such_a_bundle(built, author, monkeypatch):
    data = encode_manifest(widened(built.manifest, "logits", absolute=1e6))
    tar = pack_bundle(built.files | {MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, author)})
    with pytest.raises(MalformedError, match="tolerance of logits"):
        verify_archive(tar, [bytes(author.verify_key)])
    monkeypatch.setattr(verify, "check_tolerances", lambda *_: None)
    verify_archive(tar, [bytes(author.verify_key)])  # nothing else is wrong with it


@pytest.mark.parametrize(("length", "sound"), [(1 << 10, True), (1 << 11, False)])
def test_a_net_whose_window_grows_beyond_a_board_is_refused(length, sound):
    layers = (Conv1d(4_096, 1), GlobalAveragePool(), Dense(2))
    if sound:
        walk(layers, (length, 1), 2)
    else:
        with pytest.raises(MalformedError, match=r"layer 0 \(conv1d\) one window is 8388608 values") as caught:
            walk(layers, (length, 1), 2)
        assert caught.value.code == "bad-layers"
