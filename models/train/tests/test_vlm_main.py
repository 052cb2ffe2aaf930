"""The command: what it asks of the oracle, what it reads from files, and what it refuses."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from test_oracle import program
from test_vlm_examples import EPISODE, a_vocabulary, some_frames
from test_vlm_policy import OTHER, SHORT, rollout, write_checkpoint

from lookback_train import oracle
from lookback_train.nano import ROOT
from lookback_train.vlm import Refusal, records
from lookback_train.vlm.main import MANIFEST, main, read_manifest

FEW = ["--batch", "1", "--report", "1"]
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
Refused = Callable[..., str]


def stream(*headers: dict) -> bytes:
    """What the oracle writes for these headers; the frames of record n are those of seed n."""
    written = b""
    for number, header in enumerate(headers):
        text = json.dumps(header).encode()
        frames = some_frames(len(header["pairs"]), number, oracle.HEIGHT, oracle.WIDTH)
        written += struct.pack("<I", len(text)) + text + frames.tobytes()
    return written


def lesson(seed: int, episode: dict = EPISODE) -> dict:
    return {**episode, "seed": seed}


def window(seed: int) -> dict:
    rollouts = [rollout(OTHER["segments"], 0.1, False), rollout(SHORT["segments"], 0.9, True)]
    return {"seed": seed, "anomalous": True, "pairs": EPISODE["pairs"], "rollouts": rollouts}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), a_vocabulary())


@pytest.fixture(scope="module")
def manifest(checkpoint: Path) -> Path:
    """The manifest of the 2B, with the decoder of the tiny checkpoint."""
    vocabulary = a_vocabulary().tokenizer.get_vocab_size()
    text = MANIFEST.read_text()
    for key, value in {
        "hidden": 32,
        "layers": 3,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 16,
        "intermediate": 48,
        "vocab": vocabulary,
        "rope_theta": 1e4,
        "mrope_section": [3, 3, 2],
        "deepstack": 2,
    }.items():
        before = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
        text = text.replace(f"\n{before}\n", f"\n{key} = {value}\n")
    path = checkpoint.parent / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Refused:
    """Runs a command that must end with one sentence, and gives the sentence."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        sentence = ended.value.code
        assert isinstance(sentence, str), "text as the code goes to stderr, and the code is 1"
        assert sentence.startswith("lookback-train-vlm: ") and sentence.endswith(".")
        assert "\n" not in sentence
        return sentence

    return run


def test_a_saved_stream_is_read_as_it_would_have_been_streamed(tmp_path: Path) -> None:
    saved = tmp_path / "saved.rec"
    saved.write_bytes(stream(lesson(3), lesson(oracle.VAL + 1, SHORT), lesson(4, OTHER)))
    binary = program(tmp_path, f"out.write(open({str(saved)!r}, 'rb').read())\n")
    streamed = list(oracle.stream_traces(binary, 0, 3, saved, saved))
    train, val = records.opened(saved)
    read = [*train.traces(), *val.traces()]
    assert [t.episode["seed"] for t in read] == [3, 4, oracle.VAL + 1]
    for mine, other in zip(read, [streamed[0], streamed[2], streamed[1]], strict=True):
        assert mine.episode == other.episode
        assert np.array_equal(mine.frames, other.frames)
    assert [t.episode["seed"] for t in train.traces(1)] == [4]


@pytest.mark.parametrize("cut", [2, 40, -1])
def test_a_saved_stream_that_is_cut_is_refused(tmp_path: Path, cut: int) -> None:
    whole = stream(lesson(3))
    (tmp_path / "cut.rec").write_bytes(whole + whole[:cut])
    with pytest.raises(Refusal, match="cut in the middle"):
        records.opened(tmp_path / "cut.rec")


def test_records_of_other_kinds_and_of_test_seeds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.rec"
    for written, why in (
        (b"these are no records at all", "no stream|cut"),
        (stream(lesson(oracle.TEST)), "for measuring only"),
        (stream(lesson(oracle.VAL)), "no record to train on"),
    ):
        path.write_bytes(written)
        with pytest.raises(Refusal, match=why):
            records.opened(path)


