#!/bin/bash
# A new operating system over the air: from its owner's repository, through nginx, into a camera's other slot, and to the
# restart that decides. RAUC is a script here, since it wants two slots and a boot loader; tests/image has the real one.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}

# shellcheck source=tests/fleet/web.sh
. "$repository/tests/fleet/web.sh"
check 'a plain web server starts' web_on || finish
repository_url=http://127.0.0.1:$web_port/updates

# --- the owner
# rauc_bundle FILE VERSION [MACHINE]: as RAUC makes one, of which all but its end is the same in every version.
rauc_bundle() {
    python3 - "$1" "$2" "${3-lookback-test}" <<'END'
import random, struct, sys
file, version, machine = sys.argv[1:]
manifest = f"[update]\ncompatible={machine}\nversion={version}\n\n[bundle]\nformat=verity\n".encode()
signature = b"0\x82" + manifest + b"\xa0\x82"
body = b"hsqs" + random.Random(7).randbytes(20_000_000) + version.encode() * 1000
open(file, "wb").write(body + signature + struct.pack(">Q", len(signature)))
END
}
signed_and_published() {
    quiet "$fleet" repo sign www/updates --keys keys && quiet "$fleet" repo publish www/updates --keys keys
}
# to_the_web VERSION [MACHINE]
to_the_web() {
    rauc_bundle "$1.raucb" "$1" "${2-lookback-test}" &&
        quiet "$fleet" repo add www/updates "$1.raucb" --os "${2-lookback-test}" --version "$1" --json &&
        cp quiet.out added.json && signed_and_published
}
check 'a repository is made' quiet "$fleet" repo init www/updates --keys keys
cp www/updates/metadata/1.root.json root.json
check 'a system is added, signed and published' to_the_web 1.1.0
holds 'to a channel of its own' added.json "rows[0]['kind'] == 'system' and rows[0]['channel']['channel'] == 'os-stable'"
holds 'as it is' added.json "rows[0]['bundle'].startswith('lookback-test@1.1.0+') and rows[0]['new_bytes'] > 20_000_000"
check 'and a policy beside it' eval "quiet '$fleet' repo add www/updates '$nano' && signed_and_published"
refuses 1 'channel of its own' 'a channel of policies takes no system' \
    "$fleet" repo add www/updates 1.1.0.raucb --os lookback-test --version 1.1.0 --channel stable
refuses 1 'version is 1.1.0, not 1.1.1' 'a version that the bundle does not have is refused' \
    "$fleet" repo add www/updates 1.1.0.raucb --os lookback-test --version 1.1.1
refuses 1 'no bundle of RAUC' 'what is no bundle is refused' \
    "$fleet" repo add www/updates root.json --os lookback-test --version 1.1.1
shown() { "$fleet" repo show www/updates --verify >show.txt && grep -q '^system lookback-test@1.1.0' show.txt && grep -q '^bundle nano@' show.txt; }
check 'the repository is sound, and shows both' shown

# --- the camera
mkdir -p root/proc/sys/kernel/random root/etc
# starts SLOT ROOT VERSION: the machine starts this system.
starts() {
    echo "quiet lookback.root=$2 rauc.slot=$1" >root/proc/cmdline
    python3 -c 'import uuid; print(uuid.uuid4())' >root/proc/sys/kernel/random/boot_id
    printf 'NAME=Debian\nIMAGE_VERSION=%s\n' "$3" >root/etc/os-release
    echo "$1" >booted && rm -f reboot
}
cat >rauc <<'END'
#!/bin/bash
# RAUC with two slots: files beside this one. `install` and `mark-good` do what the files of these names say.
cd "$(dirname "$0")" || exit 1
echo "$*" >>asked
of() { tail -c 400 "$2" | strings | sed -n "s/^$1=//p"; }
case $1 in
info) printf '{"compatible":"%s","version":"%s","images":[]}\n' "$(of compatible "$3")" "$(of version "$3")" ;;
install) . ./install && cp "$2" "slot-$([ "$(cat booted)" = A ] && echo B || echo A)" ;;
status)
    [ "$2" != mark-good ] || { . ./mark-good; exit; }
    slot() {
        state=inactive
        [ "$(cat booted)" != "$2" ] || state=booted
        printf '{"%s":{"class":"rootfs","device":"%s","bootname":"%s","state":"%s","boot_status":"good"}}' "$1" "$PWD/slot-$2" "$2" $state
    }
    printf '{"compatible":"lookback-test","variant":"","booted":"%s","boot_primary":"rootfs.0","slots":[%s,%s]}\n' \
        "$(cat booted)" "$(slot rootfs.0 A)" "$(slot rootfs.1 B)"
    ;;
