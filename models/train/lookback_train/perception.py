"""Perception pre-training: what is in which cell of a frame pair."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import oracle
from .tower import Perception, Trunk, normalise

PAIRS_PER_SEED = 8
SEEDS_PER_STEP = 8
LEARNING_RATE = 3e-3
LATER_CYCLES = 0.5
"""Of the learning rate, where a tower that was trained to its end goes on and should not forget."""
POSITIVE_WEIGHT = 4.0
SIGHTS_WEIGHT = 2.0
SIGHT_WEIGHTS = torch.tensor([0.5, 1.0, 3.0, 3.0])
"""Of nothing, a state, a harmful transition and a harmless one: what is rare tells most."""


def train(binary: Path, out: Path, steps: int, seed: int, report: int = 100) -> None:
    """Trains trunk and perception for `steps` of 64 pairs and writes `out`; resumes from it.

    What was trained to its end for fewer steps goes on for the others in a cycle of its own, and
    what was cut short ends its cycle first.
    """
    torch.manual_seed(seed)
    names = oracle.classes(binary)
    trunk = Trunk().to(memory_format=torch.channels_last)
    perception = Perception(len(names)).to(memory_format=torch.channels_last)
    parameters = [*trunk.parameters(), *perception.parameters()]
    optimiser, schedule = _cycle(parameters, LEARNING_RATE, steps)
    done = 0
    if out.exists():
        state = torch.load(out, weights_only=True)
        trunk.load_state_dict(state["trunk"])
        perception.load_state_dict(state["perception"])
        done = state["step"]
        if done >= steps:
            return
        if state["schedule"]["last_epoch"] < state["schedule"]["total_steps"]:
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
        else:
            rate = LEARNING_RATE * LATER_CYCLES
            optimiser, schedule = _cycle(parameters, rate, steps - done)
    end = min(steps, done + schedule.total_steps - schedule.last_epoch)
    first = oracle.TRAIN + 2_000_000 + seed * 500_000 + done * SEEDS_PER_STEP
    records = oracle.stream_pairs(
        binary, first, (end - done) * SEEDS_PER_STEP, PAIRS_PER_SEED, len(names)
    )
    started, running = time.time(), 0.0
    trunk.train()
    for step in range(done + 1, end + 1):
        chosen = [next(records) for _ in range(SEEDS_PER_STEP)]
        frames = normalise(torch.from_numpy(np.concatenate([c.frames for c in chosen])))
        # Never mirrored: in a mirror every car comes against its lane.
        cells = torch.from_numpy(np.concatenate([c.cells for c in chosen])).float()
        sees = torch.from_numpy(np.concatenate([c.sees for c in chosen])).long()
        with short_floats():
            logits, sights = perception(trunk(frames))
        loss = _loss(logits.float(), sights.float(), cells, sees)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        running = loss.item() if step == done + 1 else 0.98 * running + 0.02 * loss.item()
        if step % report == 0 or step == end:
            rate = (step - done) / (time.time() - started)
            left = (steps - step) / rate
            print(f"perception {step}/{steps} loss {running:.4f} {left:.0f} s left", flush=True)
            state = {
                "trunk": trunk.state_dict(),
                "perception": perception.state_dict(),
                "classes": json.dumps(names),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step,
            }
            torch.save(state, out.with_suffix(".part"))
            out.with_suffix(".part").rename(out)
    if end < steps:
        train(binary, out, steps, seed, report)


def _cycle(
    parameters: list[torch.nn.Parameter], rate: float, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    """What trains for `steps`, up to `rate` and down again."""
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=0.01)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)


def short_floats(device: str = "cpu") -> torch.autocast:
    """Products in bfloat16 where `device` has instructions for them: a step then takes less than
    half as long. Elsewhere they would be emulated, and nothing changes."""
    able = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=able)


def _loss(logits: Tensor, sights: Tensor, cells: Tensor, sees: Tensor) -> Tensor:
    weight = torch.tensor(POSITIVE_WEIGHT)
    per_cell = F.binary_cross_entropy_with_logits(logits, cells, pos_weight=weight)
    # Presence anywhere in the frame: what the policy asks first.
    presence = logits.flatten(2).amax(2)
    per_frame = F.binary_cross_entropy_with_logits(presence, cells.flatten(2).amax(2))
    shown = F.cross_entropy(sights.flatten(0, 1), sees.flatten(), SIGHT_WEIGHTS)
    return 10.0 * per_cell + per_frame + SIGHTS_WEIGHT * shown


@dataclass
class Figures:
    """How well a tower sees, as ROC-AUC."""

    classes: dict[str, float]
    """Presence of a class in a frame pair, all pairs."""
    harm: list[float]
    """Per kind: the harmful against the harmless transition, pairs and single frames in either."""
    in_pairs: list[float]
    """The same, of pairs alone: what a single frame shows of a transition often does not tell."""
    shown: list[float]
    """Per kind: a transition of it, of either sort, against pairs that show none of it."""

    def table(self, kinds: tuple[str, ...]) -> str:
        """For people; `kinds` are their names."""
        lines = [f"{name:>14} {value:.3f}" for name, value in self.classes.items()]
        lines += [f"{'kind':>14} shown  harm or not  in pairs"]
        columns = np.array([self.shown, self.harm, self.in_pairs])
        each = zip([*kinds, "mean"], [*columns.T, np.nanmean(columns, 1)], strict=True)
        lines += [f"{name:>14} {a:.3f}  {b:.3f}        {c:.3f}" for name, (a, b, c) in each]
        return "\n".join(lines)


def measure(binary: Path, weights: Path, start: int, seeds: int) -> Figures:
    """On `seeds` seeds from `start`."""
    state = torch.load(weights, weights_only=True)
    names = json.loads(state["classes"])
    trunk, perception = Trunk().eval(), Perception(len(names)).eval()
    trunk.load_state_dict(state["trunk"])
    perception.load_state_dict(state["perception"])
    scores, truth, sights, sees, pairs = [], [], [], [], []
    with torch.inference_mode():
        for record in oracle.stream_pairs(binary, start, seeds, PAIRS_PER_SEED, len(names)):
            logits, seen = perception(trunk(normalise(torch.from_numpy(record.frames.copy()))))
            scores.append(logits.flatten(2).amax(2).numpy())
            truth.append(record.cells.reshape(len(record.cells), len(names), -1).max(2))
            sights.append(seen.numpy())
            sees.append(record.sees)
            pairs.append((record.frames[:, 0] != record.frames[:, 1]).any((1, 2)))
    score, label = np.concatenate(scores), np.concatenate(truth)
    sight, see = np.concatenate(sights), np.concatenate(sees)
    moved, paired = see >= 2, np.concatenate(pairs)
    harm = sight[:, :, 2] - sight[:, :, 3]
    shown = np.logaddexp(sight[:, :, 2], sight[:, :, 3]) - np.logaddexp(
        sight[:, :, 0], sight[:, :, 1]
    )

    def harmful(k: int, chosen: np.ndarray) -> float:
        return auc(harm[chosen, k], see[chosen, k] == 2)

    kinds = range(oracle.KINDS)
    return Figures(
        {n: auc(score[:, i], label[:, i]) for i, n in enumerate(names)},
        [harmful(k, moved[:, k]) for k in kinds],
        [harmful(k, moved[:, k] & paired) for k in kinds],
        [auc(shown[:, k], moved[:, k]) for k in kinds],
    )


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half (rank formula of Mann and Whitney); not a number
    where all `truth` is the same."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    positive = truth > 0
    p, n = int(positive.sum()), int((~positive).sum())
    if p == 0 or n == 0:
        return float("nan")
    return float((rank[positive].sum() - p * (p + 1) / 2) / (p * n))
