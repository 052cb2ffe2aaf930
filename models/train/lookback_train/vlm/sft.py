"""Supervised fine-tuning of the adapter: the tokens that the policy writes, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch.nn import functional as F

from ..perception import auc
from . import loop, policy
from .collator import collate
from .examples import Example, Vocabulary, example
from .loop import Plan
from .records import Source, round_and_round


def train(
    model: PeftModel,
    vocabulary: Vocabulary,
    lessons: Source,
    val: list[Example],
    plan: Plan,
    out: Path,
    report: int,
) -> None:
    """Goes through the lessons in their order, again and again; the adapter ends in `out`."""

    def items(step: int) -> Iterator[list[Example]]:
        traces = round_and_round(lessons, step * plan.batch)
        while True:
            some = [next(traces) for _ in range(plan.batch)]
            yield [example(t.episode, t.frames, vocabulary) for t in some]

    def learn(batch: list[Example]) -> dict[str, float]:
        return gradients(model, vocabulary, batch, plan)

    def check() -> dict[str, float]:
        return measure(model, vocabulary, val, plan.at_once)

    loop.run("sft", model, plan, out, items, learn, check, report)


def gradients(
    model: PeftModel, vocabulary: Vocabulary, batch: list[Example], plan: Plan
) -> dict[str, float]:
    """Adds the gradients of the batch, and tells its losses.

    Each loss is the mean over the tokens, or probes, of the whole batch, whatever fits at once.
    """
    tokens = sum(int(e.wrote[1:].sum()) for e in batch)
    probes = sum(len(e.probes) for e in batch)
    told = np.zeros(2)
    # Of about the same length: less of a batch is padding.
    for part in plan.parts(sorted(batch, key=lambda e: len(e.ids))):
        here = collate(part, vocabulary).to(model.device)
        reading = policy.read(model, here, vocabulary)
        words = -reading.log_p.sum() / max(tokens, 1)
        probe = probe_loss(reading.margins, here.probe_truth) / max(probes, 1)
        (words + probe).backward()
        told += [words.item(), probe.item()]
    return {"words": float(told[0]), "probe": float(told[1])}


def probe_loss(margins: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """How far the verdicts are from the truth, summed over probes."""
    return F.binary_cross_entropy_with_logits(margins, truth, reduction="sum")


@torch.inference_mode()
def measure(
    model: PeftModel, vocabulary: Vocabulary, val: list[Example], at_once: int
) -> dict[str, float]:
    """Losses on what was not trained on, and how well the last verdict of each tells harm."""
    tokens, told, last = 0, np.zeros(2), []
    ordered = sorted(val, key=lambda e: len(e.ids))
    for first in range(0, len(ordered), at_once):
        here = collate(ordered[first : first + at_once], vocabulary).to(model.device)
        reading = policy.read(model, here, vocabulary)
        tokens += len(reading.log_p)
        told += [
            -float(reading.log_p.sum()),
            float(probe_loss(reading.margins, here.probe_truth)),
        ]
        rows = here.probe_rows.tolist()
        last += list(dict(zip(rows, reading.margins.tolist(), strict=True)).values())
    if not val:
        return {}
    probes = sum(len(e.probes) for e in val)
    truth = np.array([e.anomalous for e in ordered if len(e.probes)])
    return {
        "words": float(told[0]) / max(tokens, 1),
        "probe": float(told[1]) / max(probes, 1),
        "auc_final": auc(np.array(last), truth),
    }
