#!/bin/bash
# A question about a video file.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=320x240:rate=10:duration=20 -pix_fmt yuv420p clip.mp4 ||
    report_fail 'ffmpeg makes a video' 'see above'

check '`inquire` answers in words' quiet "$lookback" inquire clip.mp4
timeout 120 "$lookback" inquire clip.mp4 --svg out.svg --json >inquire.json 2>inquire.err
holds '`inquire --json` is one object with verdict and trajectory' inquire.json '
    len(rows) == 1 and set("verdict score label sentence clips trajectory frames_used bundle engine".split())
    <= set(rows[0]) and rows[0]["verdict"] in ("normal", "anomalous") and 0 <= rows[0]["score"] <= 1'
holds 'it looked at frames of the whole film' inquire.json '
    rows[0]["trajectory"][0]["op"] == "glance"
    and max(f["t_s"] for f in rows[0]["trajectory"][0]["frames"]) > 15
    and min(f["t_s"] for f in rows[0]["trajectory"][0]["frames"]) < 5'
check '`inquire --svg` draws it' python3 "$here/drawing.py" out.svg
timeout 120 "$lookback" inquire clip.mp4 --json >again.json 2>inquire.err
tokens='[s["tokens"] for s in rows[0]["trajectory"]]'
cat inquire.json again.json >both.json
holds 'asked again, it reaches the same tokens' both.json "
    $tokens == [s['tokens'] for s in rows[1]['trajectory']]"

# Matroska can be read as far as it goes; mp4 keeps its index at the end and cannot.
ffmpeg -nostdin -v error -i clip.mp4 -c copy clip.mkv
head -c $(($(stat -c %s clip.mkv) / 2)) clip.mkv >short.mkv
timeout 120 "$lookback" inquire short.mkv --json >short.json 2>short.err
holds 'a video that is cut short is judged as far as it can be read' short.json '
    len(rows) == 1 and rows[0]["frames_used"] > 0'
check 'and it is said that it was cut short' grep -qiE 'cut short|damaged|truncated' short.err short.json
head -c $(($(stat -c %s clip.mp4) / 2)) clip.mp4 >short.mp4
refuses 1 'short.mp4' 'an unreadable video is refused' "$lookback" inquire short.mp4
refuses 1 'nowhere.mp4' 'a missing video is refused' "$lookback" inquire nowhere.mp4
echo 'not a video' >text.mp4
refuses 1 'text.mp4' 'a text file is refused' "$lookback" inquire text.mp4
: >empty.mp4
refuses 1 'empty.mp4' 'an empty file is refused' "$lookback" inquire empty.mp4
refuses 1 'director|folder' 'a directory is refused' "$lookback" inquire .
refuses 1 'ffmpeg' 'without ffmpeg, it says what to install' env PATH="$scratch" "$lookback" inquire clip.mp4
refuses 1 'nodir' 'an SVG into a folder that is not there is refused' \
    "$lookback" inquire clip.mp4 --svg nodir/out.svg
finish
