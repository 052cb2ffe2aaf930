"""Inquiries as Qwen3-VL reads them: ids of its own tokenizer, and frame pairs as its patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .. import tokens
from ..examples import TELLING
from ..tower import normalise
from . import Refusal

PATCH, MERGE = 16, 2
CELL = PATCH * MERGE
"""A visual token stands for this many pixels, per axis."""


@dataclass(frozen=True)
class Vocabulary:
    """A checkpoint's tokenizer, and the tokens that stand for something."""

    tokenizer: Tokenizer
    start: int
    """`<|vision_start|>`."""
    pad: int
    """`<|video_pad|>`: the place of a visual token."""
    end: int
    """`<|vision_end|>`."""
    close: int
    """`<|im_end|>`: ends a turn."""
    yes: int
    no: int

    @staticmethod
    def load(checkpoint: Path, yes: str, no: str) -> Vocabulary:
        """From a folder with `tokenizer.json`; `yes` and `no` are what the verdict is read from."""
        path = checkpoint / "tokenizer.json"
        if not path.is_file():
            raise Refusal(f"{checkpoint} holds no tokenizer.json, which every text passes through")
        return Vocabulary.of(tokens.load(path), yes, no)

    @staticmethod
    def of(tokenizer: Tokenizer, yes: str, no: str) -> Vocabulary:
        """The tokens of this tokenizer."""
        special = []
        for token in ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>", "<|im_end|>"):
            if (found := tokenizer.token_to_id(token)) is None:
                raise Refusal(f"the tokenizer has no {token}: it is not that of a Qwen3-VL")
            special.append(found)
        answers = [tokens.encode(tokenizer, answer) for answer in (yes, no)]
        for answer, ids in zip((yes, no), answers, strict=True):
            if len(ids) != 1:
                raise Refusal(
                    f"the manifest's answer {answer!r} is {len(ids)} tokens here, and the verdict "
                    "is read from one"
                )
        return Vocabulary(tokenizer, *special, answers[0][0], answers[1][0])


@dataclass
class Example:
    """One inquiry, ready to be learnt."""

    ids: np.ndarray
    """Token ids, i64 `[T]`."""
    wrote: np.ndarray
    """Whether the policy wrote the token at that place, its `<|im_end|>` included, `[T]`."""
    turns: np.ndarray
    """The turn, from 0, in which it did, i64 `[T]`."""
    probes: np.ndarray
    """The last place before each turn, as far as the teacher has not told the verdict."""
    frames: np.ndarray
    """The pairs in the order in which they are seen, u8 `[pairs, 2, H, W]`."""
    anomalous: bool
    """What the verdict should be."""


def example(
    episode: dict, luma: np.ndarray, vocabulary: Vocabulary, by_itself: bool = False
) -> Example:
    """From an episode of the oracle and the luma of its pairs, u8 `[pairs, 2, H, W]`.

    `by_itself`: no teacher spoke in it, and nothing in its words tells the truth.
    """
    height, width = luma.shape[-2:]
    if height % CELL or width % CELL:
        raise Refusal(f"frames of {width}x{height} are no whole number of cells of {CELL} pixels")
    pads = [vocabulary.pad] * (height // CELL * (width // CELL))
    ids: list[int] = []
    wrote: list[bool] = []
    turns: list[int] = []
    probes: list[int] = []
    order: list[int] = []
    taught, turn = False, -1
    for segment in episode["segments"]:
        if "context" in segment:
            new = tokens.encode(vocabulary.tokenizer, segment["context"])
        elif "pair" in segment:
            order.append(segment["pair"])
            new = [vocabulary.start, *pads, vocabulary.end]
        else:
            said = segment["policy"] if "policy" in segment else segment["slip"]
            turn += 1
            if not taught:
                probes.append(len(ids) - 1)
            # As in nano's lessons: the teacher knows, and after his telling the verdict would be
            # read in his words. What slips out is no telling.
            telling = "policy" in segment and any(word in said for word in TELLING)
            taught |= telling and not by_itself
            new = [*tokens.encode(vocabulary.tokenizer, said), vocabulary.close]
        ids += new
        wrote += ["policy" in segment] * len(new)
        turns += [max(turn, 0)] * len(new)
    return Example(
        np.array(ids, np.int64),
        np.array(wrote),
        np.array(turns, np.int64),
        np.array(probes, np.int64),
        luma[order],
        bool(episode["anomalous"]),
    )


def pixel_values(frames: np.ndarray) -> Tensor:
    """Pairs, u8 `[n, 2, H, W]`, as the model takes them, f32 `[n·H/16·W/16, 3·2·16·16]`.

    Qwen's mean and deviation are 0.5 in each channel, so white is 1 and black -1.
    """
    return patches(normalise(torch.from_numpy(frames)).expand(-1, -1, 3, -1, -1))


def patches(frames: Tensor) -> Tensor:
    """`[n, 2, channels, H, W]` cut into patches, in the order of Qwen3-VL's video processor.

    The four patches of a cell lie side by side, as the merger joins them to one token; within a
    patch come channels, then time, then rows. A pair is one step of time.
    """
    n, lag, channels, height, width = frames.shape
    h, w = height // CELL, width // CELL
    x = frames.reshape(n, lag, channels, h, MERGE, PATCH, w, MERGE, PATCH)
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * lag * PATCH**2)


def grid_thw(frames: np.ndarray) -> Tensor:
    """A row `[1, H/16, W/16]` for each pair: its timestamp makes it a video of its own."""
    height, width = frames.shape[-2:]
    return torch.tensor([[1, height // PATCH, width // PATCH]]).repeat(len(frames), 1)
