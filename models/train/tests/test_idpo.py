"""Preference training: the loss, its weights, the ranking, and that it learns what is preferred."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from lookback_train import idpo, oracle, tokens
from lookback_train.decoder import Decoder, Shape, walk_positions
from lookback_train.examples import Example, Features, encode_pairs
from lookback_train.export import export_tower
from lookback_train.nano import ROOT
from lookback_train.sft import Policy
from lookback_train.sight import Sight
from lookback_train.tower import GRID, Perception, Tower, Trunk

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


def test_its_own_inquiry_and_each_other_are_a_pair_if_the_better_is_right_and_worth_it(
    tokenizer: Tokenizer,
) -> None:
    good, poor = rollout(["a fall"], 0.9, True), rollout(["look closer", "a fall"], 0.3, True)
    between = rollout(["nothing here"], 0.5, False)
    both = idpo.rolled(record(between, good, poor, good), tokenizer, 0).pairs()
    assert [p.difference for p in both] == pytest.approx([0.4, 0.4]), "the wrong one beats none"
    (pair,) = idpo.rolled(record(poor, good, between), tokenizer, 0).pairs()
    assert pair.difference == pytest.approx(0.6)
    assert (pair.chosen.turns.max(), pair.rejected.turns.max()) == (0, 1)
    assert not idpo.rolled(record(poor, {**good, "right": False}), tokenizer, 0).pairs()
    close = {**poor, "utility": {"total": 0.87}}
    assert not idpo.rolled(record(good, close), tokenizer, 0).pairs()


def test_a_pair_parts_where_its_words_differ_first(tokenizer: Tokenizer) -> None:
    doubt, sure = "nothing here", "a fall"
    look = "look closer"
    late = record(rollout([look, doubt], 0.1, False), rollout([look, sure], 0.9, True))
    early = record(rollout([doubt, sure], 0.1, True), rollout([sure, sure], 0.9, True))
    for one, turn in ((late, 1), (early, 0)):
        (pair,) = idpo.rolled(one, tokenizer, 0).pairs()
        assert pair.parted == turn


@pytest.fixture
def bundle(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """As much of a bundle as preference training reads, with random weights."""
    torch.manual_seed(3)
    out = tmp_path / "bundle"
    out.mkdir()
    manifest = (ROOT / "models/train/nano.toml").read_text()
    for old, new in [
        ("hidden = 128", "hidden = 32"),
        ("layers = 4", "layers = 2"),
        ("heads = 4", "heads = 2"),
        ("kv_heads = 2", "kv_heads = 1"),
        ("head_dim = 32", "head_dim = 16"),
        ("[6, 5, 5]", "[3, 3, 2]"),
        ("vocab = 1", f"vocab = {tokenizer.get_vocab_size()}"),
    ]:
        manifest = manifest.replace(f"\n{old}\n", f"\n{new}\n").replace(f" {old}\n", f" {new}\n")
    (out / "bundle.toml").write_text(manifest + '[parts.decoder]\nfile = "decoder.safetensors"\n')
    decoder = Decoder(Shape.of_manifest(out / "bundle.toml"))
    save_file(decoder.checkpoint(), out / "decoder.safetensors")
    return out


def test_training_moves_the_policy_from_the_worse_to_the_better(
    tokenizer: Tokenizer, bundle: Path
) -> None:
    features = Features()
    features.add(np.zeros((1, 2, 6, 32), np.float16))
    good, poor = rollout(["a fall"], 0.9, True), rollout(["nothing here"], 0.1, False)
    window = idpo.rolled(record(good, poor), tokenizer, 0)
    (pair,) = window.pairs()
    ids = tuple(tokenizer.token_to_id(t) for t in ("yes", "no", "<|video_pad|>"))
    before, after = idpo.Watcher(bundle), idpo.Watcher(bundle)
    idpo.train(after, [window], features, 60, 0, ids)

    def prefers(policy: idpo.Watcher) -> float:
        batch = idpo.collate([pair.chosen, pair.rejected], features, ids[2])
        log_p, rows = idpo.token_log_p(policy, batch, policy(batch))
        return float(log_p[rows == 0].sum() - log_p[rows == 1].sum())

    assert prefers(after) > prefers(before) + 0.1
    old, new = before.state_dict(), after.state_dict()
    moved = {name.split(".")[2] for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"1"}, "the upper of two layers moves, and nothing else"


def test_no_window_comes_from_a_split_that_is_measured_on(tmp_path: Path) -> None:
    nothing = tmp_path / "none"
    for start in (oracle.VAL - 99, oracle.TEST, idpo.SEEDS - 1):
        with pytest.raises(SystemExit, match="windows lie between"):
            idpo.teach(nothing, nothing, nothing, (nothing, nothing), start, 100, 1, 0)


def test_a_bundle_is_watched_with_as_it_was_trained(tmp_path: Path) -> None:
    """The tower as exported and the decoder over it say what the policy in training says."""
    torch.manual_seed(4)
    shape = Shape(vocab=300)
    trunk, seen, policy = Trunk(), Perception(5), Policy(shape, 5, 0.0)
    for module in (trunk, seen, policy):
        module.eval()
    manifest = (ROOT / "models/train/nano.toml").read_text().replace("vocab = 1\n", "vocab = 300\n")
    parts = {"decoder": "decoder.safetensors", "vision": "vision.onnx"}
    manifest += "".join(f'[parts.{k}]\nfile = "{v}"\n' for k, v in parts.items())
    (tmp_path / "bundle.toml").write_text(manifest)
    save_file(policy.decoder.checkpoint(), tmp_path / "decoder.safetensors")
    export_tower(Tower(trunk, seen, policy.merger), tmp_path / "vision.onnx")
    frames = np.random.default_rng(5).integers(0, 256, (3, 2, 128, 192), np.uint8)
    ids = np.array([7, 8, *[9] * 6, 10, *[9] * 6, 10, *[9] * 6, 10, 11])
    whole = Example(
        ids,
        np.zeros(len(ids), np.float32),
        np.zeros(0, np.int64),
        np.array(walk_positions([i == 9 for i in ids], GRID)),
        np.arange(3),
        np.zeros((3, 10), np.uint8),
        True,
        0,
    )
    cells, sights = Features(), Features()
    cells.add(encode_pairs(trunk, frames))
    sights.add(Sight(tmp_path).features(frames))
    with torch.inference_mode():
        trained = policy(idpo.collate([whole], cells, 9), seen)[0]
        bundled = idpo.Watcher(tmp_path)(idpo.collate([whole], sights, 9))
    torch.testing.assert_close(bundled, trained, atol=0.02, rtol=0.02)
