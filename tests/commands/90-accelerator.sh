#!/bin/bash
# Another library that sees in the processor's place: it serves, is missing, sees something else, ends the program. And a GPU
# that is to speak, and is not there.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
# shellcheck source=tests/commands/onnx_runtime.sh
. "$here/onnx_runtime.sh"

# with LIBRARY [PROVIDER [BUNDLE]]: a configuration that has it.
with() {
    cat <<END
[inquiry]
onnx_runtime = "$1"
provider = "${2:-cpu}"
bundle = "${3:-}"
[events]
notice_at = 0.01
report_normal = true
END
}
watch() { ${where:-} "$lookback" --config "$1.toml" run --data-dir "$1" --camera 'sim:seed=1128,minutes=2,speed=max' --json >"$1.jsonl" 2>"$1.err"; }
engines() { echo "{r['engine'] for r in rows if r.get('kind', 'incident') == 'incident'}"; }
logged() { "$lookback" events --data-dir "$1" --json >"$1.logged"; }
examined() { ${where:-} "$lookback" --config "$1.toml" doctor --data-dir "$1" --json >"$1.doctor"; }
finding="next(c for c in rows[0]['checks'] if c['name'] == 'engine')"

# --- none
with "$scratch/nowhere.so" >missing.toml
check 'a library that is not there keeps no camera from watching' watch missing
holds 'the processor sees' missing.jsonl "rows and all('vision' not in e for e in $(engines))"
examined missing
holds 'and doctor says why' missing.doctor "'absent: there is no $scratch/nowhere.so' in ${finding}['finding']"
echo 'no library' >text.so
with "$scratch/text.so" >text.toml
check 'nor does a file that is none' watch text
examined text
holds 'and doctor says why' text.doctor "'broken' in ${finding}['finding'] and ${finding}['status'] == 'warn'"
with "$scratch/nowhere.so" gpu >wrong.toml
refuses 1 'one of "tensorrt", "cuda", "cpu"' 'a provider that there is not is refused' "$lookback" --config wrong.toml config

# --- a GPU that is to speak
printf '[inquiry]\ndecoder = "cuda"\n[events]\nnotice_at = 0.01\nreport_normal = true\n' >speaks.toml
check 'without a GPU to speak with it watches all the same' watch speaks
holds 'the processor speaks' speaks.jsonl "rows and all('cuda' not in e for e in $(engines))"
examined speaks
holds 'and doctor says why' speaks.doctor "'decoder: not on tract-cuda' in ${finding}['finding'] and 'absent: ' in ${finding}['finding']"
printf '[inquiry]\ndecoder = "gpu"\n' >wrong.toml
refuses 1 'one of "cpu", "cuda"' 'another word than those that there are is refused' "$lookback" --config wrong.toml config

# --- one that ends the program
printf '#include <stdlib.h>\n__attribute__((constructor)) static void end(void) { abort(); }\n' >ends.c
cc -shared -fPIC -o ends.so ends.c
with "$scratch/ends.so" >ends.toml
ended_by_it() { for _ in 1 2 3; do ! watch ends || return 1; done; }
check 'a library that ends the program ends it' ended_by_it 2>/dev/null
check 'three times, and then the camera watches' watch ends
logged ends
holds 'as an event says' ends.logged "any(r['label'] == 'accelerator' and 'last 3 tries' in r['sentence'] for r in rows)"
examined ends
holds 'and doctor, with the remedy' ends.doctor "'accelerator-tries' in ${finding}['finding'] and ${finding}['status'] == 'warn'"

# --- one that works
if [ -z "$onnx_runtime" ]; then
    skip 'ONNX Runtime sees what the processor sees' 'LOOKBACK_ONNX_RUNTIME names no libonnxruntime.so'
    finish
