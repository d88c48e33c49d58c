"""Modules as authors write them. Imported only where torch is."""

import torch
from torch import nn
from torch.nn import functional


class Tabular(nn.Module):
    """Rows of features."""

    def __init__(self, features=5, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.0))
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        return self.head(self.body(x))


class Flattened(nn.Module):
    """A convolution whose channels and samples are both seen by a dense layer."""

    def __init__(self, channels=2, length=32, outputs=3):
        super().__init__()
        self.first = nn.Conv1d(channels, 6, 5, padding="same")
        self.second = nn.Conv1d(6, 4, 3, stride=2, padding=1)
        self.pool = nn.MaxPool1d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * length // 4, 8), nn.ReLU(), nn.Linear(8, outputs))

    def forward(self, x):
        return self.head(torch.relu(self.second(self.pool(functional.relu(self.first(x))))))


class Block(nn.Module):
    """Two convolutions with group norms, and a way round them."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.one = nn.Conv1d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = nn.GroupNorm(2, outputs)
        self.two = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.round = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1, stride=stride)

    def forward(self, x):
        return torch.relu(self.two(torch.relu(self.norm(self.one(x)))) + self.round(x))


class Residual(nn.Module):
    """A small ResNet."""

    def __init__(self, channels=2, outputs=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(channels, 4, 5, padding=2, bias=False), nn.BatchNorm1d(4), nn.ReLU())
        self.blocks = nn.Sequential(Block(4, 4), Block(4, 6, stride=2))
        self.head = nn.Linear(6, outputs)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(dim=2))


class Separable(nn.Module):
    """Depthwise-separable convolutions."""

    def __init__(self, channels=2, outputs=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(channels, channels, 5, padding=2, groups=channels),
            nn.Conv1d(channels, 8, 1),
            nn.ReLU(),
            nn.Conv1d(8, 8, 3, stride=2, padding=1, groups=8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(8, outputs),
        )

    def forward(self, x):
        return self.layers(x)
