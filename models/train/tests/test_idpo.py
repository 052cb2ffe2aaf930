"""Preference training: the loss, its weights, the ranking, and that it learns what is preferred."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lookback_train import idpo, tokens
from lookback_train.decoder import Shape
from lookback_train.examples import Features
from lookback_train.sft import Policy
from lookback_train.tower import Perception

VECTORS = json.loads((Path(__file__).parent / "idpo_vectors.json").read_text())


@pytest.mark.parametrize("case", VECTORS, ids=[case["what"] for case in VECTORS])
def test_the_loss_is_that_of_the_vectors_computed_by_hand(case: dict) -> None:
    chosen, rejected = (torch.tensor(case[k], dtype=torch.float64) for k in ("chosen", "rejected"))
    loss = idpo.preference_loss(chosen, rejected, case["beta"], case["gamma"], case["margin"])
    assert float(loss) == pytest.approx(case["loss"], abs=1e-6)


def test_only_the_tokens_of_a_turn_are_its_sum() -> None:
    sums = idpo.per_turn(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1]))
    assert sums.tolist() == [1.0, 6.0]


def rollout(said: list[str], utility: float, right: bool) -> dict:
    segments: list[dict] = [{"context": "<|im_start|>user\n<1.0 seconds>"}, {"pair": 0}]
    for text in said:
        segments += [{"policy": f"<think>{text}</think>"}, {"context": "<|im_start|>"}]
    return {
        "segments": segments[:-1],
        "utility": {"total": utility},
        "right": right,
        "frames": 2,
    }


def record(*rollouts: dict) -> dict:
    return {"seed": 1, "anomalous": True, "pairs": [[1.0, 1.5]], "rollouts": list(rollouts)}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = ["<|im_start|>user\n<1.0 seconds>", "look closer", "nothing here", "a fall"]
    return tokens.learn(words * 20)


def test_the_best_and_the_worst_are_a_pair_if_the_best_is_right_and_worth_it(
    tokenizer: Tokenizer,
) -> None:
    good, poor = rollout(["a fall"], 0.9, True), rollout(["look closer", "a fall"], 0.3, True)
    between = rollout(["nothing here"], 0.5, False)
    pair = idpo.rolled(record(poor, good, between), tokenizer, 0).pair()
    assert pair is not None and pair.difference == pytest.approx(0.6)
    assert pair.chosen.turns.max() == 0 and pair.rejected.turns.max() == 1
    assert idpo.rolled(record(poor, {**good, "right": False}), tokenizer, 0).pair() is None
    close = {**poor, "utility": {"total": 0.8}}
    assert idpo.rolled(record(good, close), tokenizer, 0).pair() is None


def test_training_moves_the_policy_from_the_worse_to_the_better(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    shape = Shape(
        hidden=32,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=16,
        intermediate=32,
        vocab=tokenizer.get_vocab_size(),
        mrope_section=(3, 3, 2),
    )
    perception = Perception(2).eval()
    before = tmp_path / "before.pt"
    state = {"policy": Policy(shape, 2, 0.0).state_dict(), "shape": vars(shape), "step": 0}
    torch.save(state, before)
    features = Features()
    features.add(np.zeros((1, 112, 8, 12), np.float16))
    good, poor = rollout(["a fall"], 0.9, True), rollout(["nothing here"], 0.1, False)
    window = idpo.rolled(record(good, poor), tokenizer, 0)
    pair = window.pair()
    assert pair is not None
    ids = tuple(tokenizer.token_to_id(t) for t in ("yes", "no", "<|video_pad|>"))
    idpo.train([window], features, perception, before, tmp_path / "after.pt", 30, 0, ids)

    def prefers(path: Path) -> float:
        policy = Policy(shape, 2, 0.0)
        policy.load_state_dict(torch.load(path, weights_only=True)["policy"])
        policy.eval()
        batch = idpo.collate([pair.chosen, pair.rejected], features, ids[2])
        log_p, rows = idpo.token_log_p(policy, batch, policy(batch, perception)[0])
        return float(log_p[rows == 0].sum() - log_p[rows == 1].sum())

    assert prefers(tmp_path / "after.pt") > prefers(before) + 0.1
    old, new = (
        torch.load(path, weights_only=True)["policy"] for path in (before, tmp_path / "after.pt")
    )
    moved = {name.split(".")[2] for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"1"}, "the upper of two layers moves, and nothing else"
