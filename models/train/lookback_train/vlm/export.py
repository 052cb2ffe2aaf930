"""From a trained adapter to a checkpoint, and from a checkpoint to a bundle."""

from __future__ import annotations

import shutil
import tomllib
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLConfig
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from ..export import OPSET, fill_manifest
from . import Refusal, policy
from .examples import MERGE, PATCH, patches

BESIDE = {".json", ".jinja", ".txt"}
"""Suffixes of what stands beside the weights of a checkpoint: tokenizer, processors, template."""


def merge(checkpoint: Path, adapter: Path, out: Path) -> None:
    """Writes the checkpoint with the adapter worked into its weights."""
    if out.resolve() == checkpoint.resolve():
        raise Refusal("--out is the checkpoint itself, which stays as it is")
    model = policy.with_adapter(policy.open_checkpoint(checkpoint), adapter)
    model.merge_and_unload().save_pretrained(out)
    for file in checkpoint.iterdir():
        new = not (out / file.name).exists() and not file.name.endswith(".index.json")
        if file.suffix in BESIDE and new:
            shutil.copy(file, out)


def bundle(
    checkpoint: Path,
    manifest: Path,
    template: Path,
    labels: dict[str, str],
    out: Path,
) -> None:
    """Writes the parts of a bundle; to be sealed."""
    told = tomllib.loads(manifest.read_text())
    size = (told["geometry"]["width"], told["geometry"]["height"])
    model = policy.open_checkpoint(checkpoint).eval()
    _compare(told, model.config, checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    decoder = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith("model.language_model.")
        or (name == "lm_head.weight" and not model.config.tie_word_embeddings)
    }
    save_file(decoder, out / "decoder.safetensors", {"format": "pt"})
    export_tower(Tower(model.model.visual.float(), size), size, out / "vision.onnx")
    shutil.copy(checkpoint / "tokenizer.json", out / "tokenizer.json")
    shutil.copy(template, out / "chat_template.jinja")
    text = fill_manifest(manifest.read_text(), out / "tokenizer.json", labels)
    (out / "bundle.toml").write_text(text)


def tower(checkpoint: Path, size: tuple[int, int], out: Path) -> None:
    """Writes the vision tower alone, for frames of that width and height."""
    model = policy.open_checkpoint(checkpoint).eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    export_tower(Tower(model.model.visual.float(), size), size, out)


def _compare(manifest: dict, config: Qwen3VLConfig, checkpoint: Path) -> None:
    """The manifest must be right: the engine could not see all of it in the weights."""
    text, said = config.text_config, manifest["decoder"]
    rope = text.rope_parameters
    found = {
        "hidden": text.hidden_size,
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "kv_heads": text.num_key_value_heads,
        "head_dim": text.head_dim,
        "intermediate": text.intermediate_size,
        "vocab": text.vocab_size,
        "rope_theta": rope["rope_theta"],
        "mrope_section": list(rope["mrope_section"]),
        "rms_eps": text.rms_norm_eps,
        "tied": config.tie_word_embeddings,
    }
    found = {f"decoder.{key}": (said.get(key), value) for key, value in found.items()}
    taps = len(config.vision_config.deepstack_visual_indexes)
    found["geometry.deepstack"] = (manifest["geometry"].get("deepstack"), taps)
    for key, (wanted, there) in found.items():
        if wanted != there:
            raise Refusal(f"the manifest says {key} = {wanted}, and in {checkpoint} it is {there}")


class Tower(nn.Module):
    """The vision tower behind the bundle's contract: frames `[B, 2, 3, H, W]` in, tokens out.

    Every pair is a row of the batch, so attention needs neither mask nor split; what depends on the
    grid only is computed once. PyTorch's exporter cannot follow the original.
    """

    def __init__(self, visual: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.visual = visual
        self.width, self.heads = visual.config.hidden_size, visual.config.num_heads
        grid = torch.tensor([[1, size[1] // PATCH, size[0] // PATCH]])
        self.patches = int(grid.prod())
        with torch.no_grad():
            indices, weights = get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=visual.num_grid_per_side,
                mode="bilinear",
                align_corners=True,
                spatial_merge_size=MERGE,
            )
            where = (visual.pos_embed(indices) * weights[:, :, None]).sum(1)
            cos, sin = visual.rotary_pos_emb(where, get_vision_position_ids(grid, MERGE))
        for name, tensor in (("where", where), ("cos", cos), ("sin", sin)):
            self.register_buffer(name, tensor)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Tokens `[B, tokens, hidden]`, then the DeepStack features, each of the same shape."""
        embed = self.visual.patch_embed.proj
        x = patches(frames).reshape(-1, self.patches, embed.weight[0].numel())
        x = F.linear(x, embed.weight.flatten(1), embed.bias) + self.where
        taps, features = list(self.visual.deepstack_visual_indexes), []
        for number, block in enumerate(self.visual.blocks):
            x = x + block.attn.proj(self._attention(block.attn, block.norm1(x)))
            x = x + block.mlp(block.norm2(x))
            if number in taps:
                features.append(self._merged(self.visual.deepstack_merger_list[len(features)], x))
        return (self._merged(self.visual.merger, x), *features)

    def _attention(self, attention: nn.Module, x: Tensor) -> Tensor:
        qkv = attention.qkv(x).reshape(-1, self.patches, 3, self.heads, self.width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = self._turned(q) @ self._turned(k).transpose(-1, -2) * attention.scaling
        return (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(-1, self.patches, self.width)

    def _turned(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat((-second, first), -1) * self.sin

    def _merged(self, merger: nn.Module, x: Tensor) -> Tensor:
        joined = (-1, self.patches // MERGE**2, MERGE**2 * self.width)
        after = merger.use_postshuffle_norm
        x = merger.norm(x.reshape(joined)) if after else merger.norm(x).reshape(joined)
        return merger.linear_fc2(F.gelu(merger.linear_fc1(x)))


def export_tower(tower: Tower, size: tuple[int, int], path: Path) -> None:
    """The tower as ONNX with standard operators and a free batch axis."""
    taps = len(tower.visual.deepstack_visual_indexes)
    names = ["frames", "tokens", *(f"deepstack_{i}" for i in range(taps))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower.eval(),
            (torch.zeros(2, 2, 3, size[1], size[0]),),
            str(path),
            input_names=names[:1],
            output_names=names[1:],
            dynamo=False,
            opset_version=OPSET,
            dynamic_axes={name: {0: "B"} for name in names},
        )
