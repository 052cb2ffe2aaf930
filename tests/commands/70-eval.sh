#!/bin/bash
# What the policy is measured with: the table has its keys, and what cannot be measured is refused.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

sim_json() { timeout 300 "$eval_tool" sim --bundle "$nano" --videos 6 --seconds 60 --frames 16 --json >sim.json; }
check '`lookback-eval sim --json` watches simulated videos by every method' sim_json
holds 'it is one object with a row for each method, and what the inquiry has over each other' sim.json '
    len(rows) == 1 and rows[0]["videos"] == 6
    and [r["method"] for r in rows[0]["rows"]] == "active fixed sliding questions events tree reflect".split()
    and {(d["a"], d["metric"]) for d in rows[0]["differences"]} >= {("active", "video_auc"), ("active", "frame_auc")}'
holds 'each metric has its interval, and nobody saw more frames than the budget' sim.json '
    all(r["frames"] == 16 and r["frames_used"]["value"] <= 16
        and all(set(r[m]) == {"value", "lo", "hi"} and r[m]["lo"] <= r[m]["value"] <= r[m]["hi"]
                for m in "frame_auc video_auc iou frames_used false_alarms_per_hour".split())
        for r in rows[0]["rows"])'
same_again() { sim_json && mv sim.json first.json && sim_json && cmp first.json sim.json; }
check 'measured again, it is the same to the last digit' same_again
each_json() {
    timeout 120 "$eval_tool" sim --bundle "$nano" --videos 2 --seconds 60 --methods active --each >each.json
}
check '`--each` gives the curve of every video' each_json
holds 'one score for each half second' each.json '
    len(rows) == 2 and all(len(r["watched"]["curve"]) == 120 for r in rows)'
refuses 1 'sliding' 'an unknown method is refused, and the known ones are named' "$eval_tool" sim --methods guessing
refuses 1 'nowhere' 'a missing bundle is refused' "$eval_tool" sim --bundle nowhere
refuses 1 'too few' 'a budget that shows nothing is refused' "$eval_tool" sim --bundle "$nano" --frames 2
refuses 1 'at least one' 'no videos at all are refused' "$eval_tool" sim --bundle "$nano" --videos 0
finish
