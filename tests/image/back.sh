# shellcheck shell=bash
# A new system that does not watch. Sourced by run.
# shellcheck disable=SC2154 # what is not set here is set by run

part_back() {
    rm -rf console-*.log www repo-keys
    check 'a web server starts' web_on || return
    check 'a repository is made' quiet "$fleet" repo init www/lookback --keys repo-keys || return
    cp www/lookback/metadata/1.root.json root.json
    # A program that the kernel cannot start.
    head -c 64 "${LOOKBACK_IMAGE_AGENT:-$lookback}" >no-program
    check 'a system that does not watch is built' image 0.9.0 --agent no-program || return
    check 'and published' new_system 0.9.0 "$(bundle_of 0.9.0)" || return
    check 'a camera is flashed' flash "$(image_of 0.1.0)" 3
    check 'and set up' set_up_to_follow
    power_on
    check 'it watches' it_watches || return
    check 'it takes the new system, which has 15 minutes, and is not confirmed' saw 'was not confirmed in time' 3600 || return
    check 'the system before it starts again' saw 'system A is good' "$start_s" 2
    check 'and watches' saw 'the sentinel watches' "$start_s" 2
    sleep 20
    power_cut back --orderly
    check 'it knows why' with_data it_knows_why
    check 'and the file system is sound' data_is_sound
}

set_up_to_follow() {
    cat >lookback.toml <<END
[device]
name = "back"
data_dir = "/data/lookback"
[[camera]]
source = "sim:seed=263"
[store]
bytes_max_mb = 256
evidence_mb = 128
[update]
repository = "http://10.0.2.2:$web_port/lookback"
root = "/data/config/root.json"
poll_hours = 0.01
[os]
channel = "os-stable"
confirm_minutes = 0.5
END
    set_up lookback.toml root.json
}

it_knows_why() {
    "$lookback" events --data-dir data/lookback --kind health --limit 100000 --json >steps.jsonl && python3 - <<'END'
import json
steps = [row["fields"] for row in map(json.loads, open("steps.jsonl")) if row.get("label") == "system" and row["fields"].get("stage")]
print([(step["stage"], step.get("why")) for step in steps])
assert steps[-1]["stage"] == "RolledBack" and steps[-1]["why"], steps[-1]
END
}
