"""What transformers computes with `lookback-models make-random --shape tiny`.

    lookback-models make-random --shape tiny -o /tmp/tiny
    cd models/train && uv run --group vlm python ../pack/tests/make_expected.py /tmp/tiny

Writes expected.safetensors beside this file.
"""

import sys
from pathlib import Path

import torch
from lookback_train.vlm.examples import patches
from safetensors.torch import save_file
from transformers import Qwen3VLForConditionalGeneration

model = Qwen3VLForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
width, height = 192, 128
# As the test draws it: the second frame is the first, moved on.
luma = torch.arange(2 * height * width).reshape(1, 2, 1, height, width) * 7 % 251
frames = luma.expand(-1, -1, 3, -1, -1) / 127.5 - 1.0
tokens = torch.tensor([[i * 37 % 600 for i in range(90)]])
with torch.no_grad():
    seen = model.model.visual(patches(frames), torch.tensor([[1, height // 16, width // 16]]))
    said = model(input_ids=tokens, mm_token_type_ids=torch.zeros_like(tokens))
    greedy = model.generate(
        input_ids=tokens,
        mm_token_type_ids=torch.zeros_like(tokens),
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=16,
        do_sample=False,
    )
expected = {f"deepstack_{k}": feature for k, feature in enumerate(seen.deepstack_features)}
expected["tokens"] = seen.pooler_output
expected["logits"] = said.logits[0, [0, 40, 89]].contiguous()
print("greedy", greedy[0, 90:].tolist())
save_file({k: v.float() for k, v in expected.items()}, Path(__file__).with_name("expected.safetensors"))
