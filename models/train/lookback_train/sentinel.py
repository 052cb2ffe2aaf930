"""Trains the sentinel's network, resuming where it stopped, and measures it on windows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import gate, litert, oracle
from .sentinel_network import HEIGHT, LAGS_S, WIDTH, Network, normalised, planes, pooled
from .vigils import OLDEST, Clips, Drawer, Supply, clips_at, moved, patterns, record_of, worsened

SEEDS = oracle.TRAIN + 3_200_000
"""First seed; with a `--seed` of 0 to 2 it ends before those of iDPO."""
LOOK_AT = 0.3
"""Weight of where, against what."""
PATTERNS = 4
"""Of each batch."""


def loss_of(cells: Tensor, clips: Clips) -> Tensor:
    """Every transition by its kind, any harmful one, and where."""
    kinds, harm = pooled(cells)
    judged = clips.targets >= 0
    each = F.binary_cross_entropy_with_logits(
        kinds, clips.targets.clamp(min=0).float(), reduction="none"
    )
    weight = torch.where(clips.targets == 1, 1.0, 0.5) * judged
    per_kind = (each * weight).sum() / len(kinds)
    any_judged = clips.any_harm >= 0
    total = F.binary_cross_entropy_with_logits(
        harm[any_judged], clips.any_harm[any_judged].float(), reduction="mean"
    )
    n, k = torch.nonzero((clips.targets == 1) & ~clips.places[..., 0].isnan(), as_tuple=True)
    where = cells.new_zeros(())
    if len(n):
        maps = cells[n, k].float()
        rows, columns = torch.arange(maps.shape[1]), torch.arange(maps.shape[2])
        place = clips.places[n, k] * torch.tensor([maps.shape[2], maps.shape[1]])
        near_x = (columns[None] + 0.5 - place[:, :1]).abs() <= 2.0
        near_y = (rows[None] + 0.5 - place[:, 1:]).abs() <= 1.6
        near = near_y[:, :, None] & near_x[:, None]
        inside = torch.where(near, maps, torch.full_like(maps, -30.0))
        where = (maps.flatten(1).logsumexp(1) - inside.flatten(1).logsumexp(1)).mean()
    return per_kind + 2.0 * total + LOOK_AT * where


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    steps: int
    again: int
    """Further steps, after the rate was raised once more: the network settles better."""
    room: int
    """Records in memory, 1.1 MB each."""
    val_windows: int
    report: int


PLANS = {"full": Plan(4500, 2000, 3000, 400, 100), "tiny": Plan(20, 10, 40, 20, 10)}
RECORDS_PER_STEP, CLIPS_PER_RECORD = 32, 4
USES = 6.0
"""How often a record is drawn before another takes its place."""
LEARNING_RATE, AGAIN_RATE = 3e-3, 1.5e-3
"""Peaks of both cycles."""


def learning_rate(step: int, plan: Plan) -> float:
    """Up in the first tenth of a cycle, then down to nothing along a cosine."""
    at, length, peak = (step, plan.steps, LEARNING_RATE)
    if step > plan.steps:
        at, length, peak = (step - plan.steps, plan.again, AGAIN_RATE)
    rise = 0.1 * length
    if at < rise:
        return peak * max(at / rise, 0.04)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (at - rise) / (length - rise)))


def train(binary: Path, out: Path, plan: Plan, seed: int, init: Path | None = None) -> Network:
    """Trains for the steps of `plan` and writes `out`; resumes from it.

    With `init`, a folder that holds a network, it goes on from there, and only the last cycle is
    trained.
    """
    steps = plan.steps + plan.again
    torch.manual_seed(seed)
    network, done = Network(), 0
    if init is not None and not out.exists():
        chain = litert.read((init / gate.MODEL).read_bytes())
        network, done = gate.unfolded(chain, _some_planes(binary, seed)).train(), plan.steps
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
    if out.exists():
        state = torch.load(out, weights_only=True)
        network.load_state_dict(state["network"])
        done = state["step"]
        if done >= steps:
            return network
        optimiser.load_state_dict(state["optimiser"])
    dice, drawer = torch.Generator().manual_seed(seed + done), Drawer(seed + done)
    first = SEEDS + seed * 300_000 + int(done * RECORDS_PER_STEP / USES)
    supply = Supply(binary, first, plan.room, USES, RECORDS_PER_STEP)
    started, running = time.time(), 0.0
    network.train()
    for step in range(done + 1, steps + 1):
        clips = drawer.clips(supply.draw(RECORDS_PER_STEP, drawer.dice), CLIPS_PER_RECORD)
        clips = moved(clips, dice)
        seen = worsened(clips, dice)
        seen[:PATTERNS] = _pattern_planes(clips, drawer.dice)
        with _autocast():
            cells = network(seen.to(memory_format=torch.channels_last))
        loss = loss_of(cells.float(), clips)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, plan)
        optimiser.step()
        running = loss.item() if step == done + 1 else 0.98 * running + 0.02 * loss.item()
        if step % plan.report == 0 or step == steps:
            rate = (step - done) / (time.time() - started)
            left = (steps - step) / rate
            print(f"sentinel {step}/{steps} loss {running:.4f} {left:.0f} s left", flush=True)
            state = {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
            }
            torch.save(state, out.with_suffix(".part"))
            out.with_suffix(".part").rename(out)
    supply.close()
    return network


def _some_planes(binary: Path, seed: int) -> Tensor:
    """What a network sees in training, of windows that it is not trained on."""
    vigils = oracle.stream_vigils(binary, SEEDS - 100, 20, (WIDTH, HEIGHT))
    clips = Drawer(seed).clips([record_of(vigil) for vigil in vigils], 10)
    dice = torch.Generator().manual_seed(seed)
    return worsened(moved(clips, dice), dice)


def _pattern_planes(clips: Clips, dice: np.random.Generator) -> Tensor:
    """Patterns in place of the first clips, which then show nothing."""
    clips.targets[:PATTERNS] = 0
    clips.any_harm[:PATTERNS] = 0
    frames = normalised(patterns(PATTERNS, dice))
    # The background of what has been there for long: the mean of what was seen.
    return planes(frames, frames.mean(1))


def _autocast() -> torch.autocast:
    # Convolutions in bfloat16 are 2.5 times as fast where the processor multiplies it.
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


@torch.inference_mode()
def measure(binary: Path, network: Network, first: int, windows: int) -> str:
    """Of stories in `windows` windows from seed `first`: how many harmful transitions score higher
    than nine in ten of the harmless ones, and than all but one in fifty moments without any."""
    network.eval()
    harmful: dict[int, list[float]] = {}
    harmless: list[float] = []
    quiet: list[float] = []
    for vigil in oracle.stream_vigils(binary, first, windows, (WIDTH, HEIGHT)):
        record = record_of(vigil)
        times = list(range(OLDEST, len(record.frames), 2))
        rows = [(record, t, [t, *(t - int(lag * 8) for lag in LAGS_S)]) for t in times]
        clips = clips_at(rows)
        seen = planes(normalised(clips.frames.float()), clips.backgrounds)
        scores = pooled(network(seen))[1].numpy()
        seconds = np.array(times) / vigil.fps
        free = np.ones(len(seconds), bool)
        for story in vigil.stories:
            a, b = story["transition_s"]
            during = (seconds >= a) & (seconds <= b + 3.0)
            free &= (seconds < a - 1.5) | (seconds >= story["state_s"][1])
            if a < LAGS_S[-1] or b > seconds[-1] - 1.0:
                continue
            peak = float(scores[during].max())
            if story["harmful"]:
                harmful.setdefault(story["kind"], []).append(peak)
            else:
                harmless.append(peak)
        quiet += scores[free].tolist()
    above = float(np.quantile(harmless, 0.9))
    calm = float(np.quantile(quiet, 0.998))
    every = np.concatenate(list(harmful.values()))
    rows = [
        f"harmful above nine in ten harmless ({above:.2f}): {(every > above).mean():.3f}; above "
        f"all but 2 in 1000 quiet moments ({calm:.2f}): {(every > calm).mean():.3f} of {len(every)}"
    ]
    rows += [
        f"  kind {k}: {np.mean(np.array(v) > above):.2f} of {len(v)}"
        for k, v in sorted(harmful.items())
    ]
    return "\n".join(rows)
