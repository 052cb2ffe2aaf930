"""Nano's tokenizer: a byte-level BPE of the same class as Qwen3's, with a small vocabulary.

Text is split at numbers only, so that the fixed parts of a tool call become single tokens; the
whole and the decimal part of a number are a token each, so that copying a time is two copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
SPLIT = r" ?[^\s0-9.]+|[0-9]+|\.[0-9]|\.|\s"
VOCABULARY = 1536
WHOLE_SECONDS = 250


def learn(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer for texts of the transcript, tags included."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbers = " ".join(f"{i}" for i in range(WHOLE_SECONDS)) + " "
    decimals = "".join(f"0.{i} " for i in range(10))
    words = "yes no " * 200
    corpus = [_without_tags(t) for t in texts] + [numbers, decimals] * 200 + ["yes", "no"] * 200
    tokenizer.train_from_iterator([*corpus, words], trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The tokenizer in `path`."""
    return Tokenizer.from_file(str(path))


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of `text`; special tokens in it count as such, and none is added."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def _without_tags(text: str) -> str:
    for tag in [*SPECIAL, *TAGS]:
        text = text.replace(tag, "\n")
    return text
