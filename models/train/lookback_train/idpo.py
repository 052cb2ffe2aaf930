"""iDPO: preference training on whole inquiries, ranked by what they were worth.

The policy of a sealed bundle inquires several times about windows that it has never seen: once as
it would, and then with one turn left to chance, the verdict or a look before it. Its own inquiry
and each of the others are a pair, the better by the AEI utility before the worse: up to that turn
they are one, so that what is preferred is that turn. Only the window's own label is used. The loss
is DPO over turns (Shi et al. 2024, DMPO), plus the likelihood of the better inquiry.

Where to look and what to conclude is what is learnt here; what is seen stays. So only the upper
half of the decoder is trained, above the layer in which the sights are read. The verdict probe
learns the windows' labels where the policy gets to by itself: after a teacher's looks it was surer
than after the policy's own. The tower is that of the bundle, as it stands there: a policy can be
taught by preference wherever it comes from.
"""

from __future__ import annotations

import copy
import json
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from . import oracle, tokens
from .decoder import Decoder, between, part
from .examples import (
    TOLD,
    Batch,
    Example,
    Features,
    collate,
    example,
    in_background,
    save_shard,
    shares,
)
from .export import with_decoder
from .perception import short_floats
from .sft import verdicts, with_visual_tokens
from .sight import Sight

T = TypeVar("T")
BETA = 0.5
GAMMA = 0.9
"""Discount of turns."""
WORTH_IT = 0.05
"""Least difference in utility of a pair: what a look costs that told nothing. Where more is asked
for, only verdicts are preferred, and no policy learns to stop when it knows."""
ANCHOR = 0.5
"""Weight of the likelihood of the better inquiry."""
PROBE = 1.0
"""Weight of the verdict probe's loss."""
LABEL = 0.8
"""Share of the window's label in what the verdict probe learns; the rest is what the reference says
there, so that no window is learnt by heart. The fewer times a window is read, the higher it may be:
a round reads each of its transcripts about once."""
TEMPERATURE = 1.5
"""Of the turns that are drawn: at 1 a sure policy says the same again."""
PAIRS = 4
"""Pairs of a step: twice as many transcripts."""
READ = 8
"""Transcripts of a step whose verdicts are read, whatever they were worth."""
NEIGHBOURS = 64
"""Among so many of about the same length the pairs of a step are drawn."""
LEARNING_RATE = 1e-4
EACH = 6
"""Inquiries about a window."""
PER_SHARD = 100
"""Windows in one file of rollouts."""
SEEDS = oracle.TRAIN + 4_000_000
"""Seeds that perception and SFT do not see with a `--seed` of 0 to 3: the utility rests on the
policy's own readings."""


class Watcher(nn.Module):
    """The policy of a bundle: its decoder to be taught, its tower as it is."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        self.bundle = bundle
        self.decoder = Decoder.of_bundle(bundle)
        self.eval().requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        """Last hidden states `[B, T, hidden]`; the batch's features are those of [`Sight`]."""
        x, deepstack = with_visual_tokens(self.decoder, batch, list(batch.features.unbind(1)))
        # Products alone are short: what goes on from layer to layer and into the head is not.
        with short_floats(x.device.type):
            return self.decoder(x, batch.positions, deepstack)


