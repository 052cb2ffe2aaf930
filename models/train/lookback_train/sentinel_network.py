"""The sentinel's network: sees in three seconds of small frames whether something harmful begins.

It is fully convolutional and answers for each cell of a coarse grid. How its planes are made of
frames and what is made of the cells is repeated by the gate in Rust,
`edge-agent/sentinel/src/network.rs`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import oracle

WIDTH, HEIGHT = 96, 64
"""Of the frames that it sees."""
LAGS_S = (0.25, 0.5, 0.75, 1.0, 1.5, 2.25, 3.0)
"""How far it looks back. A transition takes one to three seconds."""
CHANNELS = 2 + len(LAGS_S)
"""The frame, its difference to each earlier one, its difference to the background."""
BACKGROUND_S = 20.0
"""Time constant of the background."""
LEVEL, DARK = 128.0, 12.0
"""Every frame is brought to this mean, so that a step of the exposure drops out; the dark is added
to the mean before, or noise at night would be raised to contrast."""
WIDTHS = (24, 40, 64)
"""Channels of the stages, each at half the size of the one before."""

KINDS = oracle.KINDS


class Network(nn.Module):
    """`[n, 9, 64, 96]` to `[n, 20, 8, 12]`: for each cell and kind the logit of its harmful
    transition, then of its harmless one."""

    def __init__(self, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        a, b, c = widths
        shape = [(CHANNELS, a, 2), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1), (c, c, 1)]
        self.blocks = nn.ModuleList(_Block(*s) for s in shape)
        self.head = nn.Conv2d(c, 2 * KINDS, 1)
        nn.init.constant_(self.head.bias, -7.0)  # Rare: the sum over all cells begins unlikely.

    def forward(self, x: Tensor) -> Tensor:
        """The logits of planes `x`."""
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class _Block(nn.Module):
    """Convolution, normalisation, ReLU6: one operator in the file."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # Padded as TensorFlow's SAME does it: at stride 2 an even side gets its zero at the end.
        self.pad = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.normalisation = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.normalisation(self.convolution(F.pad(x, self.pad))))


def pooled(cells: Tensor) -> tuple[Tensor, Tensor]:
    """`[n, 20]` logits of each transition anywhere in the picture, and `[n]` of any harmful one."""
    kinds = cells.float().flatten(2).logsumexp(2)
    return kinds, kinds[:, :KINDS].logsumexp(1)


def normalised(frames: Tensor) -> Tensor:
    """Frames `[..., h, w]` at the level that all are compared at."""
    return frames * (LEVEL / (frames.mean((-2, -1), keepdim=True) + DARK))


def planes(frames: Tensor, background: Tensor) -> Tensor:
    """What the network sees. `frames` `[n, 1 + lags, h, w]`, the newest first, and `background`
    `[n, h, w]`, all normalised."""
    now = frames[:, :1]
    differences = now - torch.cat([frames[:, 1:], background[:, None]], 1)
    return torch.cat([(now - LEVEL) / 64.0, (differences / 32.0).clamp(-4.0, 4.0)], 1)
