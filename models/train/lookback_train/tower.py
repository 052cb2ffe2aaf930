"""Nano's vision tower: a small convolutional network over frame pairs.

A patch transformer learns too slowly from scratch at this size; what leaves the tower is the same
as for the 2B: visual tokens and DeepStack features per pair.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .oracle import KINDS, SIGHTS

STEM = (16, 32)
MIDDLE = 64
TRUNK = 96
"""Channels of the levels: halves and quarters of the picture, eighths, sixteenths."""
SIGHT_WIDTH = 128
LEAST_LOG_P = 5.0
"""What is less likely than e to the minus this counts as this."""
GRID = (2, 3)
"""Rows and columns of the visual tokens of a pair; each covers 64×64 pixels."""
TOKENS = GRID[0] * GRID[1]
CELLS_PER_TOKEN = 4


def _conv(cin: int, cout: int, kernel: int, stride: int) -> nn.Sequential:
    padding = (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, padding, bias=False), nn.BatchNorm2d(cout), nn.ReLU()
    )


class Trunk(nn.Module):
    """Frame pairs `[B, 2, 1, 128, 192]` in [-1, 1] to cell features `[B, 64 + 96, 8, 12]`."""

    def __init__(self) -> None:
        super().__init__()
        self.folded = False
        half, quarter = STEM
        self.stem = nn.Sequential(
            _conv(3, half, 4, 2), _conv(half, quarter, 3, 2), _conv(quarter, MIDDLE, 3, 2)
        )
        self.middle = nn.ModuleList(_conv(MIDDLE, MIDDLE, 3, 1) for _ in range(2))
        self.down = _conv(MIDDLE, TRUNK, 3, 2)
        self.top = nn.ModuleList(
            nn.Sequential(_conv(TRUNK, TRUNK, 3, 1), _conv(TRUNK, TRUNK, 3, 1)) for _ in range(3)
        )

    def forward(self, pairs: Tensor) -> Tensor:
        """Cell features; the first 64 channels are the middle level, max-pooled."""
        x = pairs.flatten(1, 2)
        if not self.folded:
            # The difference is what moves; given as a channel it need not be learnt from noise.
            x = torch.cat([x, 2 * (x[:, 1:] - x[:, :1])], 1)
        x = self.stem(F.pad(x, (1, 0, 1, 0)))
        for block in self.middle:
            x = x + block(x)
        y = self.down(x)
        for block in self.top:
            y = y + block(y)
        return torch.cat([F.max_pool2d(x, 2), y], 1)

    def fold(self) -> None:
        """Adds the weights of the difference to those of the two frames: the same cells for a third
        less work in the largest convolution. Not for training."""
        convolution = self.stem[0][0]
        first, second, difference = convolution.weight.detach().unbind(1)
        folded = torch.stack([first - 2 * difference, second + 2 * difference], 1)
        convolution.weight = nn.Parameter(folded)
        convolution.in_channels, self.folded = 2, True


def _absorb(convolution: nn.Conv2d, norm: nn.Module, channels: slice) -> None:
    """Makes an unpadded `convolution` give what it gives after `norm`; its inputs are the norm's
    `channels`."""
    scale = torch.rsqrt(norm.running_var + norm.eps)[channels]
    shift = -norm.running_mean[channels] * scale
    with torch.no_grad():
        convolution.bias += (convolution.weight * shift[:, None, None]).sum((1, 2, 3))
        convolution.weight *= scale[:, None, None]


class Perception(nn.Module):
    """What a pair shows: classes of objects per cell, and of each kind of incident its state or a
    transition, in the whole picture.

    What tells harm from its harmless twin is in few pairs and small in each. The tower is taught it
    directly, from as many transitions as it takes; the policy has only to use it.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = MIDDLE + TRUNK
        self.head = nn.Conv2d(channels, classes, 1)
        self.standardise = nn.BatchNorm2d(channels, affine=False)
        self.what = nn.Conv2d(channels, SIGHT_WIDTH, 1)
        self.sights = nn.Linear(2 * SIGHT_WIDTH, KINDS * SIGHTS)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """From cell features: logits of the classes per cell, `[B, classes, 8, 12]`, and of what is
        shown of each kind, `[B, 10, 4]` (nothing, state, harmful transition, harmless one)."""
        what = F.relu(self.what(self.standardise(cells)))
        pooled = torch.cat([what.amax((2, 3)), what.mean((2, 3))], 1)
        return self.head(cells), self.sights(pooled).view(-1, KINDS, SIGHTS)

    def fold(self) -> None:
        """Lets the convolution after the norm do its work too. Not for training."""
        _absorb(self.what, self.standardise, slice(None))
        self.standardise = nn.Identity()