@dataclass
class Pair:
    """Two inquiries about one window."""

    chosen: Example
    rejected: Example
    difference: float
    """Of their utilities."""

    @property
    def parted(self) -> int:
        """The turn, from 0, in which the two differ first: what stands before it is common ground,
        and the discount of turns begins there. Counted from the first turn, a verdict that was
        preferred would weigh an eighth of a first look."""
        ours, theirs = self.chosen.ids, self.rejected.ids
        common = min(len(ours), len(theirs))
        differing = np.flatnonzero(ours[:common] != theirs[:common])
        return int(self.chosen.turns[differing[0]]) if len(differing) else 0

    def loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The preference loss of the pair, from log ratios per turn of either, `[turns]` each."""
        parted = self.parted
        return preference_loss(chosen[parted:], rejected[parted:])


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
        (ratios * turn_weights(len(ratios), gamma).to(ratios)).sum()
        for ratios in (chosen, rejected)
    ]
    return -F.logsigmoid(beta * (weighted[0] - weighted[1]) - margin)


def per_turn(log_p: Tensor, turns: Tensor) -> Tensor:
    """Sums of the tokens of each turn: `log_p` and `turns` (its number, from 0) `[tokens]`."""
    count = int(turns.max()) + 1
    return log_p.new_zeros(count).index_add(0, turns, log_p)


def upper_half(decoder: Decoder) -> list[nn.Parameter]:
    """What is trained: the decoder's layers above the one in which the sights are read."""
    return list(decoder.layers[(len(decoder.layers) + 1) // 2 :].parameters())


def token_log_p(policy: Watcher, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
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

    def pairs(self) -> list[Pair]:
        """The first with each other, where the better of the two is right and well worth it."""
        found = []
        for other in range(1, len(self.examples)):
            worse, better = sorted((0, other), key=lambda i: self.utilities[i])
            difference = self.utilities[better] - self.utilities[worse]
            if self.right[better] and difference >= WORTH_IT:
                found.append(Pair(self.examples[better], self.examples[worse], difference))
        return found


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


def inquire(
    bundle: Path,
    folder: Path,
    binary: Path,
    start: int,
    windows: int,
    device: str = "cpu",
    renderers: int = 1,
) -> Iterator[tuple[list[dict], np.ndarray]]:
    """Records of the inquiries of the policy in `bundle` about `windows` seeds from `start`, and
    the features that they rest on, file by file; keeps them in `folder` and resumes. With more
    `renderers` than one so many files are made side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    files = range(0, windows, PER_SHARD)
    common = (bundle, folder, binary, start, windows, device)
    beside = [in_background(roll_out, *common, share) for share in shares(files, renderers)[1:]]
    roll_out(*common, files[:: max(renderers, 1)])
    for renderer in beside:
        renderer.join()
        if renderer.exitcode != 0:
            raise SystemExit(f"a renderer of rollouts ended with {renderer.exitcode}: see above")
    for first in files:
        path = _file_of_rollouts(folder, start, windows, first)
        lines = path.with_suffix(".jsonl").read_text().splitlines()
        yield [json.loads(line) for line in lines], np.load(path, mmap_mode="r")


def roll_out(
    bundle: Path,
    folder: Path,
    binary: Path,
    start: int,
    windows: int,
    device: str,
    files: range,
) -> None:
    """Makes those of the files of [`inquire`] that begin with these windows and are not there."""
    sight, begun, done = Sight(bundle, device), time.time(), 0
    for at, first in enumerate(files):
        path = _file_of_rollouts(folder, start, windows, first)
        if path.exists():
            continue
        records, frames = [], []
        # In two files of three long stretches on few frames: there a look counts most.
        few = first // PER_SHARD % 3 != 0
        count = min(PER_SHARD, windows - first)
        for trace in oracle.stream_rollouts(
            binary, start + first, count, bundle, EACH, TEMPERATURE, few
        ):
            records.append(trace.episode)
            frames.append(trace.frames)
        save_shard(path, records, sight.features(np.concatenate(frames)))
        done += 1
        left = (len(files) - at - 1) * (time.time() - begun) / done
        print(f"rollouts: {first + count}/{windows} windows | {left:.0f} s left", flush=True)


def _file_of_rollouts(folder: Path, start: int, windows: int, first: int) -> Path:
    return folder / f"{start + first}-{min(PER_SHARD, windows - first)}.npy"


def gather(
    shards: Iterator[tuple[list[dict], np.ndarray]], tokenizer: Tokenizer
) -> tuple[list[Rolled], Features, list[dict]]:
    """Windows, the features that they rest on, and what each rollout was worth."""
    windows, features, worth = [], Features(), []
    for records, rows in shards:
        at = features.add(rows)
        for record in records:
            windows.append(rolled(record, tokenizer, at))
            at += len(record["pairs"])
            worth += [{k: r[k] for k in ("utility", "right", "frames")} for r in record["rollouts"]]
    return windows, features, worth


def teach(
    bundle: Path,
    out: Path,
    work: Path,
    programs: tuple[Path, Path, Path],
    start: int,
    windows: int,
    steps: int,
    seed: int,
    keep: float = 0.0,
    device: str = "cpu",
    renderers: int = 1,
) -> None:
    """One round: the policy in `bundle` inquires about `windows` seeds from `start`, and is taught
    for `steps`; writes and seals the bundle `out`, which is there whole or not at all. `keep` is
    the share of the policy as it was in the weights that are written.

    `programs` are `lookback-oracle`, `lookback-bundle` and `lookback-models`; the rollouts are kept
    in `work`.
    """
    if start < SEEDS or start + windows > oracle.VAL:
        raise SystemExit(f"windows lie between seeds {SEEDS} and {oracle.VAL}: lower --seed")
    binary, sealers = programs[0], programs[1:]
    manifest = tomllib.loads((bundle / "bundle.toml").read_text())
    # Rollouts of one policy say little of another.
    work = work / f"rollouts-{manifest['parts']['decoder']['blake3'][:12]}"
    tokenizer = tokens.load(bundle / part(bundle, "tokenizer"))
    ids = tuple(tokenizer.token_to_id(t) for t in ("yes", "no", "<|video_pad|>"))
    shards = inquire(bundle, work, binary, start, windows, device, renderers)
    rolled_out, features, worth = gather(shards, tokenizer)
    print(f"rollouts: {summary(worth)}", flush=True)
    policy = Watcher(bundle)
    before = copy.deepcopy(policy.decoder)
    train(policy.to(device), rolled_out, features, steps, seed, ids, device=device)
    with_decoder(bundle, between(before, policy.decoder.cpu(), keep), sealers, out)


def alike(ranked: list[T], count: int, rng: np.random.Generator) -> list[T]:
    """`count` of neighbours in `ranked`, by length: padded to one of 64 frames, transcripts of 16
    would cost several times what they are worth."""
    around = min(NEIGHBOURS, len(ranked))
    first = min(max(int(rng.integers(len(ranked))) - around // 2, 0), len(ranked) - around)
    return [ranked[first + i] for i in rng.choice(around, min(count, around), replace=False)]


def train(
    policy: Watcher,
    windows: list[Rolled],
    features: Features,
    steps: int,
    seed: int,
    ids: tuple[int, int, int],
    report: int = 50,
    device: str = "cpu",
) -> None:
    """`steps` of 4 pairs and 8 more transcripts, from and against `policy` as it is, on `device`.

    `ids` are the tokens yes, no and `<|video_pad|>`.
    """
    pairs = [pair for window in windows for pair in window.pairs()]
    pairs = sorted(pairs, key=lambda pair: max(len(pair.chosen.ids), len(pair.rejected.ids)))
    everyone = sorted((e for w in windows for e in w.examples), key=lambda e: len(e.ids))
    if not pairs:
        print(
            "no window has an inquiry that is right and well better: nothing to prefer", flush=True
        )
        return
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    yes_no, pad = ids[:2], ids[2]
    reference = copy.deepcopy(policy)
    learning = upper_half(policy.decoder)
    for parameter in learning:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(learning, LEARNING_RATE, weight_decay=0.0)
    started, running = time.time(), np.zeros(4)
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / 20) * (1 - (step - 1) / steps)
        drawn = alike(pairs, PAIRS, rng)
        sides = [side for pair in drawn for side in (pair.chosen, pair.rejected)]
        batch = collate(sides, features, pad).to(device)
        log_p, rows = token_log_p(policy, batch, policy(batch))
        with torch.no_grad():
            log_reference, _ = token_log_p(reference, batch, reference(batch))
        turns = np.concatenate([s.turns[s.learnt > 0] for s in sides])
        turns = torch.from_numpy(turns).to(device)
        ratios = [
            per_turn((log_p - log_reference)[rows == row], turns[rows == row])
            for row in range(len(sides))
        ]
        both = list(zip(ratios[0::2], ratios[1::2], strict=True))
        preference = torch.stack(
            [pair.loss(*of_pair) for pair, of_pair in zip(drawn, both, strict=True)]
        ).mean()
        likely = -log_p[rows % 2 == 0].mean()
        read = collate(alike(everyone, READ, rng), features, pad).to(device)
        with torch.no_grad():
            held = torch.sigmoid(verdicts(reference.decoder, read, reference(read), yes_no))
            held += LABEL * (read.probe_truth - held)
        margin = verdicts(policy.decoder, read, policy(read), yes_no)
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
    policy.requires_grad_(False)


def summary(worth: list[dict]) -> str:
    """What the rollouts were worth, for people."""
    mean = {
        "utility": np.mean([w["utility"]["total"] for w in worth]),
        "right": np.mean([w["right"] for w in worth]),
        "frames": np.mean([w["frames"] for w in worth]),
    }
    return json.dumps({k: round(float(v), 3) for k, v in mean.items()})
