"""iDPO of the adapter: preference training on whole inquiries, each with its own frames.

The loss is the one of nano ([`idpo`](../idpo.py)): DPO over turns, on the tokens that the policy
wrote, against the policy that inquired; plus the likelihood of the better inquiry; plus the verdict
probe, here on the inquiries of the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from ..idpo import ANCHOR, PROBE, Pair, Rolled, per_turn
from ..oracle import Trace
from . import Refusal, loop, policy
from .collator import collate_pairs
from .examples import Vocabulary, example
from .loop import Plan
from .sft import probe_loss


def rolled(record: Trace, vocabulary: Vocabulary) -> Rolled:
    """The inquiries about one window; each takes the frames that it saw."""
    rollouts = record.episode["rollouts"]
    window = {"anomalous": record.episode["anomalous"]}
    return Rolled(
        [
            example({**window, "segments": r["segments"]}, record.frames, vocabulary, True)
            for r in rollouts
        ],
        [float(r["utility"]["total"]) for r in rollouts],
        [bool(r["right"]) for r in rollouts],
    )


def pairs_of(records: Iterable[Trace], vocabulary: Vocabulary) -> list[Pair]:
    """Of each window the pairs of its own inquiry and another that are worth preferring."""
    found, windows = [], 0
    for record in records:
        windows += 1
        if "rollouts" not in record.episode:
            raise Refusal("these records are lessons and not rollouts: they hold nothing to prefer")
        found += rolled(record, vocabulary).pairs()
    print(f"{len(found)} pairs of {windows} windows are worth preferring", flush=True)
    if not found:
        raise Refusal("no window has an inquiry that is right and well better: nothing to learn")
    return found


def train(
    model: PeftModel, vocabulary: Vocabulary, pairs: list[Pair], plan: Plan, out: Path, report: int
) -> None:
    """Goes through the pairs in an order of chance, again and again; the adapter ends in `out`."""

    def items(step: int) -> Iterator[list[Pair]]:
        at = step * plan.batch
        while True:
            yield [pairs[_drawn(i, len(pairs), plan.seed)] for i in range(at, at + plan.batch)]
            at += plan.batch

    def learn(batch: list[Pair]) -> dict[str, float]:
        return gradients(model, vocabulary, batch, plan)

    loop.run("idpo", model, plan, out, items, learn, dict, report)


def _drawn(number: int, count: int, seed: int) -> int:
    """The pair of that number: each once, in an order that any resumed run finds again."""
    turn, at = divmod(number, count)
    return int(np.random.default_rng((seed, turn)).permutation(count)[at])


def gradients(
    model: PeftModel, vocabulary: Vocabulary, batch: list[Pair], plan: Plan
) -> dict[str, float]:
    """Adds the gradients of these pairs, and tells their losses."""
    better = sum(int(pair.chosen.wrote[1:].sum()) for pair in batch)
    probes = sum(len(side.probes) for pair in batch for side in (pair.chosen, pair.rejected))
    told = np.zeros(5)
    for part in plan.parts(batch):
        here = collate_pairs(part, vocabulary).to(model.device)
        with torch.no_grad(), policy.as_reference(model):
            before = policy.read(model, here, vocabulary)
        reading = policy.read(model, here, vocabulary)
        ratios = by_turn(reading, reading.log_p - before.log_p, 2 * len(part))
        both = list(zip(ratios[: len(part)], ratios[len(part) :], strict=True))
        losses = [pair.loss(*of_pair) for pair, of_pair in zip(part, both, strict=True)]
        preference = torch.stack(losses).sum() / len(batch)
        chosen = reading.rows < len(part)
        likely = -reading.log_p[chosen].sum() / max(better, 1)
        probe = probe_loss(reading.margins, here.probe_truth) / max(probes, 1)
        (preference.to(likely.device) + ANCHOR * likely + PROBE * probe).backward()
        margins = [float(w.detach().sum() - r.detach().sum()) for w, r in both]
        parts = [preference.item(), likely.item(), probe.item()]
        shares = [sum(margins) / len(batch), sum(m > 0 for m in margins) / len(batch)]
        told += [*parts, *shares]
    names = ("preference", "likelihood", "probe", "margin", "preferred")
    return dict(zip(names, told.tolist(), strict=True))


def by_turn(reading: policy.Reading, log_p: Tensor, rows: int) -> list[Tensor]:
    """For each row the sums of `log_p` over its turns; few numbers, so on the CPU."""
    log_p, row, turns = log_p.cpu(), reading.rows.cpu(), reading.turns.cpu()
    return [per_turn(log_p[row == r], turns[row == r]) for r in range(rows)]
