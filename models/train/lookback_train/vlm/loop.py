"""Steps, checkpoints and progress: what SFT and iDPO have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from ..sft import learning_rate
from . import Refusal
from .policy import TRAINED, save_memory

CHECKPOINT = "checkpoint.pt"
SMOOTHING = 0.9


@dataclass(frozen=True)
class Plan:
    """How much of everything. A run is resumed only by the plan that it was begun with."""

    steps: int
    batch: int
    """Episodes, or pairs of them, of one step."""
    at_once: int
    """How many of them fit on the device; their gradients are added up."""
    peak: float
    """The highest learning rate."""
    seed: int
    about: str
    """What else decides the outcome: records and adapter, for comparison only."""

    def parts(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """A step's items in groups that fit on the device."""
        for first in range(0, len(items), self.at_once):
            yield items[first : first + self.at_once]


def run(
    name: str,
    model: PeftModel,
    plan: Plan,
    out: Path,
    items: Callable[[int], Iterator[list]],
    learn: Callable[[list], dict[str, float]],
    check: Callable[[], dict[str, float]],
    report: int,
) -> None:
    """Trains the adapter and leaves it in `out`, at each report and at the end; resumes from there.

    `items` gives the batches from a step (counted from 0) on; `learn` adds up the gradients of one
    and tells its losses; `check` measures what is printed at each report.
    """
    out.mkdir(parents=True, exist_ok=True)
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    # No weight decay: an adapter that does nothing is where it began, and not a goal.
    optimiser = torch.optim.AdamW(learning.values(), plan.peak, (0.9, 0.98), weight_decay=0.0)
    done = _resume(out, plan, learning, optimiser)
    if done >= plan.steps:
        print(f"{name}: all {plan.steps} steps are done already", flush=True)
        _save_adapter(model, out)
        return
    save_memory(model)
    model.train()
    started, running = time.time(), dict[str, float]()
    for step, batch in enumerate(items(done), done + 1):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step / plan.steps, plan.peak)
        optimiser.zero_grad()
        losses = learn(batch)
        nn.utils.clip_grad_norm_(learning.values(), 1.0)
        optimiser.step()
        for key, now in losses.items():
            running[key] = SMOOTHING * running.get(key, now) + (1 - SMOOTHING) * now
        if step % report == 0 or step == plan.steps:
            _save(out, plan, learning, optimiser, step)
            _save_adapter(model, out)
            model.eval()
            val = check()
            model.train()
            told = _told(running) + (f" | val {_told(val)}" if val else "")
            left = (plan.steps - step) * (time.time() - started) / (step - done)
            print(f"{name} {step}/{plan.steps} {told} | {_duration(left)} left", flush=True)
        if step == plan.steps:
            return


def _save(
    out: Path,
    plan: Plan,
    learning: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {
        "plan": vars(plan),
        "step": step,
        "weights": {n: p.detach() for n, p in learning.items()},
        "optimiser": optimiser.state_dict(),
    }
    part = out / f"{CHECKPOINT}.part"
    torch.save(state, part)
    part.rename(out / CHECKPOINT)


def _save_adapter(model: PeftModel, out: Path) -> None:
    model.save_pretrained(out, selected_adapters=[TRAINED], save_embedding_layers=False)


def _resume(
    out: Path,
    plan: Plan,
    learning: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> int:
    """Steps that were done before; weights and moments are then what they were."""
    path = out / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    for key, now in vars(plan).items():
        if (before := state["plan"].get(key)) != now:
            raise Refusal(
                f"{out} holds a run with another `{key}` ({before}, now {now}): "
                "resume it as it was begun, or choose another --out"
            )
    shapes = [{n: w.shape for n, w in sort.items()} for sort in (state["weights"], learning)]
    if shapes[0] != shapes[1]:
        raise Refusal(f"{out} holds a run of another adapter: choose another --out")
    with torch.no_grad():
        for name, parameter in learning.items():
            parameter.copy_(state["weights"][name])
    optimiser.load_state_dict(state["optimiser"])
    print(f"resumed after step {state['step']}", flush=True)
    return state["step"]


def _told(figures: dict[str, float]) -> str:
    return " ".join(f"{key} {value:.3f}" for key, value in figures.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"
