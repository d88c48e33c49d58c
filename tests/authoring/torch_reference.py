"""The same training in torch, by its own layers, autograd and optimiser. Imported only where torch is."""

import numpy as np
import torch

from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu


def train_with_torch(net_steps, parameters, x, y, *, lr, momentum, mu, count):
    """Losses (count,) and parameters after `count` steps on one batch."""
    torch.set_num_threads(1)
    state = {
        name: torch.tensor(array, requires_grad=True)
        for name, array in parameters.items()
        if name.startswith(("w", "b"))
    }
    start = {name: tensor.detach().clone() for name, tensor in state.items()}
    optimiser = torch.optim.SGD(state.values(), lr=lr, momentum=momentum)
    inputs, classes = torch.tensor(x).transpose(1, 2), torch.tensor(y)
    losses = []
    for _ in range(count):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(net_steps, state, inputs), classes)
        pull = sum(((tensor - start[name]) ** 2).sum() for name, tensor in state.items())
        (loss + mu / 2 * pull).backward()
        optimiser.step()
        losses.append(loss.item())
    return np.array(losses), {name: tensor.detach().numpy() for name, tensor in state.items()}


def forward(net_steps, state, value):
    for step in net_steps:
        weight, bias = state.get(f"w{step.order}"), state.get(f"b{step.order}")
        match step.layer:
            case Conv1d(taps=taps):
                value = torch.nn.functional.conv1d(value, weight.permute(2, 1, 0), bias, padding=taps // 2)
            case Dense():
                value = value @ weight + bias
            case Relu():
                value = torch.relu(value)
            case MaxPool():
                value = torch.nn.functional.max_pool1d(value, 2)
            case GlobalAveragePool():
                value = value.mean(dim=2)
            case Flatten():
                value = value.transpose(1, 2).flatten(1)
    return value
