#!/bin/bash
# The fleet server against a PostgreSQL of its own: the contract in fleet/README.md, route by route.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}
# shellcheck source=tests/fleet/database.sh
. "$repository/tests/fleet/database.sh"
# shellcheck source=tests/fleet/talk.sh
. "$repository/tests/fleet/talk.sh"

for tool in curl openssl python3; do
    command -v "$tool" >/dev/null || { report_fail "$tool is installed" "install it"; finish; }
done
check 'a PostgreSQL of its own starts' start_database || finish
check 'the server starts, with its schema made' start_server || finish

# --- enrolment
first_token=$(token --name 'front <b>door</b>')
check 'a token names the authority by its fingerprint' \
    [ "${first_token##*.}" = "$(openssl x509 -in fleet-data/ca.pem -outform DER | sha256sum | cut -d' ' -f1)" ]
check 'the authority'"'"'s key is for its owner only' [ "$(stat -c %a fleet-data/ca-key.pem)" = 600 ]
check 'the server shows its leaf, then the authority' chain_is_leaf_then_authority
check 'a camera is enrolled with a token' enrol alpha "$first_token"
alpha=$(cat alpha.id)
check 'its certificate is for clients only and names the device' certificate_is_right alpha
answers 401 'used' 'a token is good once' enrol_with "$first_token" beta.csr
answers 401 'token' 'a token that nobody made is refused' enrol_with "lbk1.$(printf 'a%.0s' {1..40}).${first_token##*.}" beta.csr
second_token=$(token)
answers 400 'csr' 'a request that is none is refused' enrol_with "$second_token" /dev/null
openssl req -new -newkey rsa:2048 -nodes -keyout rsa.key -subj /CN=x -out rsa.csr 2>/dev/null
answers 400 'P-256' 'a key of RSA is refused' enrol_with "$second_token" rsa.csr
check 'and a refused request leaves its token good' enrol beta "$second_token"
expired=$(token)
sql "UPDATE enrolment_token SET expires = now() - interval '1 s' WHERE device IS NULL" >/dev/null
answers 410 'expired' 'an expired token is refused as such' enrol_with "$expired" beta.csr
answers 400 'JSON' 'an enrolment that is no JSON is refused' post /v1/enrol application/json '{"token":'
check 'two that use one token at the same time: one is enrolled' one_of_two_is_enrolled

# --- events
epoch=00000000000000aa
events "$alpha" $epoch 1 2 3 >batch.json
answers 401 'certificate' 'events without a certificate are refused' as nobody batch batch.json
answers 200 '"committed":3' 'a batch is committed up to its last seq' as alpha batch batch.json
answers 200 '"committed":3' 'the same batch again changes nothing' as alpha batch batch.json
is 'so every change is there once' 3 "SELECT count(*) FROM event"
is 'and nothing of it is lost on the way' "alert|new|front door|0.83|Someone fell.|2026-11-03 12:34:56.789|ntp|7" \
    "SELECT CASE level WHEN 2 THEN 'alert' END, phase, camera, score, sentence, to_char(began, 'YYYY-MM-DD HH24:MI:SS.MS'), clock,
     data->'trajectory'->0->'args'->'x' FROM event WHERE seq = 1"
