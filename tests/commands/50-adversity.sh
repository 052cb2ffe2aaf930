#!/bin/bash
# What goes wrong while it runs: no camera, no power, no room.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

# A camera that is not there, or goes away, is reported and tried again; it never ends the process.
in_background "$lookback" run --camera v4l2:/dev/video99 --data-dir missing
reported() {
    "$lookback" events --data-dir missing --kind health --json >health.json 2>/dev/null && grep -q video99 health.json
}
check 'a missing camera becomes an event that names it' wait_for 30 reported
check 'while the process goes on' kill -0 "$child"
check 'until Ctrl-C ends it cleanly' interrupted

# Power cut: what was told before it is there afterwards, with evidence that replays (I1, I2).
in_background "$lookback" run --camera 'sim:seed=9001,speed=max' --data-dir cut --json
told_three() { [ "$(ids child.out 2>/dev/null | wc -l)" -ge 3 ]; }
check 'three events are told' wait_for 120 told_three
{ kill -KILL "$child" && wait "$child"; } 2>/dev/null
# The last line may have been cut by the kill; what is not a line was not told.
python3 - <<'END'
text = open("child.out").read()
open("told.json", "w").write(text[: text.rfind("\n") + 1])
END
list() { "$lookback" events --data-dir "$1" --kind incidents --limit 10000 --json; }
list cut >logged.json
check 'after a kill, every event that was told is in the log' ids_match SUBSET told.json logged.json
check 'and each event in it has its evidence and replays' all_replay cut logged.json
check 'and it can be started again' \
    quiet "$lookback" run --camera 'sim:seed=9001,minutes=1,speed=max' --data-dir cut

# A full disk: a small file system of its own, which needs the right to mount one.
mkdir full
if mount -t tmpfs -o size=64m tmpfs full 2>/dev/null; then
    dd if=/dev/zero of=full/other bs=1M count=40 status=none
    code=0
    timeout 300 "$lookback" run --camera 'sim:seed=9001,minutes=30,speed=max' --data-dir full/D --json \
        >full.json 2>full.err || code=$?
    check 'on a full disk it ends by itself' [ "$code" -le 1 ]
    check 'without a panic' sh -c '! grep panicked full.err'
    check 'and says that the disk is full' grep -qiE 'full|space|room' full.err full.json
    rm full/other
    list full/D >after.json
    check 'with room again, every event that was told is in the log' ids_match SUBSET full.json after.json
    check 'and every event still replays' all_replay full/D after.json
    umount full
else
    skip 'a full disk loses nothing' 'file systems cannot be mounted here'
fi
finish
