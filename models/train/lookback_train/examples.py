"""Taught inquiries as tensors: token ids, positions, what is learnt where, cached cell features."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import oracle, tokens
from .decoder import walk_positions
from .perception import short_floats
from .sight import Sight
from .tower import GRID, TOKENS, Trunk, normalise

TOLD = 255
"""What a pair shows is not asked once a thought has said how something came about: it would be
read there, and not seen."""
HARM, HARMLESS = 2, 3
"""What a pair shows of a kind when it shows the transition."""
TELLING = ("seen once", ", harmless")
THOUGHT = 4.0
"""Weight of a thought's tokens; the hypothesis and the operator that follow mostly copy them."""
SLIPS = 0.4
"""Share of turns that are mistakes, in the shards that have any."""


@dataclass
class Example:
    """One episode, ready to be learnt."""

    ids: np.ndarray
    """Token ids `[T]`; pads where visual tokens go."""
    learnt: np.ndarray
    """Above 0 where the token at that place was written by the policy, f32 `[T]`: 1, and more in
    its thoughts, whose words are seen and not copied."""
    probes: np.ndarray
    """Places whose next-token distribution is the verdict probe, as far as the teacher has not told
    what it is."""
    positions: np.ndarray
    """M-RoPE positions `[T, 3]`."""
    pairs: np.ndarray
    """For each pad run its row in the feature store, in order."""
    sees: np.ndarray
    """What each of these pairs shows of each kind, u8 `[pairs, kinds]`: 0 nothing, 1 the ambiguous
    state, 2 the harmful transition, 3 the harmless one; [`TOLD`] where the transcript has told."""
    anomalous: bool
    seed: int
    turns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """The turn, from 0, in which the policy wrote the token at that place, `[T]`."""
    own: bool = False
    """Whether a policy in training went some of its own way in it."""


def example(
    episode: dict, tokenizer: Tokenizer, first_pair: int, by_itself: bool = False
) -> Example:
    """From an episode of the oracle; its pair 0 is row `first_pair` of the feature store.

    `by_itself`: no teacher spoke in it, and nothing in its words tells the truth.
    """
    start, end, pad = (
        tokenizer.token_to_id(t) for t in ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    )
    close = tokenizer.token_to_id("<|im_end|>")
    ids: list[int] = []
    learnt: list[float] = []
    probes: list[int] = []
    turns: list[int] = []
    pairs: list[int] = []
    sees: list[list[int]] = []
    told, taught, turn = False, False, -1
    for segment in episode["segments"]:
        if "context" in segment:
            new = tokens.encode(tokenizer, segment["context"])
        elif "pair" in segment:
            pairs.append(first_pair + segment["pair"])
            shows = episode["sees"][segment["pair"]]
            sees.append([TOLD] * len(shows) if told else shows)
            new = [start, *[pad] * TOKENS, end]
        else:
            slip = "slip" in segment
            said = segment["slip"] if slip else segment["policy"]
            turn += 1
            if not taught:
                probes.append(len(ids) - 1)
            new = [*tokens.encode(tokenizer, said), close]
            ids += new
            telling = any(word in said for word in TELLING)
            told |= telling
            # The teacher knows: after his telling the verdict would be read in his words.
            taught |= telling and not slip and not by_itself
            # The first token, <think>, is forced by the grammar; its place belongs to the probe.
            thought = len(tokens.encode(tokenizer, said.partition("\n")[0])) - 1
            weights = [THOUGHT] * thought + [1.0] * (len(new) - 1 - thought)
            learnt += [0.0] + [0.0 if slip else weight for weight in weights]
            turns += [turn] * len(new)
            continue
        ids += new
        learnt += [0.0] * len(new)
        turns += [0] * len(new)
    return Example(
        np.array(ids),
        np.array(learnt, np.float32),
        np.array(probes),
        np.array(walk_positions([i == pad for i in ids], GRID), np.int32),
        np.array(pairs),
        np.array(sees, np.uint8),
        bool(episode["anomalous"]),
        int(episode["seed"]),
        np.array(turns),
        bool(episode.get("own", False)),
    )


