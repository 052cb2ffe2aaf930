"""The text decoder of Qwen3-VL at any size, with the tensor names of the Hugging Face checkpoints.

Grouped-query attention with RMS-normed queries and keys, interleaved M-RoPE, SwiGLU, DeepStack
features added after the first layers, tied embeddings.
"""

from __future__ import annotations

import copy
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; the field names are those of a bundle's `[decoder]`."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 256
    vocab: int = 1024
    rope_theta: float = 10_000.0
    mrope_section: tuple[int, int, int] = (6, 5, 5)
    rms_eps: float = 1e-6

    @classmethod
    def of_manifest(cls, manifest: Path, vocabulary: int | None = None) -> Shape:
        """From a manifest's `[decoder]`; `vocabulary`, where it is not known there yet."""
        table = tomllib.loads(manifest.read_text())["decoder"]
        found = {f.name: table[f.name] for f in fields(cls)}
        found["mrope_section"] = tuple(found["mrope_section"])
        return cls(**found | ({"vocab": vocabulary} if vocabulary else {}))


class RmsNorm(nn.Module):
    """Root-mean-square norm over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)
        self.q_norm = RmsNorm(s.head_dim, s.rms_eps)
        self.k_norm = RmsNorm(s.head_dim, s.rms_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x` `[B, T, hidden]`, `cos` and `sin` `[B, 1, T, head_dim]`."""
        b, t, _ = x.shape
        s = self.s
        q = self.q_norm(self.q_proj(x).view(b, t, s.heads, s.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, s.kv_heads, s.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)
        q, k = q * cos + _rotate(q) * sin, k * cos + _rotate(k) * sin
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        return self.o_proj(_attend(q, k, v).transpose(1, 2).reshape(b, t, -1))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.intermediate, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.intermediate, bias=False)
        self.down_proj = nn.Linear(s.intermediate, s.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, s: Shape, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(s.hidden, s.rms_eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = RmsNorm(s.hidden, s.rms_eps)
        self.mlp = Mlp(s)
        self.dropout = dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Same shape as `x`."""
        drop = self.dropout
        y = self.self_attn(self.input_layernorm(x), cos, sin)
        x = x + F.dropout(y, drop, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), drop, self.training)


class Decoder(nn.Module):
    """Token embeddings in, logits out."""

    PREFIX = "model.language_model."
    """Of its tensors' names in a checkpoint."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.hidden, shape.rms_eps)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)

    @classmethod
    def of_bundle(cls, bundle: Path, dropout: float = 0.0) -> Decoder:
        """That of a sealed bundle, in 32 bits."""
        decoder = cls(Shape.of_manifest(bundle / "bundle.toml"), dropout)
        weights = load_file(bundle / part(bundle, "decoder"))
        decoder.load_state_dict(
            {name.removeprefix(cls.PREFIX): w.float() for name, w in weights.items()}
        )
        return decoder

    def forward(self, x: Tensor, positions: Tensor, deepstack: list[Tensor]) -> Tensor:
        """Hidden states after the last norm; see `both`."""
        return self.both(x, positions, deepstack)[0]

    def both(self, x: Tensor, positions: Tensor, deepstack: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Hidden states after the last norm, and those of the middle layer, normed without weight.

        `x` `[B, T, hidden]`, `positions` int `[B, T, 3]`, each of `deepstack` `[B, T, hidden]` and
        zero where there is no visual token.
        """
        cos, sin = mrope(positions, self.shape)
        middle = x
        for number, layer in enumerate(self.layers):
            x = layer(x, cos, sin)
            if number < len(deepstack):
                x = x + deepstack[number]
            if number + 1 == (len(self.layers) + 1) // 2:
                middle = x
        middle = F.rms_norm(middle, middle.shape[-1:], eps=self.shape.rms_eps)
        return self.norm(x), middle

    def logits(self, hidden: Tensor) -> Tensor:
        """Through the tied head, `[…, vocab]`."""
        return F.linear(hidden, self.embed_tokens.weight)

    def checkpoint(self) -> dict[str, Tensor]:
        """Tensors under their Hugging Face names."""
        return {self.PREFIX + k: v.contiguous() for k, v in self.state_dict().items()}


def part(bundle: Path, name: str) -> str:
    """The file of one part of a bundle."""
    return tomllib.loads((bundle / "bundle.toml").read_text())["parts"][name]["file"]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # Its way back takes twice as long on a processor in 16 bits as in 32.
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)


def _rotate(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


def mrope(positions: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Interleaved M-RoPE: cos and sin `[B, 1, T, head_dim]` for positions `[B, T, 3]` (t, h, w)."""
    half = shape.head_dim // 2
    i = torch.arange(half, device=positions.device)
    _, h, w = shape.mrope_section
    axis = torch.zeros_like(i)
    axis[(i % 3 == 1) & (i < 3 * h)] = 1
    axis[(i % 3 == 2) & (i < 3 * w)] = 2
    frequency = shape.rope_theta ** (-2.0 * i / shape.head_dim)
    angle = positions[..., axis].float() * frequency
    angle = torch.cat([angle, angle], -1).unsqueeze(1)
    return angle.cos(), angle.sin()


def walk_positions(is_pad: list[bool], grid: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Positions of a transcript: text counts one by one, a pair's tokens share their time."""
    rows, columns = grid
    found: list[tuple[int, int, int]] = []
    at, i = 0, 0
    while i < len(is_pad):
        if not is_pad[i]:
            found.append((at, at, at))
            at, i = at + 1, i + 1
            continue
        found += [(at, at + r, at + c) for r in range(rows) for c in range(columns)]
        at, i = at + max(rows, columns), i + rows * columns
    return found


def between(before: Decoder, after: Decoder, keep: float) -> Decoder:
    """A decoder whose weights lie between those of two, `keep` of them those of `before`.

    After a short training from the one to the other it often does what both do, and forgets less
    (Wortsman et al., Robust fine-tuning of zero-shot models, 2022).
    """
    mixed, old = copy.deepcopy(after), before.state_dict()
    new = after.state_dict()
    mixed.load_state_dict({name: keep * old[name] + (1 - keep) * new[name] for name in new})
    return mixed
