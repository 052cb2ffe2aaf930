"""The vision tower of a sealed bundle: what its policy sees of frame pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

from .decoder import part
from .tower import Merger, Perception, Tower, Trunk, normalise


class Sight:
    """The tower of a bundle: on the processor by ONNX Runtime, on another `device` by PyTorch."""

    def __init__(self, bundle: Path, device: str = "cpu") -> None:
        model, self.device = bundle / part(bundle, "vision"), device
        if device != "cpu":
            self.tower = rebuilt(model).to(device)
            return
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )

    def features(self, frames: np.ndarray, batch: int = 64) -> np.ndarray:
        """Visual tokens and DeepStack levels, f16 `[pairs, 1 + levels, tokens, hidden]`, of pairs,
        u8 `[pairs, 2, 128, 192]`."""
        found = []
        for start in range(0, len(frames), batch):
            chunk = torch.from_numpy(frames[start : start + batch].copy())
            if self.device == "cpu":
                levels = self.session.run(None, {"frames": normalise(chunk).numpy()})
            else:
                with torch.inference_mode():
                    levels = [x.cpu().numpy() for x in self.tower(normalise(chunk.to(self.device)))]
            found.append(np.stack(levels, 1))
        return np.concatenate(found).astype(np.float16)


def rebuilt(model: Path) -> Tower:
    """An exported tower as a module again, folded as it was exported.

    ONNX Runtime reaches a GPU only in a package of its own, with its own CUDA; PyTorch is there.
    """
    graph = onnx.load(model).graph
    given = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    classes, hidden = len(given["perception.head.bias"]), len(given["merger.tokens.bias"])
    tower = Tower(Trunk(), Perception(classes), Merger(classes, hidden)).folded()
    # The exporter folds norms into the trunk's convolutions and turns matrices of linear layers
    # over, under names of its own: those are taken in the order in which they are used.
    inputs = [(node.op_type, list(node.input)) for node in graph.node]
    nameless = [i[1:] for op, i in inputs if op == "Conv" and i[1] not in tower.state_dict()]
    blocks = [m for m in tower.trunk.modules() if _is_convolution_and_norm(m)]
    for block, (weight, bias) in zip(blocks, nameless, strict=True):
        block[0].weight = nn.Parameter(given.pop(weight))
        block[0].bias = nn.Parameter(given.pop(bias))
        block[1] = nn.Identity()
    turned = [i[1] for op, i in inputs if op == "MatMul"]
    for layer, weight in zip((tower.merger.widen, tower.merger.deep_out), turned, strict=True):
        layer[1].weight = nn.Parameter(given.pop(weight).T.contiguous())
    scale = next(given.pop(i[1]) for op, i in inputs if op == "Mul" and i[1] in given)
    given["merger.rare.running_var"] = scale**-2 - tower.merger.rare.eps
    missing, unknown = tower.load_state_dict(given, strict=False)
    left = {m for m in missing if not m.startswith("trunk.") and not m.endswith("_tracked")}
    left -= {f"merger.{name}.1.weight" for name in ("widen", "deep_out")}
    if left or unknown:
        raise SystemExit(f"{model} is no tower of nano's kind: {sorted(left) + unknown}")
    return tower.requires_grad_(False)


def _is_convolution_and_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv2d)