esac
END
chmod 755 rauc
echo true >install
echo true >mark-good
# configure [POLL_HOURS [CONFIRM_MINUTES]]
configure() {
    cat <<END
[update]
repository = "$repository_url"
root = "root.json"
poll_hours = ${1-0}
trial_minutes = 0
[os]
channel = "os-stable"
rauc = "./rauc"
sysroot = "root"
reboot_file = "reboot"
confirm_minutes = ${2-0.02}
END
}
configure >camera.toml
device=("$lookback" --config camera.toml --data-dir D)
os() { "${device[@]}" os "$@"; }
stands() { os status --json >stands.json && grep -q "\"stage\":\"$1\"" stands.json; }
begins_to_watch() { in_background "${device[@]}" run --camera sim:seed=9002,minutes=9 --json; }
confirmed() { grep -qx "$1" D/os/confirmed; }
# watches_until COMMAND...: begins a watch, waits for that, and ends it.
watches_until() {
    begins_to_watch
    wait_for 60 "$@" && interrupted
}
# not COMMAND...
not() { ! "$@"; }
starts A aa00 1.0.0
os status --json >status.json
holds 'it says what runs' status.json "
    rows[0]['version'] == '1.0.0' and rows[0]['slot'] == 'A' and rows[0]['root'] == 'aa00' and rows[0]['confirmed'] is False and
    [s['bootname'] for s in rows[0]['slots']] == ['A', 'B'] and rows[0]['stage'] == 'Idle'"
check 'a first watch confirms it, where the image can read that' watches_until confirmed aa00
check 'and RAUC has heard it' grep -qx 'status mark-good' asked
os status --json >status.json
holds 'and it says so' status.json "rows[0]['confirmed'] is True"
check 'it is asked what is new' quiet os check --json
holds 'and says so' quiet.out "
    rows[0]['is_new'] and rows[0]['offered'].startswith('lookback-test@1.1.0+') and rows[0]['runs'] == 'lookback-test@1.0.0'"
check 'it takes it' quiet os apply --json
holds 'which is installed, and starts next' quiet.out "
    rows[0]['stage'] == 'Staged' and rows[0]['changed'] and rows[0]['restart_is_next'] and rows[0]['fetched'] > 20_000_000"
check 'as it was published' cmp -s slot-B 1.1.0.raucb
nothing_is_kept() { [ -z "$(ls D/os/parts)" ]; }
check 'the file is removed' nothing_is_kept
check 'and the image is asked for a restart' test -e reboot
check 'to take it again changes nothing' quiet os apply --json
holds 'as it says' quiet.out "not rows[0]['changed'] and rows[0]['fetched'] == 0"
starts B bb11 1.1.0
check 'the new system watches, and is confirmed' watches_until stands Committed
check 'for the image, too' confirmed bb11
"$lookback" events --data-dir D --json --limit 1000 >events.jsonl
holds 'each step is an event' events.jsonl "
    [r['fields']['stage'] for r in rows if r.get('label') == 'system' and 'stage' in r['fields']] ==
    ['Fetching', 'Verified', 'Staged', 'Trial', 'Committed']"
holds 'that names the system and its channel' events.jsonl "
    all(r['fields']['what'] == 'system' and r['fields']['channel'] == 'os-stable' and r['fields']['number'] == 1
        for r in rows if r.get('label') == 'system' and 'stage' in r['fields'])"
quiet "$lookback" doctor --config camera.toml --data-dir D --json
holds 'doctor says which it is' quiet.out "
    any(c['name'] == 'system' and '1.1.0 in slot B' in c['finding'] and c['status'] == 'ok' for c in rows[0]['checks'])"

# --- the slot that runs has most of the next one
check 'a system of which little is new is published' to_the_web 1.2.0
check 'it is taken' quiet os apply --json
holds 'and only what is new is fetched' quiet.out "0 < rows[0]['fetched'] < 4_000_000 and rows[0]['stage'] == 'Staged'"
check 'whole' cmp -s slot-A 1.2.0.raucb
starts B bb11 1.1.0
check 'a restart that comes back on the old system ends it' watches_until stands RolledBack
holds 'with the reason' stands.json "'the old system runs again' in rows[0]['why'] and rows[0]['confirmed'] is True"
check 'which the same number does not undo' quiet os apply --json
holds 'as it says' quiet.out "not rows[0]['changed']"

