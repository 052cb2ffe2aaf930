# The V4L2 camera against real drivers: vivid (a webcam with YUYV, NV12, GREY, and faults on demand) and
# v4l2loopback (scenes that programs write).
set -eu
modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0
modprobe videodev
insmod "$VM_EXTRA/v4l2loopback.ko" devices=1 video_nr=10 card_label=scenes exclusive_caps=1
LOOKBACK_TEST_VIVID=$(ls -d /sys/devices/platform/vivid.0/video4linux/video* | sed 's#.*/#/dev/#')
LOOKBACK_TEST_WRITER=$(cat "$VM_OUT/v4l2-writer")
export LOOKBACK_TEST_VIVID LOOKBACK_TEST_WRITER LOOKBACK_TEST_LOOPBACK=/dev/video10
# One at a time: they share the two devices.
exec "$(cat "$VM_OUT/v4l2-tests")" --ignored --test-threads=1 --color=never
