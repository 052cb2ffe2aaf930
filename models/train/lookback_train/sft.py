"""Supervised fine-tuning on oracle traces: the policy's tokens, and the verdict probe."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import Decoder, Shape
from .examples import Batch, DataSet, Example, collate
from .perception import auc
from .tower import Merger, Perception

BATCH = 16
BUCKET = 16
LEARNING_RATE = 2e-3
WORDS_WEIGHT = 4.0
"""Most of the policy's tokens are forced or plain; the few that carry meaning share their mean."""
KINDS, SIGHTS = 10, 4
SIGHT_WEIGHTS = torch.tensor([0.3, 1.0, 3.0, 3.0])
"""Transitions are rare, and they are what tells."""
FIRST_SHARD_WAIT_S = 5.0


class Policy(nn.Module):
    """Merger and decoder over frozen cell features."""

    def __init__(self, shape: Shape, classes: int, dropout: float) -> None:
        super().__init__()
        self.merger = Merger(classes, shape.hidden)
        self.decoder = Decoder(shape, dropout)
        # Only for training: what each pair shows, read where the pair ends, in the middle layer so
        # that the layers above can use it. Without it the policy learns its grammar long before it
        # learns to look.
        self.sight = nn.Linear(shape.hidden, KINDS * SIGHTS)

    def forward(self, batch: Batch, perception: Perception) -> tuple[Tensor, Tensor]:
        """Hidden states `[B, T, hidden]` of the last and of the middle layer."""
        with torch.no_grad():
            seen = perception(batch.cells)
        tokens, deep = self.merger(batch.cells, seen)
        x = self.decoder.embed_tokens(batch.ids)
        where = (batch.pad_rows, batch.pad_places)
        x = x.index_put(where, tokens.flatten(0, 1))
        deepstack = torch.zeros_like(x).index_put(where, deep.flatten(0, 1))
        return self.decoder.both(x, batch.positions, [deepstack])


