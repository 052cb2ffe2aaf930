#!/bin/bash
# How the rollout of a policy goes, as the fleet server counts it from what its cameras tell, and that it halts one.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}
# shellcheck source=tests/fleet/database.sh
. "$repository/tests/fleet/database.sh"
# shellcheck source=tests/fleet/talk.sh
. "$repository/tests/fleet/talk.sh"

check 'a PostgreSQL of its own starts' start_database || finish
check 'the server starts' start_server || finish
rollouts() { "$fleet" rollout list --database "$database" --json >rollouts.json; }

# --- a policy that fails wherever it is tried, in a repository that is a folder
bundle() { # DIRECTORY VERSION
    cp -r "$nano" "$1" && rm -f "$1/README.md" && sed -i "s/^version = .*/version = \"$2\"/" "$1/bundle.toml" &&
        "$bundle_tool" seal "$1" && "$models_tool" golden "$1"
}
published() { quiet "$fleet" repo add policies "$@" && quiet "$fleet" repo sign policies --keys keys && quiet "$fleet" repo publish policies --keys keys; }
check 'a repository is made' quiet "$fleet" repo init policies --keys keys
cp policies/metadata/1.root.json root.json
bundle bad 0.2.0 >/dev/null
python3 - bad/golden.json <<'END'
import json, sys
golden = json.load(open(sys.argv[1]))
golden["tokens"][0] += 1
json.dump(golden, open(sys.argv[1], "w"))
END
check 'a policy with wrong golden answers is published, in two waves' \
    eval "quiet '$bundle_tool' seal bad && published bad --waves 50%@0s,100%@1s --start 2026-11-01T00:00:00Z"
bad=$("$bundle_tool" verify bad | sed -n 1p)
printf '[update]\nrepository = "%s/policies"\nroot = "root.json"\n' "$PWD" >camera.toml

cameras=(A B C D)
enrolled() { "$lookback" enrol --server "$url" --token "$(token)" --data-dir "$1"; }
update() { "$lookback" update "$2" --config camera.toml --data-dir "$1" "${@:3}"; }
watches() { quiet timeout 100 "$lookback" run --config camera.toml --camera sim:seed=1,minutes=0.1,speed=max --data-dir "$1" --json; }
for camera in "${cameras[@]}"; do check "camera $camera is enrolled" enrolled "$camera"; done
check 'nothing is known of any rollout yet' eval 'rollouts && [ ! -s rollouts.json ]'
fails_at() { refuses 1 'golden answers' "camera $1 does not keep it" "$lookback" update apply --config camera.toml --data-dir "$1"; }
told() { # DEVICES: so many have told that they did not keep it
    rollouts && python3 -c 'import json, sys
wave = [w for r in map(json.loads, open("rollouts.json")) for w in r["waves"]]
sys.exit(sum(w["rolled_back"] for w in wave) != int(sys.argv[1]))' "$1"
}
for n in 1 2; do
    fails_at "${cameras[n - 1]}"
    check 'and tells it' eval "watches '${cameras[n - 1]}' && told $n"
done
holds 'the server counts them by wave, with their reason' rollouts.json "
    len(rows) == 1 and rows[0]['bundle'] == '$bad' and rows[0]['channel'] == 'stable' and rows[0]['number'] == 1
    and all(w['wave'] in (1, 2) and w['begun'] == w['rolled_back'] for w in rows[0]['waves'])
    and rows[0]['reasons'][0]['devices'] == 2 and 'golden answers' in rows[0]['reasons'][0]['why']"
holds 'two are no reason to halt it' rollouts.json "rows[0]['halted'] is None"
update D check --json >check.json
holds 'so a fourth camera may take it' check.json "rows[0]['admission'] == 'now' and not rows[0]['halted']"
fails_at C
check 'after the third' eval 'watches C && told 3'
holds 'the server halts it by itself' rollouts.json "rows[0]['halted']['by'] == 'the stop rule' and '3 of 3' in rows[0]['halted']['why']"
update D check --json >check.json
holds 'then the fourth camera may not' check.json "rows[0]['admission'] == 'never' and rows[0]['halted'] and rows[0]['is_new']"
check 'and is told why' eval 'update D check >line.txt && grep -q "its rollout is halted" line.txt'
check 'nor does it' eval 'update D apply --json >applied.json'
holds 'as it says' applied.json "not rows[0]['changed'] and rows[0]['stage'] == 'Idle'"
{ kill -TERM "$server" && wait "$server"; } 2>/dev/null
check 'while the server is away the halt goes on to count' eval 'update D check --json >check.json'
holds 'as it says' check.json "rows[0]['admission'] == 'never' and rows[0]['halted']"
"$fleet" serve --database "$database" --data fleet-data --listen "127.0.0.1:$port" >server.out 2>server.err </dev/null &
server=$!
children+=("$server")
check 'the server comes back' wait_for 30 curl -sf --cacert fleet-data/ca.pem "$url/v1/health"
check 'a person lets it go on' quiet "$fleet" rollout resume stable 1 --database "$database"
refuses 1 'is not halted here' 'once' "$fleet" rollout resume stable 1 --database "$database"
refuses 1 'is no channel' 'what is no channel is told' "$fleet" rollout resume 'sta ble' 1 --database "$database"
update D check --json >check.json
holds 'then the fourth camera may take it' check.json "rows[0]['admission'] == 'now'"
fails_at D
check 'and fails' eval 'watches D && told 4'
holds 'which does not halt again what a person let go on' rollouts.json "rows[0]['halted'] is None"
check 'a person halts it' quiet "$fleet" rollout halt stable 1 --why 'not good enough' --database "$database"
rollouts
holds 'for a reason' rollouts.json "rows[0]['halted']['why'] == 'not good enough'"

