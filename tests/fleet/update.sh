#!/bin/bash
# A new policy over the air: from its owner's repository, through a plain web server (Debian's nginx), to a camera.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}

# shellcheck source=tests/fleet/web.sh
. "$repository/tests/fleet/web.sh"
# shellcheck source=tests/commands/onnx_runtime.sh
. "$repository/tests/commands/onnx_runtime.sh"
check 'a plain web server starts' web_on || finish
repository_url=http://127.0.0.1:$web_port/policies

# bundle DIRECTORY VERSION NOTICE: nano, of another version and with another threshold, and its golden answers.
bundle() {
    cp -r "$nano" "$1" && rm -f "$1/README.md" &&
        sed -i "s/^version = .*/version = \"$2\"/; s/^notice = .*/notice = $3/" "$1/bundle.toml" &&
        "$bundle_tool" seal "$1" && "$models_tool" golden "$1"
}
# to_the_web DIRECTORY [CHANNEL-OPTION...]: adds it, signs and publishes.
to_the_web() { quiet "$fleet" repo add www/policies "$@" && signed_and_published; }
signed_and_published() {
    quiet "$fleet" repo sign www/policies --keys keys && quiet "$fleet" repo publish www/policies --keys keys
}
id_of() { "$bundle_tool" verify "$1" | sed -n 1p; }

# --- the owner
check 'a policy with other thresholds is made, with its golden answers' bundle second 0.2.0 0.5
check 'a repository is made' quiet "$fleet" repo init www/policies --keys keys
cp www/policies/metadata/1.root.json root.json
check 'a bundle is added, signed and published' to_the_web second
check 'the repository is sound' quiet "$fleet" repo show www/policies --verify
second=$(id_of second)

# --- the camera
configure() { printf '[update]\nrepository = "%s"\nroot = "%s"\n' "$1" "${2:-root.json}"; }
configure "$repository_url" >camera.toml
camera=("$lookback" --config camera.toml --data-dir D)
update() { "${camera[@]}" update "$@"; }
update status --json >status.json
holds 'it runs what came with the program' status.json "rows[0]['stage'] == 'Idle' and rows[0]['runs'].startswith('nano@0.1.0+')"
built_in=$(python3 -c "import json; print(json.load(open('status.json'))['runs'])")
check 'it is asked what is new' quiet update check --json
holds 'and says so' quiet.out "rows[0]['is_new'] and rows[0]['offered'] == '$second' and rows[0]['admission'] == 'now'"
check 'doctor asks, too' quiet "${camera[@]}" doctor --json
holds 'and says what is offered' quiet.out "any(c['name'] == 'policies' and '$second' in c['finding'] for c in rows[0]['checks'])"
holds 'and that the policy here gives its golden answers' quiet.out "
    any(c['name'] == 'engine' and 'gives its golden answers' in c['finding'] for c in rows[0]['checks'])"
watch() { "$lookback" run --config camera.toml --data-dir D --camera "sim:seed=$1,minutes=3,speed=max" --json >watch.json; }
incidents() { python3 -c 'import json; print([r["id"] for r in map(json.loads, open("watch.json")) if r.get("kind", "incident") == "incident"])'; }
check 'it watches' watch 9001
before=$(incidents)
check 'it takes it' quiet update apply --json
holds 'and has it' quiet.out "rows[0]['stage'] == 'Committed' and rows[0]['runs'] == '$second' and rows[0]['changed']"
holds 'of which it fetched only what it had not' quiet.out "0 < rows[0]['fetched'] < 20_000"
holds 'and can go back' quiet.out "rows[0]['previous'] == '$built_in'"
update status --json >status.json
holds 'which it remembers' status.json "rows[0]['previous'] == '$built_in'"
check 'to take it again changes nothing' quiet update apply --json
holds 'as it says' quiet.out "not rows[0]['changed'] and rows[0]['fetched'] == 0"
"$lookback" events --data-dir D --json >events.jsonl
holds 'each step is an event' events.jsonl "
    [r['fields']['stage'] for r in rows if r.get('label') == 'policy'] ==
    ['Fetching', 'Verified', 'Staged', 'Trial', 'Committed']"