events "$alpha" $epoch 6 7 >batch.json
answers 200 '"committed":3' 'after a gap the mark stays' as alpha batch batch.json
answers 200 '"committed":3' 'the mark can be asked for' as alpha get "/v1/events/committed?epoch=$epoch"
answers 200 '"committed":0' 'it is 0 for an unknown epoch' as alpha get "/v1/events/committed?epoch=00000000000000ff"
answers 400 'epoch' 'what is no epoch is refused' as alpha get "/v1/events/committed?epoch=x"
answers 401 'certificate' 'it is told to no stranger' as nobody get "/v1/events/committed?epoch=$epoch"
check 'the gap is told' devices_say "$alpha" 'd["missing"] == 2 and d["events"] == 5'
events "$alpha" $epoch 4 5 6 >batch.json
answers 200 '"committed":7' 'once it is filled the mark passes it' as alpha batch batch.json
is 'with what came twice there once' 7 "SELECT count(*) FROM event"
dropping "$alpha" $epoch 12 '[[8,9],[11,11]]' >batch.json
answers 200 '"committed":9' 'dropped seqs count as received' as alpha batch batch.json
events "$alpha" $epoch 10 >batch.json
answers 200 '"committed":12' 'and the rest then closes up' as alpha batch batch.json
check 'the drops are told' devices_say "$alpha" 'd["missing"] == 0 and d["dropped"] == 3 and d["events"] == 9'
events "$alpha" 00000000000000bb 1 >batch.json
answers 200 '"committed":1' 'another epoch has a mark of its own' as alpha batch batch.json
events "$(cat beta.id)" $epoch 1 >batch.json
answers 200 '"committed":1' 'another device has marks of its own' as beta batch batch.json
answers 403 'source' 'events of another device are refused' as alpha batch batch.json
check 'sixteen copies of one batch at the same time are stored once' copies_at_once
check 'all batches of an epoch again, backwards, change nothing' replayed_backwards
check 'and another text under a seq that is committed neither' replayed_with_another_text
check 'a body that breaks off is not taken for malformed: it is to be sent again' broken_off

# --- what breaks the contract
before=$(sql 'SELECT count(*) FROM event')
broken() { # CODE WORD SENTENCE PYTHON: the second of three events is changed by it
    events "$alpha" 00000000000000cc 1 2 3 | python3 -c "import json, sys
batch = json.load(sys.stdin); e = batch[1]
$4
json.dump(batch, sys.stdout)" >batch.json
    answers "$1" "$2" "$3" as alpha batch batch.json
}
broken 400 'event 1: specversion' 'a wrong specversion is refused by name' 'e["specversion"] = "0.3"'
broken 400 'event 1: id' 'an id that is not of epoch and seq is refused' 'e["id"] = "x"'
broken 400 'event 1: sequence' 'a wrong order is refused' 'batch[1], batch[2] = batch[2], batch[1]; batch[1]["sequence"] = batch[0]["sequence"]; batch[1]["id"] = batch[0]["id"]'
broken 400 'event 1: epoch' 'two epochs in one batch are refused' 'e["epoch"] = "00000000000000cd"; e["id"] = "00000000000000cd-2"'
broken 400 'event 1: data.score' 'a score that is no probability is refused' 'e["data"]["score"] = 7'
broken 400 'event 1: time' 'a time that is none is refused' 'e["time"] = "2026-02-30T00:00:00Z"'
broken 413 'event 1 has' 'an event of more than 64 KiB is refused' 'e["data"]["sentence"] = "x" * 70000'
broken 400 '1001' 'a batch of 1001 events is refused' 'batch[:] = [e] * 1001'
printf '[{"specversion":' >cut.json
answers 400 'JSON' 'a batch that is cut off is refused' as alpha batch cut.json
: >empty.json
answers 400 'array' 'an empty body is refused' as alpha batch empty.json
head -c 100000 /dev/urandom >noise.json
answers 400 'array' 'noise is refused' as alpha batch noise.json
{ printf '['; head -c 5000000 /dev/zero | tr '\0' ' '; printf ']'; } >large.json
answers 413 'bytes' 'a body of more than 4 MiB is refused' as alpha batch large.json
answers 415 'cloudevents-batch' 'another content type is refused' as alpha post /v1/events application/json '[]'
answers 405 'method' 'another method is refused' as alpha get /v1/events
answers 404 'route' 'what is not there is said in JSON too' as alpha get /v1/nothing
is 'nothing of a refused batch is stored' "$before" 'SELECT count(*) FROM event'
events "$alpha" 00000000000000dd 1 | sed 's/Someone fell\./a\\u0000b/; s/front door/x\x27); DROP TABLE event; --/' >batch.json
answers 200 '"committed":1' 'U+0000 and SQL in the texts are taken' as alpha batch batch.json
is 'the one as U+FFFD, the other as it is' "a�b|x'); DROP TABLE event; --" \
    "SELECT sentence, camera FROM event WHERE epoch = '00000000000000dd'"

