"""From checkpoints to a bundle: decoder.safetensors, vision.onnx, tokenizer, template, manifest."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from .decoder import Decoder, Shape, part
from .sft import Policy
from .tower import Perception, Tower, Trunk

OPSET = 17

Sealers = tuple[Path, Path]
"""The programs `lookback-bundle` and `lookback-models`."""


def bundle(
    perception_weights: Path,
    policy_weights: Path,
    tokenizer_file: Path,
    template: Path,
    manifest: Path,
    labels: dict[str, str],
    sealers: Sealers,
    out: Path,
) -> None:
    """Writes and seals the bundle in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    state = torch.load(policy_weights, weights_only=True)
    shape = Shape(**{**state["shape"], "mrope_section": tuple(state["shape"]["mrope_section"])})
    seen = torch.load(perception_weights, weights_only=True)
    classes = len(json.loads(seen["classes"]))
    trunk, perception = Trunk(), Perception(classes)
    trunk.load_state_dict(seen["trunk"])
    perception.load_state_dict(seen["perception"])
    policy = Policy(shape, classes, 0.0)
    policy.load_state_dict(state["policy"])
    export_tower(Tower(trunk, perception, policy.merger), out / "vision.onnx")
    save_decoder(policy.decoder, out / "decoder.safetensors")
    shutil.copy(tokenizer_file, out / "tokenizer.json")
    if template.resolve() != (out / "chat_template.jinja").resolve():
        shutil.copy(template, out / "chat_template.jinja")
    (out / "bundle.toml").write_text(fill_manifest(manifest.read_text(), tokenizer_file, labels))
    seal(out, sealers)


def with_decoder(bundle: Path, decoder: Decoder, sealers: Sealers, out: Path) -> None:
    """Writes and seals `out`, the bundle with another decoder; it is there whole or not at all."""
    manifest = tomllib.loads((bundle / "bundle.toml").read_text())
    draft = out.with_name(f"{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for file in ["bundle.toml", *(p["file"] for p in manifest["parts"].values())]:
        shutil.copy(bundle / file, draft / file)
    save_decoder(decoder, draft / part(bundle, "decoder"))
    seal(draft, sealers)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(draft.iterdir(), key=lambda f: f.name == "bundle.toml"):
        file.replace(out / file.name)
    draft.rmdir()


def seal(folder: Path, sealers: Sealers) -> None:
    """Fills in sizes and hashes, and keeps in the bundle what it computes for the golden inputs: a
    camera that gets it over the air tries whether it computes the same."""
    bundle_tool, models_tool = sealers
    subprocess.run([bundle_tool, "seal", str(folder)], check=True)
    subprocess.run([models_tool, "golden", str(folder)], check=True, stdout=subprocess.DEVNULL)


def save_decoder(decoder: Decoder, path: Path) -> None:
    """As a bundle has it: in bfloat16, under the names of the Hugging Face checkpoints."""
    weights = {k: v.to("cpu", torch.bfloat16) for k, v in decoder.checkpoint().items()}
    save_file(weights, path, {"format": "pt"})


def export_tower(tower: Tower, path: Path) -> None:
    """The tower as ONNX with standard operators and a free batch axis."""
    names = ["frames", "tokens", "deepstack_0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower.folded(),
            (torch.zeros(2, 2, 1, 128, 192),),
            str(path),
            input_names=names[:1],
            output_names=names[1:],
            dynamo=False,
            opset_version=OPSET,
            dynamic_axes={name: {0: "B"} for name in names},
        )


def fill_manifest(text: str, tokenizer_file: Path, labels: dict[str, str]) -> str:
    """The manifest with the vocabulary, the labels and the parts, hashes still empty."""
    vocabulary = Tokenizer.from_file(str(tokenizer_file)).get_vocab_size()
    text = text.replace("vocab = 1\n", f"vocab = {vocabulary}\n")
    head = text.rpartition("[parts]")[0]
    quoted = {json.dumps(k): json.dumps(v) for k, v in labels.items()}
    tables = [f"[[labels]]\nname = {k}\nsentence = {v}\n" for k, v in quoted.items()]
    files = {
        "decoder": "decoder.safetensors",
        "vision": "vision.onnx",
        "tokenizer": "tokenizer.json",
        "chat_template": "chat_template.jinja",
    }
    tables += [
        f'[parts.{part}]\nfile = "{file}"\nbytes = 0\nblake3 = ""\n' for part, file in files.items()
    ]
    return head + "\n".join(tables)
