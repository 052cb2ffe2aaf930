"""What the sentinel's network learns from: windows of frames, what to see in them, and bad days.

The frames come from `lookback-oracle vigils`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import oracle
from .oracle import Vigil
from .sentinel_network import (
    BACKGROUND_S,
    DARK,
    HEIGHT,
    KINDS,
    LAGS_S,
    WIDTH,
    normalised,
    planes,
)


@dataclass
class Record:
    """A window as it is kept: frames, a background for each second, what to learn at each frame."""

    frames: np.ndarray
    """u8 `[frames, h, w]`."""
    backgrounds: np.ndarray
    """f16 `[seconds, h, w]`, normalised."""
    targets: np.ndarray
    """i8 `[frames, 20]`: 1 shown, 0 not, -1 not to be judged."""
    any_harm: np.ndarray
    """i8 `[frames]`: the same of any harmful transition."""
    places: np.ndarray
    """f32 `[20, 2]`: where each kind's story happens; not a number where there is none."""
    told: np.ndarray
    """bool `[frames]`: during a transition, harmful or not, or just after."""


def record_of(vigil: Vigil) -> Record:
    """The record of a window."""
    frames = torch.from_numpy(vigil.frames.copy()).float()
    all_normalised = normalised(frames).flatten(1)
    keep = float(np.exp(-1.0 / BACKGROUND_S))
    background, backgrounds = all_normalised[0].clone(), []
    for i in range(vigil.lead):
        background = keep * background + (1.0 - keep) * all_normalised[i]
    for i in range(vigil.lead, len(frames), vigil.fps):
        background = keep * background + (1.0 - keep) * all_normalised[i]
        backgrounds.append(background.to(torch.float16))
    size = vigil.frames.shape[1:]
    targets, any_harm, told = labels(vigil)
    places = np.full((2 * KINDS, 2), np.nan, np.float32)
    for story in vigil.stories:
        places[story["kind"] + (0 if story["harmful"] else KINDS)] = story["place"]
    return Record(
        vigil.frames[vigil.lead :],
        torch.stack(backgrounds).reshape(-1, *size).numpy(),
        targets,
        any_harm,
        places,
        told,
    )


