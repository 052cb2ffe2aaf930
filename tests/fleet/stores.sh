#!/bin/bash
# What the server stands on elsewhere: a database that speaks TLS, evidence in an S3-compatible store, and how much of it is taken.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}
peers=${LOOKBACK_PEERS:-$target/release/lookback-peers}
# shellcheck source=tests/fleet/database.sh
. "$repository/tests/fleet/database.sh"
# shellcheck source=tests/fleet/talk.sh
. "$repository/tests/fleet/talk.sh"

check 'a PostgreSQL of its own starts' start_database || finish
token() { "$fleet" enrol --data fleet-data --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])'; }

# --- a database that speaks TLS and nothing else
check 'and speaks only TLS from now on' tls_only || finish
name=postgres://postgres@localhost:$pg_port/fleet
refuses 1 'away' 'without TLS it cannot be reached' "$fleet" devices --database "$name"
refuses 1 'database-ca' 'TLS without an authority is refused, and what to do' "$fleet" devices --database "$name?sslmode=require"
refuses 1 "database-ca 'nowhere' cannot be used" 'an authority that is not there is named' \
    "$fleet" devices --database "$name" --database-ca nowhere
refuses 1 'no certificate in it' 'one that holds no certificate too' "$fleet" devices --database "$name" --database-ca db.key
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -subj /CN=other -days 9 2>/dev/null
refuses 1 'away.*UnknownIssuer' 'a database of another authority is not believed' "$fleet" devices --database "$name" --database-ca other.pem
refuses 1 'away.*not valid for name' 'nor one of another name' "$fleet" devices --database "${name/localhost/127.0.0.1}" --database-ca db-ca.pem
database=$name
export LOOKBACK_FLEET_DATABASE=$name LOOKBACK_FLEET_DATABASE_CA=db-ca.pem

# --- a store: a server of its own, behind a line that can be cut
python=${LOOKBACK_MOTO:-}
[ -x "$python" ] || { report_fail 'moto is installed' 'tests/run makes the environment that LOOKBACK_MOTO names'; finish; }
store_port=$(free_port) line_port=$(free_port)
"$python" -m moto.server -H 127.0.0.1 -p "$store_port" >store.out 2>&1 </dev/null &
children+=($!)
store=http://127.0.0.1:$store_port
check 'an S3 server of its own starts, with a bucket' wait_for 30 curl -sf -o made -X PUT "$store/cams" || finish
line_on() {
    "$peers" proxy --listen "127.0.0.1:$line_port" --to "127.0.0.1:$store_port" --share 0 >line.out 2>&1 </dev/null &
    line=$!
    children+=("$line")
    wait_for 10 curl -sf -o list "http://127.0.0.1:$line_port/cams"
}
line_off() { { kill "$line" && wait "$line"; } 2>/dev/null; true; }
check 'behind a line' line_on
export AWS_ACCESS_KEY_ID=somebody AWS_SECRET_ACCESS_KEY=something AWS_REGION=us-east-1
export AWS_ENDPOINT=http://127.0.0.1:$line_port AWS_ALLOW_HTTP=true
serve=("$fleet" serve --data fleet-data --listen 127.0.0.1:0)
refuses 1 's3://BUCKET' 'a store that is no URL is refused' "${serve[@]}" --evidence /var/evidence
refuses 1 's3://nobodys refuses .*bucket' 'a bucket that is not there is refused' "${serve[@]}" --evidence s3://nobodys
check 'the server starts over both' start_server --evidence s3://cams/north --evidence-per-day 30 || finish
is 'and every connection to its database is one with TLS' t \
    "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'lookback-fleet'"
check 'a camera is enrolled' enrol alpha "$(token)"
check 'and another' enrol beta "$(token)"
# of_store HASH [CURL ARGUMENT...]: past the line, by a client that is no code of ours.
of_store() {
    curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "${@:2}" \
        "$store/cams/north/${1:0:2}/$1"
}
stored() { of_store "$1" -o stored && cmp stored picture; }
folder_is_empty() { [ -z "$(find fleet-data/evidence -type f)" ] || { find fleet-data/evidence -type f; return 1; }; }

