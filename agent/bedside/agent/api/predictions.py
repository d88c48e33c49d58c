"""The calls about predictions: following them, asking for one, and asking why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from bedside.agent.api.follow import Followers
from bedside.agent.api.messages import check_number
from bedside.core.errors import MalformedError
from bedside.core.ids import check_id
from bedside.core.limits import MAX_WIRE_INTEGER
from bedside.ondevice.runtimes import Float32
from bedside.proto.v1 import local_pb2

MAX_VALUES: Final = 1_000_000
"""Values of one window of a caller's own, 4 bytes each: what one message holds."""

DEFAULT_SEGMENTS: Final = 16
MAX_SEGMENTS: Final = 256
"""Pieces of time of one explanation: each costs one prediction per channel."""


class StoredPredictions(Protocol):
    """Where predictions that were made earlier are read."""

    def after(self, since_id: int) -> Sequence[local_pb2.Prediction]:
        """The next ones above `since_id`, in order; empty at the end."""


class ServedModels(Protocol):
    """The models that serve."""

    async def predict(self, model: str, values: Float32) -> local_pb2.PredictResponse:
        """Decide one window.

        Args:
            model: name; may be empty when one serves.
            values: (length, channels) float32, finite, in the stream's physical unit.

        Raises:
            ProtocolError: `no-such-model`, `which-model`.
            MalformedError: `bad-window`.
        """

    async def explain(self, prediction: int, segments: int, output: str = "") -> local_pb2.Explanation:
        """Why an output of a stored prediction came out as it did; empty for that of its label.

        Raises:
            ProtocolError: `no-such-prediction`, `no-such-output`, or what it was made from is gone.
        """


class PredictionCalls:
    """Answers from the store, from what is being published, and from the models."""

    def __init__(self, stored: StoredPredictions, followers: Followers, models: ServedModels) -> None:
        self._stored = stored
        self._followers = followers
        self._models = models

    async def follow(self, request: local_pb2.FollowRequest) -> AsyncIterator[local_pb2.Prediction]:
        """Earlier predictions above `since_id`, where one is given, and then each as it is made; none is left out.

        Who reads too slowly for its queue gets what was pushed out of it from the store.
        """
        last_id = check_number(request.since_id, "prediction")
        with self._followers.subscribe() as fresh:
            if request.HasField("since_id"):
                for prediction in self._between(last_id, MAX_WIRE_INTEGER):
                    last_id = prediction.id
                    yield prediction
            async for newest in fresh:
                if last_id and newest.id > last_id + 1:
                    for prediction in self._between(last_id, newest.id):
                        yield prediction
                if newest.id > last_id:
                    last_id = newest.id
                    yield newest

    def _between(self, after: int, before: int) -> Iterator[local_pb2.Prediction]:
        """Predictions with ids between the two, in order: those that are stored, then those that wait for it."""
        while page := self._stored.after(after):
            for prediction in page:
                if prediction.id >= before:
                    return
                after = prediction.id
                yield prediction
        for prediction in self._followers.recent():
            if after < prediction.id < before:
                yield prediction

    async def predict(self, request: local_pb2.PredictRequest) -> local_pb2.PredictResponse:
        """Decide one window of the caller's own; nothing of it is stored."""
        if request.model:
            check_id(request.model, "model")
        values = window_values(request.values)
        if values.size != request.length * request.channels:
            raise MalformedError(
                "bad-window",
                f"{values.size} values are no window of {request.length} samples of {request.channels} channels",
                remedy="say how many samples and channels the values are",
            )
        return await self._models.predict(request.model, values.reshape(request.length, request.channels))

    async def explain(self, request: local_pb2.ExplainRequest) -> local_pb2.Explanation:
        """Why a stored prediction came out as it did."""
        number = check_number(request.prediction_id, "prediction")
        segments = request.segments or DEFAULT_SEGMENTS
        if segments > MAX_SEGMENTS:
            raise MalformedError("too-many-segments", f"{segments} segments are too many: {MAX_SEGMENTS} at most")
        return await self._models.explain(number, segments, request.output)


def window_values(data: bytes) -> Float32:
    """The values of a window as a request carries them, (n,) float32 and finite.

    Raises:
        MalformedError: `bad-window`.
    """
    if not data or len(data) % 4 or len(data) > 4 * MAX_VALUES:
        raise MalformedError("bad-window", f"a window of {len(data)} bytes is not 1 to {MAX_VALUES} float32 values")
    values = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise MalformedError("bad-window", "a window holds a value that is not finite", remedy="fill gaps, or leave it")
    return values
