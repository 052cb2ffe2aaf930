"""Fine-tuning: the learning rate, the times of pairs, and what is drawn how often."""

import numpy as np
import pytest
from test_examples import EPISODE, rows

from lookback_train import tokens
from lookback_train.examples import Example, collate, example
from lookback_train.sft import LEARNING_RATE, OWN_WEIGHT, WARM_UP, _buckets, learning_rate, stamps

TIMED = {
    **EPISODE,
    "segments": [
        {"context": "<|im_start|>user\nLook.\n<7.6 seconds>"},
        {"pair": 0},
        {"context": "<122.0 seconds>"},
        {"pair": 1},
        {"policy": "<think>\nquiet\n</think>"},
    ],
}


def test_the_time_of_a_pair_is_found_before_it() -> None:
    texts = [s.get("context") or s.get("policy") or "" for s in TIMED["segments"]]
    tokenizer = tokens.learn(texts * 20)
    batch = collate([example(TIMED, tokenizer, 0)], rows(3), tokenizer.token_to_id("<|video_pad|>"))
    whole, tenths = (tokenizer.decode(s.tolist()) for s in stamps(batch))
    assert (whole, tenths) == ("7122", ".6.0")


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    at = [learning_rate(done) for done in (0.0, WARM_UP / 2, WARM_UP, 0.5, 1.0)]
    assert at == pytest.approx([0.0, LEARNING_RATE / 2, LEARNING_RATE, at[3], 0.0], abs=1e-12)
    assert at[2] > at[3] > at[4]


def drawn(own: bool, seed: int) -> Example:
    nothing = np.zeros(0)
    return Example(np.zeros(4), nothing, nothing, nothing, nothing, nothing, False, seed, own=own)


def test_lessons_in_which_the_policy_went_its_own_way_are_drawn_oftener() -> None:
    examples = [drawn(own=i < 1000, seed=i) for i in range(2000)]
    rng = np.random.default_rng(5)
    seeds = [e.seed for _ in range(20) for batch in _buckets(examples, rng) for e in batch]
    own = np.mean([seed < 1000 for seed in seeds])
    assert own == pytest.approx(OWN_WEIGHT / (OWN_WEIGHT + 1), abs=0.04)
