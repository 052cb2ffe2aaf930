"""What the processor of transformers' Qwen3-VL makes of conversations and of sizes of frames.

    cd models/train && uv run --group dev --with torchvision python ../pack/tests/make_processor.py LOOKBACK_MODELS

Writes into `processor` beside this file: conversations.json, whose conversations are rendered with nano's
chat template and with tools.jinja, and tokenised with their videos; and smart_resize.json.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor, smart_resize
from transformers.video_utils import VideoMetadata

HERE = Path(__file__).parent
OUT, ROOT = HERE / "processor", HERE.parents[2]
TEMPLATES = {
    "nano": ROOT / "models/nano/chat_template.jinja",
    "tools": OUT / "tools.jinja",
}
TOOLS = json.loads((ROOT / "models/policy/src/tools.json").read_text())
FPS = 10

CALL = '<think>Something lies there: "é" <5 & more.</think>\n<tool_call>\n{"name":"sample"}\n</tool_call>'


def text(role, words):
    return {"role": role, "content": [{"type": "text", "text": words}]}


def shown(role, words, after=""):
    content = [{"type": "text", "text": words}, {"type": "video"}]
    return {"role": role, "content": content + ([{"type": "text", "text": after}] if after else [])}


# Messages, and for each video its frames, in tenths of a second.
CONVERSATIONS = [
    ([text("system", "Watch the camera."), shown("user", "Window 0.0 to 12.0.\n")], [[0, 5, 70, 75]]),
    (
        [
            text("system", "Watch.\n\nSay why."),
            shown("user", "Is\tanything wrong?\n", "Normal here: naïve 東京 🙂"),
            text("assistant", CALL),
            shown("tool", '{"obs":2}\n'),
            text("assistant", "<think>It fell at 3.4.</think>"),
            shown("tool", '{"obs": 3, "note": "\\u00e9"}\n'),
        ],
        # Odd numbers of frames: the last is a pair with itself.
        [[3, 8, 1234], [45, 50, 149, 154], [999]],
    ),
]


def rendered(processor, messages, tools):
    return processor.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)


def conversations(tokenizer_file):
    found = []
    for name, template in TEMPLATES.items():
        processor = Qwen3VLProcessor(
            image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2),
            tokenizer=PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)),
            video_processor=Qwen3VLVideoProcessor(do_resize=False, do_sample_frames=False),
            chat_template=template.read_text(),
        )
        for messages, videos in CONVERSATIONS:
            whole = rendered(processor, messages, TOOLS)
            frames = [np.zeros((len(times), 3, 64, 96), np.uint8) for times in videos]
            metadata = [
                VideoMetadata(total_num_frames=10_000, fps=FPS, frames_indices=times)
                for times in videos
            ]
            # Up to version 4, with which the checkpoints were trained, the processor replaced the whole
            # marker of a video; since version 5 it replaces what is between its two ends.
            fed = whole.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
            given = processor(text=[fed], videos=frames, video_metadata=metadata)
            found.append(
                {
                    "template": name,
                    "messages": messages,
                    "videos": [[time / FPS for time in times] for times in videos],
                    "text": whole,
                    "ids": [int(i) for i in given["input_ids"][0]],
                }
            )
    return found


def sizes():
    found = []
    limits = [(4096, 25_165_824), (131_072, 786_432), (65_536, 200_000)]
    rng = np.random.default_rng(0)
    sides = [(448, 448), (720, 1280), (1080, 1920), (2160, 3840), (480, 640), (100, 200), (20, 30)]
    sides += [(16, 16), (80, 48), (336, 176), (33, 6000)]
    sides += [tuple(int(n) for n in rng.integers(8, 3000, 2)) for _ in range(40)]
    for least, most in limits:
        for height, width in sides:
            if max(height, width) / min(height, width) < 150:
                to = smart_resize(2, height, width, 2, 32, least, most)
                found.append([height, width, least, most, *to])
    return found


with tempfile.TemporaryDirectory() as scratch:
    checkpoint = f"{scratch}/checkpoint"
    config = HERE / "shapes/groups_of_four.json"
    subprocess.run([sys.argv[1], "make-random", "--config", config, "-o", checkpoint], check=True)
    found = conversations(Path(checkpoint) / "tokenizer.json")
for name, rows in [("conversations", found), ("smart_resize", sizes())]:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (OUT / f"{name}.json").write_text(f"[\n{lines}\n]\n")
print(len(found), "conversations,", len(sizes()), "sizes")
