# shellcheck shell=bash
# What a camera says to the server, with curl. Sourced, not run.
# shellcheck disable=SC2154 # set by the scripts that this is sourced by

# start_server [ARGUMENT...]
start_server() {
    port=$(free_port)
    url=https://localhost:$port
    "$fleet" serve --database "$database" --data fleet-data --listen "127.0.0.1:$port" "$@" >server.out 2>server.err </dev/null &
    server=$!
    children+=("$server")
    wait_for 30 curl -sf --cacert fleet-data/ca.pem "$url/v1/health" || { cat server.err; return 1; }
}

# token [ARGUMENT...]: one with which a camera joins; server.sh gives arguments.
# shellcheck disable=SC2120
token() { "$fleet" enrol --database "$database" --data fleet-data "$@" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])'; }

# as WHO COMMAND...: with the certificate of WHO (`nobody`: with none).
as() {
    local who=$1
    shift
    if [ "$who" = nobody ]; then identity=(); else identity=(--cert "$who.pem" --key "$who.key"); fi
    "$@"
}
identity=()

ask() { curl -s --max-time 60 --cacert fleet-data/ca.pem "${identity[@]}" -D headers -o body -w '%{http_code}' "$@" >status; }
get() { ask "$url$1"; }
post() { ask -H "Content-Type: $2" --data-binary "$3" "$url$1"; }
batch() { post /v1/events application/cloudevents-batch+json "@$1"; }
# peek HASH: curl writes the head of the answer where the body would be.
peek() { ask -I "$url/v1/evidence/$1"; : >body; }
# part HASH OFFSET BYTES [LENGTH]: of the file `picture`.
part() {
    tail -c +$(($2 + 1)) picture | head -c "$3" | ask -X PATCH -H "Upload-Offset: $2" -H "Upload-Length: ${4:-22}" \
        -H 'Content-Type: application/offset+octet-stream' -H 'Lookback-Media-Type: image/jpeg' \
        --data-binary @- "$url/v1/evidence/$1"
}

# answers CODE WORD SENTENCE COMMAND...: the answer has this status, its body the word; an error is one sentence
# of JSON.
answers() {
    local code=$1 word=$2 sentence=$3
    shift 3
    : >body
    "$@"
    identity=()
    check "$sentence" answered "$code" "$word"
}
answered() {
    local status
    status=$(cat status)
    [ "$status" = "$1" ] || { echo "status $status, not $1"; head -c 600 body; return 1; }
    grep -qiE -- "$2" body || [ -z "$2" ] || { echo "nothing of '$2' in:"; head -c 600 body; return 1; }
    [ "$status" -lt 400 ] || [ ! -s body ] || python3 -c 'import json
said = json.load(open("body"))
assert list(said) == ["error"] and "\n" not in said["error"] and len(said["error"]) > 10, said'
}
header_is() { header_matches "$1" "^$2\$"; }
header_matches() {
    local value
    value=$(tr -d '\r' <headers | grep -i "^$1:" | tail -n 1 | sed 's/^[^:]*: *//')
    grep -qE "$2" <<<"$value" || { echo "$1 is '$value'"; return 1; }
}

# enrol NAME TOKEN: NAME.key, NAME.pem and NAME.id are then its own.
enrol() {
    new_csr "$1"
    enrol_with "$2" "$1.csr"
    answered 200 certificate || return 1
    python3 -c 'import json, sys
said = json.load(open("body"))
open(sys.argv[1] + ".pem", "w").write(said["certificate"])
open(sys.argv[1] + ".id", "w").write(said["device"])
assert said["ca"] == open("fleet-data/ca.pem").read()' "$1"
}
new_csr() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj /CN=ignored \
        -out "$1.csr" 2>/dev/null
}
enrol_with() {
    [ -e beta.csr ] || new_csr beta
    post /v1/enrol application/json "$(python3 -c 'import json, sys
print(json.dumps({"token": sys.argv[1], "csr": open(sys.argv[2]).read(), "name": "x", "agent": "0.1.0"}))' "$1" "$2")"
}
chain_is_leaf_then_authority() {
    openssl s_client -connect "localhost:$port" -showcerts </dev/null 2>/dev/null >chain
    [ "$(grep -c 'BEGIN CERT' chain)" = 2 ] && grep -A99 '^ 1 s:' chain | openssl x509 -outform DER |
        cmp - <(openssl x509 -in fleet-data/ca.pem -outform DER)
}
certificate_is_right() {
    openssl verify -purpose sslclient -CAfile fleet-data/ca.pem "$1.pem" &&
        ! openssl verify -purpose sslserver -CAfile fleet-data/ca.pem "$1.pem" &&
        openssl x509 -in "$1.pem" -noout -subject | grep -q "CN *= *$(cat "$1.id")\$" &&
        [[ $(cat "$1.id") =~ ^[0-9a-z]{16}$ ]]
}
one_of_two_is_enrolled() {
    local shared
    shared=$(token)
    # Each in a directory of its own, as each writes what it was told.
    for n in 1 2; do
        mkdir -p "twin$n"
        ln -sfn ../fleet-data "twin$n/fleet-data"
        (cd "twin$n" && enrol_with "$shared" ../alpha.csr) &
        twins[n]=$!
    done
    wait "${twins[1]}" "${twins[2]}"
    [ "$(sort twin1/status twin2/status | tr '\n' ' ')" = '200401' ] || [ "$(cat twin1/status twin2/status | fold -w 3 | sort | tr '\n' ' ')" = '200 401 ' ]
}