check 'the next watch is by it' watch 9001
holds 'and says so of its events' watch.json "rows and all(r['bundle'] == '$second' for r in rows if r.get('kind', 'incident') == 'incident')"
check 'and they replay, those of the policy before it too' quiet "$lookback" replay --config camera.toml --data-dir D --json
holds 'each with its own' quiet.out "{r['event'] for r in rows if r['same']} >= {*$before, *$(incidents)} and $before"

# --- a policy that is not what its owner tried
bundle broken 0.3.0 0.6 >/dev/null
python3 - broken/golden.json <<'END'
import json, sys
golden = json.load(open(sys.argv[1]))
golden["tokens"][0] += 1
json.dump(golden, open(sys.argv[1], "w"))
END
check 'a policy with wrong golden answers is published' eval "quiet '$bundle_tool' seal broken && to_the_web broken"
refuses 1 'golden answers' 'it is not taken, with the reason' "${camera[@]}" update apply
update status --json >status.json
holds 'and the old one is what runs' status.json "
    rows[0]['stage'] == 'RolledBack' and rows[0]['runs'] == '$second' and 'golden' in rows[0]['why']"
"$lookback" events --data-dir D --json >events.jsonl
holds 'the reason is an event' events.jsonl "
    any('golden answers' in r['sentence'] and r['fields']['stage'] == 'RolledBack' for r in rows if r.get('label') == 'policy')"
printf '[inquiry]\nbundle = "broken"\n' >by-hand.toml
"$lookback" --config by-hand.toml --data-dir by-hand doctor --json >by-hand.json
holds 'doctor finds the same in one that was put there by hand' by-hand.json "
    any(c['status'] == 'fail' and 'golden answers' in c['finding'] for c in rows[0]['checks'])"
check 'it is not tried again under the same number' quiet update apply --json
holds 'as it says' quiet.out "not rows[0]['changed']"

# --- a policy that an accelerator sees otherwise
if [ -n "$onnx_runtime" ]; then
    { cat camera.toml; printf '[inquiry]\nonnx_runtime = "%s"\nprovider = "cpu"\n' "$onnx_runtime"; } >accelerated.toml
    check 'a policy whose tower for accelerators is another is published' eval 'quiet of_two_minds two-minds 0.3.1 && to_the_web two-minds'
    refuses 1 'canary' 'a camera with an accelerator does not take it, with the reason' \
        "$lookback" --config accelerated.toml --data-dir D update apply
    update status --json >status.json
    holds 'and the old one is what runs' status.json "
        rows[0]['stage'] == 'RolledBack' and rows[0]['runs'] == '$second' and 'canary' in rows[0]['why']"

    # --- what an accelerator makes of a policy is made on the camera
    board_on
    if [ -n "$board" ]; then
        { cat camera.toml; printf 'channel = "boards"\n[inquiry]\nonnx_runtime = "%s"\nprovider = "tensorrt"\n' "$board"; } >board.toml
        on_board() { on_a_board "$lookback" --config board.toml --data-dir B "$@"; }
        check 'a board watches' quiet on_board run --camera 'sim:seed=9001,minutes=1,speed=max'
        check 'a policy with another tower is published' eval 'quiet of_two_minds noted 0.3.2 note && to_the_web noted --channel boards'
        check 'the board takes it' quiet on_board update apply --json
        holds 'and has it' quiet.out "rows[0]['stage'] == 'Committed' and rows[0]['runs'] == '$(id_of noted)'"
        check 'in its trial TensorRT has compiled it' [ "$(cut -d' ' -f1 board.log | xargs)" = 'made made' ]
        check 'and watches by what was compiled then' quiet on_board run --camera 'sim:seed=9002,minutes=1,speed=max'
        check 'as it was not compiled again' [ "$(cut -d' ' -f1 board.log | sort | uniq -c | xargs)" = '1 found 2 made' ]
    else
        skip 'what an accelerator makes of a policy is made on the camera' 'no devices can be pretended here'
    fi
else
    skip 'a policy that an accelerator sees otherwise is not taken' 'LOOKBACK_ONNX_RUNTIME names no libonnxruntime.so'