class Standardise(nn.BatchNorm1d):
    """Rows with every feature standardised; written out, as the ONNX exporter has no batch norm for
    rows whose width it was not told."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`, `[B, features]`."""
        if self.training:
            return super().forward(x)
        return (x - self.running_mean) * torch.rsqrt(self.running_var + self.eps)


class Merger(nn.Module):
    """Cell features to visual tokens `[B, 6, hidden]` and one DeepStack level of the same shape.

    Its inputs are standardised: cell features are positive and large, and what matters in them, one
    cell in a hundred that shows a person lying, would drown in their mean for thousands of steps.
    What the tower says of harm has a straight way, for the same reason.
    """

    def __init__(self, classes: int, hidden: int) -> None:
        super().__init__()
        k, channels = CELLS_PER_TOKEN, MIDDLE + TRUNK + classes
        self.classes = classes
        self.standardise = nn.BatchNorm2d(channels, affine=False)
        self.tokens = nn.Conv2d(channels, hidden, k, k)
        self.presence = nn.Conv2d(classes, hidden, 1)
        self.widen = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden))
        self.rare = Standardise(KINDS * SIGHTS, affine=False)
        self.sights = nn.Linear(KINDS * SIGHTS, 2 * hidden)
        self.deep = nn.Conv2d(channels, hidden, k, k)
        self.deep_out = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, cells: Tensor, seen: Tensor, sights: Tensor) -> tuple[Tensor, Tensor]:
        """`seen` and `sights`: the perception's logits, so that the policy is told what the tower
        sees."""
        x = self.standardise(torch.cat([cells, seen], 1))
        present = self.presence(F.max_pool2d(x[:, -self.classes :], CELLS_PER_TOKEN))
        known = sights.log_softmax(2).clamp(min=-LEAST_LOG_P)
        shown, shown_deep = self.sights(self.rare(known.flatten(1))).unsqueeze(1).chunk(2, 2)
        tokens = (self.tokens(x) + present).flatten(2).transpose(1, 2)
        deep = self.deep(x).flatten(2).transpose(1, 2)
        return self.widen(tokens) + shown, self.deep_out(deep) + shown_deep

    def fold(self) -> None:
        """Lets the convolutions after the norm do its work too. It keeps the order of numbers, so a
        maximum may come before it as well as after. Not for training."""
        for convolution in (self.tokens, self.deep):
            _absorb(convolution, self.standardise, slice(None))
        _absorb(self.presence, self.standardise, slice(-self.classes, None))
        self.standardise = nn.Identity()


class Tower(nn.Module):
    """The whole tower under the bundle's contract."""

    def __init__(self, trunk: Trunk, perception: Perception, merger: Merger) -> None:
        super().__init__()
        self.trunk, self.perception, self.merger = trunk, perception, merger

    def folded(self) -> Tower:
        """A copy that gives the same for less work, to be exported."""
        copied = copy.deepcopy(self).eval()
        for part in (copied.trunk, copied.perception, copied.merger):
            part.fold()
        return copied

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """`frames` f32 `[B, 2, 1, 128, 192]` to `tokens` and `deepstack_0`, `[B, 6, hidden]`."""
        cells = self.trunk(frames)
        return self.merger(cells, *self.perception(cells))


def normalise(luma: Tensor) -> Tensor:
    """u8 luma `[n, 2, H, W]` to f32 `[n, 2, 1, H, W]` in [-1, 1]."""
    return luma.float().div(127.5).sub(1.0).unsqueeze(2)