fi
with "$onnx_runtime" >works.toml
check 'with ONNX Runtime it watches' watch works
holds 'and each event says that it saw' works.jsonl "rows and all(', vision onnxruntime-cpu' in e for e in $(engines))"
watch_without() { "$lookback" run --data-dir without --config text.toml --camera 'sim:seed=1128,minutes=2,speed=max' --json >without.jsonl 2>/dev/null; }
check 'the same scene is watched without it' watch_without
told() { python3 -c 'import json, sys; print([(r["label"], r["level"], r["start_s"], r["end_s"]) for r in map(json.loads, open(sys.argv[1]))])' "$1"; }
check 'and the same is found' [ "$(told works.jsonl)" = "$(told without.jsonl)" ]
check 'its events replay' quiet "$lookback" --config works.toml replay --data-dir works --json
check 'and so do those of the processor, by the processor' quiet "$lookback" --config works.toml replay --data-dir without --json
examined works
holds 'doctor says what its canary saw' works.doctor "
    'cosine 1.0000' in ${finding}['finding'] and 'gives its golden answers' in ${finding}['finding']"
for provider in tensorrt cuda; do
    with "$onnx_runtime" $provider >$provider.toml
    examined $provider
    holds "$provider, which this machine has not, is a reason and no fault" $provider.doctor "
        ${finding}['status'] == 'ok' and 'not on onnxruntime-$provider' in ${finding}['finding']"
done

# --- one that sees something else
check 'a policy whose tower for accelerators is another is made' quiet of_two_minds two-minds
with "$onnx_runtime" cpu "$scratch/two-minds" >lies.toml
check 'what it sees is not believed, and the camera watches' watch lies
holds 'by the processor' lies.jsonl "rows and all('vision' not in e for e in $(engines))"
logged lies
holds 'as an event says' lies.logged "
    any(r['label'] == 'accelerator' and 'quarantined' in r['sentence'] and 'cosine' in r['sentence'] for r in rows)"

# --- one of a board
board_on
if [ -z "$board" ]; then
    skip 'what TensorRT compiles is kept, and what fails in the midst is begun anew' 'no devices can be pretended here'
    finish
fi
where=on_a_board
scores() { python3 -c 'import json, sys; print({r["id"]: r["score"] for r in map(json.loads, open(sys.argv[1])) if r.get("kind", "incident") == "incident"}.values())' "$1"; }
for provider in tensorrt cuda; do
    with "$board" $provider >on-$provider.toml
    check "on a board that has $provider it watches" watch on-$provider
    holds "and $provider sees" on-$provider.jsonl "rows and all(e.endswith(', vision onnxruntime-$provider 1.0.0') for e in $(engines))"
    check 'as no other does' [ "$(scores on-$provider.jsonl)" != "$(scores without.jsonl)" ]
done
# It compiles anew in a folder that is new; what its service manager is told is put down by a listener.
patience_is_asked_for() {
    cp on-tensorrt.toml told.toml
    in_background python3 -uc '
import socket
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("notify")
while "STOPPING" not in (said := manager.recv(4096).decode()):
    print(said.replace("\n", " "))'
    wait_for 20 test -S notify
    NOTIFY_SOCKET=$scratch/notify watch told || return 1
    wait "$child"
    cat child.out
    [ "$(grep -oE '^[A-Z_]+' child.out | sed '/WATCHDOG/d' | uniq | xargs)" = 'STATUS EXTEND_TIMEOUT_USEC READY STATUS' ]
}
plan=$(echo on-tensorrt/cache/tensorrt/*/tower.engine)
check 'what TensorRT compiles is kept' [ "$(cat board.log)" = "made $plan" ]
examined on-tensorrt
check 'and found by whoever starts next' [ "$(tail -n 1 board.log)" = "found $plan" ]
check 'the service manager is asked for patience meanwhile' patience_is_asked_for
check 'its events replay' quiet on_a_board "$lookback" --config on-tensorrt.toml replay --data-dir on-tensorrt --json
for look in 5 14; do
    cp on-tensorrt.toml lost-$look.toml
    export BOARD_FAILS_AT=$look
    check "where the device is lost at look $look the camera watches" watch lost-$look
    holds 'by the processor' lost-$look.jsonl "rows and all('vision' not in e for e in $(engines))"
    check 'to which nothing of what the device saw has come' [ "$(scores lost-$look.jsonl)" = "$(scores without.jsonl)" ]
    logged lost-$look
    holds 'as an event says' lost-$look.logged "any(r['label'] == 'accelerator' and 'device is lost' in r['sentence'] for r in rows)"
done
finish