fi

# --- waves, halts, floors
bundle third 0.4.0 0.7 >/dev/null
third=$(id_of third)
check 'a policy is published for nobody yet' to_the_web third --waves 100%@365d
update check --json >check.json
holds 'it waits for its wave' check.json "rows[0]['admission'] == 'later' and rows[0]['is_new']"
check 'and takes nothing meanwhile' quiet update apply --json
holds 'as it says' quiet.out "not rows[0]['changed'] and rows[0]['runs'] == '$second'"
check 'the rollout is halted' eval "quiet '$fleet' repo waves www/policies --halt && signed_and_published"
update check --json >check.json
holds 'then it is for nobody' check.json "rows[0]['admission'] == 'never' and rows[0]['halted']"
check 'and taken up again for all, with a floor' eval "quiet '$fleet' repo waves www/policies --resume --waves all --start now --floor 0.4.0 && signed_and_published"
check 'then it is taken' quiet update apply --json
holds 'and runs' quiet.out "rows[0]['runs'] == '$third' and rows[0]['floor'] == '0.4.0'"
refuses 1 'nothing below 0.4.0' 'there is no way back below the floor' "${camera[@]}" update rollback
bundle fourth 0.5.0 0.8 >/dev/null
fourth=$(id_of fourth)
check 'one more is taken' eval "to_the_web fourth && quiet update apply --json"
check 'above the floor a person goes back' quiet update rollback --json
holds 'to what ran before' quiet.out "rows[0]['runs'] == '$third' and rows[0]['stage'] == 'RolledBack'"
check 'which the same number does not undo' quiet update apply --json
holds 'as it says' quiet.out "rows[0]['runs'] == '$third'"

# --- what goes wrong on the way
check 'the owner offers it once more' eval "quiet '$fleet' repo waves www/policies --to '$fourth' && signed_and_published"
web_off
refuses 1 'cannot get .*policies' 'a server that is away is told' "${camera[@]}" update apply
check 'the server is back' web_on
cp -r www/policies stick
altered=0
for pack in www/policies/packs/*.pack; do
    printf 'X' | dd of="$pack" bs=1 seek=100 conv=notrunc status=none
    cmp -s "$pack" "stick/packs/${pack##*/}" || altered=$((altered + 1))
done
check 'packs are altered' test "$altered" -gt 0
refuses 1 'something else than what was signed' 'what somebody altered is not taken' \
    "$lookback" update apply --config camera.toml --data-dir E
"$lookback" update status --config camera.toml --data-dir E --json >status.json
holds 'and what came with the program runs' status.json "rows[0]['runs'] == '$built_in'"
mv www/policies/metadata/timestamp.json timestamp.json
refuses 1 "there is no .*timestamp.json" 'a repository without its timestamp is told' "${camera[@]}" update check
mv timestamp.json www/policies/metadata/timestamp.json
check 'another root is none for this repository' quiet "$fleet" repo init other --keys other-keys
configure "$repository_url" other/metadata/1.root.json >other.toml
refuses 1 'not believed' 'who trusts another owner takes nothing' "$lookback" update check --config other.toml --data-dir F
configure "$repository_url" nowhere.json >no-root.toml
check 'and once it is given the right root' quiet "$lookback" update check --config camera.toml --data-dir F
refuses 1 "root 'nowhere.json'" 'a root that is not there is told' "$lookback" update check --config no-root.toml --data-dir H
configure '' >none.toml
refuses 1 'name one in \[update\] repository' 'without a repository there is nothing to ask' \
    "$lookback" update check --config none.toml --data-dir F
configure ftp://127.0.0.1/x >ftp.toml
refuses 1 'only http' 'an address that is none is told' "$lookback" update check --config ftp.toml --data-dir F

