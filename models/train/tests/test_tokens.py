"""The tokenizer: exact round trips, tags and numbers as single tokens."""

import pytest
from tokenizers import Tokenizer

from lookback_train import tokens

TURN = (
    "<think>\nSomeone lies on the ground. p 0.4\n</think>\n<tool_call>\n"
    '{"name":"backtrack","arguments":{"anchor":61.5,"span":8.0,"frames":8}}\n</tool_call>'
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokens.learn([f"<|im_start|>assistant\n{TURN}<|im_end|>\n"] * 50)


@pytest.mark.parametrize(
    "text",
    [
        TURN,
        "Times like 0.0, 7.5 and 128.9 s.",
        "  two spaces,\ttab\n\nand lines\n",
        "wörter, 日本語, 🎥 and \x00 bytes that it never saw",
        "",
    ],
)
def test_text_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    ids = tokens.encode(tokenizer, text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_each_tag_is_one_token_wherever_it_stands(tokenizer: Tokenizer) -> None:
    for tag in [*tokens.SPECIAL, *tokens.TAGS]:
        [own] = tokens.encode(tokenizer, tag)
        assert own == tokenizer.token_to_id(tag)
        assert tokens.encode(tokenizer, f"a{tag}b").count(own) == 1


def test_whole_seconds_and_tenths_are_a_token_each(tokenizer: Tokenizer) -> None:
    for whole in (0, 9, 10, 61, 128):
        for tenth in range(10):
            assert len(tokens.encode(tokenizer, f"{whole}.{tenth}")) == 2


def test_yes_and_no_are_one_token_each(tokenizer: Tokenizer) -> None:
    assert tokens.encode(tokenizer, "yes") == [tokenizer.token_to_id("yes")]
    assert tokens.encode(tokenizer, "no") == [tokenizer.token_to_id("no")]


def test_nothing_is_added_to_a_text(tokenizer: Tokenizer) -> None:
    one, two = tokens.encode(tokenizer, "<think>\n"), tokens.encode(tokenizer, "Is")
    assert tokens.encode(tokenizer, "<think>\nIs") == one + two


def test_the_alphabet_holds_every_byte(tokenizer: Tokenizer) -> None:
    assert sum(len(token) == 1 for token in tokenizer.get_vocab()) >= 256
