"""The stages in the manifest: bounded, canonical, and absent from the bytes of models without them."""

from __future__ import annotations

import msgspec
import pytest

from bedside.core.bundle.bounds import MAX_CHANNELS
from bedside.core.bundle.manifest import Manifest, WindowSpec, decode_manifest, encode_manifest
from bedside.core.bundle.preprocessing import Beat, ChannelReference, Filter, Reference, Resample, check_stages
from bedside.core.errors import MalformedError
from bedside.core.signal.butterworth import butterworth
from tiny_manifest import make_manifest

WINDOW_BEFORE = (
    b'"window":{"channels":1,"hop":2,"length":4,"offset":[0.0],"rate_hz":50.0,"scale":[1.0],"stream":"motion"}'
)
STABLE = Filter(butterworth(2, 100.0, low_hz=0.5, high_hz=40.0), 1.0)
EDGES = ChannelReference((0.0, 1.0), (0.25, 0.5, 0.25), -5.0, 5.0)


def window(**stages: object) -> Manifest:
    spec = WindowSpec("motion", 1, 100.0, 4, 4, (0.0,), (1.0,))
    return msgspec.structs.replace(make_manifest(), window=msgspec.structs.replace(spec, **stages))


def test_a_stage_that_is_left_out_is_absent_from_the_bytes() -> None:
    data = encode_manifest(make_manifest())
    assert WINDOW_BEFORE in data
    assert encode_manifest(decode_manifest(data)) == data


@pytest.mark.parametrize(
    "stages",
    [
        {"pick": (3,), "resample": Resample(8, 8.0), "filter": STABLE, "detrend": "linear", "normalise": "zscore"},
        {"beat": Beat(0, 1, 3, rr=False)},
    ],
)
def test_stages_survive_the_bytes(stages) -> None:
    manifest = msgspec.structs.replace(window(**stages), reference=Reference((EDGES,)))
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_a_stage_that_is_spelled_out_as_its_default_is_not_canonical() -> None:
    data = encode_manifest(make_manifest()).replace(b'"channels":1,"hop"', b'"channels":1,"detrend":"none","hop"')
    with pytest.raises(MalformedError) as refused:
        decode_manifest(data)
    assert refused.value.code == "bad-manifest"


BAD = {
    "unstable": {"filter": Filter(((1.0, 0.0, 0.0, -2.0, 1.0),), 1.0)},
    "barely unstable": {"filter": Filter(((1.0, 0.0, 0.0, -1.9999999, 0.9999999),), 1.0)},
    "no section": {"filter": Filter((), 1.0)},
    "many sections": {"filter": Filter(STABLE.sections * 9, 1.0)},
    "coefficient": {"filter": Filter(((1e9, 0.0, 0.0, 0.0, 0.0),), 1.0)},
    "settle": {"filter": Filter(STABLE.sections, -1.0)},
    "settles never": {"filter": Filter(STABLE.sections, 1e9)},
    "half width": {"resample": Resample(0, 8.0)},
    "wide": {"resample": Resample(10_000, 8.0)},
    "beta": {"resample": Resample(8, 1e9)},
    "pick twice": {"pick": (1, 1)},
    "pick more": {"pick": (0, 1)},
    "pick below": {"pick": (-1,)},
    "pick above": {"pick": (MAX_CHANNELS,)},
    "beat channel": {"beat": Beat(1, 1, 3, rr=False)},
    "beat length": {"beat": Beat(0, 2, 3, rr=False)},
    "beat negative": {"beat": Beat(0, -1, 5, rr=False)},
    "beat after": {"beat": Beat(0, 4, 0, rr=False)},
    "beat rate": {"beat": Beat(0, 1, 3, rr=False), "rate_hz": 50.0},
    "rr without channels": {"beat": Beat(0, 1, 3, rr=True)},
    "change without a channel": {"beat": Beat(0, 1, 3, rr=False, rr_change=True)},
    "template without channels": {"beat": Beat(0, 1, 3, rr=False, template=9)},
    "rate": {"rate_hz": 1e9},
    "fields": {"fields": ("pulse",)},
    "two fields": {"fields": ("pulse", "spo2"), "length": 1, "hop": 1},
    "field name": {"fields": ("\n",), "length": 1, "hop": 1},
    "fields and stages": {"fields": ("pulse",), "length": 1, "hop": 1, "detrend": "mean"},
}


@pytest.mark.parametrize("stages", BAD.values(), ids=BAD)
def test_a_stage_outside_its_bounds_is_refused(stages) -> None:
    with pytest.raises(MalformedError) as refused:
        decode_manifest(encode_manifest(window(**stages)))
    assert refused.value.code == "bad-manifest"


@pytest.mark.parametrize(
    ("template", "channels", "length", "words"),
    [
        (-1, 3, 4, "0 to 256 beats"),
        (257, 3, 4, "0 to 256 beats"),
        (9, 4, 4, "a channel for each channel"),
        (256, 2 * 64 + 1, 128, "1048576 values or fewer"),
    ],
)
def test_a_template_has_its_bounds(template, channels, length, words) -> None:
    beat = Beat(0, 1, length - 1, rr=False, rr_change=True, template=template)
    shape = (channels, 100.0, length, length, (0.0,) * channels, (1.0,) * channels)
    with pytest.raises(MalformedError, match=words):
        check_stages(WindowSpec("motion", *shape, beat=beat))


@pytest.mark.parametrize(
    "channels",
    [
        (),
        (EDGES, EDGES),
        (ChannelReference((), (1.0,), 0.0, 1.0),),
        (ChannelReference((1.0, 0.0), (0.2, 0.3, 0.5), 0.0, 1.0),),
        (ChannelReference((0.0,), (0.5, 0.6), 0.0, 1.0),),
        (ChannelReference((0.0,), (-0.5, 1.5), 0.0, 1.0),),
        (ChannelReference((0.0,), (0.5, 0.25, 0.25), 0.0, 1.0),),
        (ChannelReference((0.0,), (0.5, 0.5), 1.0, 1.0),),
        (ChannelReference(tuple(map(float, range(65))), (1 / 66,) * 66, 0.0, 1.0),),
    ],
)
def test_a_reference_outside_its_bounds_is_refused(channels) -> None:
    manifest = msgspec.structs.replace(make_manifest(), reference=Reference(channels))
    with pytest.raises(MalformedError) as refused:
        decode_manifest(encode_manifest(manifest))
    assert refused.value.code == "bad-manifest"