printf 'a picture, so to speak' >picture
small=$(b3)
answers 204 '' 'a first part is taken' as alpha part "$small" 0 10
answers 201 '' 'with the last one it is whole' as alpha part "$small" 10 12
check 'and lies in the store, under its hash' stored "$small"
check 'and no longer in the folder' folder_is_empty
answers 200 '' 'it is there for whoever asks' as beta peek "$small"
check 'with its length' header_is content-length 22
head -c 20000000 /dev/urandom >picture
large=$(b3 20000000)
answers 429 'evidence for today, 30 MiB' 'who has sent enough for a day is told so' as alpha part "$large" 0 20000000 20000000
check 'and not to come back soon' header_matches retry-after '^[1-9][0-9]{3}$'
answers 201 '' 'while another device may' as beta part "$large" 0 20000000 20000000
check 'a large object goes in parts, and is there byte by byte' stored "$large"
check 'and no longer in the folder, either' folder_is_empty
events "$(cat alpha.id)" 00000000000000aa 1 >batch.json
answers 200 '"committed":1' 'events are taken of whoever has sent enough' as alpha batch batch.json
login() {
    printf 'correct horse\n' | "$fleet" user add vera --role viewer || return 1
    curl -s --cacert fleet-data/ca.pem -c cookies -o body --data-urlencode name=vera --data-urlencode 'password=correct horse' "$url/login"
}
shown() { curl -sf --cacert fleet-data/ca.pem -b cookies -o shown "$url/evidence/$1" && cmp shown picture; }
check 'a viewer logs in' login
check 'and is shown what is in the store' shown "$large"

printf 'a picture of last year' >picture
old=$(b3)
mkdir -p "fleet-data/evidence/${old:0:2}" && cp picture "fleet-data/evidence/${old:0:2}/$old"
answers 200 '' 'what the folder held before there was a store is there too' as beta peek "$old"
check 'with its length' header_is content-length 22

# --- the store is away
line_off
printf 'a picture, once again.' >picture
again=$(printf '0%.0s' {1..64})
answers 503 '' 'a store that is away is told' as beta peek "$again"
check 'with when to come back' header_matches retry-after '^[0-9]+$'
answers 200 '"committed":1' 'events are taken all the same' as alpha batch batch.json
check 'the line is back' line_on
again=$(b3)
answers 204 '' 'a part is taken' as beta part "$again" 0 10
line_off
answers 503 'cannot store evidence' 'with the store away the next one is not' as beta part "$again" 10 12
check 'the line is back once more' line_on
answers 204 '' 'and it goes on' as beta part "$again" 10 6
# Cut between the last byte and the store: only the proxy knows how, so it is stopped and not closed.
kill -STOP "$line"
timeout 3 curl -s --cacert fleet-data/ca.pem --cert beta.pem --key beta.key -X PATCH -H 'Upload-Offset: 16' -H 'Upload-Length: 22' \
    -H 'Content-Type: application/offset+octet-stream' -H 'Lookback-Media-Type: image/jpeg' \
    --data-binary ' again' "$url/v1/evidence/$again" >/dev/null
kill -CONT "$line"
offset() { as beta peek "$again" && identity=() && tr -d '\r' <headers | sed -n 's/^upload-offset: //Ip'; }
go_on() {
    local there
    there=$(offset)
    [ -n "$there" ] || return 0
    as beta part "$again" "$there" $((22 - there))
    identity=()
    [ "$(cat status)" = 201 ]
}
check 'what was given up in the midst of it goes on from where it is' wait_for 40 go_on
check 'and is whole' stored "$again"
line_off
kill -TERM "$server" && wait "$server"
check 'a server starts though its store is away' start_server --evidence s3://cams/north
check 'and says so' grep -q 'store of evidence .* fails' server.out server.err
check 'the line is back for good' line_on
answers 200 '' 'and what is there is found' as beta peek "$again"

# --- a real camera
enrol_camera() { "$lookback" enrol --server "$url" --token "$(token)" --data-dir D --json >enrolled.json; }
watch_minutes() { timeout 300 "$lookback" run --camera "sim:seed=$1,minutes=$2,speed=max" --data-dir D --json >"run-$1.jsonl" 2>run.err; }
check 'a camera is enrolled for real' enrol_camera
check 'watches' watch_minutes 9001 3
check 'and watches once more' watch_minutes 9002 3
every_picture() {
    evidence_of run-9001.jsonl >hashes || return 1
    while read -r hash; do
        of_store "$hash" -o /dev/null || { echo "$hash is not there"; return 1; }
    done <hashes
}
check 'the pictures that its events rest on are in the store' every_picture
no_secret() { ! grep -rn 'something' server.out server.err; }
check 'the key of the store is in no log' no_secret
check 'nothing panicked in all of this' sh -c '! grep -n panicked server.err server.out'
finish
