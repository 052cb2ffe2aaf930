"""What transformers computes with random checkpoints of several shapes.

    cd models/train && uv run --group vlm python ../pack/tests/make_shapes.py LOOKBACK_MODELS

LOOKBACK_MODELS is the program `lookback-models`, which makes the checkpoints. For each shape writes
NAME.json, the config that they are made from, and NAME.safetensors, the answers, into `shapes` beside
this file.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from lookback_train.vlm.examples import patches
from safetensors.torch import save_file
from transformers import Qwen3VLForConditionalGeneration

OUT = Path(__file__).with_name("shapes")
VOCABULARY, GREEDY = 512, 64
VISION_START, VISION_END = 495, 496
VIDEO_PAD = 499
TURNS = [20, 5, 30, 12]
"""Words before each pair, and after the last."""

# heads, kv heads, head width, M-RoPE sections, layers, tied; tower: width, heads, depth, taps; frames
SHAPES = {
    "groups_of_four": (8, 2, 16, [4, 2, 2], 4, False, 64, 4, 3, [0, 2], (96, 64)),
    "every_head_its_own": (2, 2, 64, [12, 10, 10], 3, False, 32, 2, 2, [1], (64, 128)),
    "one_for_all": (4, 1, 32, [6, 5, 5], 5, True, 64, 2, 4, [0, 1, 2], (160, 96)),
}


def config(shape):
    heads, kv_heads, head_dim, sections, layers, tied, width, eyes, depth, taps, _ = shape
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": tied,
        "text_config": {
            "hidden_size": 64,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "intermediate_size": 128,
            "vocab_size": VOCABULARY,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_theta": 5e6,
                "mrope_section": sections,
                "mrope_interleaved": True,
            },
        },
        "vision_config": {
            "depth": depth,
            "hidden_size": width,
            "num_heads": eyes,
            "intermediate_size": 96,
            "out_hidden_size": 64,
            "in_channels": 3,
            "num_position_embeddings": 36,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "deepstack_visual_indexes": taps,
        },
    }


def frames(first, second, size):
    """A pair as the test draws it: `[1, 2, 3, height, width]` between -1 and 1."""
    width, height = size
    places = torch.arange(height * width).reshape(1, 1, 1, height, width)
    both = [(number * height * width + places) * 7 % 251 for number in (first, second)]
    return torch.cat(both, dim=1).expand(-1, -1, 3, -1, -1) / 127.5 - 1.0


def answers(shape, checkpoint):
    model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    width, height = size = shape[-1]
    grid = torch.tensor([[1, height // 16, width // 16]])
    # Five frames: the last is a pair of its own with itself.
    pixels = [patches(frames(*pair, size)) for pair in [(0, 1), (2, 3), (4, 4)]]
    tokens = height * width // 1024
    ids, ends = [], []
    for turn, words in enumerate(TURNS):
        ids += [(turn * 101 + i * 37) % 450 for i in range(words)]
        ends.append(len(ids) - 1)
        if turn < len(pixels):
            ids += [VISION_START, *[VIDEO_PAD] * tokens, VISION_END]
    ids = torch.tensor([ids])
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": torch.cat(pixels),
        "video_grid_thw": grid.repeat(len(pixels), 1),
        "mm_token_type_ids": (ids == VIDEO_PAD) * 2,
    }
    with torch.no_grad():
        logits = model(**given).logits[0, ends]
        # A random policy soon repeats itself; words that it did not choose make it choose anew.
        more = torch.tensor([[(i * i * 7 + i * 31) % 450 for i in range(GREEDY)]])
        longer = torch.cat([ids, more], dim=1)
        whole = {
            **given,
            "input_ids": longer,
            "attention_mask": torch.ones_like(longer),
            "mm_token_type_ids": (longer == VIDEO_PAD) * 2,
        }
        chosen = model(**whole).logits[0, ids.shape[1] :].argmax(-1)
        said = model.generate(**given, max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False)
        seen = [model.model.visual(pixel, grid) for pixel in pixels]
    pairs = [torch.stack([s.pooler_output, *s.deepstack_features]) for s in seen]
    return {
        "ids": ids[0].int(),
        "logits": logits,
        "more": more[0].int(),
        "chosen": chosen.int(),
        "greedy": said[0, ids.shape[1] :].int(),
        **{f"pair_{number}": pair for number, pair in enumerate(pairs)},
    }


OUT.mkdir(exist_ok=True)
for name, shape in SHAPES.items():
    (OUT / f"{name}.json").write_text(json.dumps(config(shape), indent=1) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = f"{scratch}/checkpoint"
        made = [sys.argv[1], "make-random", "--config", OUT / f"{name}.json", "-o", checkpoint]
        subprocess.run(made, check=True)
        found = answers(shape, checkpoint)
    for kind in ("greedy", "chosen"):
        print(name, kind, len(set(found[kind].tolist())), "different tokens")
    save_file({k: v.contiguous() for k, v in found.items()}, OUT / f"{name}.safetensors")
