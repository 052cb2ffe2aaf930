#!/bin/bash
# What capturing a 1080p camera costs, in short. The form of ten minutes beside motion is run by hand:
# `lookback bench capture`. How large a figure is depends on the machine, and is not judged.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

export TMPDIR=$scratch/tmp
mkdir "$TMPDIR"
capture_json() { timeout 120 "$lookback" bench capture --json --seconds 6 --peer none >capture.json; }
check '`bench capture --json` measures and ends by itself' capture_json
holds 'it is one object that says what was measured, and how' capture.json '
    len(rows) == 1 and set(rows[0]) == set(
        "stream delivery seconds rounds inquiries load ours motion ratio targets".split())
    and rows[0]["inquiries"] is False and rows[0]["motion"] is None and rows[0]["ratio"] is None'
holds 'the frames are those of a 1080p30 camera, and weigh as much' capture.json '
    (lambda s: (s["width"], s["height"], s["fps"]) == (1920, 1080, 30)
        and 150_000 <= s["bytes_least"] <= s["bytes_most"] <= 400_000)(rows[0]["stream"])'
holds 'every frame that was taken is stored' capture.json '
    (lambda o: o["frames_stored"] == o["frames_delivered"] >= 150
        and o["frames_lost"] == o["frames_offered"] - o["frames_stored"])(rows[0]["ours"])'
holds 'it took CPU time, wrote to the disk, and is beside its targets' capture.json '
    (lambda o, t: 0 < o["cpu_percent_of_a_core"] < 100 and o["bytes_written"] > 0 and o["sentinel_fps"] == 5
        and t["cpu_percent_of_a_core"] == 12 and t["cpu_met"] == (o["cpu_percent_of_a_core"] <= 12)
        and t["frames_lost_met"] == (o["frames_lost"] == 0))(rows[0]["ours"], rows[0]["targets"])'

mkdir footage
in_background "$lookback" bench capture --peer none --data-dir footage
sleep 6
kill -INT "$child"
stopped() { wait_for 20 ended && ! wait "$child" && grep -q 'stopped before' child.err; }
check 'Ctrl-C stops it, with one sentence' stopped
check 'and nothing is left behind' test -z "$(find "$TMPDIR" footage -mindepth 1)"

wrong_size() {
    local code=0
    "$lookback" bench capture --size 1080p >usage.out 2>usage.err || code=$?
    [ "$code" = 2 ] && grep -q 1920x1080 usage.err && ! grep -q panicked usage.err
}
check 'a size that is none is refused with code 2 and an example' wrong_size
finish
