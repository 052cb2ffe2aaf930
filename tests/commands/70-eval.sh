#!/bin/bash
# What the policy is measured with: the table has its keys, and what cannot be measured is refused.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

sim_json() { timeout 300 "$eval_tool" sim --bundle "$nano" --videos 6 --seconds 60 --incidents often --frames 16 --json >sim.json; }
check '`lookback-eval sim --json` watches simulated videos by every method' sim_json
holds 'it is one object with a row for each method, and what the inquiry has over each other' sim.json '
    len(rows) == 1 and rows[0]["videos"] == 6
    and {r["method"] for r in rows[0]["rows"]} >= set("active fixed sliding questions events tree reflect oracle".split())
    and {(d["a"], d["b"], d["metric"]) for d in rows[0]["differences"]}
        >= {("active", "oracle", "video_auc"), ("active", "fixed", "frame_auc"), ("active", "fixed", "frames_used")}
    and rows[0]["budgets"][0]["frames"] == 16'
holds 'each metric has its interval, and nobody saw more frames than the budget' sim.json '
    all(r["frames_used"]["value"] <= r["frames"] and (r["frames"] == 16 or r["method"] == "passive")
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
check '`report` draws them' quiet "$eval_tool" report each.json --out curves.html
check 'as drawings in one page' grep -q '<polyline' curves.html
refuses 1 'line 1' 'what is no result is not drawn' "$eval_tool" report "$nano/bundle.toml" --out wrong.html
refuses 1 "no 'sft-0' in 'nowhere'" 'a method whose policy is missing is refused' "$eval_tool" sim --bundle "$nano" --methods sft --policies nowhere
refuses 1 'longer than' 'videos longer than the policy can look at are refused' "$eval_tool" sim --bundle "$nano" --seconds 900
refuses 1 'sliding' 'an unknown method is refused, and the known ones are named' "$eval_tool" sim --methods guessing
refuses 1 'nowhere' 'a missing bundle is refused' "$eval_tool" sim --bundle nowhere
refuses 1 'too few' 'a budget that shows nothing is refused' "$eval_tool" sim --bundle "$nano" --frames 2
refuses 1 'at least one' 'no videos at all are refused' "$eval_tool" sim --bundle "$nano" --videos 0

watch_json() { timeout 300 "$eval_tool" sentinel --videos 4 --seconds 90 --json >gates.json; }
check '`lookback-eval sentinel --json` tells what the gates wake for' watch_json
holds 'each gate has its incidents, its wakes for nothing, and its time' gates.json '
    [g["gate"] for g in rows[0]["gates"]] == ["network", "background"]
    and all(g["incidents"] == sum(k["incidents"] for k in g["kinds"].values()) > 0
        and g["woken"]["lo"] <= g["woken"]["value"] <= g["woken"]["hi"] <= 1
        and g["wakes_per_hour"]["value"] >= 0 and g["ms_per_frame"] > 0 for g in rows[0]["gates"])'
holds 'and what other thresholds would have given: the lower, the more' gates.json '
    all([t["wake_at"] for t in g["thresholds"]] == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
        and g["thresholds"][0]["woken"] >= g["thresholds"][-1]["woken"] for g in rows[0]["gates"])'
refuses 1 'at least one' 'no videos at all are refused for gates, too' "$eval_tool" sentinel --videos 0

# Three clips stand for each benchmark; their scores mean nothing, but their frames and seconds do.
mkdir -p films/test annotations/Scene1/abnormal_scene_1_scenario_1_annotations
film() {
    ffmpeg -nostdin -loglevel error -f lavfi -i "testsrc2=size=320x240:rate=$3" -t "$2" -pix_fmt yuv420p "films/test/$1.mp4"
}
for clip in Abuse028_x264:4:30 Normal_Videos_003_x264:3:30 'v=a.b__#1_label_B4-0-0:4:24' 'v=c__#1_label_A:3:24' \
    abnormal_scene_1_scenario_1:4:30; do
    IFS=: read -r name seconds rate <<<"$clip"
    film "$name" "$seconds" "$rate"
done
printf 'Abuse028_x264.mp4  Abuse  30  60  -1  -1  \nNormal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n' >ucf.txt
printf 'v=a.b__#1_label_B4-0-0 24 48\n' >xd.txt
printf '0,30,59\n' >annotations/Scene1/abnormal_scene_1_scenario_1_annotations/abnormal_scene_1_scenario_1_tracks.txt
films() { # BENCHMARK ANNOTATIONS OPTION...
    local benchmark=$1 given=$2
    shift 2
    timeout 120 "$eval_tool" "$benchmark" --root films --annotations "$given" --bundle "$nano" \
        --results "$benchmark.jsonl" --json "$@" >"$benchmark.json"
}
check '`lookback-eval ucf-crime` watches annotated videos' films ucf-crime ucf.txt
holds 'and reports the metrics of the field for each method' ucf-crime.json '
    rows[0]["videos"] == 2 and rows[0]["anomalous"] == 1 and rows[0]["end_frame"] == "excluded"
    and all(0 <= r[m] <= 1 for r in rows[0]["rows"] for m in "frame_auc frame_auc_macro ap_step ap_trapezoid".split())'
holds 'each video is a line of the results' ucf-crime.jsonl '
    len(rows) == 4 and {round(r["video"]["length_s"]) for r in rows} == {3, 4}'
resumes() {
    cp ucf-crime.jsonl before.jsonl && cp ucf-crime.json before.json && films ucf-crime ucf.txt &&
        cmp before.jsonl ucf-crime.jsonl && cmp before.json ucf-crime.json
}
check 'called again it watches nothing twice and says the same' resumes
refuses 1 "'oracle' is a method of" 'a method that needs the truth of a simulation is refused' \
    "$eval_tool" ucf-crime --root films --annotations ucf.txt --bundle "$nano" --results y.jsonl --methods oracle
check 'all methods are those that a video file allows' films ucf-crime ucf.txt --methods all
holds 'seven of them' ucf-crime.json 'len(rows[0]["rows"]) == 7'
check '`xd-violence` finds normal videos by their names' films xd-violence xd.txt
holds 'one of each' xd-violence.json 'rows[0]["videos"] == 2 and rows[0]["anomalous"] == 1 and rows[0]["fps"] == 24'
check '`ubnormal` reads the folder of its scenes' films ubnormal annotations
holds 'with its closed intervals' ubnormal.json 'rows[0]["end_frame"] == "included" and rows[0]["videos"] == 1'
printf 'Arson011_x264.mp4  Arson  150  420  680  1267  \n' >>ucf.txt
refuses 1 'Arson011_x264.*--partial' 'an annotated video that is not there is named' \
    "$eval_tool" ucf-crime --root films --annotations ucf.txt --bundle "$nano" --results x.jsonl
check 'and left out if asked to' films ucf-crime ucf.txt --partial
printf 'Abuse028_x264.mp4  Abuse  thirty  60\n' >wrong.txt
refuses 1 "line 1: 'thirty'" 'a wrong annotation is named by its line' \
    "$eval_tool" ucf-crime --root films --annotations wrong.txt --bundle "$nano" --results x.jsonl
finish
