# shellcheck shell=bash
# From the flash to a system that is updated and taken back. Sourced by run.
# shellcheck disable=SC2154 # what is not set here is set by run

part_life() {
    rm -rf console-*.log www repo-keys second
    check 'a database starts' start_database || return
    # The guest reaches the loopback of this machine as 10.0.2.2.
    check 'a fleet server starts' start_server --name 10.0.2.2 --name localhost --name 127.0.0.1 || return
    check 'a web server starts' web_on || return
    check 'a repository is made' quiet "$fleet" repo init www/lookback --keys repo-keys || return
    offered_nothing_yet

    check 'it is flashed' flash "$(image_of 0.1.0)" 4
    check 'and set up' installed_by_hand
    local begun=$SECONDS
    power_on
    check 'it starts, and watches' it_watches || { tail -n 60 "$console"; return; }
    echo "     | from power on to watching: $((SECONDS - begun)) s in an emulator; the kernel's clock then: $(since_boot 'the sentinel watches') s"
    check 'its system is found good' saw 'system A is good' "$(within 60)"
    check 'it enrols by itself' eventually "$(within 240)" one_device
    check 'an incident is seen, and told' saw '"level":"alert"' "$(within 400)"
    check 'and comes to the server' eventually "$(within 240)" server_has_it

    check 'a new policy is published' new_policy || return
    check 'it is taken over the air' eventually "$(within 900)" rollout_is stable committed

    check 'a new system is built' image 0.2.0 || return
    check 'and published' new_system 0.2.0 "$(bundle_of 0.2.0)" || return
    check 'it is installed, and started' saw 'this system is new' "$(within 1800)"
    check 'watches' saw 'the sentinel watches' "$start_s" 2
    check 'and is kept' eventually "$(within 900)" rollout_is os-stable committed
    power_cut life
    power_on
    check 'after a power cut the new system runs, and is good' saw 'system B is good' "$start_s"

    check 'one more is built' image 0.2.1 || return
    cp "$(bundle_of 0.2.1)" altered.raucb
    printf 'X' | dd of=altered.raucb bs=1 seek=5000000 conv=notrunc status=none
    check 'a system that was altered is published' new_system 0.2.1 altered.raucb || return
    check 'and refused by RAUC' eventually "$(within 1800)" rollout_is os-stable rolled_back
    reasons_are_told

    power_cut end --orderly
    check 'all of it is in its log' with_data steps_are_told
    check 'and the file system is sound' data_is_sound
}

installed_by_hand() {
    cat >lookback.toml <<END
[device]
name = "life"
data_dir = "/data/lookback"
[[camera]]
source = "sim:seed=263"
[store]
bytes_max_mb = 512
evidence_mb = 128
# An emulated processor takes most of a minute for an inquiry, and a policy on trial as long again.
[sentinel]
patrol_s = 150
[inquiry]
turns = 2
frames = 16
[update]
repository = "http://10.0.2.2:$web_port/lookback"
root = "/data/config/root.json"
poll_hours = 0.02
trial_minutes = 1
[os]
channel = "os-stable"
confirm_minutes = 1
END
    printf 'https://10.0.2.2:%s\n%s\n' "$port" "$(token)" >enrol && set_up lookback.toml enrol root.json
}

# An empty repository has nothing signed yet; the policy that the camera has already is offered at first.
offered_nothing_yet() {
    cp www/lookback/metadata/1.root.json root.json
    check 'with the policy that it has' publish "$nano" --channel stable
}

# rollout_is CHANNEL STATE: of the newest rollout of the channel, one device has come there.
rollout_is() {
    "$fleet" rollout list --database "$database" --json >rollouts.json || return 1
    python3 - "$1" "$2" <<'END'
import json, sys
rows = [json.loads(line) for line in open("rollouts.json")]
newest = max((row for row in rows if row["channel"] == sys.argv[1]), key=lambda row: row["number"])
sys.exit(0 if sum(wave[sys.argv[2]] for wave in newest["waves"]) == 1 else f"{newest}")
END
}

reasons_are_told() { python3 -c 'import json; print("     | reasons:", [json.loads(l) for l in open("rollouts.json")])' | cut -c1-600; }

one_device() { [ "$("$fleet" devices --database "$database" --json | grep -c '"device"')" -ge 1 ]; }
server_has_it() { [ "$(sql "select count(*) from event")" -ge 1 ]; }

steps_are_told() {
    "$lookback" events --data-dir data/lookback --kind health --limit 100000 --json >steps.jsonl && python3 - <<'END'
import json
rows = [json.loads(line) for line in open("steps.jsonl")]
stages = [row["fields"]["stage"] for row in rows if row.get("fields", {}).get("stage")]
print(stages)
assert stages.count("RolledBack") == 1 and stages.count("Committed") == 2, stages
END
}
