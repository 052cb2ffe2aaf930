"""A Qwen3-VL checkpoint as a policy: its adapters, and what it says of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3VLForConditionalGeneration

from . import Refusal
from .collator import IGNORED, Batch
from .examples import MERGE, PATCH, Vocabulary

TRAINED, REFERENCE = "default", "reference"
"""Names of adapters: the one that learns, and the frozen copy that it is compared with."""
DECODER = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
MERGER = r".*visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12]"


def open_checkpoint(
    folder: Path,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "cpu",
    vocabulary: Vocabulary | None = None,
) -> Qwen3VLForConditionalGeneration:
    """The model in `folder`, frozen; `vocabulary` is checked against it."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise Refusal(f"{folder} is no checkpoint: it should hold config.json and *.safetensors")
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "qwen3_vl":
        raise Refusal(f"{folder} holds a {config.get('model_type')!r}, and not a 'qwen3_vl'")
    model = Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, local_files_only=True
    )
    vision = model.config.vision_config
    cut = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    if cut != (PATCH, MERGE, 2):
        raise Refusal(f"{folder} cuts frames by {cut}, and this recipe by {(PATCH, MERGE, 2)}")
    if vocabulary is not None and model.config.video_token_id != vocabulary.pad:
        raise Refusal(
            f"the tokenizer in {folder} is not that of its weights: <|video_pad|> differs"
        )
    return model.requires_grad_(False).to(device)


def adapt(model: Qwen3VLForConditionalGeneration, rank: int, merger: bool) -> PeftModel:
    """A new adapter over the decoder's projections, and the vision merger's if asked.

    It changes nothing before it has learnt. Without dropout a run that was killed can be resumed
    exactly, and the reference of iDPO sees what the policy sees.
    """
    wanted = f"{DECODER}|{MERGER}" if merger else DECODER
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=wanted))


def with_adapter(
    model: Qwen3VLForConditionalGeneration, adapter: Path, learns: bool = False
) -> PeftModel:
    """The model with the adapter in this folder; if it `learns`, with a frozen copy as well."""
    if not (adapter / "adapter_config.json").is_file():
        raise Refusal(f"{adapter} is no adapter: it should hold adapter_config.json")
    try:
        adapted = PeftModel.from_pretrained(model, adapter, TRAINED, is_trainable=learns)
        if learns:
            adapted.load_adapter(str(adapter), REFERENCE, is_trainable=False)
            adapted.set_adapter(TRAINED)
    except (RuntimeError, ValueError) as e:
        reason = str(e).splitlines()[0]
        raise Refusal(f"the adapter in {adapter} does not fit this checkpoint: {reason}") from e
    return adapted


@contextmanager
def as_reference(model: PeftModel) -> Iterator[None]:
    """The frozen copy speaks within; what learns is what it was before afterwards."""
    model.set_adapter(REFERENCE)
    try:
        yield
    finally:
        model.set_adapter(TRAINED)


def save_memory(model: PeftModel) -> None:
    """Activations are computed again on the way back instead of being kept."""
    base = model.get_base_model()
    # The name changed within version 5 of transformers.
    enable = getattr(base, "activation_checkpointing_enable", None)
    (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})


@dataclass
class Reading:
    """What a policy says of a batch."""

    log_p: Tensor
    """Log probability of each token that was written, f32, row by row."""
    rows: Tensor
    turns: Tensor
    """Of which row and turn each of them is."""
    margins: Tensor
    """`logit(yes) - logit(no)` at each probe, f32: the verdict is its sigmoid."""


def read(model: PeftModel, batch: Batch, vocabulary: Vocabulary) -> Reading:
    """One pass over the batch. The head, the widest matrix, is applied only where it is asked."""
    base = model.get_base_model()
    hidden = base.model(**batch.inputs, use_cache=False).last_hidden_state
    rows, places = torch.nonzero(batch.labels[:, 1:] != IGNORED, as_tuple=True)
    logits = base.lm_head(hidden[rows, places]).float()
    wrote = batch.labels[rows, places + 1]
    # In 16 bits two large logits differ in coarse steps: the margin has a product of its own.
    head = base.lm_head.weight
    yes_no = head[vocabulary.yes].float() - head[vocabulary.no].float()
    return Reading(
        -F.cross_entropy(logits, wrote, reduction="none"),
        rows,
        batch.turns[rows, places + 1],
        hidden[batch.probe_rows, batch.probe_places].float() @ yes_no,
    )
