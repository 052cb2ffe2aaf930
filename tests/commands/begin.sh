# shellcheck shell=bash
# The first line of each script of commands: what to run, where to scribble. Sourced, not run.
# shellcheck disable=SC2034 # what is set here is used by the scripts

set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=${here%/tests/commands}
target=${CARGO_TARGET_DIR:-$repository/target}
lookback=${LOOKBACK:-$target/release/lookback}
bundle_tool=${LOOKBACK_BUNDLE:-$target/release/lookback-bundle}
eval_tool=${LOOKBACK_EVAL:-$target/release/lookback-eval}
models_tool=${LOOKBACK_MODELS:-$target/release/lookback-models}
nano=$repository/models/nano
export NO_COLOR=1 LC_ALL=C.UTF-8
# shellcheck source=tests/commands/expect.sh
. "$here/expect.sh"

scratch=$(mktemp -d)
# Only what a script started itself is ended, by its own number.
children=()
trap 'for child in "${children[@]}"; do kill -KILL "$child" 2>/dev/null; done; rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

# in_background COMMAND...: its number is then in `child`; its output in child.out and child.err.
in_background() {
    "$@" >child.out 2>child.err </dev/null &
    child=$!
    children+=("$child")
}

# interrupted: sends Ctrl-C to `child`; true if it then ends with exit code 0 within 20 s.
interrupted() {
    kill -INT "$child" || return 1
    wait_for 20 ended || { echo "it still runs 20 s after Ctrl-C"; return 1; }
    wait "$child"
}

# A child that has ended is a zombie until it is waited for.
ended() { ! kill -0 "$child" 2>/dev/null || grep -q '^State:.*Z' "/proc/$child/status" 2>/dev/null; }

# ids FILE: the ids of the incidents in FILE, one line each, in order, each once.
ids() {
    python3 -c '
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print("\n".join(dict.fromkeys(r["id"] for r in rows if r.get("kind", "incident") == "incident")))' "$1"
}

# ids_match [SUBSET] TOLD LOGGED: two files of events are about the same incidents; with SUBSET, those of the
# first are all among those of the second.
ids_match() {
    local hidden=-3 apart
    if [ "$1" = SUBSET ]; then hidden=-23 && shift; fi
    apart=$(comm $hidden <(ids "$1" | sort) <(ids "$2" | sort))
    [ -z "$apart" ] || { echo "not in both: $apart"; return 1; }
}

# all_replay DIRECTORY EVENTS: each incident in the file EVENTS reaches the same tokens when it is replayed.
all_replay() {
    "$lookback" replay --data-dir "$1" --json >replay.json || { grep '"same":false' replay.json; return 1; }
    python3 - "$2" <<'END'
import json, sys
logged = {r["id"] for r in map(json.loads, open(sys.argv[1])) if r["kind"] == "incident"}
replayed = {r["event"] for r in map(json.loads, open("replay.json")) if r["same"] and r["tokens"] > 0}
sys.exit(f"not replayed: {logged - replayed}" if logged - replayed else 0)
END
}

# quiet COMMAND...: succeeds, and nothing that it says is a panic.
quiet() {
    local code=0
    "$@" >quiet.out 2>quiet.err </dev/null || code=$?
    ! grep -q panicked quiet.out quiet.err && [ "$code" = 0 ] || { cat quiet.err; return 1; }
}
