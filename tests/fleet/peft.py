"""`peft.py CHECKPOINT OUT SEED`: a random LoRA adapter of rank 4 for a checkpoint of Qwen3-VL, as PEFT saves it."""

import json
import os
import random
import struct
import sys

RANK = 4


def main():
    """Writes the folder OUT."""
    checkpoint, out, seed = sys.argv[1:]
    with open(os.path.join(checkpoint, "config.json"), encoding="utf-8") as file:
        text = json.load(file)["text_config"]
    hidden, head = text["hidden_size"], text["head_dim"]
    rows = {"q_proj": text["num_attention_heads"] * head, "v_proj": text["num_key_value_heads"] * head}
    draw, header, data = random.Random(int(seed)), {}, b""
    for layer in range(text["num_hidden_layers"]):
        for module, out_features in rows.items():
            for which, shape in (("A", [RANK, hidden]), ("B", [out_features, RANK])):
                numbers = [draw.gauss(0, 0.02) for _ in range(shape[0] * shape[1])]
                body = struct.pack(f"<{len(numbers)}f", *numbers)
                name = f"model.language_model.layers.{layer}.self_attn.{module}"
                header[f"base_model.model.{name}.lora_{which}.weight"] = {
                    "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
                data += body
    os.makedirs(out)
    text = json.dumps(header).encode()
    with open(os.path.join(out, "adapter_model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    with open(os.path.join(out, "adapter_config.json"), "w", encoding="utf-8") as file:
        json.dump({"peft_type": "LORA", "lora_alpha": 8, "r": RANK, "bias": "none"}, file)


main()
