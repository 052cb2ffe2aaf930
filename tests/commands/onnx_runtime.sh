# shellcheck shell=bash
# An ONNX Runtime to see by, and a policy with which it sees something else than the processor. Sourced, not run.
# shellcheck disable=SC2034,SC2154 # nano, repository and bundle_tool are set by begin.sh; who sources this reads the others

# Its library, as its makers publish it for Python; empty: there is none.
onnx_runtime=${LOOKBACK_ONNX_RUNTIME:-}

# of_two_minds DIRECTORY [VERSION [NOTE]]: nano, and beside its tower for the processor another one for accelerators; with a
# NOTE, which that one then carries, it sees the same.
of_two_minds() {
    cp -r "$nano" "$1" && rm -f "$1/README.md" && python3 - "$1" "${2:-0.1.0}" "${3:-}" <<'END' && "$bundle_tool" seal "$1"
import re, sys
folder, version, note = sys.argv[1:]
tower = bytearray(open(f"{folder}/vision.onnx", "rb").read())
middle = len(tower) // 2
for at in range(middle, middle + (0 if note else 4000)):
    tower[at] ^= 0x80
if note:
    tower += bytes([0x32, len(note)]) + note.encode()  # ONNX's doc_string
open(f"{folder}/other.onnx", "wb").write(tower)
text = open(f"{folder}/bundle.toml").read()
text = re.sub(r"(?m)^version = .*", f'version = "{version}"', text, count=1)
own = re.search(r"\[parts\.vision\]\n(?:.+\n)+", text).group()
other = own.replace("[parts.vision]", "[parts.vision_onnx]").replace("vision.onnx", "other.onnx")
open(f"{folder}/bundle.toml", "w").write(text.rstrip("\n") + "\n\n" + other)
END
}

# board_on: an ONNX Runtime that has TensorRT and CUDA is then `board`; where no devices can be pretended, none.
board_on() {
    on_a_board true || { board=; return; }
    board=$PWD/board/libonnxruntime.so.1.0.0
    mkdir -p board && cc -shared -fPIC -std=gnu11 -o "$board" "$repository/tests/commands/board.c" -ldl
}

# on_a_board COMMAND...: runs it where a driver of NVIDIA's seems to be; what it finds at `board` tells in board.log.
on_a_board() {
    BOARD_RUNTIME=$onnx_runtime BOARD_LOG=$PWD/board.log unshare --mount bash -c '
        mkdir -p devices && mount -t tmpfs devices devices && touch devices/nvgpu && ln -s /proc/self/fd devices/fd || exit
        for device in null zero full random urandom; do
            touch devices/$device && mount --bind /dev/$device devices/$device || exit
        done
        mount --rbind devices /dev && exec "$@"' - "$@"
}
