"""The same training in torch, by its own layers, autograd, losses and optimisers. Imported only where torch is."""

import numpy as np
import torch
from torch.nn import functional

from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Dense,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    MaxPool,
    Relu,
    Standardise,
)

EPSILON = 1e-5


class TorchNet:
    """A net in torch. `parameters` become tensors; those that `trained` names are learnt."""

    def __init__(self, net, parameters, trained, x, y):
        torch.set_num_threads(1)
        self.net = net
        self.state = {name: torch.tensor(array, requires_grad=name in trained) for name, array in parameters.items()}
        self.learnt = [self.state[name] for name in trained]
        self.x, self.y = torch.tensor(x).transpose(1, 2), torch.tensor(y)
        self.loss = self.criterion()

    def criterion(self):
        weight = torch.tensor(self.net.class_weights) if self.net.class_weights else None
        match self.net.task:
            case "classification":
                return torch.nn.CrossEntropyLoss(weight)
            case "multilabel":
                return torch.nn.BCEWithLogitsLoss(weight)
            case _:
                return torch.nn.MSELoss()

    def train(self, *, optimiser, lr, momentum, mu, clip, count):
        """Losses (count,) and parameters after `count` steps on one batch."""
        start = [tensor.detach().clone() for tensor in self.learnt]
        mover = (
            torch.optim.SGD(self.learnt, lr=lr, momentum=momentum)
            if optimiser == "sgd"
            else torch.optim.Adam(self.learnt, lr=lr, betas=(momentum, 0.999))
        )
        losses = []
        for _ in range(count):
            mover.zero_grad()
            loss = self.loss(self.forward(), self.y)
            pull = sum(((tensor - first) ** 2).sum() for tensor, first in zip(self.learnt, start, strict=True))
            (loss + mu / 2 * pull).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(self.learnt, clip)
            mover.step()
            losses.append(loss.item())
        return np.array(losses), {name: tensor.detach().numpy() for name, tensor in self.state.items()}

    def forward(self):
        values = [self.x]
        for step in self.net.steps:
            value = values[-1]
            if step.kernel is not None:
                given = self.weighted(step, value if step.skip < 0 else values[step.skip + 1])
                values.append(given if step.skip < 0 else value + given)
            elif isinstance(step.layer, Add):
                values.append(value + values[step.skip + 1])
            else:
                values.append(self.plain(step, value))
        return values[-1]

    def weighted(self, step, value):
        weight, bias, kernel = self.state[f"w{step.order}"], self.state[f"b{step.order}"], step.kernel
        if isinstance(step.layer, Dense):
            return value @ weight + bias
        if kernel.form == "depthwise":
            stencil, groups = weight.T.unsqueeze(1), kernel.inputs
        else:
            stencil, groups = weight.permute(2, 1, 0), 1
        return functional.conv1d(value, stencil, bias, stride=kernel.stride, padding=kernel.taps // 2, groups=groups)

    def plain(self, step, value):
        tensor = {name: self.state.get(f"{name}{step.norm}") for name in ("gamma", "beta", "mean", "variance")}
        match step.layer:
            case Relu():
                return torch.relu(value)
            case MaxPool():
                return functional.max_pool1d(value, 2)
            case GlobalAveragePool():
                return value.mean(dim=2)
            case Flatten():
                return value.transpose(1, 2).flatten(1)
            case GroupNorm(groups=groups):
                return functional.group_norm(value, groups, tensor["gamma"], tensor["beta"], EPSILON)
            case BatchNorm():
                return functional.batch_norm(
                    value, tensor["mean"], tensor["variance"], tensor["gamma"], tensor["beta"], training=True
                )
            case Standardise():
                variance = self.state[f"square{step.norm}"] - tensor["mean"] ** 2
                return (value - tensor["mean"][:, None]) / torch.sqrt(variance + EPSILON)[:, None]
