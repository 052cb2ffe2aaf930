#!/bin/bash
# A policy packed from a checkpoint: made, packed, verified, watched with, and refused where it cannot be used.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

check 'a checkpoint of random weights is made' quiet "$models_tool" make-random --shape tiny -o checkpoint
check 'it is packed' quiet "$models_tool" pack checkpoint -o packed --size 192x128
check 'and verified' quiet "$models_tool" verify packed
"$models_tool" verify packed --json >verify.json
holds '`verify --json` tells its parts' verify.json \
    'rows[0]["ok"] and {"decoder", "vision", "tokenizer", "chat_template"} <= set(rows[0]["parts"])'

# A pipe that nobody reads from any more.
into_a_closed_pipe() { "$@" 2>pipe.err > >(exec true); ! grep -q panicked pipe.err || { cat pipe.err; return 1; }; }
closed_early() { for _ in 1 2 3 4 5; do into_a_closed_pipe "$@" || return 1; done; }
check '`verify` into a pipe that closes does not panic' closed_early "$models_tool" verify packed
check 'nor does `lookback-bundle`' closed_early "$bundle_tool" verify packed

cat >all.toml <<'END'
[events]
report_normal = true
END
watch() {
    timeout 300 "$lookback" --config all.toml run --camera 'sim:seed=2,minutes=5,speed=max' --bundle packed "$@"
}
watched() { watch --data-dir D >run.out 2>run.err; }
check 'it watches five minutes' watched
tells_its_costs() {
    grep -qE '^memory: .* GB: weights .*, a context of 8192 tokens .*, sight' run.out &&
        grep -qE 'turn 1: vision [0-9]+ ms, [0-9]+ pairs, 0 more from the cache; read [0-9]+ at [0-9]+ tokens/s; wrote [0-9]+ at' run.out &&
        grep -qE 'turn 2: ' run.out
}
check 'and tells memory at the start, and of each turn tokens a second, vision time and cache hits' tells_its_costs
watch --data-dir E --json >run.json 2>run.err
holds 'though its weights are random every action is valid, and every inquiry ends with a verdict' run.json '
    len(rows) >= 3 and all(s["op"] in ("glance", "backtrack", "expand", "sample", "final")
        for r in rows if r.get("kind") != "health" for s in r["trajectory"])
    and all(r["trajectory"][-1]["op"] == "final" for r in rows if r.get("kind") != "health")'
check 'each of them reaches the same tokens when it is replayed' quiet "$lookback" replay --data-dir E --bundle packed

cat >small.toml <<'END'
[inquiry]
memory_mb = 40
END
refuses 1 'needs .* GB: weights .* and 0.04 GB can be had' \
    'a policy that needs more memory than it may have is refused before it is loaded' \
    "$lookback" --config small.toml run --camera 'sim:seed=2,minutes=1,speed=max' --bundle packed --data-dir F
finish
