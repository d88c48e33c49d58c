"""An error comes out of a child as it went in, and a child that makes one up gets nothing called by it."""

import msgspec
import pytest

from bedside.core.errors import BedsideError, StoreError
from bedside.service.relayed_error import RelayedError


def test_an_error_is_the_same_on_the_other_side():
    sent = msgspec.json.encode(RelayedError.of(StoreError("disk-full", "the disk is full", remedy="make room")))
    found = msgspec.json.decode(sent, type=RelayedError).revive()
    assert (type(found), found.code, found.sentence, found.remedy) == (
        StoreError,
        "disk-full",
        "the disk is full",
        "make room",
    )


@pytest.mark.parametrize("kind", ["", "Final", "annotations", "__import__", "ValueError", "__name__"])
def test_a_class_that_is_none_of_ours_is_not_believed(kind):
    assert type(RelayedError(kind, "code", "sentence", "").revive()) is BedsideError
