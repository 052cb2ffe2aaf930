# shellcheck shell=bash
# An ONNX Runtime to see by, and a policy with which it sees something else than the processor. Sourced, not run.
# shellcheck disable=SC2034,SC2154 # nano and bundle_tool are set by begin.sh; onnx_runtime is read by who sources this

# Its library, as its makers publish it for Python; empty: there is none.
onnx_runtime=${LOOKBACK_ONNX_RUNTIME:-}

# of_two_minds DIRECTORY [VERSION]: nano, and beside its tower for the processor another one for accelerators.
of_two_minds() {
    cp -r "$nano" "$1" && rm -f "$1/README.md" && python3 - "$1" "${2:-0.1.0}" <<'END' && "$bundle_tool" seal "$1"
import re, sys
folder, version = sys.argv[1:]
tower = bytearray(open(f"{folder}/vision.onnx", "rb").read())
middle = len(tower) // 2
for at in range(middle, middle + 4000):
    tower[at] ^= 0x80
open(f"{folder}/other.onnx", "wb").write(tower)
text = open(f"{folder}/bundle.toml").read()
text = re.sub(r"(?m)^version = .*", f'version = "{version}"', text, count=1)
own = re.search(r"\[parts\.vision\]\n(?:.+\n)+", text).group()
other = own.replace("[parts.vision]", "[parts.vision_onnx]").replace("vision.onnx", "other.onnx")
open(f"{folder}/bundle.toml", "w").write(text.rstrip("\n") + "\n\n" + other)
END
}
