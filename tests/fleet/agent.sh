#!/bin/bash
# The whole way: a camera is enrolled and watches, and every event of it is in the server's database, with its
# pictures, though the server and its database are killed in between.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}
# shellcheck source=tests/fleet/database.sh
. "$repository/tests/fleet/database.sh"
# shellcheck source=tests/fleet/talk.sh
. "$repository/tests/fleet/talk.sh"

check 'a PostgreSQL of its own starts' start_database || finish
check 'the server starts' start_server || finish

# --- enrolment, and what must not pass for one
given=$(token)
refuses 1 'no enrolment token' 'what is no token is refused' "$lookback" enrol --server "$url" --token lbk1.x --data-dir D
refuses 1 'https://HOST' 'a server without https is refused' "$lookback" enrol --server "http://localhost:$port" --token "$given" --data-dir D
other=${given%.*}.$(printf 'ab%.0s' {1..32})
refuses 1 'is not the server that the token is from' 'a server that another token is from is refused' \
    "$lookback" enrol --server "$url" --token "$other" --data-dir D
refuses 1 'cannot reach' 'a server that is not there is refused' \
    "$lookback" enrol --server "https://localhost:$(free_port)" --token "$given" --data-dir D
check 'after all of which nothing is kept' test ! -e D/identity
enrol_camera() { "$lookback" enrol --server "$url" --token "$given" --data-dir D --json >enrolled.json; }
check 'a camera is enrolled with a token' enrol_camera || finish
device=$(python3 -c 'import json; print(json.load(open("enrolled.json"))["device"])')
check 'its key is for its owner only' [ "$(stat -c %a D/identity/key.pem)" = 600 ]
refuses 1 "already enrolled as $device" 'a device that is enrolled is not enrolled again' \
    "$lookback" enrol --server "$url" --token "$given" --data-dir D
refuses 1 'refuses to enrol this device' 'the token is good once' "$lookback" enrol --server "$url" --token "$given" --data-dir E

# --- watching
watch_minutes() { timeout 300 "$lookback" run --camera "sim:seed=$1,minutes=$2,speed=max" --data-dir D --json >"run-$1.jsonl" 2>run.err; }
# The log and the database hold the same changes, none missing and none twice.
seqs_are_whole() {
    local newest missing
    newest=$(python3 - D/events.sqlite <<'END'
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT acknowledged_seq FROM log").fetchone()[0])
END
    )
    missing=$("$fleet" devices --database "$database" --json | python3 -c "import json, sys
print(next(d['missing'] for d in map(json.loads, sys.stdin) if d['device'] == '$device'))")
    [ "$newest" -gt 0 ] && [ "$missing" = 0 ] && answer_is "$newest|$newest" "SELECT count(*), max(seq) FROM event WHERE device = '$device'"
}
check 'it watches, and reports there' watch_minutes 9001 3
check 'every change that it reported is there once' seqs_are_whole
has_events() { [ "$(sql "SELECT count(*) FROM event WHERE device = '$device' AND kind = 'incident'")" -gt 0 ]; }
check 'an incident is among them' has_events || finish
# The next one sends the evidence that there was no time for.
check 'the next watch sends what was left' watch_minutes 9002 3
whole_evidence() {
    evidence_of run-9001.jsonl >hashes || return 1
    while read -r hash; do
        [ -s "fleet-data/evidence/${hash:0:2}/$hash" ] || { echo "$hash is not there"; return 1; }
    done <hashes
}
check 'the pictures that its events rest on are there' whole_evidence

# --- faults
database_off
watch_blind() { watch_minutes 9003 3 && [ -s run-9003.jsonl ]; }
check 'without a database it watches all the same' watch_blind
examine() { "$lookback" doctor --data-dir D --json >doctor.json; }
check 'doctor is content' examine
holds 'and tells whom it reports to, and that something waits' doctor.json "
    any(c['name'] == 'fleet server' and c['finding'].startswith('$url as $device; ')
        and not c['finding'].startswith('$url as $device; 0 ') for r in rows for c in r['checks'])"
database_on
check 'the server lives on' wait_for 30 curl -sf --cacert fleet-data/ca.pem "$url/v1/health"
check 'and the next watch brings what waited' watch_minutes 9004 2
check 'nothing is missing, nothing is there twice' seqs_are_whole
{ kill -KILL "$server" && wait "$server"; } 2>/dev/null
check 'without a server it watches all the same' watch_minutes 9005 2
"$fleet" serve --database "$database" --data fleet-data --listen "127.0.0.1:$port" >server.out 2>server.err </dev/null &
server=$!
children+=("$server")
check 'the server comes back' wait_for 30 curl -sf --cacert fleet-data/ca.pem "$url/v1/health"
check 'and gets what waited' watch_minutes 9006 2
check 'nothing is missing, nothing is there twice, after the kill too' seqs_are_whole

# --- a device that is no longer wanted
check 'the operator revokes it' quiet "$fleet" revoke "$device" --database "$database"
before=$(sql "SELECT count(*) FROM event")
check 'it goes on watching' watch_minutes 9007 3
is 'and nothing of it is taken any more' "$before" "SELECT count(*) FROM event"

refuses 1 "device.json' is damaged" 'a damaged identity is named, and what to do' \
    sh -c "echo '{' >D/identity/device.json; exec '$lookback' run --camera sim:seed=1,minutes=0.1,speed=max --data-dir D"
finish