# --- one that is good
check 'one that is good is published, under a higher number' eval 'bundle good 0.3.0 >/dev/null && published good --waves all'
check 'a camera takes it' eval 'update A apply --json >applied.json && watches A && rollouts'
holds 'which is counted' rollouts.json "
    [(r['number'], [(w['wave'], w['committed'], w['rolled_back']) for w in r['waves']]) for r in rows][0] == (2, [(1, 1, 0)])"
check 'as it is listed' eval "'$fleet' rollout list --database '$database' >list.txt && grep -q 'wave 1: 1 begun, 0 under way, 0 waiting, 1 kept it, 0 did not' list.txt"

# --- cameras that lie
check 'a camera of curl is enrolled' enrol alpha "$(token)"
alpha=$(cat alpha.id)
policy() { python3 "$repository/tests/fleet/batch.py" policy "$alpha" 00000000000000aa "$@" >batch.json; }
seq=0
says() { # SENTENCE FIELDS: an update that makes no sense is stored as an event, and counted nowhere
    seq=$((seq + 1))
    policy $seq "$2"
    answers 200 "\"committed\":$seq" "$1 is stored" as alpha batch batch.json
}
says 'an update of no channel' '{"stage": "Committed", "bundle": "x", "number": 1, "wave": 1, "channel": "a b; DROP TABLE rollout"}'
says 'of no stage' '{"stage": "Flying", "bundle": "x", "number": 1, "wave": 1, "channel": "stable"}'
says 'of a number below zero' '{"stage": "Committed", "bundle": "x", "number": -1, "wave": 1, "channel": "stable"}'
says 'of no fields' 'null'
rollouts
holds 'and counted nowhere' rollouts.json "len(rows) == 2 and sum(w['begun'] for r in rows for w in r['waves']) == 5"
evil='<script>alert(1)</script>'
says 'a reason with markup in it' "{\"stage\": \"RolledBack\", \"bundle\": \"$evil\", \"number\": 9, \"wave\": 7000, \"channel\": \"stable\", \"why\": \"$evil\"}"
printf 'correct horse\n' | "$fleet" user add olga --role operator --database "$database" >/dev/null
printf 'correct horse\n' | "$fleet" user add vera --role viewer --database "$database" >/dev/null
page() { # WHO PATH [CURL ARGUMENT...]
    curl -s --max-time 60 --cacert fleet-data/ca.pem -b "$1.cookies" -c "$1.cookies" -D headers -o body -w '%{http_code}' "${@:3}" "$url$2" >status
}
for who in olga vera; do page $who /login --data-urlencode name=$who --data-urlencode 'password=correct horse'; done
page vera /policies
check 'the page shows the rollouts' eval 'grep -q "Channel stable, number 2" body && grep -q "golden answers" body'
check 'with every text escaped' eval '! grep -q "<script>alert" body && grep -qF "&lt;script&gt;alert" body'
check 'and no button for a viewer' eval '! grep -q "Halt this rollout" body'
page olga /policies
form_token=$(grep -oE 'name="form_token" value="[0-9a-f]+"' body | head -n 1 | grep -oE '[0-9a-f]{32}')
page vera /policies/halt -d "form_token=$form_token&channel=stable&number=2"
check 'who may not halt one does not' [ "$(cat status)" = 403 ]
page olga /policies/halt -d "form_token=$form_token&channel=stable&number=2"
check 'an operator halts one' eval '[ "$(cat status)" = 303 ] && rollouts'
holds 'under his name' rollouts.json "next(r for r in rows if r['number'] == 2)['halted']['by'] == 'olga'"
page olga /policies/resume -d "form_token=$form_token&channel=stable&number=2"
check 'and lets it go on' eval "rollouts && answer_is 2 \"SELECT count(*) FROM audit WHERE person = 'olga' AND action IN ('halted', 'resumed')\""
holds 'as it is told' rollouts.json "next(r for r in rows if r['number'] == 2)['halted'] is None"
answers 401 'certificate' 'who has no certificate is told of no halt' as nobody get '/v1/halts?channel=stable'
answers 400 'channel' 'what is no channel is refused' as alpha get '/v1/halts?channel=..%2f'
answers 200 '"halted":\[1\]' 'a camera is told of those that are' as alpha get '/v1/halts?channel=stable'
check 'a camera that is shut out' quiet "$fleet" revoke "$alpha" --database "$database"
rollouts
holds 'counts no more' rollouts.json "all(r['number'] != 9 for r in rows)"
check 'the server did not panic' eval '! grep -n panicked server.err'
finish
