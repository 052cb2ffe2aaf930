# shellcheck shell=bash
# The V4L2 camera against real drivers: vivid (a webcam with YUYV, NV12, GREY, and an HDMI input, both with
# faults on demand) and v4l2loopback (scenes that programs write).
set -eu
modprobe vivid n_devs=2 node_types=0x1,0x1 num_inputs=1,1 input_types=0x0,0x3
modprobe videodev
insmod "$VM_EXTRA/v4l2loopback.ko" devices=1 video_nr=10 card_label=scenes exclusive_caps=1
vivid() { grep -lx "vivid-$1-vid-cap" /sys/class/video4linux/video*/name | sed 's#/sys/class/video4linux/\(.*\)/name#/dev/\1#'; }
LOOKBACK_TEST_VIVID=$(vivid 000)
LOOKBACK_TEST_HDMI=$(vivid 001)
LOOKBACK_TEST_WRITER=$(cat "$VM_OUT/v4l2-writer")
export LOOKBACK_TEST_VIVID LOOKBACK_TEST_HDMI LOOKBACK_TEST_WRITER LOOKBACK_TEST_LOOPBACK=/dev/video10
# One at a time: they share the two devices.
exec "$(cat "$VM_OUT/v4l2-tests")" --ignored --test-threads=1 --color=never