def labels(vigil: Vigil) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`Record.targets`, `any_harm` and `told` of a window.

    A transition is to be seen from its middle to a second after its end, and may be seen until the
    longest lag after it. What a harmful state looks like is not judged: its twin's looks the same.
    """
    n = len(vigil.frames) - vigil.lead
    t = np.arange(n) / vigil.fps
    targets = np.zeros((n, 2 * KINDS), np.int8)
    told = np.zeros(n, bool)
    for story in vigil.stories:
        (a, b), (_, c) = story["transition_s"], story["state_s"]
        column = targets[:, story["kind"] + (0 if story["harmful"] else KINDS)]
        seen = (t >= (a + b) / 2) & (t <= b + 1.0)
        # Who will strike or drives against the lane shows before the transition begins.
        early = a - 1.5 if story["harmful"] else a
        column[(t > early) & (t < (c if story["harmful"] else b + LAGS_S[-1]))] = -1
        column[seen] = 1
        told |= seen
    harm = targets[:, :KINDS]
    any_harm = np.where((harm == 1).any(1), 1, np.where((harm == -1).any(1), -1, 0))
    return targets, any_harm.astype(np.int8), told


OLDEST = int(LAGS_S[-1] * 8)
"""Frames of a window that have not enough before them."""


@dataclass
class Clips:
    """A batch."""

    frames: Tensor
    """u8 or f32 `[n, 1 + lags, h, w]`."""
    backgrounds: Tensor
    targets: Tensor
    any_harm: Tensor
    places: Tensor


class Drawer:
    """Draws clips from records."""

    def __init__(self, seed: int) -> None:
        self.dice = np.random.default_rng(seed)

    def lags(self, at: int) -> list[int]:
        """Which frames a gate sees at frame `at`: it keeps every nth, and takes the nearest."""
        step = self.dice.choice([1, 2, 3], p=[0.15, 0.7, 0.15])
        steps = [max(round(lag * 8 / step), 1) * step for lag in LAGS_S]
        # A camera that has just begun, or a gap: what is older is not there.
        oldest = at if self.dice.random() > 0.04 else self.dice.integers(0, 24)
        return [at - min(s, oldest, at) for s in [0, *steps]]

    def times(self, record: Record, n: int) -> np.ndarray:
        """Half of them in transitions, where there are any."""
        told = np.flatnonzero(record.told[OLDEST:]) + OLDEST
        others = np.flatnonzero(~record.told[OLDEST:]) + OLDEST
        half = n // 2 if len(told) else 0
        chosen = [self.dice.choice(told, half)] if half else []
        return np.concatenate([*chosen, self.dice.choice(others, n - half)])

    def clips(self, records: list[Record], each: int) -> Clips:
        """`each` of every record."""
        rows = [(record, t) for record in records for t in self.times(record, each)]
        return clips_at([(record, t, self.lags(t)) for record, t in rows])


def clips_at(rows: list[tuple[Record, int, list[int]]]) -> Clips:
    """The clips of these records and frames, with the frames that are looked back at."""
    return Clips(
        torch.from_numpy(np.stack([r.frames[lags] for r, _, lags in rows])),
        torch.from_numpy(np.stack([r.backgrounds[t // 8] for r, t, _ in rows])).float(),
        torch.from_numpy(np.stack([r.targets[t] for r, t, _ in rows])),
        torch.from_numpy(np.stack([r.any_harm[t] for r, t, _ in rows])),
        torch.from_numpy(np.stack([r.places for r, _, _ in rows])),
    )


MOVED = 0.6
"""Share of the clips that are seen as if the camera hung elsewhere."""
NEAREST, FURTHEST = 1.35, 0.75
"""How much larger and smaller things then are."""
STRETCH = 0.12
"""How much wider or higher, at most, as a share."""


def moved(clips: Clips, dice: torch.Generator) -> Clips:
    """The clips, most as if the camera hung nearer or further away, a little to one side.

    What happens stays in the picture. Never a mirror image: in a mirror every car comes against its
    lane.
    """
    n = len(clips.frames)

    def between(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=dice)

    some = torch.nonzero(torch.rand(n, generator=dice) < MOVED).flatten()
    if not len(some):
        return clips
    zoom = between(FURTHEST, NEAREST, len(some))[:, None] * between(
        1 - STRETCH, 1 + STRETCH, len(some), 2
    )
    # Of the picture, -1 to 1, the part of `1 / zoom` around `middle` is seen; its edges go on where
    # there is nothing beyond them.
    spare = (1 - 1 / zoom).abs()
    middle = between(-1, 1, len(some), 2) * spare
    places = clips.places[some] * 2 - 1
    there = places.nan_to_num(0.0)
    farthest = 0.85 / zoom[:, None]
    reach = torch.where(places.isnan(), torch.inf, farthest)
    middle = torch.maximum((there - reach).amax(1), torch.minimum(middle, (there + reach).amin(1)))
    theta = torch.zeros(len(some), 2, 3)
    theta[:, [0, 1], [0, 1]] = 1 / zoom
    theta[:, :, 2] = middle
    both = torch.cat([clips.frames[some].float(), clips.backgrounds[some, None]], 1)
    grid = F.affine_grid(theta, list(both.shape), align_corners=False)
    seen = F.grid_sample(both, grid, "bilinear", "border", align_corners=False)
    # The background was brought to a level by the whole picture; now by what is seen of it.
    whole, part = (x[:, 0].mean((-2, -1)) + DARK for x in (both, seen))
    frames, backgrounds = clips.frames.float(), clips.backgrounds.clone()
    frames[some] = seen[:, :-1]
    backgrounds[some] = seen[:, -1] * (whole / part)[:, None, None]
    shifted = clips.places.clone()
    shifted[some] = ((places - middle[:, None]) * zoom[:, None] + 1) / 2
    return Clips(frames, backgrounds, clips.targets, clips.any_harm, shifted)


def worsened(clips: Clips, dice: torch.Generator) -> Tensor:
    """What the network sees of them on a bad day: some with a step of the exposure, some noisier,
    some with the camera shaken."""
    frames = clips.frames.float()
    n, depth = frames.shape[:2]

    def unit(*size: int) -> Tensor:
        return torch.rand(*size, generator=dice)

    # Newest first: a step at `since` changes what is newer.
    since = torch.randint(1, depth, (n, 1), generator=dice)
    gain = torch.where(unit(n, 1) < 0.15, 0.6 + unit(n, 1), torch.ones(n, 1))
    gains = torch.where(torch.arange(depth)[None] < since, gain, torch.ones(n, 1))
    frames = frames * gains[:, :, None, None]
    noisy = torch.where(unit(n) < 0.15, unit(n) * 14.0, torch.zeros(n))
    if (noisy > 0).any():
        some = noisy > 0
        grain = torch.randn(frames[some].shape, generator=dice)
        frames[some] += grain * noisy[some][:, None, None, None]
    for i in torch.nonzero(unit(n) < 0.08).flatten().tolist():
        for j in range(depth):
            shift = torch.randint(-1, 2, (2,), generator=dice).tolist()
            frames[i, j] = torch.roll(frames[i, j], shift, (0, 1))
    frames = normalised(frames.clamp_(0.0, 255.0))
    return planes(frames, clips.backgrounds)


def patterns(n: int, dice: np.random.Generator) -> Tensor:
    """Frames of no scene, newest first, as test drivers and broken cameras give them: bars that
    move, a ramp with a counter, flicker, noise, one grey."""
    out = np.zeros((n, 1 + len(LAGS_S), HEIGHT, WIDTH), np.float32)
    times = -np.array([0.0, *LAGS_S])
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    for clip in out:
        low, high = dice.uniform(0, 120), dice.uniform(130, 255)
        width, speed = dice.uniform(4, 30), dice.uniform(-60, 60)
        sort = dice.integers(0, 6)
        for frame, t in zip(clip, times, strict=True):
            match sort:
                case 0:
                    frame[:] = np.where(((x + speed * t) // width) % 2 == 0, low, high)
                case 1:
                    frame[:] = low + (high - low) * ((x + (y // 16) * 7) % WIDTH) / WIDTH
                case 2:
                    frame[:] = (x // 12 * 37 % 255 + speed * t * dice.integers(0, 2)) % 255
                case 3:
                    frame[:] = dice.uniform(0, 255)
                case 4:
                    frame[:] = dice.uniform(0, 255, frame.shape) * dice.uniform(0.2, 1)
                case _:
                    frame[:] = np.where(((y + speed * t) // width) % 2 == 0, low, high)
            if sort in (1, 2, 3):
                left, top = int(width), int(low / 3)
                digits = dice.integers(0, 2, (5, 4)) * (high - low) + low
                frame[top : top + 10, left : left + 8] = np.kron(digits, np.ones((2, 2)))
    return torch.from_numpy(out)


class Supply:
    """Records in memory, a few thousand, replaced one by one by a thread that reads the oracle."""

    def __init__(self, binary: Path, first: int, room: int, uses: float, batch: int) -> None:
        self.binary, self.next_seed, self.room = binary, first, room
        self.records: list[Record] = []
        self.uses, self.batch = uses, batch
        self.taken, self.arrived = 0, 0
        self.lock = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for vigil in oracle.stream_vigils(self.binary, self.next_seed, 1_000_000, (WIDTH, HEIGHT)):
            record = record_of(vigil)
            with self.lock:
                if len(self.records) < self.room:
                    self.records.append(record)
                else:
                    self.records[self.arrived % self.room] = record
                self.arrived += 1
                self.lock.notify_all()
                # No faster than it is used up.
                ahead = lambda: self.arrived * self.uses > self.taken + self.room  # noqa: E731
                while not self.closed and self.arrived >= self.room and ahead():
                    self.lock.wait(1.0)
            if self.closed:
                return

    def draw(self, n: int, dice: np.random.Generator) -> list[Record]:
        """`n` of those at hand."""
        with self.lock:
            while len(self.records) < min(self.room, 20 * n):
                if not self.thread.is_alive():
                    raise RuntimeError("the oracle ended early")
                self.lock.wait(1.0)
            self.taken += n
            self.lock.notify_all()
            return [self.records[i] for i in dice.integers(0, len(self.records), n)]

    def close(self) -> None:
        """Ends the oracle."""
        with self.lock:
            self.closed = True
            self.lock.notify_all()
        self.thread.join()
