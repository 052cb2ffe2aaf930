"""The tower of a bundle: the same by ONNX Runtime and as a module again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from lookback_train.nano import ROOT
from lookback_train.sight import Sight, rebuilt
from lookback_train.tower import normalise

NANO = ROOT / "models/nano"


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 2, 128, 192), np.uint8)


def test_a_tower_that_is_rebuilt_sees_what_the_exported_one_sees() -> None:
    tower = rebuilt(NANO / "vision.onnx")
    with torch.inference_mode():
        seen = torch.stack(tower(normalise(torch.from_numpy(frames(5)))), 1).numpy()
    expected = Sight(NANO).features(frames(5), batch=2)
    np.testing.assert_allclose(seen, expected.astype(np.float32), rtol=2e-3, atol=2e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")
def test_a_gpu_sees_what_the_processor_sees() -> None:
    features = [Sight(NANO, device).features(frames(5)) for device in ("cpu", "cuda")]
    # Convolutions on a GPU round to ten bits.
    np.testing.assert_allclose(*features, rtol=2e-2, atol=0.1)


def test_another_network_is_no_tower(tmp_path: Path) -> None:
    model = onnx.load(NANO / "vision.onnx")
    named = next(i for i in model.graph.initializer if i.name == "perception.sights.bias")
    named.name = "perception.other.bias"
    onnx.save(model, tmp_path / "vision.onnx")
    with pytest.raises(SystemExit, match="no tower of nano's kind"):
        rebuilt(tmp_path / "vision.onnx")
