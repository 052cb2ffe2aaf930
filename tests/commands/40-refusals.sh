#!/bin/bash
# Bad input: one clear sentence, the right exit code (1: refused; 2: no such command or flag), no panic.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
sim='sim:seed=9001,minutes=1,speed=max'

usage_error() {
    local code=0
    "$lookback" "$@" >usage.out 2>usage.err || code=$?
    [ "$code" = 2 ] && grep -qi usage usage.err && ! grep -q panicked usage.err
}
check 'an unknown command ends with code 2 and the usage' usage_error wach
check 'an unknown flag ends with code 2 and the usage' usage_error run --camra x

refuses 1 'seed' 'a seed that is no number is refused' "$lookback" run --camera sim:seed=abc --data-dir A
refuses 1 'seed' 'an unknown key of a simulated camera is refused with the nearest' \
    "$lookback" run --camera sim:sed=1 --data-dir A
refuses 1 'speed' 'a speed that is no number is refused' "$lookback" run --camera sim:speed=fast --data-dir A
refuses 1 'sim|v4l2|file' 'an unknown kind of camera is refused with the kinds there are' \
    "$lookback" run --camera rtsp://x --data-dir A
refuses 1 'auto or a number' 'an exposure that is no number is refused with what it can be' \
    "$lookback" run --camera v4l2:/dev/video0,exposure=long --data-dir A
refuses 1 'at most 4' 'a fifth camera is refused' \
    "$lookback" run --camera "$sim" --camera "$sim" --camera "$sim" --camera "$sim" --camera "$sim" --data-dir A
refuses 1 'nowhere.mp4' 'a camera file that is not there is refused' \
    "$lookback" run --camera file:nowhere.mp4 --data-dir A

printf '[store]\nbytes_max = 5\n' >unknown.toml
refuses 1 'bytes_max_mb' 'an unknown key in the configuration is refused with the nearest' \
    "$lookback" run --config unknown.toml --camera "$sim" --data-dir A
refuses 1 'unknown.toml|line 2' 'and says where it is' \
    "$lookback" run --config unknown.toml --camera "$sim" --data-dir A
printf '[inquiry]\nlook_back_s = "long"\n' >type.toml
refuses 1 'look_back_s' 'a value of the wrong type is refused by name' \
    "$lookback" run --config type.toml --camera "$sim" --data-dir A
printf '[inquiry]\nlook_back_s = -1\n' >range.toml
refuses 1 'look_back_s' 'a value out of range is refused by name' \
    "$lookback" run --config range.toml --camera "$sim" --data-dir A
printf '[store\n' >syntax.toml
refuses 1 'syntax.toml' 'a file that is no TOML is refused' "$lookback" run --config syntax.toml --data-dir A
head -c 3000 /dev/urandom >noise.toml
refuses 1 'noise.toml' 'a file that is no text is refused' "$lookback" run --config noise.toml --data-dir A
printf '[board]\ndescription = "orin"\n' >board.toml
refuses 1 "'orin'.*orin-nano" 'a board that there is not is refused with those that there are' \
    "$lookback" run --config board.toml --data-dir A
printf 'name = "mine"\n[relai]\nline = "x"\n' >mine.toml
printf '[board]\ndescription = "mine.toml"\n' >board.toml
refuses 1 "line 2.*'relay'" 'an unknown part of a board is refused with the nearest' \
    "$lookback" run --config board.toml --data-dir A
refuses 1 'nowhere.toml' 'a missing configuration is refused' "$lookback" run --config nowhere.toml --data-dir A

: >file
refuses 1 'file' 'a data directory that is a file is refused' "$lookback" run --camera "$sim" --data-dir file
refuses 1 '/proc/nowhere' 'a data directory that cannot be made is refused' \
    "$lookback" run --camera "$sim" --data-dir /proc/nowhere
refuses 1 'nothing-here' '`events` without a log is refused' "$lookback" events --data-dir nothing-here
check 'and leaves no directory behind' [ ! -e nothing-here ]

# Bundles: nano with one thing wrong.
with_bundle() { printf '[inquiry]\nbundle = "%s"\n' "$1" >"$1.toml"; }
broken() { cp -r "$nano" "$1" && with_bundle "$scratch/$1"; }
broken flipped && python3 - <<'END'
path = "flipped/decoder.safetensors"
data = bytearray(open(path, "rb").read())
data[len(data) // 2] ^= 1
open(path, "wb").write(data)
END
refuses 1 'decoder' 'a bundle with a flipped byte is refused' \
    "$lookback" run --config flipped.toml --camera "$sim" --data-dir A
refuses 1 'decoder' 'by lookback-bundle too' "$bundle_tool" verify flipped
broken partless && rm partless/vision.onnx
refuses 1 'vision' 'a bundle that lacks a part is refused' \
    "$lookback" run --config partless.toml --camera "$sim" --data-dir A
broken cut && truncate -s -1 cut/tokenizer.json
refuses 1 'tokenizer' 'a bundle with a part cut short is refused' \
    "$lookback" run --config cut.toml --camera "$sim" --data-dir A
broken newer && sed -i 's/^min_agent = .*/min_agent = "99.0.0"/' newer/bundle.toml
refuses 1 '99.0.0' 'a bundle that needs a newer agent is refused' \
    "$lookback" run --config newer.toml --camera "$sim" --data-dir A
broken escaping && sed -i 's#^file = "vision.onnx"#file = "../vision.onnx"#' escaping/bundle.toml
refuses 1 'vision' 'a bundle whose part lies outside of it is refused' \
    "$lookback" run --config escaping.toml --camera "$sim" --data-dir A
with_bundle "$scratch/no-bundle"
refuses 1 'no-bundle' 'a bundle that is not there is refused' \
    "$lookback" run --config no-bundle.toml --camera "$sim" --data-dir A

# Events that are not there.
check 'a minute is watched' quiet "$lookback" run --camera "$sim" --data-dir B
refuses 1 'nonesuch' '`show` of an unknown event is refused' "$lookback" show nonesuch --data-dir B
refuses 1 'nonesuch' '`replay` of an unknown event is refused' "$lookback" replay nonesuch --data-dir B

# Two at once.
in_background "$lookback" run --camera sim:seed=9001 --data-dir B
wait_for 20 sh -c 'find B -newer child.out -type f | grep -q .'
refuses 1 'use|another|lock|runs' 'a second process on the same data directory is refused' \
    "$lookback" run --camera "$sim" --data-dir B
check 'while `events` may read beside it' quiet "$lookback" events --data-dir B --json
check 'and Ctrl-C ends the first cleanly' interrupted
finish
