"""The ROC-AUC against counting all pairs, and the tower as ONNX."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lookback_train import export
from lookback_train.perception import auc
from lookback_train.tower import TOKENS, Merger, Perception, Tower, Trunk, normalise


def by_counting(scores: np.ndarray, truth: np.ndarray) -> float:
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[truth > 0]
        for n in scores[truth == 0]
    ]
    return float(np.mean(wins))


@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_half(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    for _ in range(20):
        truth = rng.integers(0, 2, 40)
        truth[:2] = 0, 1
        scores = rng.integers(0, distinct, 40) / distinct + 0.2 * truth
        assert auc(scores, truth) == pytest.approx(by_counting(scores, truth))


def test_auc_of_perfect_reversed_and_constant_scores() -> None:
    truth = np.array([0, 0, 1, 1])
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), truth) == 1.0
    assert auc(np.array([0.9, 0.8, 0.2, 0.1]), truth) == 0.0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), truth) == 0.5


def test_luma_becomes_minus_one_to_one() -> None:
    frames = normalise(torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1))
    assert frames.shape == (1, 2, 1, 1, 1)
    assert frames.flatten().tolist() == [-1.0, 1.0]


def test_the_exported_tower_answers_as_the_trained_one_for_any_number_of_pairs(
    tmp_path: Path,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    tower = Tower(Trunk(), Perception(5), Merger(5, 32)).eval()
    export.export_tower(tower, tmp_path / "vision.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "vision.onnx")
    assert [i.name for i in session.get_inputs()] == ["frames"]
    for pairs in (1, 3):
        frames = torch.rand(pairs, 2, 1, 128, 192) * 2 - 1
        found = session.run(["tokens", "deepstack_0"], {"frames": frames.numpy()})
        with torch.inference_mode():
            expected = tower(frames)
        for ours, theirs in zip(expected, found, strict=True):
            assert theirs.shape == (pairs, TOKENS, 32)
            assert np.abs(ours.numpy() - theirs).max() < 1e-4


def test_the_order_of_the_two_frames_matters() -> None:
    torch.manual_seed(0)
    trunk, frames = Trunk().eval(), torch.rand(1, 2, 1, 128, 192) * 2 - 1
    with torch.inference_mode():
        assert not torch.allclose(trunk(frames), trunk(frames.flip(1)), atol=1e-3)
