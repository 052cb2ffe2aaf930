#!/bin/bash
# A fleet of simulated cameras over a bad line, with kills of the server and its database, and a judge.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
peers=${LOOKBACK_PEERS:-$target/release/lookback-peers}
export LOOKBACK_FLEET=${LOOKBACK_FLEET:-$target/release/lookback-fleet}
# shellcheck source=tests/fleet/database.sh
. "$repository/tests/fleet/database.sh"
# `children` are ended by begin.sh.

# --- the proxy, by hand
help_names() { "$peers" proxy --help >help.txt && for fault in "$@"; do grep -q -- "- $fault:" help.txt || { echo "no $fault"; return 1; }; done; }
check 'the help of the proxy explains every fault' \
    help_names delay drip rate stall reset half-close cut-answer foreign
no_fault() { ! "$peers" proxy --faults toothache 2>refused.txt && grep -q "invalid value 'toothache'" refused.txt; }
check 'a fault that is none is refused' no_fault
refuses 1 'there is no .*nowhere' 'a server program that is not there is told' "$peers" fleet --fleet ./nowhere
page=$(free_port) line=$(free_port)
python3 -m http.server --bind 127.0.0.1 "$page" >/dev/null 2>&1 &
children+=($!)
"$peers" proxy --listen "127.0.0.1:$line" --to "127.0.0.1:$page" --faults rate,delay --share 0.5 --seed 3 >proxy.out 2>&1 &
children+=($!)
through() { for _ in 1 2 3 4 5 6; do curl -sf --max-time 20 -o /dev/null "http://127.0.0.1:$line/help.txt" || return 1; done; }
check 'a slow line carries everything all the same' wait_for 30 through
{ kill "${children[@]}"; wait; } 2>/dev/null
check 'and the proxy says what it does to which connection' grep -qE '^connection [0-9]+: (Rate|Delay) ' proxy.out

# --- a fleet
run_fleet() { timeout 150 "$peers" fleet --cameras 20 --events 4000 --seconds 45 --drain 40 --kill-every 6 --json >fleet.json; }
check 'a fleet under faults and kills keeps the contract' run_fleet
holds 'not a change is lost, doubled, altered or made up' fleet.json "all(v == 0 for k, v in rows[0]['verdict'].items()
    if k in ('lost', 'duplicated', 'altered', 'invented', 'undelivered', 'skipped_by_a_log', 'evidence_lost', 'marks_too_high'))"
holds 'nothing was acknowledged before it was committed' fleet.json "rows[0]['counted']['acknowledged_before_commit'] == 0
    and rows[0]['verdict']['acknowledged_not_committed'] == 0 and rows[0]['counted']['audited'] > 0"
holds 'there was something to stand' fleet.json "rows[0]['verdict']['changes'] >= 4000 and rows[0]['counted']['unreachable'] > 0
    and len(rows[0]['line']['struck']) >= 4 and rows[0]['kills']['server'] + rows[0]['kills']['database'] + rows[0]['kills']['both'] > 0"
holds 'no camera believed another certificate' fleet.json "rows[0]['line']['deceived'] == 0"
# --- one that is ended by a signal leaves nothing behind
export TMPDIR=$PWD/disks
mkdir "$TMPDIR"
chmod 711 . && chmod 777 "$TMPDIR"
cameras_are_there() { [ -n "$(find "$TMPDIR" -maxdepth 2 -name camera-3)" ]; }
left_behind() { find "$TMPDIR" -maxdepth 1 -name 'lookback-peers-*'; pgrep -af "$TMPDIR/lookback-peers-"; }
ended_midway() {
    in_background "$peers" fleet --cameras 4 --events 100000 --seconds 100 --drain 10 --dir "$TMPDIR" --json
    wait_for 60 cameras_are_there || { cat child.err; return 1; }
    local code=0
    kill -TERM "$child" && wait_for 20 ended
    wait "$child" || code=$?
    [ "$code" = 143 ] && [ -z "$(left_behind)" ] || { echo "exit code $code"; left_behind; return 1; }
}
check 'ended by SIGTERM, it leaves neither disks nor processes behind' ended_midway
finish