# events DEVICE EPOCH SEQ...: a batch of incidents.
events() { python3 "$repository/tests/fleet/batch.py" incidents "$@"; }
# dropping DEVICE EPOCH SEQ SPANS: a batch of one drop event.
dropping() { python3 "$repository/tests/fleet/batch.py" dropped "$@"; }

# evidence_of FILE: the hashes of what the events in FILE rest on; there is some.
evidence_of() {
    python3 - "$1" <<'END'
import json, sys
hashes = [item["hash"] for line in open(sys.argv[1]) for item in json.loads(line)["evidence"]]
print("\n".join(hashes))
sys.exit(0 if hashes else "no event has evidence")
END
}

devices_say() { # DEVICE PYTHON: true of its object `d`
    "$fleet" devices --database "$database" --json >devices.json
    python3 -c 'import json, sys
d = next(d for d in map(json.loads, open("devices.json")) if d["device"] == sys.argv[1])
assert eval(sys.argv[2]), d' "$1" "$2"
}
copies_at_once() {
    local n copies=()
    events "$alpha" 00000000000000ab $(seq 200) >copies.json
    for n in $(seq 16); do
        curl -s --cacert fleet-data/ca.pem --cert alpha.pem --key alpha.key -o "copy$n" \
            -H 'Content-Type: application/cloudevents-batch+json' --data-binary @copies.json "$url/v1/events" &
        copies+=($!)
    done
    wait "${copies[@]}"
    [ "$(cat copy? copy?? | grep -o '"committed":200' | wc -l)" = 16 ] || { cat copy?; return 1; }
    answer_is 200 "SELECT count(*) FROM event WHERE epoch = '00000000000000ab'"
}
not_let_in() {
    events "$alpha" 00000000000000cc 1 >batch.json
    as "$1" batch batch.json
    identity=()
    [ "$(cat status)" = 000 ]
}

