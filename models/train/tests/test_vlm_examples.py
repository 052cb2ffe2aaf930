"""Inquiries as Qwen3-VL reads them: what is fed, what is learnt, and in which order patches lie."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lookback_train import examples as nano
from lookback_train import tokens
from lookback_train.vlm import Refusal
from lookback_train.vlm.examples import Vocabulary, example, grid_thw, patches, pixel_values

HEIGHT, WIDTH = 64, 96
CELLS = 6
"""Visual tokens of a pair of this size."""
SEGMENTS = [
    {"context": "<|im_start|>user\nLook.\n<7.6 seconds>"},
    {"pair": 1},
    {"context": "<12.3 seconds>"},
    {"pair": 0},
    {"context": "<|im_end|>\n<|im_start|>assistant\n"},
    {"slip": "<think>a car crash\n</think>"},
    {"context": "<|im_end|>\n<|im_start|>user\n<2.0 seconds>"},
    {"pair": 2},
    {"context": "<|im_end|>\n<|im_start|>assistant\n"},
    {"policy": "<think>a fall, seen once\nno</think>"},
    {"context": "\n<|im_start|>user\n<12.3 seconds>"},
    {"pair": 0},
    {"context": "<|im_end|>\n<|im_start|>assistant\n"},
    {"policy": "<think>quiet\nyes</think>"},
]
EPISODE = {"segments": SEGMENTS, "anomalous": True, "seed": 17, "pairs": [[0, 0.5]] * 3}


def some_frames(pairs: int, seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (pairs, 2, height, width), np.uint8)


def a_vocabulary() -> Vocabulary:
    texts = [text for s in SEGMENTS for text in s.values() if isinstance(text, str)]
    return Vocabulary.of(tokens.learn(texts * 20), "yes", "no")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return a_vocabulary()


def decoded(vocabulary: Vocabulary, ids: np.ndarray) -> str:
    return vocabulary.tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def test_the_whole_transcript_is_fed_with_a_run_of_pads_for_each_pair(
    vocabulary: Vocabulary,
) -> None:
    taught = example(EPISODE, some_frames(3, 0), vocabulary)
    pair = f"<|vision_start|>{'<|video_pad|>' * CELLS}<|vision_end|>"
    wanted = "".join(
        s.get("context")
        or (pair if "pair" in s else f"{s.get('policy') or s.get('slip')}<|im_end|>")
        for s in SEGMENTS
    )
    assert decoded(vocabulary, taught.ids) == wanted
    assert (taught.ids == vocabulary.pad).sum() == 4 * CELLS, "text does not become pads"


def test_the_mask_covers_what_the_policy_wrote_and_no_slip(vocabulary: Vocabulary) -> None:
    taught = example(EPISODE, some_frames(3, 0), vocabulary)
    turns = [decoded(vocabulary, taught.ids[taught.wrote & (taught.turns == t)]) for t in range(3)]
    assert turns == [
        "",
        f"{SEGMENTS[9]['policy']}<|im_end|>",
        f"{SEGMENTS[13]['policy']}<|im_end|>",
    ]
    assert decoded(vocabulary, taught.ids[taught.wrote]) == "".join(turns)


def test_frames_lie_in_the_order_in_which_they_are_seen(vocabulary: Vocabulary) -> None:
    luma = some_frames(3, 1)
    taught = example(EPISODE, luma, vocabulary)
    assert np.array_equal(taught.frames, luma[[1, 0, 2, 0]])


def test_probes_lie_before_turns_and_end_where_the_teacher_has_told(vocabulary: Vocabulary) -> None:
    taught = example(EPISODE, some_frames(3, 0), vocabulary)
    assistant = decoded(vocabulary, taught.ids[: taught.probes[0] + 1])
    assert assistant.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert len(taught.probes) == 2, "before the slip and before the telling, not after it"
    assert len(example(EPISODE, some_frames(3, 0), vocabulary, by_itself=True).probes) == 3


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("slips", [False, True])
def test_verdicts_are_asked_where_nano_is_asked_for_them(
    vocabulary: Vocabulary, by_itself: bool, slips: bool
) -> None:
    kinds = {"slip": "policy"} if not slips else {"policy": "slip"}
    segments = [{kinds.get(k, k): v for k, v in s.items()} for s in SEGMENTS]
    episode = {**EPISODE, "segments": segments, "sees": [[0]] * 3}
    ours = example(episode, some_frames(3, 0), vocabulary, by_itself)
    theirs = nano.example(episode, vocabulary.tokenizer, 0, by_itself)
    text = [decoded(vocabulary, e.ids[e.ids != vocabulary.pad]) for e in (ours, theirs)]
    assert text[0] == text[1]

    def without_pads(ids: np.ndarray, places: np.ndarray) -> list[int]:
        return [int((ids[:p] != vocabulary.pad).sum()) for p in places]

    assert without_pads(ours.ids, ours.probes) == without_pads(theirs.ids, theirs.probes)


def test_patches_lie_as_qwens_own_processor_lays_them() -> None:
    pytest.importorskip("PIL", reason="transformers' video processor needs pillow")
    processing = pytest.importorskip(
        "transformers.models.qwen3_vl.video_processing_qwen3_vl",
        reason="transformers is not installed: the trainer of nano does without it",
    )
    # Without torchvision it does not normalise: what it is given is normalised here, by its rule.
    processor = processing.Qwen3VLVideoProcessor(
        do_resize=False,
        do_sample_frames=False,
        do_convert_rgb=False,
        do_rescale=False,
        do_normalize=False,
        cap_pixels_per_frame=False,
    )
    luma = some_frames(3, 2)
    videos = [
        torch.from_numpy((pair[:, None].repeat(3, 1) / 255.0 - 0.5) / 0.5).float() for pair in luma
    ]
    theirs = processor(videos=videos, return_tensors="pt")
    assert torch.allclose(pixel_values(luma), theirs["pixel_values_videos"], atol=1e-6)
    assert torch.equal(grid_thw(luma), theirs["video_grid_thw"])


def test_patches_of_colour_keep_their_channels_apart() -> None:
    frames = torch.arange(3.0).reshape(1, 1, 3, 1, 1).expand(2, 2, 3, HEIGHT, WIDTH)
    cut = patches(frames).reshape(-1, 3, 2 * 16 * 16)
    assert len(cut) == 2 * CELLS * 4
    assert (cut == torch.arange(3.0)[:, None]).all()


def test_frames_that_are_no_whole_number_of_cells_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(Refusal, match="100x64"):
        example(EPISODE, some_frames(3, 0, width=100), vocabulary)


def test_a_tokenizer_must_be_there_and_be_one_of_qwens(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no tokenizer.json"):
        Vocabulary.load(tmp_path, "yes", "no")
    bare = Tokenizer.from_str(a_vocabulary().tokenizer.to_str().replace("<|video_pad|>", "<|v|>"))
    with pytest.raises(Refusal, match="video_pad"):
        Vocabulary.of(bare, "yes", "no")
    with pytest.raises(Refusal, match="certainly not"):
        Vocabulary.of(a_vocabulary().tokenizer, "yes", "certainly not")
