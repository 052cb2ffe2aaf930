"""Taught inquiries as tensors: what is learnt where, and batches of different lengths."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from lookback_train import tokens
from lookback_train.examples import THOUGHT, TOLD, Example, Features, collate, example, shares
from lookback_train.tower import TOKENS

SEGMENTS = [
    {"context": "<|im_start|>user\nLook."},
    {"pair": 0},
    {"pair": 1},
    {"context": "<|im_end|>\n<|im_start|>assistant\n"},
    {"policy": "<think>\nquiet\n</think>"},
    {"context": "\n<|im_start|>user\n"},
    {"pair": 0},
    {"context": "<|im_start|>assistant\n"},
    {"policy": "<think>\nno\n</think>"},
]
EPISODE = {"segments": SEGMENTS, "sees": [[1, 0], [0, 2]], "anomalous": True, "seed": 17}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokens.learn([s.get("context") or s.get("policy") or "" for s in SEGMENTS] * 20)


@pytest.fixture(scope="module")
def taught(tokenizer: Tokenizer) -> Example:
    return example(EPISODE, tokenizer, first_pair=100)


def test_each_pair_is_a_run_of_pads_between_vision_marks(
    taught: Example, tokenizer: Tokenizer
) -> None:
    pad = tokenizer.token_to_id("<|video_pad|>")
    start = tokenizer.token_to_id("<|vision_start|>")
    end = tokenizer.token_to_id("<|vision_end|>")
    assert (taught.ids == pad).sum() == 3 * TOKENS
    for at in np.flatnonzero(taught.ids == start):
        assert (taught.ids[at + 1 : at + 1 + TOKENS] == pad).all()
        assert taught.ids[at + 1 + TOKENS] == end


def test_a_pair_seen_again_is_the_same_row(taught: Example) -> None:
    assert taught.pairs.tolist() == [100, 101, 100]
    assert taught.sees.tolist() == [[1, 0], [0, 2], [1, 0]]


def test_only_what_the_policy_wrote_is_learnt_and_its_forced_first_token_is_not(
    taught: Example, tokenizer: Tokenizer
) -> None:
    learnt = tokenizer.decode(taught.ids[taught.learnt > 0].tolist(), skip_special_tokens=False)
    assert learnt == "\nquiet\n</think><|im_end|>\nno\n</think><|im_end|>"


def test_the_probe_is_read_before_the_first_token_of_a_turn(
    taught: Example, tokenizer: Tokenizer
) -> None:
    think = tokenizer.token_to_id("<think>")
    assert len(taught.probes) == 2
    assert [int(taught.ids[p + 1]) for p in taught.probes] == [think, think]


def test_what_the_teacher_has_told_is_not_asked_of_the_eyes(tokenizer: Tokenizer) -> None:
    told = [
        {"pair": 0},
        {"policy": "<think>a fall at 1.0, seen once\nno</think>"},
        {"pair": 1},
        {"policy": "<think>quiet\n</think>"},
    ]
    episode = {**EPISODE, "segments": told}
    lesson = example(episode, tokenizer, 0)
    assert lesson.sees.tolist() == [[1, 0], [TOLD, TOLD]]
    assert len(lesson.probes) == 1 and lesson.turns.max() == 1
    by_itself = example(episode, tokenizer, 0, by_itself=True)
    assert len(by_itself.probes) == 2, "its own words may be wrong"
    slipped = [*told[:1], {"slip": told[1]["policy"]}, *told[2:]]
    assert len(example({**EPISODE, "segments": slipped}, tokenizer, 0).probes) == 2


def test_the_words_of_a_thought_weigh_more(tokenizer: Tokenizer) -> None:
    said = [{"pair": 0}, {"policy": "<think>quiet\nno</think>"}]
    lesson = example({**EPISODE, "segments": said}, tokenizer, 0)
    heavy = tokenizer.decode(lesson.ids[lesson.learnt == THOUGHT].tolist())
    assert "quiet" in heavy and "no" not in heavy


def test_positions_are_as_long_as_the_ids(taught: Example) -> None:
    assert taught.positions.shape == (len(taught.ids), 3)


def test_shards_are_dealt_out_one_by_one() -> None:
    assert shares(range(10, 17), 3) == [range(10, 17, 3), range(11, 17, 3), range(12, 17, 3)]
    assert shares(range(2), 5) == [range(0, 2, 5), range(1, 2, 5)]
    assert shares(range(0), 2) == []


def rows(count: int) -> Features:
    """Features whose every value is the number of its row, in blocks of three."""
    made = Features()
    for first in range(0, count, 3):
        numbers = np.arange(first, min(first + 3, count), dtype=np.float16)
        block = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 2, 8, 12))
        assert made.add(block) == first
    return made


def test_features_are_found_across_blocks() -> None:
    found = rows(8).rows(np.array([7, 0, 3, 2]))
    assert found[:, 0, 0, 0].tolist() == [7.0, 0.0, 3.0, 2.0]


def written(ids: list[int], pairs: list[int], probes: list[int], anomalous: bool) -> Example:
    n = len(ids)
    return Example(
        np.array(ids),
        np.ones(n, np.float32),
        np.array(probes),
        np.arange(3 * n, dtype=np.int32).reshape(n, 3),
        np.array(pairs),
        np.array([[p % 4] for p in pairs], np.uint8),
        anomalous,
        0,
    )


def test_a_batch_is_padded_on_the_right_and_keeps_every_place() -> None:
    pad = 9
    short = written([1, pad, pad, 2], [5], [3], False)
    long = written([3, pad, pad, 4, pad, pad, 6], [2, 4], [0, 6], True)
    batch = collate([short, long], rows(6), pad)
    assert batch.ids.tolist() == [[1, 9, 9, 2, 0, 0, 0], [3, 9, 9, 4, 9, 9, 6]]
    assert batch.learnt.tolist()[0] == [1, 1, 1, 1, 0, 0, 0]
    assert batch.positions[1].tolist() == long.positions.tolist()
    assert batch.positions[0, 4:].abs().sum() == 0
    pads = list(zip(batch.pad_rows.tolist(), batch.pad_places.tolist(), strict=True))
    assert pads == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 4), (1, 5)]
    ends = list(zip(batch.pair_rows.tolist(), batch.pair_places.tolist(), strict=True))
    assert ends == [(0, 3), (1, 3), (1, 6)], "right after the pads of each pair"
    assert batch.sees.flatten().tolist() == [1, 2, 0]
    probes = list(zip(batch.probe_rows.tolist(), batch.probe_places.tolist(), strict=True))
    assert probes == [(0, 3), (1, 0), (1, 6)]
    assert batch.probe_truth.tolist() == [0.0, 1.0, 1.0]
    assert batch.probe_shown.tolist() == [0.0, 0.0, 1.0], "harm is shown when its pair has ended"
    assert batch.features[:, 0, 0, 0].tolist() == [5.0, 2.0, 4.0], "in the order of the pads"
