"""What others do with random weights of the same shape, for `lookback-models bench`.

    bench.py gguf|onnx FILE SHAPE         write a model for llama.cpp or ONNX Runtime
    bench.py text|memory|vision FILE THREADS

SHAPE is JSON: `decoder` and `tower` as a bundle has them, `patches` of a pair of frames. Figures
come as lines of JSON, each as soon as it is known: what crashes later has told what it could.
"""

import json
import statistics
import sys
import time

import numpy as np

TOKENS = 24


def tell(**figures):
    print(json.dumps(figures), flush=True)


def peak_gb():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9


def write_gguf(file, shape):
    """A random Qwen3 in Q4_0, without a vocabulary."""
    import gguf

    d = shape["decoder"]
    hidden, inner, head_dim = d["hidden"], d["intermediate"], d["head_dim"]
    q, kv = d["heads"] * head_dim, d["kv_heads"] * head_dim
    out = gguf.GGUFWriter(file, "qwen3")
    out.add_block_count(d["layers"])
    out.add_context_length(8192)
    out.add_embedding_length(hidden)
    out.add_feed_forward_length(inner)
    out.add_head_count(d["heads"])
    out.add_head_count_kv(d["kv_heads"])
    out.add_key_length(head_dim)
    out.add_value_length(head_dim)
    out.add_rope_freq_base(d["rope_theta"])
    out.add_layer_norm_rms_eps(d["rms_eps"])
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    out.add_vocab_size(d["vocab"])
    out.add_tokenizer_model("none")
    rng = np.random.default_rng(0)

    def matrix(name, rows, columns):
        blocks = np.empty((rows, columns // 32, 18), np.uint8)
        blocks[..., :2] = np.frombuffer(np.float16(0.004).tobytes(), np.uint8)
        blocks[..., 2:] = rng.integers(0, 256, (rows, columns // 32, 16), np.uint8)
        kind = gguf.GGMLQuantizationType.Q4_0
        out.add_tensor(f"{name}.weight", blocks.reshape(rows, -1), raw_dtype=kind)

    def norm(name, width):
        out.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    matrix("token_embd", d["vocab"], hidden)
    norm("output_norm", hidden)
    for layer in range(d["layers"]):
        at = f"blk.{layer}"
        for name, width in [("attn_norm", hidden), ("ffn_norm", hidden)]:
            norm(f"{at}.{name}", width)
        for name in ("attn_q_norm", "attn_k_norm"):
            norm(f"{at}.{name}", head_dim)
        for name, rows, columns in [
            ("attn_q", q, hidden),
            ("attn_k", kv, hidden),
            ("attn_v", kv, hidden),
            ("attn_output", hidden, q),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ]:
            matrix(f"{at}.{name}", rows, columns)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_onnx(file, shape):
    """The tower of Qwen3-VL for one pair, in operators that ONNX Runtime knows how to fuse."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    t, patches = shape["tower"], shape["patches"]
    width, heads, inner = t["width"], t["heads"], t["intermediate"]
    head_dim = width // heads
    pixels = 2 * t["channels"] * t["patch"] ** 2
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def constant(array):
        name = f"c{len(constants)}"
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(kind, *inputs, **attributes):
        name = f"n{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def dense(x, rows, columns):
        weight = rng.standard_normal((rows, columns), np.float32) * np.float32(0.02)
        return op("Add", op("MatMul", x, constant(weight)), constant(np.zeros(columns, np.float32)))

    def norm(x, of):
        ones, zeros = constant(np.ones(of, np.float32)), constant(np.zeros(of, np.float32))
        return op("LayerNormalization", x, ones, zeros, axis=-1, epsilon=1e-6)

    def reshaped(x, *to):
        return op("Reshape", x, constant(np.array(to, np.int64)))

    angles = rng.standard_normal((1, patches, head_dim)).astype(np.float32)
    cos, sin = constant(np.cos(angles)), constant(np.sin(angles))
    ends = [constant(np.array([n], np.int64)) for n in (0, head_dim // 2, head_dim)]
    last = constant(np.array([2], np.int64))
    scale = constant(np.array(head_dim**-0.5, np.float32))

    def turned(x):
        a, b = (op("Slice", x, ends[i], ends[i + 1], last) for i in (0, 1))
        swapped = op("Concat", op("Neg", b), a, axis=2)
        return op("Add", op("Mul", x, cos), op("Mul", swapped, sin))

    def merged(x, before):
        if before:
            x = reshaped(norm(x, width), patches // 4, 4 * width)
        else:
            x = norm(reshaped(x, patches // 4, 4 * width), 4 * width)
        return dense(op("Gelu", dense(x, 4 * width, 4 * width)), 4 * width, t["out"])

    places = rng.standard_normal((patches, width)).astype(np.float32)
    x = op("Add", dense("pixels", pixels, width), constant(places))
    outputs = []
    for block in range(t["depth"]):
        qkv = reshaped(dense(norm(x, width), width, 3 * width), patches, 3, heads, head_dim)
        qkv = op("Transpose", qkv, perm=[1, 2, 0, 3])
        q, k, v = (op("Gather", qkv, constant(np.array(i, np.int64)), axis=0) for i in range(3))
        q, k = turned(q), op("Transpose", turned(k), perm=[0, 2, 1])
        seen = op("Softmax", op("Mul", op("MatMul", q, k), scale), axis=-1)
        mixed = op("Transpose", op("MatMul", seen, v), perm=[1, 0, 2])
        x = op("Add", x, dense(reshaped(mixed, patches, width), width, width))
        wide = op("Gelu", dense(norm(x, width), width, inner), approximate="tanh")
        x = op("Add", x, dense(wide, inner, width))
        if block in t["taps"]:
            outputs.append(merged(x, before=False))
    outputs.insert(0, merged(x, before=True))
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [patches, pixels])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [patches // 4, t["out"]])
            for name in outputs
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, file, save_as_external_data=True, location=file.rsplit("/", 1)[-1] + ".data")


class Llama:
    """llama.cpp by its C interface."""

    def __init__(self, file, threads, flash):
        import llama_cpp

        self.api = llama_cpp
        llama_cpp.llama_backend_init()
        begun = time.perf_counter()
        self.model = llama_cpp.llama_model_load_from_file(
            file.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {file}")
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_ctx = 2048 + TOKENS
        wanted.n_batch = wanted.n_ubatch = 512
        wanted.n_threads = wanted.n_threads_batch = threads
        wanted.flash_attn_type = int(flash)
        self.context = llama_cpp.llama_init_from_model(self.model, wanted)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.read(0, 1)
        self.load = time.perf_counter() - begun

    def forget(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def read(self, first, last):
        """Reads tokens at these positions in one run; returns seconds."""
        count = last - first
        batch = self.api.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i] = (first + i) * 37 % getattr(self, "vocabulary", 1000)
            batch.pos[i] = first + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == count - 1
        begun = time.perf_counter()
        failed = self.api.llama_decode(self.context, batch)
        self.api.llama_get_logits_ith(self.context, -1)[0]
        seconds = time.perf_counter() - begun
        self.api.llama_batch_free(batch)
        if failed:
            raise SystemExit(f"llama.cpp cannot read {count} tokens at {first}: {failed}")
        return seconds

    def one_by_one(self, first):
        times = [self.read(first + i, first + i + 1) for i in range(TOKENS)]
        return 1 / statistics.median(times)


def text(file, threads):
    for flash in (True, False):
        llama = Llama(file, threads, flash)
        tell(name=f"llama.cpp (llama-cpp-python {llama.api.__version__})", load=llama.load)
        tell(decode_0=llama.one_by_one(1))
        for _ in range(2):
            llama.forget()
            figure = 512 / llama.read(0, 512)
        tell(prefill_512=figure)
        llama.read(512, 1024)
        tell(decode_1024=llama.one_by_one(1024))
        llama.api.llama_free(llama.context)
        llama.api.llama_model_free(llama.model)


def memory(file, threads):
    llama = Llama(file, threads, True)
    llama.forget()
    for first in range(0, 2048, 512):
        llama.read(first, first + 512)
    tell(name=f"llama.cpp (llama-cpp-python {llama.api.__version__})", rss=peak_gb())


def vision(file, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    wanted = session.get_inputs()[0]
    pixels = np.random.default_rng(1).standard_normal(wanted.shape, np.float32)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        session.run(None, {wanted.name: pixels})
        times.append((time.perf_counter() - begun) * 1e3)
    tell(name=f"ONNX Runtime {onnxruntime.__version__} f32", vision=statistics.median(times[1:]))


def main():
    _, command, file, given = sys.argv
    if command in ("gguf", "onnx"):
        {"gguf": write_gguf, "onnx": write_onnx}[command](file, json.loads(given))
    else:
        {"text": text, "memory": memory, "vision": vision}[command](file, int(given))


if __name__ == "__main__":
    main()
