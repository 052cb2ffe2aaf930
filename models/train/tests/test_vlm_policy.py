"""A tiny Qwen3-VL with random weights: batches do not leak, it learns, resumes and is merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_vlm_examples import CELLS, EPISODE, SEGMENTS, a_vocabulary, some_frames

REASON = "transformers and peft are not installed: `uv sync --group vlm`"
pytest.importorskip("transformers", reason=REASON)
pytest.importorskip("peft", reason=REASON)

from peft import PeftModel  # noqa: E402
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration  # noqa: E402

from lookback_train.decoder import walk_positions  # noqa: E402
from lookback_train.idpo import Pair  # noqa: E402
from lookback_train.oracle import Trace  # noqa: E402
from lookback_train.vlm import Refusal, export, idpo, policy, sft  # noqa: E402
from lookback_train.vlm.collator import IGNORED, Batch, collate, collate_pairs  # noqa: E402
from lookback_train.vlm.examples import Example, Vocabulary, example  # noqa: E402
from lookback_train.vlm.loop import Plan  # noqa: E402

SHORT = {**EPISODE, "segments": [*SEGMENTS[:5], SEGMENTS[9]], "anomalous": False}
OTHER = {**EPISODE, "segments": [*SEGMENTS[:5], SEGMENTS[13]]}
PLAN = Plan(steps=6, batch=2, at_once=1, peak=3e-3, seed=5, about="a test")
RANK = 4


def write_checkpoint(folder: Path, vocabulary: Vocabulary) -> Path:
    """A checkpoint of the class of Qwen3-VL, a few hundred kB, with its tokenizer."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": vocabulary.tokenizer.get_vocab_size(),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [3, 3, 2],
                "mrope_interleaved": True,
            },
            "pad_token_id": 0,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        video_token_id=vocabulary.pad,
        image_token_id=vocabulary.tokenizer.token_to_id("<|image_pad|>"),
        vision_start_token_id=vocabulary.start,
        vision_end_token_id=vocabulary.end,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        # The default weights are so small that nothing depends on what is seen.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return a_vocabulary()


@pytest.fixture(scope="module")
def checkpoint(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), vocabulary)


@pytest.fixture(scope="module")
def two(vocabulary: Vocabulary) -> list[Example]:
    """Two inquiries of different length."""
    return [
        example(EPISODE, some_frames(3, 3), vocabulary),
        example(SHORT, some_frames(3, 4), vocabulary),
    ]


def fresh(checkpoint: Path, merger: bool = False) -> PeftModel:
    torch.manual_seed(1)
    return policy.adapt(policy.open_checkpoint(checkpoint), RANK, merger)


