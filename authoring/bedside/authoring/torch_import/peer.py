"""The module in torch, trained and asked by torch: its own layers, autograd, losses and optimiser, on one thread.

In double precision unless it is told otherwise: what it says is then what float32 on any machine is near to.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from bedside.authoring.net import Net
from bedside.authoring.torch_import.carried import Carried
from bedside.core.bundle.layers import Standardise
from bedside.core.bundle.parameters import NORM_EPSILON
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.step import Rates, Targets

if TYPE_CHECKING:
    import torch
    from torch import nn


class Peer:
    """A module that is never changed: each call works on a copy with the parameters that it is given.

    Args:
        module: in torch.
        carried: where the net's tensors are in it.
        net: whose task tells the loss.
    """

    def __init__(self, module: nn.Module, carried: Sequence[Carried], net: Net) -> None:
        self._module, self._carried, self._net = module, tuple(carried), net

    def parameters(self) -> dict[str, Float32]:
        """The module's own, by the net's names; a bias that torch does not have is zero."""
        return self._read(self._module)

    def predict(self, parameters: Mapping[str, Float32], x: Float32, *, double: bool = True) -> Float32:
        """Logits (N, outputs) of windows (N, L, C), as predictions have them."""
        import torch

        dtype = torch.float64 if double else torch.float32
        with _one_thread(), torch.no_grad():
            logits = self._with(parameters, dtype).eval()(self._given(parameters, x, dtype))
            found: Float32 = logits.numpy().astype(np.float32)
            return found

    def train(
        self,
        parameters: Mapping[str, Float32],
        x: Float32,
        y: Targets,
        rates: Rates,
        steps: int,
        *,
        double: bool = True,
    ) -> tuple[Float32, dict[str, Float32]]:
        """Train on one batch by SGD with momentum and a FedProx term.

        Args:
            parameters: to begin with.
            x: windows (N, L, C).
            y: what is to be learnt.
            rates: of every step.
            steps: how many.
            double: in double precision, rounded to float32 at the end.

        Returns:
            Losses (steps,) and the parameters afterwards, but for ranges, which torch does not know.
        """
        import torch

        dtype = torch.float64 if double else torch.float32
        with _one_thread():
            module = self._with(parameters, dtype).train()
            learnt = list(module.parameters())
            start = [tensor.detach().clone() for tensor in learnt]
            mover = torch.optim.SGD(learnt, lr=rates.learning_rate, momentum=rates.momentum)
            criterion, target = self._criterion(dtype), torch.tensor(y)
            target = target if target.dtype == torch.int64 else target.to(dtype)
            given = self._given(parameters, x, dtype)
            losses = []
            for _ in range(steps):
                mover.zero_grad()
                loss = criterion(module(given), target)
                away = sum(((now - first) ** 2).sum() for now, first in zip(learnt, start, strict=True))
                (loss + rates.proximal_mu / 2 * away).backward()
                mover.step()
                losses.append(loss.item())
            return np.array(losses, np.float32), self._read(module)

    def _given(self, parameters: Mapping[str, Float32], x: Float32, dtype: torch.dtype) -> torch.Tensor:
        """Windows as the module takes them, standardised if the net does so: (N, C, L), or (N, features) of records."""
        import torch

        given = torch.tensor(x).to(dtype)
        if isinstance(self._net.steps[0].layer, Standardise):
            mean, square = (torch.tensor(parameters[name]).to(dtype) for name in ("mean0", "square0"))
            given = (given - mean) / torch.sqrt((square - mean * mean).clamp(min=0) + NORM_EPSILON)
        given = given.transpose(1, 2)
        return given[:, :, 0] if x.shape[1] == 1 else given.contiguous()

    def _criterion(self, dtype: torch.dtype) -> Any:
        import torch
        from torch import nn

        weights = self._net.class_weights
        weight = torch.tensor(weights, dtype=dtype) if weights else None
        match self._net.task:
            case "classification":
                return nn.CrossEntropyLoss(weight)
            case "multilabel":
                return nn.BCEWithLogitsLoss(weight)
            case _:
                return nn.MSELoss()

    def _with(self, parameters: Mapping[str, Float32], dtype: torch.dtype) -> nn.Module:
        import torch

        module = copy.deepcopy(self._module)
        state = module.state_dict()
        for one in self._carried:
            if one.key:
                state[one.key] = torch.tensor(one.to_torch(parameters[one.name]))
        module.load_state_dict(state)
        return module.to(dtype)

    def _read(self, module: nn.Module) -> dict[str, Float32]:
        state = {key: value.detach().numpy() for key, value in module.state_dict().items()}
        shapes = {spec.name: spec.shape for spec in self._net.parameters}
        return {
            one.name: one.from_torch(state[one.key].astype(np.float32))
            if one.key
            else np.zeros(shapes[one.name], np.float32)
            for one in self._carried
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
