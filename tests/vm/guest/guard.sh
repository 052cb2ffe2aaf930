# shellcheck shell=bash
# The whole agent on a board: an incident sets off the relay, the housing is opened, and a device on which
# the agent hangs is reset by its watchdog and has lost nothing.
#
# It is booted twice: the first time ends with the reset.

# In the middle of this scene a person tips over 24.1 s after its beginning. Nothing but passers-by before.
scene=sim:seed=1128

LOOKBACK=$(cat "$VM_OUT/lookback")
writer=$(cat "$VM_OUT/v4l2-writer")
# shellcheck source=tests/commands/begin.sh
. "$REPOSITORY/tests/commands/begin.sh"

modprobe virtio_blk && modprobe ext4 || exit 1
mkdir /run/disk && mount /dev/vda /run/disk || exit 1
data=/run/disk/lookback

cat >lookback.toml <<END
[[camera]]
name = "hall"
source = "v4l2:/dev/video10"
[device]
data_dir = "$data"
[sentinel]
patrol_s = 20.0
[inquiry]
# The emulated processor takes seconds for what takes a board a tenth of one.
wall_ms = 600000
[events]
# Below whatever a policy says of anything: this is about the way from the camera to the relay.
notice_at = 0.01
[board]
description = "vm"
alarm_at = "notice"
alarm_s = 3.0
END

if [ -e "$VM_OUT/told.jsonl" ]; then
    # The exit code of both boots is the last one's.
    failures=$(cat "$VM_OUT/failures")
    check 'the watchdog reset the machine on which the agent hung' test -e "$VM_OUT/frozen"
    "$LOOKBACK" events --data-dir "$data" --limit 1000 --json >events.json
    check 'after the reset the log holds every event that had been told' \
        ids_match SUBSET "$VM_OUT/told.jsonl" events.json
    holds 'and that the housing was opened' events.json "
        any(r['kind'] == 'health' and r['sentence'] == 'the housing was opened' for r in rows)"
    check 'every event replays to the same tokens' all_replay "$data" events.json
    finish
    exit
fi

# The lines of the board, by the kernel's own simulated chip.
modprobe configfs
mount -t configfs none /sys/kernel/config 2>/dev/null
insmod "$VM_EXTRA/gpio-sim.ko" || exit 1
chip=/sys/kernel/config/gpio-sim/board
mkdir -p $chip/bank
echo 8 >$chip/bank/num_lines
number=0
for name in light relay tamper door; do
    mkdir $chip/bank/line$number
    echo lookback-$name >$chip/bank/line$number/name
    number=$((number + 1))
done
echo 1 >$chip/live
lines=/sys/devices/platform/$(cat $chip/dev_name)/$(cat $chip/bank/chip_name)
level() { cat "$lines/sim_gpio$1/value"; }
is_at() { [ "$(level "$1")" = "$2" ]; }
# The sensor of the housing: registers that answer as the chip's would, with its real driver above them.
modprobe i2c-stub chip_addr=0x48 && modprobe i2c-dev && modprobe lm75 || exit 1
for bus in /sys/bus/i2c/devices/i2c-*; do
    grep -q stub "$bus/name" && break
done
# In degrees, past the driver: the chip's register has them in its high byte, which SMBus sends first.
housing_is_at() { i2cset -f -y "${bus##*-}" 0x48 0 "$1" w; }
housing_is_at 41
echo lm75 0x48 >"$bus/new_device"
# The watchdog that resets by software; panicking would show a trace instead.
modprobe softdog soft_noboot=0 || exit 1

modprobe videodev
insmod "$VM_EXTRA/v4l2loopback.ko" devices=1 video_nr=10 card_label=scenes exclusive_caps=1 || exit 1
"$writer" /dev/video10 MJPG "$scene" >writer.out 2>&1 &
children+=("$!")

examine() { "$LOOKBACK" doctor --config lookback.toml --json >doctor.json; }
check 'doctor finds nothing amiss with the board' wait_for 60 examine
found="{c['name']: c['finding'] for r in rows for c in r['checks']}"
holds 'and names each of its lines' doctor.json "
    all(line in ${found}[f'board: {part}'] for part, line in
        {'alarm relay': 'lookback-relay', 'tamper contact': 'lookback-tamper',
         'status light': 'lookback-light', 'watchdog': '/dev/watchdog',
         'temperature': '41 °C'}.items())"
"$LOOKBACK" cameras --json >cameras.json
holds 'cameras lists the camera with its format' cameras.json "
    any(c['path'] == '/dev/video10' and c['problem'] is None
        and any(f['code'] == 'MJPG' for f in c['formats']) for r in rows for c in r['cameras'])"

in_background "$LOOKBACK" run --config lookback.toml --json --updates
agent=$child
taken() { "$LOOKBACK" doctor --config lookback.toml --json >doctor.json; grep -q 'lookback-relay.*in use by a running agent' doctor.json; }
check 'the agent takes the lines, and doctor knows whose they are' wait_for 120 taken
check 'the relay is off' is_at 1 0
blinks() { for _ in $(seq 100); do [ "$(level 0)" = 1 ] && return; sleep 0.1; done; return 1; }
check 'the status light shows something' blinks

echo pull-up >"$lines/sim_gpio2/pull"
check 'the housing that is opened is an event' wait_for 60 grep -q '^note: the housing was opened' child.err
echo pull-down >"$lines/sim_gpio2/pull"
check 'and so is that it was closed' wait_for 60 grep -q '^note: the housing was closed' child.err

housing_is_at 88
check 'the housing that gets hot is an event' wait_for 60 grep -q '^note: throttle level hot after normal, at 88' child.err
housing_is_at 41
check 'and so is that it has cooled down' wait_for 150 grep -q '^note: throttle level normal' child.err

check 'an incident before the camera sets off the relay' wait_for 200 is_at 1 1
check 'which goes off again when the alarm is over' wait_for 120 is_at 1 0
an_event() { grep -q '"kind":"incident"' child.out; }
check 'and it was an event' wait_for 60 an_event

# From here on nothing answers. What was told until then has to be in the log after the reset.
kill -STOP "$agent"
cp child.out "$VM_OUT/told.jsonl"
echo "$failures" >"$VM_OUT/failures"
echo frozen >"$VM_OUT/frozen"
touch "$VM_OUT/.dies"
sync -f "$VM_OUT/told.jsonl"
sleep 90
report_fail 'the watchdog resets a machine on which the agent hangs' 'it still runs 90 s after the agent was stopped'
rm -f "$VM_OUT/.dies"
finish