def stirred(model: PeftModel) -> PeftModel:
    """With an adapter that does something."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def learning(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def logits(model: PeftModel, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model.get_base_model()(**batch.inputs).logits


def test_labels_are_what_was_written_and_nothing_else(
    vocabulary: Vocabulary, two: list[Example]
) -> None:
    batch = collate(two, vocabulary)
    for row, e in enumerate(two):
        assert batch.labels[row][batch.labels[row] != IGNORED].tolist() == e.ids[e.wrote].tolist()
    longest = max(len(e.ids) for e in two)
    assert batch.inputs["attention_mask"].sum(1).tolist() == [len(e.ids) for e in two]
    assert batch.inputs["input_ids"].shape == (2, longest)
    assert batch.probe_truth.tolist() == [1.0] * len(two[0].probes) + [0.0] * len(two[1].probes)


def test_positions_are_those_of_the_engine(
    checkpoint: Path, vocabulary: Vocabulary, two: list[Example]
) -> None:
    inputs = collate(two, vocabulary).inputs
    theirs, _ = policy.open_checkpoint(checkpoint).model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    for row, e in enumerate(two):
        ours = walk_positions([i == vocabulary.pad for i in e.ids], (2, CELLS // 2))
        assert theirs[:, row, : len(e.ids)].T.tolist() == [list(p) for p in ours]


def test_a_batch_says_what_each_example_says_alone(
    checkpoint: Path, vocabulary: Vocabulary, two: list[Example]
) -> None:
    model = stirred(fresh(checkpoint)).eval()
    with torch.no_grad():
        both = policy.read(model, collate(two, vocabulary), vocabulary)
        alone = [policy.read(model, collate([e], vocabulary), vocabulary) for e in two]
    assert torch.allclose(both.log_p, torch.cat([r.log_p for r in alone]), atol=1e-5)
    assert torch.allclose(both.margins, torch.cat([r.margins for r in alone]), atol=1e-5)
    whole = logits(model, collate(two[1:], vocabulary))[0].log_softmax(-1)
    places = np.flatnonzero(two[1].wrote)
    by_hand = whole[places - 1, two[1].ids[places]]
    assert torch.allclose(alone[1].log_p, by_hand, atol=1e-5), "each token is said one place before"
    at = whole[two[1].probes]
    assert torch.allclose(alone[1].margins, at[:, vocabulary.yes] - at[:, vocabulary.no], atol=1e-5)


def test_each_side_of_a_pair_sees_its_own_frames(
    checkpoint: Path, vocabulary: Vocabulary, two: list[Example]
) -> None:
    model = fresh(checkpoint).eval()
    pairs = [Pair(two[0], two[1], 0.5), Pair(two[1], two[0], 0.5)]
    before = logits(model, collate_pairs(pairs, vocabulary))
    swapped = replace(two[1], frames=two[1].frames[::-1].copy())
    pairs[0] = Pair(two[0], swapped, 0.5)
    after = logits(model, collate_pairs(pairs, vocabulary))
    change = (after - before).abs().amax((1, 2)).tolist()
    # Rows are chosen 0, chosen 1, rejected 0, rejected 1.
    assert change[2] > 1e-2
    assert change[0] == change[1] == change[3] == 0.0


def test_gradients_are_the_same_whatever_fits_at_once(
    checkpoint: Path, vocabulary: Vocabulary, two: list[Example]
) -> None:
    found = []
    for at_once, frugal in ((2, False), (1, True)):
        model = stirred(fresh(checkpoint, merger=True)).train()
        torch.manual_seed(2)
        stirred(model)
        if frugal:
            policy.save_memory(model)
        told = sft.gradients(model, vocabulary, two, replace(PLAN, at_once=at_once))
        grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found.append((told, grads))
    (told, grads), (again, others) = found
    assert told == pytest.approx(again, rel=1e-4)
    assert all(torch.allclose(grads[n], others[n], atol=1e-5, rtol=1e-3) for n in grads)
    assert any("visual.merger" in n and g.abs().sum() > 0 for n, g in grads.items())
    assert any("mlp.down_proj" in n and g.abs().sum() > 0 for n, g in grads.items())


def test_sixteen_bits_give_about_the_same_gradients_to_an_adapter_of_thirty_two(
    checkpoint: Path, vocabulary: Vocabulary, two: list[Example]
) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(1)
        model = policy.adapt(policy.open_checkpoint(checkpoint, dtype), RANK, merger=True)
        stirred(model).train()
        assert model.get_base_model().lm_head.weight.dtype == dtype
        assert {w.dtype for w in learning(model).values()} == {torch.float32}
        sft.gradients(model, vocabulary, two, PLAN)
        grads = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
        found.append(torch.cat(grads))
    assert float(torch.cosine_similarity(*found, dim=0)) > 0.99


def test_only_the_decoders_projections_learn_unless_the_merger_is_asked_for(
    checkpoint: Path,
) -> None:
    names = list(learning(fresh(checkpoint)))
    assert len(names) == 3 * 7 * 2 and all("language_model.layers" in n for n in names)
    more = set(learning(fresh(checkpoint, merger=True))) - set(names)
    assert len(more) == 3 * 2 * 2 and all("visual" in n and "merger" in n for n in more)


class Lessons:
    """A source that counts where it is asked to begin."""

    def __init__(self, episodes: list[dict]) -> None:
        self.episodes = episodes
        self.begun: list[int] = []

    def __len__(self) -> int:
        return len(self.episodes)

    def traces(self, first: int = 0) -> Iterator[Trace]:
        self.begun.append(first)
        for number in range(first, len(self.episodes)):
            yield Trace(self.episodes[number], some_frames(3, number))


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, int], None]:
    """Lets `gradients` of a module fail at its n-th call, as a kill in the middle of a step."""

    def at(module: object, call: int) -> None:
        real, calls = module.gradients, [0]

        def gradients(*arguments: object) -> dict[str, float]:
            calls[0] += 1
            told = real(*arguments)
            if calls[0] == call:
                raise KeyboardInterrupt
            return told

        monkeypatch.setattr(module, "gradients", gradients)

    return at


def test_sft_learns_two_episodes_and_tells_how_far_it_is(
    checkpoint: Path, vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, lessons = fresh(checkpoint), Lessons([EPISODE, SHORT])
    val = [example(t.episode, t.frames, vocabulary) for t in lessons.traces()]
    before = sft.measure(model.eval(), vocabulary, val, 2)
    sft.train(model, vocabulary, lessons, val, replace(PLAN, steps=25), tmp_path, 10)
    after = sft.measure(model.eval(), vocabulary, val, 2)
    assert after["words"] < before["words"] - 0.5
    assert after["probe"] < before["probe"] * 0.8
    assert after["auc_final"] == 1.0
    layers = model.get_base_model().model.language_model.layers
    assert all(layer.gradient_checkpointing for layer in layers), "or a GPU's memory is too small"
    printed = capsys.readouterr().out
    assert "sft 10/25 words" in printed and "| val words" in printed and "s left" in printed
    assert (tmp_path / "adapter_model.safetensors").exists()


def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    checkpoint: Path,
    vocabulary: Vocabulary,
    tmp_path: Path,
    killed: Callable[[object, int], None],
) -> None:
    episodes = [EPISODE, SHORT, OTHER]
    whole = fresh(checkpoint)
    sft.train(whole, vocabulary, Lessons(episodes), [], PLAN, tmp_path / "whole", 2)
    killed(sft, 4)
    with pytest.raises(KeyboardInterrupt):
        sft.train(fresh(checkpoint), vocabulary, Lessons(episodes), [], PLAN, tmp_path / "cut", 2)
    (tmp_path / "cut/checkpoint.pt.part").write_bytes(b"torn")
    torch.manual_seed(99)
    resumed = policy.adapt(policy.open_checkpoint(checkpoint), RANK, False)
    rest = Lessons(episodes)
    sft.train(resumed, vocabulary, rest, [], PLAN, tmp_path / "cut", 2)
    assert rest.begun[0] == 2 * PLAN.batch % len(episodes), "it goes on with the next episode"
    assert all(torch.equal(w, learning(resumed)[n]) for n, w in learning(whole).items())
    with pytest.raises(Refusal, match="another `steps`"):
        other = replace(PLAN, steps=7)
        sft.train(fresh(checkpoint), vocabulary, Lessons(episodes), [], other, tmp_path / "cut", 2)


def rollout(segments: list[dict], utility: float, right: bool) -> dict:
    return {"segments": segments, "utility": {"total": utility}, "right": right}


def windows(vocabulary: Vocabulary) -> list[Pair]:
    """Two windows, of each the inquiry in `SHORT` is worth more than that in `OTHER`."""
    rollouts = [rollout(OTHER["segments"], 0.1, False), rollout(SHORT["segments"], 0.9, True)]
    header = {"anomalous": True, "pairs": EPISODE["pairs"], "rollouts": rollouts}
    return idpo.pairs_of([Trace(header, some_frames(3, seed)) for seed in (6, 7)], vocabulary)


def likelihoods(model: PeftModel, pairs: list[Pair], vocabulary: Vocabulary) -> torch.Tensor:
    """Log probabilities of the transcripts: of the chosen ones, then of the rejected."""
    sides = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    with torch.no_grad():
        alone = [policy.read(model, collate([e], vocabulary), vocabulary).log_p for e in sides]
    return torch.stack([log_p.sum() for log_p in alone])


def test_rollouts_become_pairs_without_the_teachers_rules(vocabulary: Vocabulary) -> None:
    telling = rollout([*SHORT["segments"], SEGMENTS[12], SEGMENTS[13]], 0.9, True)
    header = {"anomalous": True, "pairs": EPISODE["pairs"], "rollouts": [telling, telling]}
    sides = idpo.rolled(Trace(header, some_frames(3, 6)), vocabulary).examples
    assert len(sides[0].probes) == 2, "its own telling may be wrong, so it is asked again"
    with pytest.raises(Refusal, match="nothing to learn"):
        idpo.pairs_of([Trace(header, some_frames(3, 6))], vocabulary)


def test_each_part_of_the_loss_pulls_at_the_adapter(
    checkpoint: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stirred(fresh(checkpoint)).save_pretrained(tmp_path / "sft")
    model = policy.with_adapter(policy.open_checkpoint(checkpoint), tmp_path / "sft", learns=True)
    pairs = windows(vocabulary)

    def pull(anchor: float, probe: float) -> torch.Tensor:
        monkeypatch.setattr(idpo, "ANCHOR", anchor)
        monkeypatch.setattr(idpo, "PROBE", probe)
        model.zero_grad()
        idpo.gradients(model, vocabulary, pairs, PLAN)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    preference, anchored, probed = pull(0.0, 0.0), pull(1.0, 0.0), pull(0.0, 1.0)
    assert preference.norm() > 1e-3
    assert (anchored - preference).norm() > 1e-3 and (probed - preference).norm() > 1e-3


def test_idpo_raises_the_margin_against_the_frozen_adapter_that_it_began_with(
    checkpoint: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The likelihood of the better inquiry alone would raise it too.
    monkeypatch.setattr(idpo, "ANCHOR", 0.0)
    stirred(fresh(checkpoint)).save_pretrained(tmp_path / "sft")
    pairs = windows(vocabulary)
    model = policy.with_adapter(policy.open_checkpoint(checkpoint), tmp_path / "sft", learns=True)
    began, before = learning(model), likelihoods(model, pairs, vocabulary)
    first = idpo.gradients(model, vocabulary, pairs, PLAN)
    assert first["margin"] == pytest.approx(0.0, abs=1e-5), "it is its own reference"
    assert first["preference"] == pytest.approx(np.log(2), abs=1e-5)
    idpo.train(model, vocabulary, pairs, replace(PLAN, steps=12), tmp_path / "idpo", 6)
    last = idpo.gradients(model, vocabulary, pairs, PLAN)
    assert last["margin"] > 1.0 and last["preferred"] == 1.0
    gained = likelihoods(model, pairs, vocabulary) - before
    assert (gained[: len(pairs)] > gained[len(pairs) :] + 1.0).all(), "chosen against rejected"
    assert last["preference"] < first["preference"]
    reference = {n.replace(".reference.", ".default."): p for n, p in model.named_parameters()}
    assert all(torch.equal(reference[n], w) for n, w in began.items()), "it stays as it was"
    saved = policy.with_adapter(policy.open_checkpoint(checkpoint), tmp_path / "idpo")
    after = {n: p for n, p in saved.named_parameters() if n in began}
    assert all(torch.equal(after[n], w) for n, w in learning(model).items())


def test_idpo_that_was_killed_goes_on_with_the_same_pairs(
    checkpoint: Path,
    vocabulary: Vocabulary,
    tmp_path: Path,
    killed: Callable[[object, int], None],
) -> None:
    stirred(fresh(checkpoint)).save_pretrained(tmp_path / "sft")
    pairs = windows(vocabulary)
    plan = replace(PLAN, batch=1, steps=4)

    def begun() -> PeftModel:
        base = policy.open_checkpoint(checkpoint)
        return policy.with_adapter(base, tmp_path / "sft", learns=True)

    whole, resumed = begun(), begun()
    idpo.train(whole, vocabulary, pairs, plan, tmp_path / "whole", 2)
    killed(idpo, 4)
    with pytest.raises(KeyboardInterrupt):
        idpo.train(begun(), vocabulary, pairs, plan, tmp_path / "cut", 2)
    idpo.train(resumed, vocabulary, pairs, plan, tmp_path / "cut", 2)
    assert all(torch.equal(w, learning(resumed)[n]) for n, w in learning(whole).items())


def test_the_order_of_chance_takes_every_pair_once() -> None:
    order = [idpo._drawn(i, 7, 3) for i in range(14)]
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7))
    assert order[:7] != order[7:]


def test_the_merged_checkpoint_says_what_model_and_adapter_say(
    checkpoint: Path, vocabulary: Vocabulary, two: list[Example], tmp_path: Path
) -> None:
    model = stirred(fresh(checkpoint, merger=True)).eval()
    model.save_pretrained(tmp_path / "adapter")
    batch = collate(two, vocabulary)
    wanted = logits(model, batch)
    (checkpoint / "merges.txt").write_text("beside the weights")
    export.merge(checkpoint, tmp_path / "adapter", tmp_path / "merged")
    merged = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        assert torch.allclose(merged(**batch.inputs).logits, wanted, atol=1e-4)
    bare = policy.open_checkpoint(checkpoint).eval()
    assert not torch.allclose(bare(**batch.inputs).logits, wanted, atol=1e-2)
    assert {"tokenizer.json", "merges.txt"} <= {f.name for f in (tmp_path / "merged").iterdir()}
    with pytest.raises(Refusal, match="checkpoint itself"):
        export.merge(checkpoint, tmp_path / "adapter", checkpoint)


def test_an_adapter_of_another_checkpoint_is_refused(
    checkpoint: Path, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    fresh(checkpoint).save_pretrained(tmp_path / "adapter")
    model = policy.open_checkpoint(checkpoint)
    model.model.language_model.layers[0].mlp.up_proj = torch.nn.Linear(32, 40, bias=False)
    with pytest.raises(Refusal, match="does not fit"):
        policy.with_adapter(model, tmp_path / "adapter")
    with pytest.raises(Refusal, match="no adapter"):
        policy.with_adapter(policy.open_checkpoint(checkpoint), tmp_path)
    with pytest.raises(Refusal, match="video_pad"):
        policy.open_checkpoint(checkpoint, vocabulary=replace(vocabulary, pad=0))


def test_the_exported_tower_sees_what_the_checkpoint_sees(
    checkpoint: Path, two: list[Example], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    visual = policy.open_checkpoint(checkpoint).model.visual
    size = (two[0].frames.shape[3], two[0].frames.shape[2])
    path = tmp_path / "vision.onnx"
    export.export_tower(export.Tower(visual, size), size, path)
    inputs = collate(two[:1], vocabulary).inputs
    with torch.no_grad():
        theirs = visual(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"])
    frames = (two[0].frames[:, :, None].repeat(3, 2) / 127.5 - 1).astype(np.float32)
    ours = runtime.InferenceSession(str(path)).run(None, {"frames": frames})
    wanted = [theirs.pooler_output, *theirs.deepstack_features]
    assert len(ours) == len(wanted) == 3
    for mine, other in zip(ours, wanted, strict=True):
        assert mine.shape == (len(frames), CELLS, 32)
        assert np.allclose(mine.reshape(-1, 32), other.numpy(), atol=1e-4)