# --- evidence
printf 'a picture, so to speak' >picture
picture=$(b3)
answers 404 '' 'evidence is not there before it is sent' as alpha peek "$picture"
check 'and begins at 0' header_is upload-offset 0
answers 204 '' 'a first part is taken' as alpha part "$picture" 0 10
answers 404 '' 'it is not whole yet' as alpha peek "$picture"
check 'but goes on where it stopped' header_is upload-offset 10
answers 409 '10 bytes' 'from elsewhere it does not go on' as alpha part "$picture" 4 6
check 'and it is said from where' header_is upload-offset 10
answers 404 '' 'another device begins at its own 0' as beta peek "$picture"
check 'whatever the first has sent' header_is upload-offset 0
answers 201 '' 'with the last part it is whole' as alpha part "$picture" 10 12
answers 200 '' 'then it is there' as beta peek "$picture"
check 'with its length' header_is content-length 22
check 'under its hash' cmp picture "fleet-data/evidence/${picture:0:2}/$picture"
wrong=$(printf '0%.0s' {1..64})
answers 422 'hash' 'another object than was announced is refused' as alpha part "$wrong" 0 22
answers 404 '' 'and thrown away' as alpha peek "$wrong"
check 'from its first byte' header_is upload-offset 0
answers 413 'upload-length' 'an object of more than 64 MiB is refused' as alpha part "$wrong" 0 22 99999999
answers 400 '' 'a path is no hash' as alpha peek '..%2f..%2fca-key.pem'
answers 401 'certificate' 'evidence is taken from no stranger' as nobody part "$wrong" 0 22

# --- revocation, another authority
check 'a device is revoked' "$fleet" revoke "$(cat beta.id)" --database "$database"
events "$(cat beta.id)" $epoch 2 >batch.json
answers 403 'revoked' 'at once its events are refused' as beta batch batch.json
answers 403 '' 'and its evidence' as beta peek "$picture"
refuses 1 'no device' 'what is no device cannot be revoked' "$fleet" revoke 0000000000000000 --database "$database"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout stranger.key -subj "/CN=$alpha" \
    -out stranger.pem -days 9 2>/dev/null
check 'a certificate of another authority does not get in' not_let_in stranger
check 'nor does one of another fleet, though it names the device and an authority of the same name' another_fleet_is_not_let_in
check 'a certificate of the right authority that no device has gets in and no further' forged 9 403
check 'an expired one does not get in' forged -1 000
check 'a device that is revoked in the midst of a connection is refused on it' revoked_on_an_open_connection

# --- faults
check 'what was committed before PostgreSQL is stopped at once ...' send_while_the_database_is_stopped
answers 503 'database' '... meanwhile the server says so' as alpha batch batch.json
check '... and when to come back' header_matches retry-after '^[0-9]+$'
answers 503 '' '... and in its health' as nobody get /v1/health
check '... and goes on by itself once the database is back' back_again
is '... and has every acknowledged change, once' "$(cat acknowledged)|$(cat acknowledged)" \
    "SELECT count(*), count(DISTINCT seq) FROM event WHERE epoch = '00000000000000ee' AND seq <= $(cat acknowledged)"
check 'what was not acknowledged is taken when it is sent again' send_the_rest
is 'with nothing lost and nothing twice' '300|300|300' \
    "SELECT count(*), count(DISTINCT seq), max(seq) FROM event WHERE epoch = '00000000000000ee'"
check 'a second replica on the same database and directory serves too' second_replica
check 'a device that is revoked through one is shut out of the other' revoked_everywhere
check 'slow clients do not keep others out' slow_clients
check 'the months of the events are partitions' [ "$(sql "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass")" -ge 2 ]
check 'the numbers for Prometheus are there' metrics_hold 'lookback_fleet_events_stored_total [1-9]'

# shellcheck source=tests/fleet/pages.sh
. "$repository/tests/fleet/pages.sh"

child=$server
check 'SIGTERM ends the server with 0' stop_server
refuses 1 'NAME|postgres://' 'a database URL that is none is refused' "$fleet" devices --database nonsense://
refuses 1 'away' 'a database that is not there is told' "$fleet" devices --database 'postgres://nobody@127.0.0.1:1/x'
check 'nothing panicked in all of this' no_panic
finish