def losses(
    policy: Policy, batch: Batch, perception: Perception, yes_no: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean cross-entropy of the policy's tokens, of the probe and of sight; the probe's P(yes)."""
    hidden, middle = policy(batch, perception)
    rows, places = torch.nonzero(batch.learnt[:, 1:], as_tuple=True)
    spoken = policy.decoder.logits(hidden[rows, places])
    words = F.cross_entropy(spoken, batch.ids[rows, places + 1])
    at_probe = policy.decoder.logits(hidden[batch.probe_rows, batch.probe_places])
    margin = at_probe[:, yes_no[0]] - at_probe[:, yes_no[1]]
    probe = F.binary_cross_entropy_with_logits(margin, batch.probe_truth)
    shown = policy.sight(middle[batch.pair_rows, batch.pair_places]).view(-1, SIGHTS)
    sight = F.cross_entropy(shown, batch.sees.flatten(), SIGHT_WEIGHTS)
    return words, probe, sight, torch.sigmoid(margin)


def train(
    data: DataSet,
    val: DataSet,
    shape: Shape,
    perception: Perception,
    out: Path,
    steps: int,
    seed: int,
    wanted: int,
    report: int = 100,
    dropout: float = 0.05,
    init: Path | None = None,
) -> None:
    """`steps` of 16 episodes; writes `out` at each report, resumes from it.

    `wanted` is the size that the data set will grow to; training begins with what is there, and
    from the weights in `init` if given.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    perception.eval()
    policy = Policy(shape, perception.head.out_channels, dropout)
    optimiser = torch.optim.AdamW(
        policy.parameters(), LEARNING_RATE, (0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=0.05)
    done = 0
    if out.exists():
        state = torch.load(out, weights_only=True)
        policy.load_state_dict(state["policy"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        done = state["step"]
    elif init is not None:
        own = policy.state_dict()
        given = torch.load(init, weights_only=True)["policy"]
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        policy.load_state_dict(fitting, strict=False)
    yes_no = (data.tokenizer.token_to_id("yes"), data.tokenizer.token_to_id("no"))
    pad = data.tokenizer.token_to_id("<|video_pad|>")
    while data.refresh() < BATCH * BUCKET:
        time.sleep(FIRST_SHARD_WAIT_S)
    started, running = time.time(), np.zeros(3)
    queue: list[list[Example]] = []
    for step in range(done + 1, steps + 1):
        if not queue:
            if len(data.examples) < wanted:
                data.refresh()
            queue = _buckets(data.examples, rng)
        policy.train()
        batch = collate(queue.pop(), data.features, pad)
        words, probe, sight, _ = losses(policy, batch, perception, yes_no)
        optimiser.zero_grad()
        (WORDS_WEIGHT * words + probe + sight).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        now = np.array([words.item(), probe.item(), sight.item()])
        running = now if step == done + 1 else 0.98 * running + 0.02 * now
        if step % report == 0 or step == steps:
            val.refresh()
            checked = check(policy, val, perception, yes_no, pad)
            left = (steps - step) * (time.time() - started) / (step - done)
            print(
                f"sft {step}/{steps} episodes {len(data.examples)} words {running[0]:.3f} "
                f"probe {running[1]:.3f} sight {running[2]:.3f} | val {checked} | "
                f"{left:.0f} s left",
                flush=True,
            )
            state = {
                "policy": policy.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step,
                "shape": asdict(shape),
            }
            torch.save(state, out.with_suffix(".part"))
            out.with_suffix(".part").rename(out)


def _buckets(examples: list[Example], rng: np.random.Generator) -> list[list[Example]]:
    """Batches of examples of about the same length, in random order."""
    group = rng.permutation(len(examples))[: BATCH * BUCKET]
    group = sorted(group, key=lambda i: len(examples[i].ids))
    batches = [
        [examples[i] for i in group[at : at + BATCH]]
        for at in range(0, len(group) - BATCH + 1, BATCH)
    ]
    rng.shuffle(batches)
    return batches


def check(
    policy: Policy,
    val: DataSet,
    perception: Perception,
    yes_no: tuple[int, int],
    pad: int,
    most: int = 512,
) -> dict[str, float]:
    """Losses, token accuracy and the probe's AUC after the glance and at the end, taught looks."""
    policy.eval()
    first, last, truth, words, right, n = [], [], [], [], 0, 0
    meant, said = 0, 0
    with torch.inference_mode():
        chosen = sorted(val.examples[:most], key=lambda e: len(e.ids))
        for at in range(0, len(chosen), 2 * BATCH):
            part = chosen[at : at + 2 * BATCH]
            batch = collate(part, val.features, pad)
            loss, _, _, p = losses(policy, batch, perception, yes_no)
            words.append(loss.item())
            rows, places = torch.nonzero(batch.learnt[:, 1:], as_tuple=True)
            hidden, _ = policy(batch, perception)
            spoken = policy.decoder.logits(hidden[rows, places]).argmax(-1)
            right += int((spoken == batch.ids[rows, places + 1]).sum())
            n += len(rows)
            offset = 0
            # The first word of the first thought says what was seen in the glance.
            opening = torch.tensor([int(e.probes[0]) + 1 for e in part])
            rows = torch.arange(len(part))
            word = policy.decoder.logits(hidden[rows, opening]).argmax(-1)
            said += int((word == batch.ids[rows, opening + 1]).sum())
            meant += len(part)
            for e in part:
                first.append(float(p[offset]))
                offset += len(e.probes)
                last.append(float(p[offset - 1]))
                truth.append(float(e.anomalous))
    labels = np.array(truth)
    return {
        "words": round(float(np.mean(words)), 3),
        "accuracy": round(right / max(n, 1), 4),
        "first_word": round(said / max(meant, 1), 3),
        "auc_glance": round(auc(np.array(first), labels), 3),
        "auc_final": round(auc(np.array(last), labels), 3),
    }
