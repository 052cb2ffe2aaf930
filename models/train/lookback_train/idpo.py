"""iDPO: preference training on whole inquiries, ranked by what they were worth.

The policy inquires several times about windows that it has never seen, a turn of each left to
chance; of each window the best and the worst inquiry by the AEI utility are a pair. Only the
window's own label is used. The loss is DPO over turns (Shi et al. 2024, DMPO), plus the likelihood
of the better inquiry.

Where to look is what is learnt here; what is seen and how it is judged stays. So only the upper
half of the decoder is trained, above the layer in which the sights are read, and the verdict probe
is held to the reference's: a few hundred windows' labels teach it nothing but these windows.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from . import oracle
from .decoder import Shape
from .examples import TOLD, Batch, Example, Features, collate, encode_pairs, example
from .sft import Policy, verdicts
from .tower import Perception, Trunk

BETA = 0.1
GAMMA = 0.7
"""Discount of turns."""
WORTH_IT = 0.2
"""Least difference in utility of a pair."""
ANCHOR = 0.2
"""Weight of the likelihood of the better inquiry."""
PROBE = 1.0
"""Weight of the verdict probe's distance from the reference's."""
TEMPERATURE = 1.5
"""Of the turns that are drawn: at 1 a sure policy says the same again."""
PAIRS = 4
"""Pairs of a step: twice as many transcripts."""
READ = 8
"""Transcripts of a step whose verdict probe is held, whatever they were worth."""
LEARNING_RATE = 3e-4


@dataclass
class Pair:
    """Two inquiries about one window."""

    chosen: Example
    rejected: Example
    difference: float
    """Of their utilities."""


def turn_weights(turns: int, gamma: float = GAMMA) -> Tensor:
    """`γ^t (1 - γ^(T-t)) / (1 - γ^T)`, `[turns]`; `(T - t) / T` for a `gamma` of 1."""
    t = torch.arange(turns, dtype=torch.float64)
    if gamma == 1.0:
        return (turns - t) / turns
    return gamma**t * (1 - gamma ** (turns - t)) / (1 - gamma**turns)


def preference_loss(
    chosen: Tensor, rejected: Tensor, beta: float = BETA, gamma: float = GAMMA, margin: float = 0.0
) -> Tensor:
    """The loss of one pair, from log ratios of policy to reference per turn, `[turns]` each."""
    weighted = [
        (ratios * turn_weights(len(ratios), gamma).to(ratios.dtype)).sum()
        for ratios in (chosen, rejected)
    ]
    return -F.logsigmoid(beta * (weighted[0] - weighted[1]) - margin)


def per_turn(log_p: Tensor, turns: Tensor) -> Tensor:
    """Sums of the tokens of each turn: `log_p` and `turns` (its number, from 0) `[tokens]`."""
    count = int(turns.max()) + 1
    return log_p.new_zeros(count).index_add(0, turns, log_p)


def upper_half(policy: Policy) -> list[nn.Parameter]:
    """What is trained: the decoder's layers above the one in which the sights are read."""
    decoder = policy.decoder
    return list(decoder.layers[(len(decoder.layers) + 1) // 2 :].parameters())


def token_log_p(policy: Policy, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Log probability of each token that a policy wrote, and the row of its transcript."""
    rows, places = torch.nonzero(batch.learnt[:, 1:], as_tuple=True)
    logits = policy.decoder.logits(hidden[rows, places])
    wrote = batch.ids[rows, places + 1]
    return -F.cross_entropy(logits, wrote, reduction="none"), rows


@dataclass
class Rolled:
    """The inquiries about one window."""

    examples: list[Example]
    utilities: list[float]
    right: list[bool]

    def pair(self) -> Pair | None:
        """The best and the worst of them, if the best is right and well worth it."""
        best, worst = int(np.argmax(self.utilities)), int(np.argmin(self.utilities))
        difference = self.utilities[best] - self.utilities[worst]
        if not self.right[best] or difference < WORTH_IT:
            return None
        return Pair(self.examples[best], self.examples[worst], difference)


def rolled(record: dict, tokenizer: Tokenizer, first_pair: int) -> Rolled:
    """From a record of the oracle; its pair 0 is row `first_pair` of the features."""
    rollouts = record["rollouts"]
    # What its pairs show is the truth, and only the window's label may be used here.
    blank = [[TOLD]] * len(record["pairs"])
    examples = [
        example(
            {**record, "segments": r["segments"], "sees": blank},
            tokenizer,
            first_pair,
            by_itself=True,
        )
        for r in rollouts
    ]
    worth = [float(r["utility"]["total"]) for r in rollouts]
    return Rolled(examples, worth, [bool(r["right"]) for r in rollouts])


def collect(
    records: Iterable[oracle.Trace],
    trunk: Trunk,
    tokenizer: Tokenizer,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Rolled], Features, list[dict]]:
    """Rollouts, the features that they rest on, and what each was worth."""
    windows, features, worth = [], Features(), []
    for number, record in enumerate(records):
        windows.append(rolled(record.episode, tokenizer, features.count))
        features.add(encode_pairs(trunk, record.frames))
        for rollout in record.episode["rollouts"]:
            worth.append({k: rollout[k] for k in ("utility", "right", "frames")})
        progress(number + 1)
    return windows, features, worth


def train(
    windows: list[Rolled],
    features: Features,
    perception: Perception,
    before: Path,
    out: Path,
    steps: int,
    seed: int,
    tokens: tuple[int, int, int],
    report: int = 50,
) -> None:
    """`steps` of 4 pairs and 8 more transcripts, from and against the policy in `before`; writes
    `out`.

    `tokens` are the ids of yes, no and `<|video_pad|>`.
    """
    pairs = [pair for window in windows if (pair := window.pair()) is not None]
    everyone = [e for window in windows for e in window.examples]
    if not pairs:
        print(
            "no window has an inquiry that is right and well better: nothing to prefer", flush=True
        )
        shutil.copy(before, out)
        return
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    yes_no, pad = tokens[:2], tokens[2]
    perception.eval()
    state = torch.load(before, weights_only=True)
    shape = Shape(**{**state["shape"], "mrope_section": tuple(state["shape"]["mrope_section"])})
    policy = Policy(shape, perception.head.out_channels, 0.0)
    policy.load_state_dict(state["policy"])
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    # The merger's running statistics stay as they are: a few hundred steps would only disturb them.
    policy.eval().requires_grad_(False)
    learning = upper_half(policy)
    for parameter in learning:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(learning, LEARNING_RATE, weight_decay=0.0)
    started, running = time.time(), np.zeros(4)
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / 20) * (1 - (step - 1) / steps)
        drawn = [pairs[i] for i in rng.choice(len(pairs), min(PAIRS, len(pairs)), replace=False)]
        sides = [side for pair in drawn for side in (pair.chosen, pair.rejected)]
        batch = collate(sides, features, pad)
        hidden, _ = policy(batch, perception)
        log_p, rows = token_log_p(policy, batch, hidden)
        with torch.no_grad():
            log_reference, _ = token_log_p(reference, batch, reference(batch, perception)[0])
        turns = torch.from_numpy(np.concatenate([s.turns[s.learnt > 0] for s in sides]))
        ratios = [
            per_turn((log_p - log_reference)[rows == row], turns[rows == row])
            for row in range(len(sides))
        ]
        both = list(zip(ratios[0::2], ratios[1::2], strict=True))
        preference = torch.stack([preference_loss(*pair) for pair in both]).mean()
        likely = -log_p[rows % 2 == 0].mean()
        others = rng.choice(len(everyone), min(READ, len(everyone)), replace=False)
        read = collate([everyone[i] for i in others], features, pad)
        with torch.no_grad():
            held = torch.sigmoid(verdicts(reference, read, reference(read, perception)[0], yes_no))
        margin = verdicts(policy, read, policy(read, perception)[0], yes_no)
        probe = F.binary_cross_entropy_with_logits(margin, held)
        optimiser.zero_grad()
        (preference + ANCHOR * likely + PROBE * probe).backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        preferred = np.mean([float(w.detach().sum()) > float(r.detach().sum()) for w, r in both])
        now = np.array([preference.item(), likely.item(), probe.item(), preferred])
        running = now if step == 1 else 0.95 * running + 0.05 * now
        if step % report == 0 or step == steps:
            left = (steps - step) * (time.time() - started) / step
            print(
                f"idpo {step}/{steps} pairs {len(pairs)} preference {running[0]:.3f} "
                f"likelihood {running[1]:.3f} probe {running[2]:.3f} "
                f"preferred {running[3]:.2f} | {left:.0f} s left",
                flush=True,
            )
    saved = {"policy": policy.state_dict(), "step": steps, "shape": asdict(shape)}
    torch.save(saved, out.with_suffix(".part"))
    out.with_suffix(".part").rename(out)


def summary(worth: list[dict]) -> str:
    """What the rollouts were worth, for people."""
    mean = {
        "utility": np.mean([w["utility"]["total"] for w in worth]),
        "right": np.mean([w["right"] for w in worth]),
        "frames": np.mean([w["frames"] for w in worth]),
    }
    return json.dumps({k: round(float(v), 3) for k, v in mean.items()})
