#!/bin/bash
# The main job: a simulated camera, its events, how each came about, and their replay.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

# As a newcomer runs it: no arguments, in a folder of one's own, until Ctrl-C.
mkdir first && cd first || exit 1
in_background "$lookback"
says_an_event() {
    grep -qiE '^new (info|notice|alert) ' child.out && grep -qE '^ +(glance|backtrack|expand|sample) ' child.out
}
check '`lookback` alone tells an event, its level and the operators used, within a minute' \
    wait_for 60 says_an_event
check 'Ctrl-C ends it cleanly' interrupted
check 'and it never panicked' sh -c '! grep panicked child.out child.err'
cd ..

run_json() { timeout 300 "$lookback" run --camera 'sim:seed=9001,minutes=10,speed=max' --data-dir D --json >run.json; }
check 'ten simulated minutes at full speed end by themselves' run_json
holds 'each line of --json is an event with all of its keys' run.json '
    len([r for r in rows if r.get("kind") != "health"]) >= 1 and all(
        set("id camera start_s end_s level label score sentence clips trajectory frames_used bundle engine".split())
        <= set(r) for r in rows if r.get("kind") != "health")'
holds 'levels, scores and times are what they should be' run.json '
    all(r["level"] in ("info", "notice", "alert") and 0 <= r["score"] <= 1 and 0 <= r["start_s"] < r["end_s"] <= 600
        and r["sentence"].strip() and r["label"].strip() and r["frames_used"] > 0
        and r["bundle"].startswith("nano@") and "tract" in r["engine"]
        for r in rows if r.get("kind") != "health")'
holds 'each step of a trajectory tells operator, arguments, frames with hashes, thought and p' run.json '
    all(s["step"] == n and s["op"] in ("glance", "backtrack", "expand", "sample", "final", "invalid")
        and "args" in s and isinstance(s["thought"], str) and 0 <= s["p"] <= 1
        and all(f["id"] and len(f["hash"]) >= 32 and f["t_s"] >= 0 for f in s["frames"])
        for r in rows if r.get("kind") != "health" for n, s in enumerate(r["trajectory"]))'
holds 'inquiries begin with a glance, and at least one of them looked back before it spoke' run.json '
    all(r["trajectory"][0]["op"] == "glance" for r in rows if r.get("kind") != "health")
    and any(s["op"] in ("backtrack", "expand", "sample")
            for r in rows if r.get("kind") != "health" for s in r["trajectory"])'

# The crash of this seed is found once more, much later, by a look that reaches far before its own window.
check 'six minutes of another scene end by themselves' timeout 200 "$lookback" run --camera 'sim:seed=9002,minutes=6,speed=max' --data-dir E
"$lookback" events --data-dir E --kind incidents --limit 1000 --json >once.json
holds 'an incident that later looks find again is told once' once.json '
    rows and all(a["end_s"] < b["start_s"] or b["end_s"] < a["start_s"]
        for n, a in enumerate(rows) for b in rows[:n] if a["label"] == b["label"])'

check '`events` lists them' quiet "$lookback" events --data-dir D
"$lookback" events --data-dir D --kind incidents --limit 1000 --json >events.json
check 'every event that was told is in the log, and no other' ids_match run.json events.json
first=$(ids events.json | sed -n 1p)
"$lookback" events --data-dir D --level alert --json >alerts.json
holds '`events --level alert` lists nothing less' alerts.json 'all(r["level"] == "alert" for r in rows)'
check '`events` into a pipe that closes does not panic' \
    sh -c '"$0" events --data-dir D --json 2>pipe.err | head -c 1 >head.out; ! grep -q panicked pipe.err' "$lookback"

check '`show` tells its story' quiet "$lookback" show "$first" --data-dir D
"$lookback" show "$first" --data-dir D --svg event.svg --json >show.json
holds '`show --json` is one object with its evidence' show.json '
    len(rows) == 1 and len(rows[0]["evidence"]) > 0 and len(rows[0]["trajectory"]) > 1'
check '`show --svg` draws it, and the drawing needs nothing from elsewhere' python3 "$here/drawing.py" event.svg

check 'every event replays to the same tokens' all_replay D events.json

# One byte of what an event rests on, in the middle of its file: that is within a picture.
evidence=D/frames/$(python3 -c '
import json
print("%016x.evidence" % next(r["pin"] for r in map(json.loads, open("events.json")) if "pin" in r))')
if [ -f "$evidence" ]; then
    python3 - "$evidence" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(0, 2)
    file.seek(file.tell() // 2)
    byte = file.read(1)[0]
    file.seek(-1, 1)
    file.write(bytes([byte ^ 1]))
END
    refuses 1 'did not replay' 'after one byte of evidence is flipped, a replay of all fails' \
        "$lookback" replay --data-dir D
    "$lookback" replay --data-dir D --json >flipped.json 2>/dev/null
    holds 'it is the event that rests on that byte, and no other, and the file is named' flipped.json "
        [('${evidence##*/}' in r['error']) for r in rows if not r['same']] == [True]"
    flipped=$(python3 -c '
import json
print(next(r["event"] for r in map(json.loads, open("flipped.json")) if not r["same"]))')
    check 'that event still has its sentence' quiet "$lookback" show "$flipped" --data-dir D
else
    report_fail 'events pin their evidence' "there is no file $evidence"
fi
finish
