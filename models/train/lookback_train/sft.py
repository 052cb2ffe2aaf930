"""Supervised fine-tuning on oracle traces: the policy's tokens, and the verdict probe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import Decoder, Shape
from .examples import HARM, HARMLESS, TOLD, Batch, DataSet, Example, collate
from .oracle import KINDS, SIGHTS
from .perception import auc, short_floats
from .tower import TOKENS, Merger, Perception

BATCH = 8
BUCKET = 32
LEARNING_RATE = 1.5e-3
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
WORDS_WEIGHT = 4.0
"""Most of the policy's tokens are forced or plain; the few that carry meaning share their mean."""
SIGHT_WEIGHTS = torch.tensor([0.3, 1.0, 3.0, 3.0])
"""Transitions are rare, and they are what tells."""
HARM_WEIGHT = 0.5
TIME_WEIGHT = 0.5
PARTS = ("words", "probe", "sight", "harm", "shown", "when")
"""Of the losses, as they are printed."""
FIRST_SHARD_WAIT_S = 5.0
OWN_WEIGHT = 2.0
"""How much oftener an episode is drawn in which the policy went its own way."""


class Policy(nn.Module):
    """Merger and decoder over frozen cell features; without `classes` of the perception no merger,
    as the features are visual tokens already."""

    def __init__(self, shape: Shape, classes: int | None, dropout: float) -> None:
        super().__init__()
        self.merger = None if classes is None else Merger(classes, shape.hidden)
        self.decoder = Decoder(shape, dropout)
        # Only for training: what each pair shows, read where the pair ends, in the middle layer so
        # that the layers above can use it. Without it the policy learns its grammar long before it
        # learns to look.
        self.sight = nn.Linear(shape.hidden, KINDS * SIGHTS)
        # Whether harm has been shown by now, read where the verdict is. The verdict's own truth is
        # a noisy teacher: in two of five harmful windows no look has met the harm.
        self.shown = nn.Linear(shape.hidden, 1)
        # And when: seconds and tenths, as the tokens that stand before the pair. What is seen and
        # when it was then lie in one place, and to name the time of a sight is one look back.
        self.when = nn.ModuleList(nn.Linear(shape.hidden, shape.hidden) for _ in range(2))

    def forward(self, batch: Batch, perception: Perception | None) -> tuple[Tensor, Tensor]:
        """Hidden states `[B, T, hidden]` of the last and of the middle layer."""
        if self.merger is None or perception is None:
            levels = list(batch.features.unbind(1))
        else:
            with torch.no_grad():
                seen, sights = perception(batch.features)
            levels = list(self.merger(batch.features, seen, sights))
        x, deepstack = with_visual_tokens(self.decoder, batch, levels)
        return self.decoder.both(x, batch.positions, deepstack)