def test_rollouts_that_were_kept_before_a_kill_are_not_asked_for_again(tmp_path: Path) -> None:
    kept, whole = tmp_path / "kept.rec", stream(*(lesson(n) for n in range(4)))
    two = len(stream(lesson(0), lesson(1)))
    kept.with_suffix(".part").write_bytes(whole[: two + 100])
    asked = []

    def rest(done: int):  # noqa: ANN202
        asked.append(done)
        saved = tmp_path / "all.rec"
        saved.write_bytes(whole)
        yield from records.opened(saved)[0].traces(done)

    records.kept(kept, 4, rest)
    assert asked == [2] and not kept.with_suffix(".part").exists()
    again = list(records.opened(kept)[0].traces())
    assert [t.episode["seed"] for t in again] == [0, 1, 2, 3]
    assert np.array_equal(again[3].frames, some_frames(3, 3, oracle.HEIGHT, oracle.WIDTH))
    records.kept(kept, 4, rest)
    assert asked == [2]


def test_sft_asks_the_oracle_for_lessons_and_idpo_for_rollouts(
    checkpoint: Path, manifest: Path, tmp_path: Path, refused: Refused
) -> None:
    asked = tmp_path / "asked"
    for name, headers in (("traces", [lesson(1), lesson(2, SHORT)]), ("rollouts", [window(9)])):
        (tmp_path / name).write_bytes(stream(*headers))
    binary = program(
        tmp_path,
        f"print(*sys.argv[1:], file=open({str(asked)!r}, 'a'))\n"
        f"out.write(open({str(tmp_path)!r} + '/' + sys.argv[1], 'rb').read())\n",
    )
    common = ["--model", checkpoint, "--oracle", binary, *FEW]
    of_lessons = ["--manifest", manifest, "--episodes", "2", "--val-episodes", "1"]
    one = [*common, *of_lessons, "--from", "70", "--slips", "0.2", "--rank", "2"]
    main(["sft", *map(str, one), "--out", str(tmp_path / "one")])
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.toml").write_text(manifest.read_text())
    two = [*common, "--adapter", tmp_path / "one", "--rollouts-from", bundle]
    two += ["--windows", "1", "--each", "2", "--out", tmp_path / "two"]
    main(["idpo", *map(str, two)])
    validation, lessons, rollouts = (line.split() for line in asked.read_text().splitlines())
    assert lessons[:5] == ["traces", "--from", "70", "--count", "2"]
    assert lessons[-2:] == ["--slips", "0.2"] and str(manifest) in lessons
    assert validation[:5] == ["traces", "--from", str(oracle.VAL), "--count", "1"]
    assert rollouts[:5] == ["rollouts", "--from", "4000000", "--count", "1"]
    assert rollouts[5:9] == ["--policy", str(bundle), "--each", "2"]
    assert (tmp_path / "two/adapter_model.safetensors").exists()
    beyond = refused("sft", *common, *of_lessons, "--from", "3999999", "--out", tmp_path / "x")
    assert "lessons end at seed 4000000" in beyond
    failing = ["--oracle", program(tmp_path, "sys.exit(3)\n"), "--out", tmp_path / "x"]
    assert "code 3" in refused("sft", "--model", checkpoint, *failing, *of_lessons)


def test_all_of_it_works_on_saved_records_without_the_oracle(
    checkpoint: Path, manifest: Path, tmp_path: Path, refused: Refused
) -> None:
    lessons, rollouts = tmp_path / "lessons.rec", tmp_path / "rollouts.rec"
    lessons.write_bytes(stream(lesson(1), lesson(2, SHORT), lesson(oracle.VAL, OTHER)))
    rollouts.write_bytes(stream(window(4_000_000)))
    model = ["--model", str(checkpoint), "--manifest", str(manifest)]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    main(["sft", *model, *FEW, "--rank", "2", "--records", str(lessons), "--out", one])
    better = ["idpo", *model, *FEW, "--adapter", one]
    main([*better, "--records", str(rollouts), "--out", two])
    merged, bundle = str(tmp_path / "merged"), tmp_path / "bundle"
    main(["merge", "--model", str(checkpoint), "--adapter", two, "--out", merged])
    main(["bundle", "--model", merged, "--manifest", str(manifest), "--out", str(bundle)])
    found = {f.name for f in bundle.iterdir()}
    parts = {"decoder.safetensors", "vision.onnx", "tokenizer.json", "chat_template.jinja"}
    assert found == {"bundle.toml", *parts}
    assert 'file = "vision.onnx"' in (bundle / "bundle.toml").read_text()
    assert "nothing to prefer" in refused(*better, "--records", lessons, "--out", tmp_path / "x")
    wrong = refused("bundle", "--model", merged, "--manifest", MANIFEST, "--out", tmp_path / "x")
    assert "decoder.hidden = 2048" in wrong and "it is 32" in wrong