# --- what is refused
echo 'echo "LastError: signature verification failed: not trusted"; exit 1' >install
check 'a system that RAUC refuses is published' to_the_web 1.3.0
refuses 1 'signature verification failed: not trusted' 'it is not taken, with the reason' "${device[@]}" os apply
check 'nor is it kept' nothing_is_kept
os status >status.txt
check 'which people can read, too' grep -q '^why .*signature verification failed' status.txt
echo true >install
check 'a system for another kind of machine is published' to_the_web 1.4.0 lookback-oven
: >asked
refuses 1 'for machines of the kind lookback-oven, and this is lookback-test' 'it is refused' "${device[@]}" os apply
check 'before anything of it is fetched, or shown to RAUC' not grep -qE '^(info|install)' asked
configure | sed 's/"os-stable"/"stable"/' >policy.toml
refuses 1 'offers a policy, and \[os\] channel' 'a policy is never taken for a system' \
    "$lookback" --config policy.toml --data-dir E os apply
configure | sed '/^\[os\]/,$d' >system.toml
echo 'channel = "os-stable"' >>system.toml
refuses 1 'offers a system, and \[update\] channel' 'nor a system for a policy' \
    "$lookback" --config system.toml --data-dir E update apply

# --- by hand
rauc_bundle 1.5.0.raucb 1.5.0
check 'a person brings one' quiet os install 1.5.0.raucb --json
holds 'which is installed' quiet.out "rows[0]['stage'] == 'Staged' and rows[0]['candidate'].startswith('lookback-test@1.5.0+')"
refuses 1 'restart the machine first' 'and is to start before another' "${device[@]}" os install 1.5.0.raucb
starts A cc22 1.5.0
configure 0 10 >camera.toml
begins_to_watch
check 'it starts, and is on trial' wait_for 30 stands Trial
refuses 1 'in use|another' 'while it watches nothing else may take it' "${device[@]}" os apply
{ kill -KILL "$child" && wait "$child"; } 2>/dev/null
check 'dead before it was confirmed it is on trial still' stands Trial
check 'and not confirmed' not confirmed cc22
starts B bb11 1.1.0
configure >camera.toml
check 'the machine goes back, which ends it' watches_until stands RolledBack
holds 'with the reason' stands.json "'was not confirmed' in rows[0]['why']"
refuses 1 'cannot read the bundle' 'a file that is not there is told' "${device[@]}" os install nowhere.raucb
sed 's|^rauc = .*|rauc = "/nowhere/rauc"|' camera.toml >absent.toml
for command in status check apply 'install 1.5.0.raucb'; do
    # shellcheck disable=SC2086 # a command and its file
    refuses 1 'no RAUC here.*\[os\] rauc' "without RAUC 'os ${command%% *}' says what to do" \
        "$lookback" --config absent.toml --data-dir F os $command
done
sed 's/^channel = .*/channel = ""/' camera.toml >none.toml
refuses 1 '\[os\] channel' 'without a channel there is nothing to ask' "$lookback" --config none.toml --data-dir F os check

# --- after three in a row that were not kept a device waits; another one looks every two seconds while it watches
check 'one more is published' to_the_web 1.6.0
check 'which a device that failed three times' quiet os apply --json
holds 'does not take' quiet.out "rows[0]['stage'] == 'RolledBack' and not rows[0]['candidate'].startswith('lookback-test@1.6.0+')"
os check --json >check.json
holds 'for a day' check.json "rows[0]['admission'] == 'waits' and rows[0]['admitted_from_unix_s'] > 0"
rm -rf D
configure 0.0005 >camera.toml
begins_to_watch
check 'another camera confirms what it runs, fetches it by itself, and has it installed' wait_for 60 stands Staged
holds 'as it says' stands.json "rows[0]['candidate'].startswith('lookback-test@1.6.0+')"
check 'and asks for the restart' wait_for 5 test -e reboot
check 'until it is told to end' interrupted
starts A dd33 1.6.0
check 'the new one confirms itself' watches_until stands Committed
check 'what was confirmed is remembered' test "$(tr '\n' ' ' <D/os/confirmed)" = 'bb11 dd33 '
finish
