# shellcheck shell=bash
# The whole agent at a camera that falls short of what was asked of it, loses frames, breaks off and comes back,
# on a device whose clock is set: each is told in a sentence, and none of it ends the watch.

LOOKBACK=$(cat "$VM_OUT/lookback")
# shellcheck source=tests/commands/begin.sh
. "$REPOSITORY/tests/commands/begin.sh"

modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0 || exit 1
device=$(ls -d /sys/devices/platform/vivid.0/video4linux/video* | sed 's#.*/#/dev/#')
amiss() { v4l2-ctl -d "$device" -c "$1"; }

# configure OPTIONS: a configuration whose camera has them.
configure() {
    cat >lookback.toml <<END
[[camera]]
name = "yard"
source = "v4l2:$device,$1"
[sentinel]
# Nothing is inquired into: this is about the camera alone.
patrol_s = 0
wake_at = 1.0
END
}
found="{c['name']: (c['status'], c['finding']) for r in rows for c in r['checks']}['camera yard']"
examine() { "$LOOKBACK" doctor --config lookback.toml --data-dir D --json >doctor.json; }

"$LOOKBACK" cameras --json >cameras.json
holds 'cameras lists the rates of each size' cameras.json "
    any(c['path'] == '$device' and any(f['code'] == 'YUYV' and any(s['width'] == 1280 and max(s['fps']) == 12.5
        for s in f['sizes']) for f in c['formats']) for r in rows for c in r['cameras'])"
holds 'and its controls with range, default and present value' cameras.json "
    any(k['option'] == 'gain' and (k.get('min'), k.get('max'), k['default']) == (0, 255, 100)
        and k['current'] is not None for r in rows for c in r['cameras'] for k in c['controls'])"
"$LOOKBACK" cameras >cameras.txt
check 'also for people' grep -q '^    gain  Gain: 0 to 255; default 100, now ' cameras.txt

configure size=320x180,gain=300
check 'doctor fails a gain out of range' sh -c "! '$LOOKBACK' doctor --config lookback.toml --data-dir D --json >doctor.json"
holds 'and names the range' doctor.json "
    ${found}[0] == 'fail' and \"gain=300 is outside of the range of its control 'Gain', 0 to 255\" in ${found}[1]"

configure size=320x180,fps=10,gain=37,power_line=50
check 'doctor lets a control that is not there pass' examine
holds 'and names it, and the format that will be asked for' doctor.json "
    ${found}[0] == 'warn' and 'asked for NV12 320x180, 10 fps' in ${found}[1]
        and 'no control for power_line' in ${found}[1]"

in_background "$LOOKBACK" run --config lookback.toml --data-dir D --json
noted() { grep -q "^note: $1" child.err; }
check 'a control that the camera lacks is told' wait_for 90 noted "camera '$device' has no control for power_line"
gain_is_37() { v4l2-ctl -d "$device" -C gain | grep -qx 'gain: 37'; }
check 'and the other one is set' wait_for 30 gain_is_37

amiss percentage_of_dropped_buffers=40
check 'frames that the device drops are told' wait_for 120 noted "camera 'yard' lost [0-9]* frames"
amiss percentage_of_dropped_buffers=0
many() { [ "$(sed -n "s/^note: camera 'yard' lost \([0-9]*\) frames.*/\1/p" child.err)" -gt 50 ]; }
check 'with their number' many

date -s "@$(($(date +%s) + 7200))" >/dev/null
check 'a clock that is set is told' wait_for 60 noted 'the wall clock was set forward by 7[12]'

amiss gain=200
amiss inject_fatal_streaming_error=1
check 'a stream that breaks off is told' wait_for 60 noted "camera '$device' cannot be used: input/output error"
check 'and begun anew, with its gain' wait_for 60 gain_is_37
check 'what the camera lacks is not told again' test "$(grep -c 'no control for power_line' child.err)" = 1

ends_well() { kill -INT "$child" && wait_for 90 ended && wait "$child"; }
check 'Ctrl-C ends it cleanly' ends_well
check 'and it never panicked' sh -c '! grep panicked child.out child.err'
"$LOOKBACK" events --data-dir D --limit 1000 --json >events.json
holds 'the log has the frames that were lost, by number and camera' events.json "
    any(r['kind'] == 'health' and r['sentence'].startswith(\"camera 'yard' lost \") for r in rows)"
holds 'and the step of the clock' events.json "
    any(r['kind'] == 'health' and 'the wall clock was set forward by 7' in r['sentence'] for r in rows)"
finish
