"""The sentinel's network: what it is taught, its file, and its training, small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from lookback_train import gate, litert, sentinel, sentinel_network, vigils
from lookback_train.nano import ROOT
from lookback_train.oracle import KINDS, Vigil

RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def network_with_history() -> sentinel_network.Network:
    """A network whose normalisations are not the identity."""
    torch.manual_seed(3)
    network = sentinel_network.Network()
    for block in network.blocks:
        norm = block.normalisation
        torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        torch.nn.init.uniform_(norm.running_var, 0.3, 2.0)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    return network.eval()


def interpreted(path: Path, planes: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], planes[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def test_the_file_computes_what_torch_computes(tmp_path: Path) -> None:
    network = network_with_history()
    gate.write(network, tmp_path)
    stored = np.fromfile(tmp_path / gate.ANSWERS, "<f4").reshape(-1, 8, 12, 2 * KINDS)
    assert len(stored) == len(gate.BLOCKS)
    for number, answer in enumerate(stored):
        found = interpreted(tmp_path / gate.MODEL, gate.golden_input(number))
        np.testing.assert_allclose(found, answer, atol=1e-4)
        assert answer.std() > 0.01, "an answer that is the same everywhere proves little"


def test_the_model_in_the_repository_is_right_by_the_reference_interpreter() -> None:
    folder = ROOT / "edge-agent/sentinel/model"
    stored = np.fromfile(folder / gate.ANSWERS, "<f4").reshape(-1, 8, 12, 2 * KINDS)
    for number, answer in enumerate(stored):
        found = interpreted(folder / gate.MODEL, gate.golden_input(number))
        np.testing.assert_allclose(found, answer, atol=1e-3)


def test_a_network_that_is_read_back_goes_on_as_it_was(tmp_path: Path) -> None:
    network = network_with_history()
    gate.write(network, tmp_path)
    planes = torch.randn(6, 9, 64, 96, generator=torch.Generator().manual_seed(2))
    again = gate.unfolded(litert.read((tmp_path / gate.MODEL).read_bytes()), planes)
    with torch.inference_mode():
        torch.testing.assert_close(again(planes), network(planes), atol=1e-3, rtol=1e-3)
        # In training it normalises by what it sees, and that is what it was made from.
        torch.testing.assert_close(again.train()(planes), network(planes), atol=0.05, rtol=0.05)


def spot(place: tuple[float, float], level: float) -> vigils.Clips:
    """Clips of a grey picture with a bright spot at `place`, which is where kind 0 happens."""
    n, (x, y) = 64, place
    frames = torch.full((n, 8, 64, 96), level)
    frames[:, :, int(y * 64) - 3 : int(y * 64) + 3, int(x * 96) - 3 : int(x * 96) + 3] = 250.0
    places = torch.full((n, 20, 2), torch.nan)
    places[:, 0] = torch.tensor(place)
    nothing = torch.zeros(n, 20, dtype=torch.int8)
    background = sentinel_network.normalised(frames[:, 0])
    return vigils.Clips(frames, background, nothing, nothing[:, 0], places)


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.1, 0.9), (0.92, 0.12)])
def test_what_happens_stays_in_a_moved_picture_and_its_place_is_known(
    place: tuple[float, float],
) -> None:
    clips = vigils.moved(spot(place, 40.0), torch.Generator().manual_seed(1))
    assert clips.places[:, 1:].isnan().all()
    rows, columns = torch.arange(64) + 0.5, torch.arange(96) + 0.5
    bright = (clips.frames[:, 0] - 40.0).clamp(min=0.0)
    x = (bright.sum(1) * columns).sum(1) / bright.sum((1, 2)) / 96
    y = (bright.sum(2) * rows).sum(1) / bright.sum((1, 2)) / 64
    found = torch.stack([x, y], 1)
    assert ((found - clips.places[:, 0]).abs() < 0.04).all(), "the place is that of the spot"
    assert found.std(0).min() > 0.02, "the camera hangs elsewhere each time"
    sizes = (bright > 60.0).sum((1, 2))
    assert sizes.max() > 1.4 * sizes.min(), "nearer and further away"


def test_a_background_stays_at_the_level_of_its_frames() -> None:
    clips = vigils.moved(spot((0.3, 0.6), 20.0), torch.Generator().manual_seed(1))
    off = sentinel_network.normalised(clips.frames[:, 0]) - clips.backgrounds
    assert off.abs().max() < 1.0, "of 255: nothing has changed in these pictures"


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_padded_as_the_file_says(tmp_path: Path, stride: int) -> None:
    dice = np.random.default_rng(5)
    weight = dice.normal(size=(4, 3, 3, 2)).astype(np.float32)
    bias = dice.normal(size=4).astype(np.float32)
    path = tmp_path / "one.tflite"
    step = litert.Convolution(weight, bias, stride, relu6=True)
    path.write_bytes(litert.write([step], 6, 8, "a test"))
    planes = dice.normal(size=(6, 8, 2)).astype(np.float32)
    # SAME of TensorFlow: at stride 2 an even side gets its zero at the end.
    pad = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)
    inputs = torch.nn.functional.pad(torch.from_numpy(planes).permute(2, 0, 1)[None], pad)
    kernel = torch.from_numpy(weight).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(inputs, kernel, torch.from_numpy(bias), stride)
    expected = expected.clamp(0, 6)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(interpreted(path, planes), expected, atol=1e-5)


def vigil(harmful: bool) -> Vigil:
    story = {"kind": 4, "harmful": harmful, "transition_s": (5.0, 7.0), "state_s": (7.0, 12.0)}
    frames = np.full((40 + 128, 64, 96), 90, np.uint8)
    return Vigil(8, 40, [{**story, "place": (0.5, 0.5)}], frames)


def test_a_harmful_transition_is_taught_and_its_state_is_not_judged() -> None:
    targets, any_harm, told = vigils.labels(vigil(True))
    at = lambda seconds: int(seconds * 8)  # noqa: E731
    assert [any_harm[at(t)] for t in (2, 4, 6.5, 10, 13)] == [0, -1, 1, -1, 0]
    assert targets[at(6.5), 4] == 1 and targets[at(6.5), KINDS + 4] == 0
    assert told[at(6.5)] and not told[at(2)]


def test_a_harmless_twin_is_no_harm() -> None:
    targets, any_harm, _ = vigils.labels(vigil(False))
    assert targets[52, KINDS + 4] == 1 and not any_harm.any()


def test_a_step_of_the_exposure_leaves_no_difference() -> None:
    dark = torch.full((1, 9, 64, 96), 60.0)
    dark[:, 0] = 120.0
    level = sentinel_network.normalised(dark)
    planes = sentinel_network.planes(level, level[:, 1])
    assert planes[:, 1:].abs().max() < 0.4, "of 4"


def test_the_rate_of_learning_rises_and_falls_twice_and_is_a_plain_number() -> None:
    plan = sentinel.PLANS["full"]
    rates = [sentinel.learning_rate(step, plan) for step in range(1, plan.steps + plan.again + 1)]
    # What is saved must be readable without running code from the file.
    assert all(type(rate) is float for rate in rates)
    assert max(rates) == pytest.approx(sentinel.LEARNING_RATE, rel=1e-3)
    assert rates[plan.steps - 1] < 1e-5 and rates[-1] < 1e-5
    assert max(rates[plan.steps :]) == pytest.approx(sentinel.AGAIN_RATE, rel=1e-3)


def test_tiny_training_writes_a_file_and_is_found_done_when_called_again(tmp_path: Path) -> None:
    if not (RELEASE / "lookback-oracle").exists():
        pytest.skip("lookback-oracle is not built: run `cargo build --release -p oracle`")
    command = [sys.executable, "-m", "lookback_train.nano", "sentinel", "--tiny", "--threads", "1"]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "model")]
    first = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-3000:]
    written = (tmp_path / "model" / gate.MODEL).read_bytes()
    again = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "loss" in first.stdout and "loss" not in again.stdout
    assert (tmp_path / "model" / gate.MODEL).read_bytes() == written