def with_visual_tokens(
    decoder: Decoder, batch: Batch, levels: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """What goes into the decoder, `[B, T, hidden]` and the same for each DeepStack level; `levels`
    are the visual tokens and these levels, `[pairs, tokens, hidden]` each."""
    x = decoder.embed_tokens(batch.ids)
    where = (batch.pad_rows, batch.pad_places)
    tokens, *deep = [level.flatten(0, 1).to(x.dtype) for level in levels]
    nothing = torch.zeros_like(x)
    return x.index_put(where, tokens), [nothing.index_put(where, level) for level in deep]


@dataclass
class Losses:
    """Mean cross-entropies of a batch."""

    words: Tensor
    probe: Tensor
    sight: Tensor
    harm: Tensor
    shown: Tensor
    when: Tensor
    p: Tensor
    """The probes' P(yes), `[probes]`."""

    def total(self) -> Tensor:
        """What is trained on."""
        seen = self.sight + HARM_WEIGHT * (self.harm + self.shown)
        return WORDS_WEIGHT * self.words + self.probe + seen + TIME_WEIGHT * self.when

    def parts(self) -> np.ndarray:
        """All of them, in the order of `PARTS`."""
        return torch.stack([getattr(self, part).detach() for part in PARTS]).cpu().numpy()


def losses(
    policy: Policy, batch: Batch, perception: Perception | None, yes_no: tuple[int, int]
) -> tuple[Losses, Tensor]:
    """The losses, and the last hidden states `[B, T, hidden]`."""
    hidden, middle = policy(batch, perception)
    rows, places = torch.nonzero(batch.learnt[:, 1:], as_tuple=True)
    spoken = policy.decoder.logits(hidden[rows, places])
    weights = batch.learnt[rows, places + 1]
    surprise = F.cross_entropy(spoken, batch.ids[rows, places + 1], reduction="none")
    words = (surprise * weights).sum() / weights.sum()
    margin = verdicts(policy.decoder, batch, hidden, yes_no)
    probe = F.binary_cross_entropy_with_logits(margin, batch.probe_truth)
    at_pair = middle[batch.pair_rows, batch.pair_places]
    sights, sees = policy.sight(at_pair).view(-1, SIGHTS), batch.sees.flatten()
    sight = F.cross_entropy(sights, sees, SIGHT_WEIGHTS.to(sights.device), ignore_index=TOLD)
    # Harm from its harmless twin: a twentieth of what the sights are asked, and all that matters.
    either = (sees == HARM) | (sees == HARMLESS)
    harmful = sights[either, HARM] - sights[either, HARMLESS]
    is_harm = (sees[either] == HARM).float()
    harm = F.binary_cross_entropy_with_logits(harmful, is_harm, reduction="sum")
    harm = harm / max(len(is_harm), 1)
    shown = policy.shown(hidden[batch.probe_rows, batch.probe_places]).squeeze(1)
    shown = F.binary_cross_entropy_with_logits(shown, batch.probe_shown)
    when = torch.stack(
        [
            F.cross_entropy(policy.decoder.logits(head(at_pair)), stamp)
            for head, stamp in zip(policy.when, stamps(batch), strict=True)
        ]
    ).mean()
    return Losses(words, probe, sight, harm, shown, when, torch.sigmoid(margin)), hidden


def verdicts(decoder: Decoder, batch: Batch, hidden: Tensor, yes_no: tuple[int, int]) -> Tensor:
    """The probes' log odds of yes against no, `[probes]`, from the last hidden states."""
    at_probe = decoder.logits(hidden[batch.probe_rows, batch.probe_places])
    return at_probe[:, yes_no[0]] - at_probe[:, yes_no[1]]


def stamps(batch: Batch) -> tuple[Tensor, Tensor]:
    """The tokens of whole seconds and of tenths in the time of each pair, `[pairs]` each.

    Before a pair stands `<`, seconds, tenths, ` seconds>`, `<|vision_start|>`.
    """
    start = batch.pair_places - TOKENS - 1
    return batch.ids[batch.pair_rows, start - 3], batch.ids[batch.pair_rows, start - 2]


def optimisers_of(policy: Policy) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the decoder's layers, AdamW for the rest.

    Muon's steps are scaled to the size of AdamW's, so that both follow one learning rate (Liu et
    al., Muon is Scalable for LLM Training, 2025).
    """
    hidden = [p for p in policy.decoder.layers.parameters() if p.ndim == 2]
    matrices = {id(p) for p in hidden}
    others = [p for p in policy.parameters() if id(p) not in matrices]
    return [
        torch.optim.Muon(
            hidden, learning_rate(0.0), weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, learning_rate(0.0), (0.9, 0.98), weight_decay=0.05),
    ]


def learning_rate(done: float, peak: float = LEARNING_RATE) -> float:
    """A warm-up, then half a cosine; `done` is the share of the steps."""
    if done < WARM_UP:
        return peak * done / WARM_UP
    return peak * (0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def train(
    data: DataSet,
    val: DataSet,
    shape: Shape,
    perception: Perception | None,
    out: Path,
    steps: int,
    seed: int,
    report: int = 100,
    dropout: float = 0.05,
    init: Path | None = None,
    peak: float = LEARNING_RATE,
    saved: Callable[[int], None] = lambda _: None,
    minutes: float | None = None,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Policy:
    """`steps` of `batch_size` episodes on `device`; writes `out` at each report, resumes from it.

    Training begins with the shards that are there, and from the weights in `init` if given: those
    of a `policy.pt`, or a bundle's decoder; `saved` is told the step whenever `out` was written.
    With `minutes` it takes as many of the steps as there is time for, and the learning rate falls
    with the time; what is resumed then gets all that time again.
    Without a `perception` the features of the data are visual tokens.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    classes = None if perception is None else perception.eval().head.out_channels
    policy = Policy(shape, classes, dropout).to(device)
    perception = None if perception is None else perception.to(device)
    optimisers = optimisers_of(policy)
    done = 0
    if out.exists():
        state = torch.load(out, weights_only=True, map_location=device)
        policy.load_state_dict(state["policy"])
        for optimiser, before in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(before)
        done = state["step"]
    elif init is not None and init.is_dir():
        policy.decoder.load_state_dict(Decoder.of_bundle(init).state_dict())
    elif init is not None:
        own = policy.state_dict()
        given = torch.load(init, weights_only=True, map_location=device)["policy"]
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        policy.load_state_dict(fitting, strict=False)
    yes_no = (data.tokenizer.token_to_id("yes"), data.tokenizer.token_to_id("no"))
    pad = data.tokenizer.token_to_id("<|video_pad|>")
    while data.refresh() < max(BATCH * BUCKET, batch_size):
        time.sleep(FIRST_SHARD_WAIT_S)
    started, running = time.time(), np.zeros(len(PARTS))
    queue: list[list[Example]] = []
    for step in range(done + 1, steps + 1):
        share = step / steps
        if minutes is not None:
            share = max(share, min(1.0, (time.time() - started) / (60.0 * minutes)))
        if not queue:
            data.refresh()
            queue = _buckets(data.examples, rng, batch_size)
        policy.train()
        batch = collate(queue.pop(), data.features, pad).to(device)
        with short_floats(device):
            loss, _ = losses(policy, batch, perception, yes_no)
        policy.zero_grad()
        loss.total().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(share, peak)
            optimiser.step()
        now = loss.parts()
        running = now if step == done + 1 else 0.98 * running + 0.02 * now
        if step % report == 0 or share >= 1.0:
            val.refresh()
            checked = check(policy, val, perception, yes_no, pad, device=device)
            told = " ".join(f"{p} {x:.3f}" for p, x in zip(PARTS, running, strict=True))
            left = (steps - step) * (time.time() - started) / (step - done)
            if minutes is not None:
                left = max(0.0, min(left, 60.0 * minutes - (time.time() - started)))
            print(
                f"sft {step}/{steps} episodes {len(data.examples)} {told} | "
                f"val {checked} | {left:.0f} s left",
                flush=True,
            )
            state = {
                "policy": policy.state_dict(),
                "optimisers": [o.state_dict() for o in optimisers],
                "step": step,
                "shape": asdict(shape),
            }
            torch.save(state, out.with_suffix(".part"))
            out.with_suffix(".part").rename(out)
            saved(step)
        if share >= 1.0:
            break
    return policy.eval()


def _buckets(
    examples: list[Example], rng: np.random.Generator, size: int = BATCH
) -> list[list[Example]]:
    """Batches of `size` examples of about the same length, in random order."""
    weights = np.array([OWN_WEIGHT if e.own else 1.0 for e in examples])
    most = min(size * BUCKET, len(examples))
    group = rng.choice(len(examples), most, replace=False, p=weights / weights.sum())
    group = sorted(group, key=lambda i: len(examples[i].ids))
    batches = [
        [examples[i] for i in group[at : at + size]] for at in range(0, len(group) - size + 1, size)
    ]
    rng.shuffle(batches)
    return batches


def check(
    policy: Policy,
    val: DataSet,
    perception: Perception | None,
    yes_no: tuple[int, int],
    pad: int,
    most: int = 256,
    device: str = "cpu",
) -> dict[str, float]:
    """Losses, token accuracy and the probe's AUC after the glance and at the end, taught looks.

    `first_word` and `first_time`: whether the glance's suspicion is right, and about which moment.
    """
    policy.eval()
    first, last, truth, words, right, n = [], [], [], [], 0, 0
    said, timed = [], []
    numbers = {i for word, i in val.tokenizer.get_vocab().items() if word.isdigit()}
    with torch.inference_mode():
        chosen = sorted(val.examples[:most], key=lambda e: len(e.ids))
        for at in range(0, len(chosen), 2 * BATCH):
            part = chosen[at : at + 2 * BATCH]
            batch = collate(part, val.features, pad).to(device)
            loss, hidden = losses(policy, batch, perception, yes_no)
            words.append(loss.words.item())
            rows, places = torch.nonzero(batch.learnt[:, 1:], as_tuple=True)
            spoken = policy.decoder.logits(hidden[rows, places]).argmax(-1)
            right += int((spoken == batch.ids[rows, places + 1]).sum())
            n += len(rows)
            offset = 0
            for row, e in enumerate(part):
                opening = int(e.probes[0]) + 2
                turn = e.ids[opening : int(e.probes[1]) if len(e.probes) > 1 else None]
                number = next((i for i, token in enumerate(turn) if int(token) in numbers), None)
                for found, place in ((said, 0), (timed, number)):
                    if place is not None:
                        before = hidden[row, opening + place - 1]
                        found.append(int(policy.decoder.logits(before).argmax()) == turn[place])
            for e in part:
                first.append(float(loss.p[offset]))
                offset += len(e.probes)
                last.append(float(loss.p[offset - 1]))
                truth.append(float(e.anomalous))
    labels = np.array(truth)
    return {
        "words": round(float(np.mean(words)), 3),
        "accuracy": round(right / max(n, 1), 4),
        "first_word": round(float(np.mean(said)), 3),
        "first_time": round(float(np.mean(timed)), 3),
        "auc_glance": round(auc(np.array(first), labels), 3),
        "auc_final": round(auc(np.array(last), labels), 3),
    }
