"""The vision tower of a sealed bundle: what its policy sees of frame pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from .decoder import part
from .tower import normalise


class Sight:
    """The tower of a bundle."""

    def __init__(self, bundle: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            str(bundle / part(bundle, "vision")), options, providers=["CPUExecutionProvider"]
        )

    def features(self, frames: np.ndarray, batch: int = 64) -> np.ndarray:
        """Visual tokens and DeepStack levels, f16 `[pairs, 1 + levels, tokens, hidden]`, of pairs,
        u8 `[pairs, 2, 128, 192]`."""
        found = []
        for start in range(0, len(frames), batch):
            chunk = normalise(torch.from_numpy(frames[start : start + batch].copy())).numpy()
            found.append(np.stack(self.session.run(None, {"frames": chunk}), 1))
        return np.concatenate(found).astype(np.float16)
