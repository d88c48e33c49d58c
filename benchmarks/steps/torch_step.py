"""`python torch_step.py JOB`: torch's own layers, autograd and optimiser, channels first, one thread."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu
from steps.job import Arrays, Job, measure


class Mean(torch.nn.Module):
    """Over time."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(N, C, L) to (N, C)."""
        return value.mean(dim=2)


def net_of(job: Job, start: Arrays) -> torch.nn.Sequential:
    """The net as somebody who uses torch writes it, with our parameters."""
    modules: list[torch.nn.Module] = []
    order, shape = 0, (0, job.channels)
    for layer in job.layers:
        if isinstance(layer, Conv1d | Dense):
            weight, bias = torch.tensor(start[f"w{order}"]), torch.tensor(start[f"b{order}"])
            if isinstance(layer, Conv1d):
                module: torch.nn.Module = torch.nn.Conv1d(
                    weight.shape[1], layer.filters, layer.taps, layer.stride, layer.taps // 2
                )
                module.weight.data = weight.permute(2, 1, 0).contiguous()
            else:
                module = torch.nn.Linear(*weight.shape)
                if modules and isinstance(modules[-1], torch.nn.Flatten):  # channels last there, channels first here
                    weight = weight.reshape(-1, shape[1], weight.shape[1]).transpose(0, 1).reshape(weight.shape)
                module.weight.data = weight.T.contiguous()
            module.bias.data = bias
            modules.append(module)
            shape, order = (0, layer.filters if isinstance(layer, Conv1d) else layer.units), order + 1
        else:
            kinds = {Relu: torch.nn.ReLU, MaxPool: lambda: torch.nn.MaxPool1d(2), GlobalAveragePool: Mean}
            modules.append(kinds[type(layer)]() if type(layer) in kinds else torch.nn.Flatten())
    return torch.nn.Sequential(*modules)


def build(job: Job, start: Arrays) -> tuple[object, object]:
    """A step of SGD with momentum."""
    torch.set_num_threads(1)
    net = net_of(job, start)
    optimiser = torch.optim.SGD(net.parameters(), lr=job.learning_rate, momentum=job.momentum)

    def step(x: object, y: object) -> float:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x).transpose(1, 2)), torch.from_numpy(y))
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    def parameters() -> Arrays:
        found: Arrays = {}
        owners = [module for module in net if isinstance(module, torch.nn.Conv1d | torch.nn.Linear)]
        for order, module in enumerate(owners):
            weight = module.weight.detach()
            array = weight.permute(2, 1, 0) if weight.ndim == 3 else weight.T
            before = list(net).index(module) - 1
            if weight.ndim == 2 and before >= 0 and isinstance(net[before], torch.nn.Flatten):
                channels = owners[order - 1].weight.shape[0] if order else job.channels
                array = array.reshape(channels, -1, array.shape[1]).transpose(0, 1).reshape(array.shape)
            found[f"w{order}"], found[f"b{order}"] = array.numpy().copy(), module.bias.detach().numpy().copy()
        return found

    return step, parameters


if __name__ == "__main__":
    assert Flatten  # a layer of the nets
    measure(build)