# --- a stick, and a policy that rots
configure stick >stick.toml
check 'a stick is a repository too' quiet "$lookback" update apply --config stick.toml --data-dir G --json
holds 'from which all comes' quiet.out "rows[0]['runs'] == '$fourth'"
python3 -c "import glob
path = glob.glob('G/update/bundles/*/decoder.safetensors')[0]
data = bytearray(open(path, 'rb').read()); data[len(data) // 2] ^= 1; open(path, 'r+b').write(data)"
check 'a policy that rots on the disk keeps no camera from watching' quiet "$lookback" run --config stick.toml --data-dir G --camera sim:seed=9001,minutes=2,speed=max --json
"$lookback" events --data-dir G --json >events.jsonl
holds 'and it is told what watches instead' events.jsonl "
    any('watches instead' in r['sentence'] for r in rows if r.get('label') == 'policy')"
check 'another camera takes it from the stick' quiet "$lookback" update apply --config stick.toml --data-dir L
dd if=/dev/zero of=L/events.sqlite bs=4096 count=4 conv=notrunc status=none
check 'a log that is damaged keeps it from nothing' quiet "$lookback" run --config stick.toml --data-dir L --camera sim:seed=9001,minutes=2,speed=max --json
"$lookback" update status --config stick.toml --data-dir L --json >status.json
holds 'it still knows what it runs, and the floor' status.json "rows[0]['runs'] == '$fourth' and rows[0]['floor'] == '0.4.0'"
"$lookback" events --data-dir L --json >events.jsonl
holds 'and watched by it, with a new log' events.jsonl "
    any('log' in r['label'] for r in rows if r['kind'] == 'health') and
    all(r['bundle'] == '$fourth' for r in rows if r['kind'] == 'incident')"

# --- while it watches: a look every two seconds, a trial of three
polls() {
    configure "$repository_url"
    printf 'poll_hours = 0.0003\ntrial_minutes = 0.05\n[sentinel]\npatrol_s = 1\n[events]\nreport_normal = true\n'
}
polls >polls.toml
rm -rf www/policies && cp -r stick www/policies
bundle fifth 0.6.0 0.55 >/dev/null
fifth=$(id_of fifth)
# stands STAGE BUNDLE
stands() {
    "$lookback" update status --config polls.toml --data-dir D --json >stands.json
    grep -q "\"stage\":\"$1\"" stands.json && grep -q "\"candidate\":\"$2\"" stands.json
}
in_background "$lookback" run --config polls.toml --data-dir D --camera sim:seed=9002,minutes=9 --json
wait_for 30 test -s D/events.sqlite
sleep 2
refuses 1 'in use|another' 'while it watches nothing else may take it' "${camera[@]}" update apply
check 'what is new can be asked' quiet update check --json
check 'the camera fetches by itself what is offered, tries it, and takes it' wait_for 60 stands Committed "$fourth"
watched_by() { "$lookback" events --data-dir D --json --kind incidents --limit 1000 | tail -n 1 | grep -q "\"bundle\":\"$1\""; }
check 'and watches by it from then on, in the same process' wait_for 60 watched_by "$fourth"
check 'another is published meanwhile' to_the_web fifth
check 'which it takes, too' wait_for 60 stands Committed "$fifth"
check 'and watches by' wait_for 60 watched_by "$fifth"
check 'until it is told to end' interrupted
"$lookback" events --data-dir D --json --limit 10000 >events.jsonl
holds 'each step of it is an event' events.jsonl "
    [r['fields']['stage'] for r in rows if r.get('label') == 'policy' and r['fields'].get('bundle') == '$fifth'] ==
    ['Fetching', 'Verified', 'Staged', 'Trial', 'Committed']"
holds 'of which the last tells what was seen in the trial' events.jsonl "
    [r['fields']['trial']['inquiries'] > 0 for r in rows if r.get('label') == 'policy' and r['fields'].get('stage') == 'Committed'
     and r['fields'].get('bundle') == '$fifth'] == [True]"
bundle sixth 0.7.0 0.6 >/dev/null
sixth=$(id_of sixth)
to_the_web sixth
sed 's/^trial_minutes.*/trial_minutes = 60/' polls.toml >long.toml
in_background "$lookback" run --config long.toml --data-dir D --camera sim:seed=9002,minutes=9 --json
check 'a trial is begun' wait_for 60 stands Trial "$sixth"
check 'and called off by the end of the watch' interrupted
check 'which is no reason to think ill of the policy' stands Staged "$sixth"
# trials COUNT: so many have begun.
trials() { [ "$("$lookback" events --data-dir D --json --limit 10000 | grep -c '"stage":"Trial"')" = "$1" ]; }
begun=$("$lookback" events --data-dir D --json --limit 10000 | grep -c '"stage":"Trial"')
for more in 1 2; do
    in_background "$lookback" run --config long.toml --data-dir D --camera sim:seed=9002,minutes=9 --json
    check 'it is tried again' wait_for 60 trials $((begun + more))
    { kill -KILL "$child" && wait "$child"; } 2>/dev/null
done
check 'after the program died in two trials of it' quiet "$lookback" run --config camera.toml --data-dir D --camera sim:seed=9003,minutes=0.2,speed=max --json
update status --json >status.json
holds 'it is not tried again, and the old one watches' status.json "
    rows[0]['stage'] == 'RolledBack' and rows[0]['runs'] == '$fifth' and 'cut off' in rows[0]['why']"
web_off
in_background "$lookback" run --config polls.toml --data-dir D --camera sim:seed=9002,minutes=9 --json
check 'that nobody answers any more is an event' wait_for 60 grep -q 'no new policy can be had' child.err
check 'while it watches' interrupted
# --- a stick that somebody plugs in, and hours at which nothing may be fetched
mkdir media
shut=$(date -u -d '+3 hours' +%H:%M)-$(date -u -d '+4 hours' +%H:%M)
{ configure "$repository_url"; printf 'poll_hours = 0.0003\ntrial_minutes = 0\nwindow = "%s"\nstick = "media"\n' "$shut"; } >stick.toml
web_on
in_background "$lookback" run --config stick.toml --data-dir S --camera sim:seed=9002,minutes=9 --json
stands_at() { "$lookback" update status --config stick.toml --data-dir "$1" --json | grep -q "\"stage\":\"$2\""; }
check 'outside of its hours a camera sees what is new' wait_for 60 stands_at S Fetching
sleep 4
check 'and fetches nothing' stands_at S Fetching
web_off
mkdir -p media/STICK && cp -r www/policies media/STICK/policies
check 'from a stick it does, within seconds' wait_for 60 stands_at S Staged
check 'until it is told to end' interrupted
"$lookback" events --data-dir S --json >events.jsonl
holds 'and nothing of that is a fault' events.jsonl "not any('no new policy' in r['sentence'] and 'called off' in r['sentence'] for r in rows)"
# --- another adapter, beside weights that stay as they are
checkpoint() { quiet "$models_tool" make-random --shape tiny -o tiny; }
check 'a checkpoint is made' checkpoint
for seed in 1 2; do python3 "$repository/tests/fleet/peft.py" tiny "adapter-$seed" "$seed"; done
packed() {
    quiet "$models_tool" pack tiny -o base --size 192x128 --adapter adapter-1 --keep-adapter && quiet "$models_tool" golden base
}
check 'it is packed with an adapter beside it' packed
to_a_channel() { quiet "$fleet" repo add www/policies "$1" --channel adapters && signed_and_published; }
check 'and published in a channel of its own' to_a_channel base
{ configure "$PWD/www/policies"; echo 'channel = "adapters"'; } >adapters.toml
adapted() { "$lookback" update apply --config adapters.toml --data-dir K --json >adapted.json; }
check 'a camera takes it' adapted
holds 'whole' adapted.json "rows[0]['stage'] == 'Committed' and rows[0]['fetched'] > 800_000"
readapted() {
    quiet "$models_tool" adapt base --adapter adapter-2 -o next --version 0.2.0 && quiet "$models_tool" golden next && to_a_channel next
}
check 'another adapter is put in, and published' readapted
check 'the camera takes it, too' adapted
adapter_bytes=$(stat -c %s next/adapter.safetensors)
holds 'and fetches little more than the adapter' adapted.json "
    rows[0]['stage'] == 'Committed' and '@0.2.0+' in rows[0]['runs'] and 0 < rows[0]['fetched'] < $adapter_bytes + 5000"
no_panic() { ! grep -rl panicked ./*.err ./*.out; }
check 'nothing panicked in all of this' no_panic
finish
