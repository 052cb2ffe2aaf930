# shellcheck shell=bash
# The whole agent at a V4L2 camera: an incident becomes an event, and a camera that was gone comes back.

# In the middle of this scene a person tips over 24.1 s after its beginning and lies on the ground until 68.5 s.
# Nothing but passers-by before.
scene=sim:seed=1128
fall_s=24.1 up_s=68.5
# Score from which an inquiry is an event; 0: as the policy's bundle says. Below whatever a policy says of
# anything: then this test is about the way from the camera to the log, and not about a policy's judgement.
notice_at=0.01

LOOKBACK=$(cat "$VM_OUT/lookback")
writer=$(cat "$VM_OUT/v4l2-writer")
# shellcheck source=tests/commands/begin.sh
. "$REPOSITORY/tests/commands/begin.sh"

modprobe videodev
insmod "$VM_EXTRA/v4l2loopback.ko" devices=1 video_nr=10 card_label=scenes exclusive_caps=1 || exit 1
cat >lookback.toml <<END
[[camera]]
name = "hall"
source = "sim:seed=1"
[sentinel]
# Soon after the camera is back it is looked at, whether or not anything happens.
patrol_s = 20.0
[inquiry]
# The emulated processor takes seconds for what takes a board a tenth of one.
wall_ms = 600000
# After the camera is back the policy is not to go on about what was before: that would be the same event.
look_back_s = 20.0
turns = 1
[events]
notice_at = $notice_at
# Each inquiry leaves a row, so that what was looked at can be seen.
report_normal = true
END

# Seconds since the machine was switched on: the clock of V4L2 frames, and so of an event's start_s and end_s.
now_s() { cut -d' ' -f1 /proc/uptime; }

# play FORMAT: begins to write the scene into the device; its number is then in `playing`.
play() {
    "$writer" /dev/video10 "$1" "$scene" >writer.out 2>&1 &
    playing=$!
    children+=("$playing")
    begun_s=$(now_s)
}

stop_playing() { kill "$playing" && wait "$playing"; } 2>/dev/null

# told EXPRESSION: true of the events that the agent has told so far. Asked every other second, since each
# question takes the agent's processor from it.
told() { sleep 2 && python3 "$here/holds.py" child.out "$1"; }

play MJPG
in_background "$LOOKBACK" run --config lookback.toml --camera v4l2:/dev/video10 --data-dir D --json --updates
during_the_fall="any(r['level'] != 'info' and r['start_s'] < $begun_s + $up_s and r['end_s'] > $begun_s + $fall_s
    and r['camera'] == 'v4l2-0' and len(r['evidence']) > 0 for r in rows)"
check 'an incident before a V4L2 camera becomes an event' wait_for 150 told "$during_the_fall"
watched_s="$(now_s) - $begun_s"

stop_playing
check 'a camera that goes away is reported' wait_for 60 grep -q '^note: .*/dev/video10' child.err
sleep 5
check 'and the agent lives on' kill -0 "$child"
play YUYV
watched_again() {
    wait_for 300 told "any(r['end_s'] > $begun_s for r in rows)" || { tail -n 40 child.err; return 1; }
}
check 'and watches it when it is back, with other pixels' watched_again
watched_s="$watched_s + $(now_s) - $begun_s"

# What is under way is finished first, and an inquiry takes seconds here.
ends_well() { kill -INT "$child" && wait_for 90 ended && wait "$child"; }
check 'Ctrl-C ends it cleanly' ends_well
check 'and it never panicked' sh -c '! grep panicked child.out child.err'

"$LOOKBACK" events --data-dir D --limit 1000 --json >events.json
holds 'the log has the incident' events.json "
    any(r['kind'] == 'incident' and r['camera'] == 'v4l2-0' and r['level'] != 'info' for r in rows)"
holds 'and that the camera was gone' events.json "
    any(r['kind'] == 'health' and '/dev/video10' in r['sentence'] for r in rows)"
check 'every event that was told is in the log, and no other' ids_match child.out events.json
check 'every event replays to the same tokens' all_replay D events.json

# `doctor` looks at the cameras of the configuration.
sed -i 's#^source = .*#source = "v4l2:/dev/video10"#' lookback.toml
examine() {
    "$LOOKBACK" doctor --config lookback.toml --data-dir D --json >doctor.json || { cat doctor.json; return 1; }
}
found="{c['name']: c['finding'] for r in rows for c in r['checks']}"
check 'doctor finds nothing amiss' examine
holds 'and names the camera and its format' doctor.json "'/dev/video10 scenes (YUYV)' in ${found}['camera hall']"
# The camera gives 8 frames a second; the agent and the camera take some seconds to begin and to come back.
holds 'capture waited for nobody, however long the inquiries took' doctor.json "
    int(${found}['frame store'].split()[0]) > 4 * ($watched_s)"
stop_playing
finish
