"""Makes the fixture of the engine's parity tests: a tiny Qwen3-VL with random weights, and what
PyTorch computes with it.

    python make_fixture.py && lookback-bundle seal fixture

Needs torch, transformers 5.23 or later, tokenizers, safetensors, onnx. The result is committed;
run this again only when the contract of a part changes. Weights depend on torch's generator, so
everything here is made anew together: the bundle in `fixture/` and `expected.safetensors`.
"""

import json
import pathlib
import random

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

HERE = pathlib.Path(__file__).parent
OUT = HERE / "fixture"
HEIGHT, WIDTH, PATCH, MERGE, CHANNELS, HIDDEN = 32, 48, 8, 2, 1, 48
ROWS, COLUMNS = HEIGHT // PATCH, WIDTH // PATCH
TOKENS = ROWS * COLUMNS // MERGE**2
PAIRS = 4
STEPS = 16
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
PIECES = [
    {"text": "<|im_start|>system\nyou watch a camera<|im_end|>\n"},
    {"text": "<|im_start|>user\n<0.5 seconds>"},
    {"pair": 0},
    {"text": "<2.0 seconds>"},
    {"pair": 1},
    {"text": "\nwhat happens?<|im_end|>\n<|im_start|>assistant\n<think>a person falls</think>\n"},
    {"text": '<tool_call>\n{"name":"sample","arguments":{"start":1.5}}\n</tool_call><|im_end|>\n'},
    {"text": "<|im_start|>user\n<tool_response>\n<1.5 seconds>"},
    {"pair": 2},
    {"text": "<1.8 seconds>"},
    {"pair": 3},
    {"text": "</tool_response><|im_end|>\n<|im_start|>assistant\n"},
]


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE of the class of Qwen3's, trained on a few made-up turns."""
    random.seed(0)

    def turn() -> str:
        operator = random.choice(["backtrack", "expand", "sample", "final"])
        arguments = {"start": round(random.random() * 90, 1), "frames": random.randint(1, 16)}
        role = random.choice(["user", "assistant", "system"])
        call = json.dumps({"name": operator, "arguments": arguments}, separators=(",", ":"))
        verdict = random.choice(["yes", "no"])
        stamp = f"<{random.random() * 60:.1f} seconds>"
        return f"{role}\na person walks and falls {stamp}\n{call}\n{verdict}"

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = Regex(r"[0-9]| ?[a-zA-Z]+| ?[^\sa-zA-Z0-9]+|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([turn() for _ in range(500)], trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def make_model(tokenizer: Tokenizer) -> Qwen3VLForConditionalGeneration:
    """Random weights, wide enough that logits are far from flat; the decoder's are bfloat16."""
    ids = {name: tokenizer.token_to_id(name) for name in SPECIAL}
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2]}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": HIDDEN,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            "rope_parameters": {**rope, "mrope_interleaved": True},
            "pad_token_id": 0,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_heads": 2,
            "in_channels": CHANNELS,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": MERGE,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6.0)
            elif "norm" in name and name.endswith("weight"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
            if "visual" not in name:
                parameter.copy_(parameter.bfloat16().float())
    return model


class Tower(nn.Module):
    """The vision tower behind the engine's contract: frames [B, 2, C, H, W] in, tokens out.

    Every pair is a row of the batch, so attention needs neither mask nor split; positions depend
    on the grid only and are constants.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.heads = visual.config.num_heads
        self.width = visual.config.hidden_size
        grid = torch.tensor([[1, ROWS, COLUMNS]])
        with torch.no_grad():
            indices, weights = get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=visual.num_grid_per_side,
                mode="bilinear",
                align_corners=True,
                spatial_merge_size=MERGE,
            )
            self.register_buffer("pos", (visual.pos_embed(indices) * weights[:, :, None]).sum(1))
            cos, sin = visual.rotary_pos_emb(self.pos, get_vision_position_ids(grid, MERGE))
            self.register_buffer("cos", cos)
            self.register_buffer("sin", sin)

    def rope(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat((-second, first), -1) * self.sin

    def merge(self, merger: nn.Module, h: torch.Tensor) -> torch.Tensor:
        if merger.use_postshuffle_norm:
            h = merger.norm(h.reshape(-1, TOKENS, MERGE**2 * self.width))
        else:
            h = merger.norm(h).reshape(-1, TOKENS, MERGE**2 * self.width)
        return merger.linear_fc2(F.gelu(merger.linear_fc1(h)))

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embed = self.visual.patch_embed.proj
        x = F.linear(patches(frames), embed.weight.reshape(self.width, -1), embed.bias) + self.pos
        taps, features = self.visual.deepstack_visual_indexes, []
        for layer, block in enumerate(self.visual.blocks):
            qkv = block.attn.qkv(block.norm1(x))
            qkv = qkv.reshape(-1, ROWS * COLUMNS, 3, self.heads, self.width // self.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            scores = self.rope(q) @ self.rope(k).transpose(-1, -2) * block.attn.scaling
            a = (torch.softmax(scores, -1) @ v).transpose(1, 2)
            x = x + block.attn.proj(a.reshape(-1, ROWS * COLUMNS, self.width))
            x = x + block.mlp(block.norm2(x))
            if layer in taps:
                merger = self.visual.deepstack_merger_list[taps.index(layer)]
                features.append(self.merge(merger, x))
        return (self.merge(self.visual.merger, x), *features)


def patches(frames: torch.Tensor) -> torch.Tensor:
    """[B, 2, C, H, W] to [B, patches, C·2·PATCH²], in blocks of MERGE×MERGE patches."""
    h, w = ROWS // MERGE, COLUMNS // MERGE
    x = frames.reshape(-1, 2, CHANNELS, h, MERGE, PATCH, w, MERGE, PATCH)
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, ROWS * COLUMNS, CHANNELS * 2 * PATCH**2)


def export_tower(tower: Tower, frames: torch.Tensor) -> None:
    names = ["tokens", "deepstack_0", "deepstack_1"]
    torch.onnx.export(
        tower,
        (frames,),
        str(OUT / "vision.onnx"),
        input_names=["frames"],
        output_names=names,
        dynamo=False,
        opset_version=17,
        dynamic_axes={name: {0: "B"} for name in ["frames", *names]},
    )


def write_expected(model: nn.Module, tokenizer: Tokenizer, tower: Tower) -> None:
    """One pass over all pieces, then greedy steps, each a full pass again: nothing is cached."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (PAIRS, 2, HEIGHT, WIDTH), generator=generator)
    inputs = (frames.float() / 127.5 - 1)[:, :, None].expand(-1, -1, CHANNELS, -1, -1)
    export_tower(tower, inputs)
    pad = tokenizer.token_to_id("<|video_pad|>")
    block = ["<|vision_start|>", *["<|video_pad|>"] * TOKENS, "<|vision_end|>"]
    block = [tokenizer.token_to_id(name) for name in block]
    ids, ends = [], []
    for piece in PIECES:
        text = piece.get("text")
        ids += block if text is None else tokenizer.encode(text, add_special_tokens=False).ids
        ends.append(len(ids))
    pixels = patches(inputs).reshape(PAIRS * ROWS * COLUMNS, -1)
    grid = torch.tensor([[1, ROWS, COLUMNS]] * PAIRS)

    def logits(ids: list[int]) -> torch.Tensor:
        x = torch.tensor([ids])
        model.model.rope_deltas = None
        out = model(
            input_ids=x,
            attention_mask=torch.ones_like(x),
            mm_token_type_ids=(x == pad).long() * 2,
            pixel_values_videos=pixels,
            video_grid_thw=grid,
        )
        return out.logits[0]

    with torch.no_grad():
        features = tower(inputs)
        reference = model.model.visual(pixels, grid_thw=grid)
        worst = (features[0].reshape(-1, HIDDEN) - reference.pooler_output).abs().max()
        assert worst < 1e-4, worst
        whole = logits(ids)
        steps, greedy, margins = [], [], []
        for _ in range(STEPS):
            row = logits(ids + greedy)[-1]
            best = row.topk(2)
            steps.append(row)
            margins.append(float(best.values[0] - best.values[1]))
            greedy.append(int(best.indices[0]))
    # A tie would make the greedy tokens depend on rounding.
    assert min(margins) > 1e-2, margins
    print(f"{len(ids)} tokens, logit deviation {whole.std():.2f}, least margin {min(margins):.3f}")
    tensors = {
        "frames": frames.to(torch.uint8),
        "ids": torch.tensor(ids),
        "piece_logits": whole[[end - 1 for end in ends]].clone(),
        "greedy": torch.tensor(greedy),
        "greedy_logits": torch.stack(steps),
        "pair_0_tokens": features[0][0].clone(),
        "pair_0_deepstack_1": features[2][0].clone(),
    }
    metadata = {"pieces": json.dumps(PIECES)}
    save_file(tensors, HERE / "expected.safetensors", metadata=metadata)


def write_bundle(model: nn.Module, tokenizer: Tokenizer) -> None:
    state = model.state_dict()
    text = {k: v.bfloat16() for k, v in state.items() if k.startswith("model.language_model.")}
    save_file(text, OUT / "decoder.safetensors")
    tokenizer.save(str(OUT / "tokenizer.json"), pretty=False)
    (OUT / "chat_template.jinja").write_text("{{ messages[0].content }}\n")
    (OUT / "bundle.toml").write_text(
        f"""# A tiny Qwen3-VL with random weights, made by ../make_fixture.py. It knows nothing.
schema = 1
name = "fixture"
version = "0.1.0"
architecture = "qwen3-vl"
licence = "MIT OR Apache-2.0"
min_agent = "0.1.0"

[geometry]
width = {WIDTH}
height = {HEIGHT}
channels = {CHANNELS}
pair_lag_s = 0.5
tokens_per_pair = {TOKENS}
grid = [{ROWS // MERGE}, {COLUMNS // MERGE}]
deepstack = 2

[decoder]
hidden = {HIDDEN}
layers = 3
heads = 4
kv_heads = 2
head_dim = 16
intermediate = 64
vocab = {tokenizer.get_vocab_size()}
rope_theta = 5e6
mrope_section = [4, 2, 2]
rms_eps = 1e-6
tied = true
context_max = 1024

[inquiry]
glance_frames = 4
frames_per_operator = 4
max_turns = 6
max_frames = 32
max_tokens = 128
max_stretch_s = 60.0
look_back_s = 120.0

[thresholds]
notice = 0.5
alert = 0.8

[prompts]
system = "you watch a camera"
question = "what happens?"
probe = "verdict:\\n"
yes = "yes"
no = "no"

[parts.decoder]
file = "decoder.safetensors"

[parts.vision]
file = "vision.onnx"

[parts.tokenizer]
file = "tokenizer.json"

[parts.chat_template]
file = "chat_template.jinja"
"""
    )


def main() -> None:
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    tokenizer = make_tokenizer()
    for word in ["yes", "no"]:
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1, word
    model = make_model(tokenizer)
    write_expected(model, tokenizer, Tower(model.model.visual).eval())
    write_bundle(model, tokenizer)


if __name__ == "__main__":
    main()
