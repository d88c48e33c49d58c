"""What an augmentation may ask for."""

from __future__ import annotations

import math

import msgspec
import pytest

from bedside.core.bundle.manifest import Targets, decode_manifest, encode_manifest
from bedside.core.bundle.training import Augmentation
from bedside.core.errors import MalformedError
from tiny_manifest import make_manifest

IMPOSSIBLE = {
    "noise-below-0": Augmentation(noise=-0.1),
    "noise-without-end": Augmentation(noise=math.inf),
    "scale-above-1": Augmentation(scale=1.1),
    "shift-of-a-window": Augmentation(shift=4),
    "shift-below-0": Augmentation(shift=-1),
    "balance-above-1": Augmentation(balance=1.5),
}


def encoded(augmentation: Augmentation, **changes) -> bytes:
    manifest = make_manifest()
    training = msgspec.structs.replace(manifest.training, augmentation=augmentation)
    return encode_manifest(msgspec.structs.replace(manifest, training=training, **changes))


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_augmentation_that_cannot_be_is_refused(name) -> None:
    with pytest.raises(MalformedError) as error:
        decode_manifest(encoded(IMPOSSIBLE[name]))
    assert error.value.code == "bad-manifest"


def test_a_regression_has_nothing_to_balance() -> None:
    targets = Targets(("kPa", "kPa"), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(MalformedError, match="balance"):
        decode_manifest(encoded(Augmentation(balance=0.5), task="regression", targets=targets))


@pytest.mark.parametrize("scale", [0.0, 1e-300, -1e-40, 1e300])
def test_a_scale_that_makes_no_number_of_a_logit_is_refused(scale) -> None:
    targets = Targets(("kPa", "kPa"), (0.0, 0.0), (1.0, scale))
    with pytest.raises(MalformedError, match="scale is between"):
        decode_manifest(encoded(Augmentation(), task="regression", targets=targets))


@pytest.mark.parametrize("offset", [1e308, -1e300])
def test_an_offset_that_no_value_is_near_is_refused(offset) -> None:
    targets = Targets(("kPa", "kPa"), (0.0, offset), (1.0, 1.0))
    with pytest.raises(MalformedError, match="offset is at most"):
        decode_manifest(encoded(Augmentation(), task="regression", targets=targets))


def test_what_is_possible_is_kept() -> None:
    asked = Augmentation(0.1, 0.2, 3, 1.0)
    assert decode_manifest(encoded(asked)).training.augmentation == asked
