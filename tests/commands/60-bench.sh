#!/bin/bash
# What it costs: every figure is measured in one run. How large it is depends on the machine, and is not judged.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

check '`bench --help` explains what is measured' sh -c '"$0" bench --help | grep -q "^Looking back: "' "$lookback"

export TMPDIR=$scratch/tmp
mkdir "$TMPDIR"
bench_json() { timeout 300 "$lookback" bench --json --minutes 1 >bench.json; }
check '`bench --json` measures everything and ends by itself' bench_json
holds 'it is one object that names the policy and the engine' bench.json '
    len(rows) == 1 and rows[0]["bundle"].startswith("nano@") and "tract" in rows[0]["engine"]'
holds 'each row has its value and unit, and beside a target whether it is met' bench.json '
    all(set(r) == set("what value unit target met".split()) and r["unit"]
        and isinstance(r["value"], (int, float)) and math.isfinite(r["value"])
        and r["met"] == (None if r["target"] is None else r["value"] < r["target"])
        for r in rows[0]["rows"])'
holds 'the targets are those that the program is held to' bench.json '
    {r["what"]: r["target"] for r in rows[0]["rows"] if r["target"] is not None} == {
        "steady_percent_of_core_at_8_fps": 5, "steady_with_rendering_percent": 5,
        "steady_live_percent_of_core": 5,
        "inquiry_ms_median": 150, "inquiry_ms_p95": 150,
        "inquiry_cpu_ms_median": 150, "inquiry_cpu_ms_p95": 150, "inquiry_again_ms_median": 150,
        "rss_peak_mb": 150, "rss_mb": 150,
        "find_read_ms_p50": 5, "find_read_ms_p99": 5}'
holds 'the rows that explain them are there' bench.json '
    set("steady_ms_per_frame rendering_ms_per_frame inquiry_first_ms inquiry_tokens_median inquiry_frames_median "
        "inquiries_ended_by_policy vision_cache_hits vision_cache_hits_again inquiries find_read_store".split())
    == {r["what"] for r in rows[0]["rows"] if r["target"] is None}'
holds 'something was measured: time passed, tokens were written, memory was used' bench.json '
    all(r["value"] > 0 for r in rows[0]["rows"]
        if r["unit"] in ("ms", "MB", "tokens", "frames", "windows") and r["what"] != "steady_ms_per_frame")'
holds 'an inquiry about frames that were looked at before needs no vision' bench.json '
    [r["value"] for r in rows[0]["rows"] if r["what"] == "vision_cache_hits_again"] == [100]'

in_background "$lookback" bench
sleep 2
kill -INT "$child"
stopped() { wait_for 20 ended && ! wait "$child" && grep -q 'stopped before' child.err; }
check 'Ctrl-C stops it, with one sentence' stopped
check 'and nothing is left behind' test -z "$(ls -A "$TMPDIR")"

no_minutes() {
    local code=0
    "$lookback" bench --minutes 0 >usage.out 2>usage.err || code=$?
    [ "$code" = 2 ] && grep -q -- --minutes usage.err && ! grep -q panicked usage.err
}
check 'no minutes at all are refused with code 2' no_minutes
refuses 1 'nowhere' 'without a bundle it is refused' "$lookback" bench --bundle nowhere
finish