another_fleet_is_not_let_in() {
    "$fleet" enrol --database "$database" --data other-data >/dev/null || return 1
    sign alpha.csr other 9 -CA other-data/ca.pem -CAkey other-data/ca-key.pem && cp alpha.key other.key && not_let_in other
}
# forged DAYS STATUS: the fleet's own authority has signed it, for so many days from now.
forged() {
    sign alpha.csr forged "$1" -CA fleet-data/ca.pem -CAkey fleet-data/ca-key.pem && cp alpha.key forged.key || return 1
    events "$alpha" 00000000000000cc 1 >batch.json
    as forged batch batch.json
    identity=()
    [ "$(cat status)" = "$2" ] || { echo "status $(cat status), not $2"; return 1; }
}
# sign REQUEST NAME DAYS AUTHORITY...: NAME.pem is then a client's certificate.
sign() {
    openssl x509 -req -in "$1" -out "$2.pem" -days "$3" -set_serial 7 \
        -extfile <(echo extendedKeyUsage=clientAuth) "${@:4}" 2>/dev/null
}
revoked_on_an_open_connection() {
    enrol kept "$(token)" || return 1
    events "$(cat kept.id)" $epoch 1 >kept.json
    mkfifo turns
    python3 "$repository/tests/fleet/kept.py" "$port" fleet-data/ca.pem kept.pem kept.key turns kept.json >kept.out 2>&1 &
    local keeper=$!
    children+=("$keeper")
    exec 9>turns
    echo >&9
    wait_for 20 grep -q '^200' kept.out
    "$fleet" revoke "$(cat kept.id)" --database "$database"
    echo >&9
    exec 9>&-
    wait "$keeper"
    [ "$(cut -d' ' -f1 kept.out | tr '\n' ' ')" = '200 403 ' ] || { cat kept.out; return 1; }
}
replayed_backwards() {
    local n
    for n in 1 2 3 4 5; do
        events "$alpha" 00000000000000ac $(seq $((n * 20 - 19)) $((n * 20))) >"replay$n.json"
        as alpha batch "replay$n.json"
    done
    for n in 5 4 3 2 1; do as alpha batch "replay$n.json"; done
    identity=()
    answered 200 '"committed":100' && answer_is '100|100' \
        "SELECT count(*), count(DISTINCT seq) FROM event WHERE epoch = '00000000000000ac'"
}
replayed_with_another_text() {
    sed 's/Someone fell/Nobody fell/g' replay3.json >altered.json
    as alpha batch altered.json
    identity=()
    answered 200 '"committed":100' && answer_is 0 \
        "SELECT count(*) FROM event WHERE epoch = '00000000000000ac' AND sentence LIKE 'Nobody%'"
}
broken_off() {
    python3 "$repository/tests/fleet/half.py" "$port" fleet-data/ca.pem alpha.pem alpha.key >half.out 2>&1
    [ "$(cat half.out)" = 408 ] || { cat half.out; return 1; }
}

# Batches of ten one after the other; in their midst the database is stopped at once.
send_while_the_database_is_stopped() {
    local from=1
    : >acknowledged
    while [ $from -le 300 ]; do
        [ $from != 101 ] || { sleep 0.3 && database_off; } &
        events "$alpha" 00000000000000ee $(seq $from $((from + 9))) >batch.json
        as alpha batch batch.json
        identity=()
        if [ "$(cat status)" = 200 ]; then echo $((from + 9)) >acknowledged; else break; fi
        from=$((from + 10))
    done
    wait $! 2>/dev/null
    [ "$(cat status)" = 503 ] && [ "$(cat acknowledged)" -ge 100 ] || { echo "$(cat status) after $(cat acknowledged)"; cat body; return 1; }
}
back_again() {
    database_on && wait_for 30 curl -sf --cacert fleet-data/ca.pem "$url/v1/health"
}
send_the_rest() {
    events "$alpha" 00000000000000ee $(seq 300) >batch.json
    as alpha batch batch.json
    identity=()
    answered 200 '"committed":300'
}
second_replica() {
    local first=$port
    port=$(free_port)
    in_background "$fleet" serve --database "$database" --data fleet-data --listen "127.0.0.1:$port"
    replica=$child replica_port=$port
    url=https://localhost:$port
    wait_for 30 curl -sf --cacert fleet-data/ca.pem "$url/v1/health"
    events "$alpha" 00000000000000ee 301 >batch.json
    as alpha batch batch.json
    identity=() port=$first url=https://localhost:$first
    answered 200 '"committed":301'
}
revoked_everywhere() {
    enrol gamma "$(token)" || return 1
    events "$(cat gamma.id)" $epoch 1 >batch.json
    as gamma batch batch.json
    answered 200 '"committed":1' || return 1
    "$fleet" revoke "$(cat gamma.id)" --database "$database"
    url=https://localhost:$replica_port
    as gamma batch batch.json
    identity=() url=https://localhost:$port
    kill "$replica"
    answered 403 revoked
}
slow_clients() {
    python3 "$repository/tests/fleet/slow.py" "$port" 300 &
    local slow=$!
    children+=("$slow")
    sleep 2
    as alpha get "/v1/events/committed?epoch=$epoch"
    identity=()
    kill "$slow"
    answered 200 committed
}
metrics_hold() { get /metrics && grep -qE "^$1" body; }
stop_server() {
    kill -TERM "$server" && wait_for 25 ended && wait "$server"
}
no_panic() { ! grep -n panicked server.err child.err; }
# b3 [BYTES]: the hash of the file `picture` that the server itself finds: it names the one that it got.
b3() {
    as alpha part "$(printf 'f%.0s' {1..64})" 0 "${1:-22}" "${1:-22}"
    identity=()
    grep -oE '[0-9a-f]{64}' body | head -n 1
}
