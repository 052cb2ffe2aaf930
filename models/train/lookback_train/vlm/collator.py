"""Batches: transcripts of different lengths side by side, each with its own frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .examples import Example, Vocabulary, grid_thw, pixel_values

IGNORED = -100
"""The label of a token that the policy did not write."""
VIDEO = 2
"""What `mm_token_type_ids` says of `<|video_pad|>`; text, padding too, is 0."""


class Preference(Protocol):
    """Two inquiries about one window, such as an `idpo.Pair`."""

    chosen: Example
    rejected: Example


@dataclass
class Batch:
    """Transcripts padded to the longest, on the right."""

    inputs: dict[str, Tensor]
    """What the model takes: ids, attention mask, types of tokens, patches, their grids."""
    labels: Tensor
    """The ids that the policy wrote, `IGNORED` elsewhere, `[B, T]`."""
    turns: Tensor
    """`[B, T]`."""
    probe_rows: Tensor
    probe_places: Tensor
    probe_truth: Tensor
    """1 where the verdict before that turn should be yes, f32 `[probes]`."""

    def to(self, device: torch.device) -> Batch:
        """The same on that device."""
        moved = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        rest = (self.labels, self.turns, self.probe_rows, self.probe_places, self.probe_truth)
        return Batch(moved, *(tensor.to(device) for tensor in rest))


def collate(examples: Sequence[Example], vocabulary: Vocabulary) -> Batch:
    """One row for each example, in this order; so are the patches and grids."""
    shape = (len(examples), max(len(e.ids) for e in examples))
    # What stands in the padding does not matter, as long as it is not taken for a visual token.
    ids = np.full(shape, vocabulary.close, np.int64)
    attention, turns = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORED, np.int64)
    rows: list[int] = []
    for row, e in enumerate(examples):
        n = len(e.ids)
        ids[row, :n], attention[row, :n], turns[row, :n] = e.ids, 1, e.turns
        labels[row, :n] = np.where(e.wrote, e.ids, IGNORED)
        rows += [row] * len(e.probes)
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(attention),
        "mm_token_type_ids": torch.from_numpy(np.where(ids == vocabulary.pad, VIDEO, 0)),
        "pixel_values_videos": torch.cat([pixel_values(e.frames) for e in examples]),
        "video_grid_thw": torch.cat([grid_thw(e.frames) for e in examples]),
    }
    truth = [float(examples[row].anomalous) for row in rows]
    return Batch(
        inputs,
        torch.from_numpy(labels),
        torch.from_numpy(turns),
        torch.tensor(rows),
        torch.from_numpy(np.concatenate([e.probes for e in examples])),
        torch.tensor(truth),
    )


def collate_pairs(pairs: Sequence[Preference], vocabulary: Vocabulary) -> Batch:
    """The chosen inquiries, then the rejected ones; each side looked at frames of its own."""
    sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return collate(sides, vocabulary)