class Features:
    """What was made of all pairs of a data set, f16 `[n, …]`, in blocks: cell features for SFT,
    `[n, channels, 8, 12]`, visual tokens for iDPO."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.starts: list[int] = []
        self.count = 0

    def add(self, block: np.ndarray) -> int:
        """Adds rows; returns the number of the first."""
        self.blocks.append(block)
        self.starts.append(self.count)
        self.count += len(block)
        return self.starts[-1]

    def rows(self, wanted: np.ndarray) -> Tensor:
        """Rows by number, f32."""
        block = np.searchsorted(self.starts, wanted, "right") - 1
        found = [self.blocks[b][w - self.starts[b]] for b, w in zip(block, wanted, strict=True)]
        return torch.from_numpy(np.stack(found).astype(np.float32))


def save_shard(path: Path, episodes: list[dict], features: np.ndarray) -> None:
    """Writes `path` (features) and its `.jsonl` (episodes): the shard is there whole or not at all.

    Features and transcripts are apart: new transcripts of old looks need no new rendering.
    """
    lines = [json.dumps(e, separators=(",", ":")) for e in episodes]
    path.with_suffix(".jsonl").write_text("\n".join(lines))
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, features)
    part.rename(path)


def encoder(eyes: Path, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """What makes of pairs, u8 `[pairs, 2, 128, 192]`, what is kept of them, f16: visual tokens if
    `eyes` is a bundle, cell features if it is the checkpoint of a tower."""
    if eyes.is_dir():
        return Sight(eyes, device).features
    trunk = Trunk()
    trunk.load_state_dict(torch.load(eyes, weights_only=True)["trunk"])
    return partial(encode_pairs, trunk)


def encode_pairs(trunk: Trunk, frames: np.ndarray, batch: int = 64) -> np.ndarray:
    """Cell features, f16, of pairs, u8 `[pairs, 2, 128, 192]`."""
    trunk.eval()
    with torch.inference_mode(), short_floats():
        found = [
            trunk(normalise(torch.from_numpy(frames[i : i + batch].copy())))
            for i in range(0, len(frames), batch)
        ]
        return torch.cat(found).half().numpy()


def render_shards(
    folder: Path,
    eyes: Path,
    binary: Path,
    files: tuple[Path, Path],
    start: int,
    numbers: range,
    per_shard: int,
    pupil: Path | None = None,
    passive: bool = False,
    device: str = "cpu",
) -> None:
    """Fills `folder` with the shards of these numbers, as `eyes` see them ([`encoder`]); resumes.

    With a `pupil`, a bundle of the policy in training, it goes some of its own way in all of them;
    `passive` lessons are about the glance alone.
    """
    encode = encoder(eyes, device)
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / f"{number:05}.npy"
        if path.exists():
            continue
        # Every second shard is about long stretches on few frames, every third has slips in it.
        few = number % 2 == 1
        slips = SLIPS if number % 3 == 2 and pupil is None else 0.0
        first = start + number * per_shard
        traces = oracle.stream_traces(
            binary, first, per_shard, *files, slips=slips, pupil=pupil, passive=passive, few=few
        )
        episodes, frames = [], []
        for trace in traces:
            episodes.append({**trace.episode, "own": pupil is not None})
            frames.append(trace.frames)
        save_shard(path, episodes, encode(np.concatenate(frames)))


def in_background(work: Callable[..., None], *arguments: object) -> BaseProcess:
    """`work` beside the caller, on one thread of a process of its own."""
    process = get_context("spawn").Process(
        target=_on_one_thread, args=(work, *arguments), daemon=True
    )
    process.start()
    return process


def render_in_background(*arguments: object) -> BaseProcess:
    """`render_shards` beside the training loop."""
    return in_background(render_shards, *arguments)


def _on_one_thread(work: Callable[..., None], *arguments: object) -> None:
    torch.set_num_threads(1)
    work(*arguments)


def shares(numbers: range, renderers: int) -> list[range]:
    """`numbers` dealt out to so many, one by one, so that the first are there first."""
    dealt = (numbers[at::renderers] for at in range(renderers))
    return [share for share in dealt if share]


class DataSet:
    """Examples and features of a folder of shards, growing while shards arrive."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.features = Features()
        self.examples: list[Example] = []
        self.seen: set[Path] = set()

    def refresh(self) -> int:
        """Reads the shards that have arrived; returns the number of examples."""
        for path in sorted(self.folder.glob("*.npy")):
            if path in self.seen:
                continue
            self.seen.add(path)
            # Mapped and not read: more shards fit than memory holds.
            at = self.features.add(np.load(path, mmap_mode="r"))
            for line in path.with_suffix(".jsonl").read_text().splitlines():
                episode = json.loads(line)
                self.examples.append(example(episode, self.tokenizer, at))
                at += len(episode["pairs"])
        return len(self.examples)


@dataclass
class Batch:
    """Examples padded to the longest."""

    ids: Tensor
    positions: Tensor
    learnt: Tensor
    probe_rows: Tensor
    probe_places: Tensor
    probe_truth: Tensor
    probe_shown: Tensor
    """Whether harm has been shown by then."""
    pad_rows: Tensor
    pad_places: Tensor
    pair_rows: Tensor
    pair_places: Tensor
    """Where the `<|vision_end|>` after each pair lies."""
    sees: Tensor
    features: Tensor
    """Rows of the feature store, one for each pair."""

    def to(self, device: str) -> Batch:
        """The same on `device`."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def collate(chosen: list[Example], features: Features, pad: int) -> Batch:
    """One batch; right padding is never attended to, as attention is causal."""
    longest = max(len(e.ids) for e in chosen)
    ids = np.zeros((len(chosen), longest), np.int64)
    positions = np.zeros((len(chosen), longest, 3), np.int64)
    learnt = np.zeros((len(chosen), longest), np.float32)
    probe_rows, probe_places, truth, shown = [], [], [], []
    pad_rows, pad_places, pair_rows, pair_places = [], [], [], []
    for row, e in enumerate(chosen):
        n = len(e.ids)
        ids[row, :n], positions[row, :n], learnt[row, :n] = e.ids, e.positions, e.learnt
        probe_rows += [row] * len(e.probes)
        probe_places += e.probes.tolist()
        truth += [float(e.anomalous)] * len(e.probes)
        places = np.flatnonzero(e.ids == pad)
        pad_rows += [row] * len(places)
        pad_places += places.tolist()
        ends = places[e.ids[places + 1] != pad] + 1
        pair_rows += [row] * len(e.pairs)
        pair_places += ends.tolist()
        harm = ends[(e.sees == HARM).any(1)]
        shown += [float((harm < place).any()) for place in e.probes]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(learnt),
        torch.tensor(probe_rows),
        torch.tensor(probe_places),
        torch.tensor(truth),
        torch.tensor(shown),
        torch.tensor(pad_rows),
        torch.tensor(pad_places),
        torch.tensor(pair_rows),
        torch.tensor(pair_places),
        torch.from_numpy(np.concatenate([e.sees for e in chosen]).astype(np.int64)),
        features.rows(np.concatenate([e.pairs for e in chosen])),
    )
