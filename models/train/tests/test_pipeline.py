"""The whole pipeline, small: from the oracle to a bundle that the Rust side accepts."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lookback_train.nano import ROOT
from lookback_train.tokens import load

RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def needed(name: str) -> Path:
    path = RELEASE / name
    if not path.exists():
        pytest.skip(f"{path} is not built: run `cargo build --release --workspace`")
    return path


def test_tiny_training_ends_in_a_bundle_that_verifies(tmp_path: Path) -> None:
    needed("lookback-oracle")
    needed("lookback-bundle")
    verifier = needed("lookback-models")
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "lookback_train.nano", "nano", "--tiny", "--threads", "2"]
    command += ["--work", str(tmp_path / "work"), "--out", str(out)]
    run = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    asked = tmp_path / "work/pupil-1/bundle.toml"
    assert asked.exists(), "the policy in training goes its own way in some lessons"
    assert (tmp_path / "work/idpo-1/bundle.toml").exists(), "and is trained on its own rollouts"
    manifest = tomllib.loads((out / "bundle.toml").read_text())
    assert set(manifest["parts"]) >= {"decoder", "vision", "tokenizer", "chat_template", "golden"}
    tokenizer = load(out / "tokenizer.json")
    assert manifest["decoder"]["vocab"] == tokenizer.get_vocab_size()
    with safe_open(out / "decoder.safetensors", "np") as weights:
        assert "model.language_model.embed_tokens.weight" in weights.keys()
    verified = subprocess.run([verifier, "verify", str(out)], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr
    assert "nano@" in verified.stdout

    # Called again, it finds every stage done and only exports.
    again = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "sft 20/" not in again.stdout

    # Another training on its tower differs in the decoder alone, and is resumed as well.
    twin = tmp_path / "twin"
    command[3:5] = ["sft", "--tiny"]
    command[-1] = str(twin)
    command += ["--bundle", str(out), "--seed", "1", "--renderers", "2", "--batch-size", "16"]
    for reported in (True, False):
        run = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        assert ("sft 20/" in run.stdout) == reported
    parts = [tomllib.loads((folder / "bundle.toml").read_text())["parts"] for folder in (out, twin)]
    different = {name for name in parts[0] if parts[0][name] != parts[1][name]}
    assert different == {"decoder", "golden"}
    verified = subprocess.run([verifier, "verify", str(twin)], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr

    # Where time is what there is, it stops when that is over and exports what it has.
    timed = [*command, "--minutes", "0.02", "--sft-steps", "100000"]
    run = subprocess.run(timed, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "sft 100000/" not in run.stdout and " 0 s left" in run.stdout

    # What is kept of the one that it began with is in what is written: here all of it.
    command += ["--init", str(out), "--keep", "1"]
    run = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    kept = tomllib.loads((twin / "bundle.toml").read_text())["parts"]
    assert kept == parts[0]
    refused = [*command[:-2], "--keep", "1.5"]
    run = subprocess.run(refused, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert run.returncode != 0 and "--keep 1.5: a share" in run.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lookback_train.nano", "sft", "--device", "cuda"]
    command += ["--work", str(tmp_path), "--out", str(tmp_path / "out")]
    run = subprocess.run(command, cwd=ROOT / "models/train", capture_output=True, text=True)
    assert run.returncode != 0 and "--device cuda: PyTorch finds no GPU here" in run.stderr