def test_the_engine_runs_what_was_trained_and_its_inquiries_are_trained_on(
    checkpoint: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("lookback-oracle", "lookback-bundle"):
        if not (RELEASE / name).exists():
            pytest.skip(f"{name} is not built: run `cargo build --release --workspace`")
    model = ["--model", str(checkpoint), "--oracle", str(RELEASE / "lookback-oracle"), *FEW]
    of_lessons = ["--manifest", str(manifest), "--episodes", "2", "--val-episodes", "1"]
    main(["sft", *model, *of_lessons, "--out", str(tmp_path / "one")])
    merged, bundle = str(tmp_path / "merged"), str(tmp_path / "bundle")
    adapter = ["--adapter", str(tmp_path / "one")]
    main(["merge", "--model", str(checkpoint), *adapter, "--out", merged])
    main(["bundle", "--model", merged, "--manifest", str(manifest), "--out", bundle])
    subprocess.run([RELEASE / "lookback-bundle", "seal", bundle], check=True)
    rolled = ["--rollouts-from", bundle, "--windows", "2", "--each", "2"]
    try:
        main(["idpo", *model, *adapter, *rolled, "--out", str(tmp_path / "two")])
    except SystemExit as e:
        # A policy that knows nothing is seldom right; but it did inquire.
        assert "nothing to learn" in str(e.code)
    assert "2/2 windows" in capsys.readouterr().out
    kept = records.opened(tmp_path / "two/rollouts-4000000-2x2.rec")[0]
    assert [len(t.episode["rollouts"]) for t in kept.traces()] == [2, 2]


def unquantised(folder: Path) -> dict[str, np.ndarray]:
    """The decoder of a bundle that was packed plain, in 32 bits."""
    weights = load_file(folder / "decoder.safetensors")
    return {name: weight.float().numpy() for name, weight in weights.items()}


def test_a_checkpoint_is_packed_with_its_adapter_and_its_tower(
    manifest: Path, tmp_path: Path, refused: Refused
) -> None:
    packer = RELEASE / "lookback-models"
    if not packer.exists():
        pytest.skip(f"{packer} is not built: run `cargo build --release -p pack`")
    # Of widths that can be packed.
    checkpoint, other = tmp_path / "checkpoint", tmp_path / "other"
    for seed, folder in enumerate([checkpoint, other]):
        made = [packer, "make-random", "--shape", "tiny", "--seed", str(seed), "--out", folder]
        subprocess.run(made, check=True, capture_output=True)
    saved = tmp_path / "lessons.rec"
    saved.write_bytes(stream(lesson(1), lesson(oracle.VAL, OTHER)))
    model = ["--model", str(checkpoint)]
    lessons = ["--manifest", str(manifest), *FEW, "--records", str(saved), "--merger"]
    # At a high rate, for a change that can be seen.
    fast = ["--steps", "4", "--learning-rate", "3e-2"]
    main(["sft", *model, *lessons, *fast, "--out", str(tmp_path / "one")])
    main(["merge", *model, "--adapter", str(tmp_path / "one"), "--out", str(tmp_path / "merged")])

    def pack(folder: Path, name: str, *more: str) -> subprocess.CompletedProcess:
        command = [packer, "pack", folder, "--out", tmp_path / name, "--size", "192x128"]
        return subprocess.run([*map(str, command), *more], capture_output=True, text=True)

    plain = ["--format", "plain", "--template", str(ROOT / "models/nano/chat_template.jinja")]
    adapter = ["--adapter", str(tmp_path / "one")]
    for name, folder, more in [
        ("before", checkpoint, []),
        ("by-peft", tmp_path / "merged", []),
        ("by-us", checkpoint, adapter),
    ]:
        ran = pack(folder, name, *plain, *more)
        assert ran.returncode == 0, ran.stderr
    before, by_peft, by_us = (unquantised(tmp_path / n) for n in ("before", "by-peft", "by-us"))
    assert before.keys() == by_peft.keys() == by_us.keys()
    for name, weight in by_peft.items():
        # PEFT adds in the 16 bits of the checkpoint.
        np.testing.assert_allclose(by_us[name], weight, rtol=2**-7, atol=2e-4, err_msg=name)
    assert any(np.abs(weight - before[name]).max() > 1e-2 for name, weight in by_peft.items())

    onnx = str(tmp_path / "tower.onnx")
    tower = ["tower", "--model", str(tmp_path / "merged"), "--out", onnx]
    main([*tower, "--size", "192x128"])
    ran = pack(checkpoint, "whole", *plain, *adapter, "--onnx", onnx)
    assert ran.returncode == 0 and "vision_onnx" in ran.stdout, ran.stderr
    verified = subprocess.run([packer, "verify", tmp_path / "whole"], capture_output=True)
    assert verified.returncode == 0
    assert "multiples of 32" in refused(*tower, "--size", "200x128")
    # Of another checkpoint it is refused.
    main(["tower", "--model", str(other), "--out", onnx, "--size", "192x128"])
    ran = pack(checkpoint, "wrong", *plain, *adapter, "--onnx", onnx)
    assert ran.returncode == 1 and "sees something else" in ran.stderr
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("width = 192", "width = 200", "no multiple of 32"),
        ("height = 128", "height = 160", "frames of 192x128"),
        ("tokens_per_pair = 24", "tokens_per_pair = 6", "24 tokens"),
        ("channels = 3", "channels = 1", "3 channels"),
        ('probe = ""', 'probe = "?"', "must be empty"),
        ("[prompts]", "[words]", "'prompts' is not in it"),
        ("[geometry]", "[geometry", "no TOML"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, before: str, after: str, why: str
) -> None:
    path = tmp_path / "some.toml"
    path.write_text(MANIFEST.read_text().replace(before, after))
    with pytest.raises(Refusal, match=why):
        read_manifest(path)


def test_what_is_missing_is_named_in_one_sentence(
    checkpoint: Path, tmp_path: Path, refused: Refused
) -> None:
    out = ["--out", tmp_path / "out"]
    nothing, empty = tmp_path / "nothing", tmp_path / "empty"
    empty.mkdir()
    assert "nothing is not there" in refused("sft", "--model", nothing, *out)
    assert "no tokenizer.json" in refused("sft", "--model", empty, *out)
    model = ["--model", checkpoint]
    assert "nothing is not there" in refused("sft", *model, "--records", nothing, *out)
    assert "nothing is not there" in refused("sft", *model, "--manifest", nothing, *out)
    assert "nothing is not there" in refused("sft", *model, "--oracle", nothing, *out)
    rolled = ["--adapter", empty, "--rollouts-from", empty]
    assert "bundle.toml" in refused("idpo", *model, *rolled, *out)
    assert "no adapter" in refused("merge", *model, "--adapter", empty, *out)
    assert "no checkpoint" in refused("merge", "--model", empty, "--adapter", empty, *out)
    assert not (tmp_path / "out").exists()


def test_help_needs_neither_transformers_nor_peft_and_the_rest_asks_for_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; sys.modules.update(transformers=None, peft=None)\n"
        "from lookback_train.vlm.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        f"main(['sft', '--model', {str(checkpoint)!r}, '--out', {str(tmp_path)!r}])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert all(command in ran.stdout for command in ("sft", "idpo", "merge", "bundle"))
    assert ran.returncode == 1
    assert ran.stderr.strip().endswith("run `uv sync --group vlm`.")
