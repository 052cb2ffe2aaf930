"""What the camera carries of the sentinel's network: the `.tflite` file and what it must answer.

The answers are those of PyTorch to inputs that are drawn by a rule. The camera draws the same
inputs at every load and trusts the network only if it answers alike.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import litert
from .sentinel_network import CHANNELS, HEIGHT, WIDTH, Network

MODEL, ANSWERS = "gate.tflite", "golden.f32"
BLOCKS = (1, 4, 16)
"""Sides, in pixels, of the squares of one value in each golden input: fine grain, and what is as
large as a person."""
ABOUT = "Lookback's sentinel: 9 planes of 96x64 to logits of 10 harmful and 10 harmless transitions"


def folded(network: Network) -> list[litert.Convolution]:
    """The operators of `network`, each normalisation multiplied into its convolution."""
    chain = []
    for block in network.blocks:
        norm = block.normalisation
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = block.convolution.weight.double() * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
        stride = block.convolution.stride[0]
        chain.append(litert.Convolution(_rows_first(weight), _array(bias), stride, relu6=True))
    head = network.head
    chain.append(litert.Convolution(_rows_first(head.weight), _array(head.bias), 1, relu6=False))
    return chain


@torch.no_grad()
def unfolded(chain: list[litert.Convolution], planes: Tensor) -> Network:
    """The network of which `chain` was folded, ready to be trained further.

    What the normalisations had seen is not in the file: here it is what they see of `planes`,
    `[n, 9, 64, 96]`, and they give back what it takes away.
    """
    network, x = Network().eval(), planes
    for block, step in zip(network.blocks, chain, strict=False):
        block.convolution.weight.copy_(_outputs_first(step.weight))
        norm = block.normalisation
        seen = block.convolution(nn.functional.pad(x, block.pad))
        norm.running_mean.copy_(seen.mean((0, 2, 3)))
        norm.running_var.copy_(seen.var((0, 2, 3)))
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
        norm.bias.copy_(torch.from_numpy(step.bias) + norm.running_mean)
        x = block(x)
    network.head.weight.copy_(_outputs_first(chain[-1].weight))
    network.head.bias.copy_(torch.from_numpy(chain[-1].bias))
    return network


def _outputs_first(weight: np.ndarray) -> Tensor:
    """`[outputs, rows, columns, inputs]` as PyTorch has it."""
    return torch.from_numpy(weight).permute(0, 3, 1, 2)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def _rows_first(weight: Tensor) -> np.ndarray:
    """`[outputs, inputs, rows, columns]` as the file has it."""
    return np.ascontiguousarray(_array(weight).transpose(0, 2, 3, 1))


def golden_input(number: int) -> np.ndarray:
    """Golden input `number`, f32 `[64, 96, 9]`: squares of `BLOCKS[number]` pixels, each channel
    of each from -2 to 2 by a linear congruence (Numerical Recipes) that starts at `number + 1`."""
    side = BLOCKS[number]
    rows, columns = HEIGHT // side, WIDTH // side
    x, drawn = number + 1, []
    for _ in range(rows * columns * CHANNELS):
        x = (x * 1_664_525 + 1_013_904_223) % (1 << 32)
        # 24 bits: exact in 32-bit floats.
        drawn.append((x >> 8) / (1 << 22) - 2.0)
    squares = np.array(drawn, np.float32).reshape(rows, columns, CHANNELS)
    return squares.repeat(side, 0).repeat(side, 1)


@torch.inference_mode()
def golden_answer(network: nn.Module, number: int) -> np.ndarray:
    """What `network` answers to it, f32 `[8, 12, 20]`."""
    planes = torch.from_numpy(golden_input(number)).permute(2, 0, 1)[None]
    return network(planes)[0].permute(1, 2, 0).numpy()


def write(network: Network, out: Path) -> None:
    """Writes the file and the answers into the folder `out`."""
    network.eval().float()
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL).write_bytes(litert.write(folded(network), HEIGHT, WIDTH, ABOUT))
    answers = np.concatenate([golden_answer(network, n).ravel() for n in range(len(BLOCKS))])
    (out / ANSWERS).write_bytes(struct.pack(f"<{answers.size}f", *answers))
