#!/bin/bash
# The program for a board beside this machine's own. Asked about the same footage, both do the same with the
# policy that ships, `nano`: the same operators with the same arguments, and the same verdict. Probabilities
# may differ in their last digits.
#
#   tests/cross/inquiry.sh PROGRAM     PROGRAM: `lookback` for aarch64, such as cross/out/lookback
#
# QEMU emulates a board's processor, with the C library of an older Debian; how fast it is there this cannot
# tell. Needs root, qemu-user-static, mmdebstrap and ffmpeg.
#
#   LOOKBACK         the program of this machine (default target/release/lookback)
#   LOOKBACK_CACHE   folder for what is fetched (default ~/.cache/lookback), kept
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool=inquiry
# shellcheck source=tests/commands/expect.sh
. "$here/../commands/expect.sh"
# shellcheck source=cross/toolchain.sh
. "$here/../../cross/toolchain.sh"

# What the emulated processor can do: Cortex-A76 is near to the Cortex-A78AE of a Jetson Orin, and older; `max`
# has all that QEMU knows, so there tract takes its kernels for SVE.
cpus=(cortex-a76 max)
# In emulation all is twenty times slower, with SVE ten times slower again, and this machine may be busy.
longest=40m

main() {
    [ $# = 1 ] || { say 'which program? tests/cross/inquiry.sh cross/out/lookback'; exit 2; }
    board=$(realpath "$1") machine=$(realpath "${LOOKBACK:-$repository/target/release/lookback}")
    [ -x "$board" ] || fail "there is no program $1; cross/build makes one"
    [ -x "$machine" ] || fail "there is no program $machine; cargo build --release makes one"
    local command
    for command in qemu-aarch64-static ffmpeg; do
        command -v $command >/dev/null || impossible "needs $command"
    done
    mkdir -p "$cache"
    make_glibc
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"

    film || fail 'ffmpeg made no film'
    footage || { cat run.err >&2; fail "this machine's own program records no event"; }
    limit "$longest" "$machine" inquire film.mp4 --json --data-dir here >here.json
    local cpu
    for cpu in "${cpus[@]}"; do
        check "it starts on $cpu" on_board "$cpu" --version || true
        check "on $cpu it reads the film as this machine does, and decides the same" same_inquiry "$cpu" || true
        check "on $cpu the events that this machine recorded come out the same, token for token" \
            same_replay "$cpu" || true
    done
    finish
}

# A moving test pattern: it does not matter what nano makes of it, so long as it is the same.
film() {
    ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=320x240:rate=10:duration=20 -pix_fmt yuv420p film.mp4
}

# Two minutes of a simulated camera, with incidents in them.
footage() {
    limit "$longest" "$machine" run --camera sim:seed=9001,minutes=2,speed=max --json --data-dir recorded \
        >run.json 2>run.err
    grep -q '"kind":"incident"' run.json
}

same_inquiry() {
    on_board "$1" inquire film.mp4 --json --data-dir "there-$1" >"there-$1.json" || return 1
    python3 - here.json "there-$1.json" <<'END'
import json, sys

def decided(path):
    with open(path) as file:
        answer = json.load(file)
    return {
        "operators": [(step["op"], step["args"]) for step in answer["trajectory"]],
        **{key: answer[key] for key in ("verdict", "label", "sentence")},
        "clips": [(clip["start"], clip["end"], clip["label"]) for clip in answer["clips"]],
    }, answer["score"]

(here, p_here), (there, p_there) = (decided(path) for path in sys.argv[1:])
print(json.dumps(here), json.dumps(there), sep="\n")
if not here["operators"] or here != there:
    sys.exit("not the same")
# Another verdict could not be far if this were.
if abs(p_here - p_there) > 1e-3:
    sys.exit(f"the scores are far apart: {p_here} here, {p_there} there")
END
}

# The footage is on disk as it was seen, so nothing but the policy is at work.
same_replay() {
    cp -r recorded "replayed-$1"
    on_board "$1" replay --json --data-dir "replayed-$1" >"replay-$1.json" || return 1
    python3 - "replay-$1.json" <<'END'
import json, sys
with open(sys.argv[1]) as file:
    events = [json.loads(line) for line in file]
print(events)
sys.exit(not (events and all(event["same"] and event["tokens"] > 0 for event in events)))
END
}

# on_board CPU ARGUMENT...: the board's program, emulated.
on_board() {
    local cpu=$1
    shift
    limit "$longest" qemu-aarch64-static -cpu "$cpu" -L "$glibc" "$board" "$@"
}

main "$@"
