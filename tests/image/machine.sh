# shellcheck shell=bash
# A camera in QEMU, flashed with an image of image-build, whose power can be cut. Sourced, not run.
# shellcheck disable=SC2154 # `board` and `here` are set by the script that this is sourced by

boots=0 machine=0

# flash IMAGE GIGABYTES: a disk of that size with the image on it.
flash() {
    rm -f disk.img uefi.fd
    cp --sparse=always "$1" disk.img && truncate -s "${2}G" disk.img && chmod u+w disk.img || return 1
    cp "$(firmware VARS)" uefi.fd
}

# set_up FILE...: puts them into the folder of the installer, as one would with a PC.
set_up() { mcopy -o -i disk.img@@1M "$@" ::setup/; }

firmware() {
    case $board in
        qemu-amd64) echo "/usr/share/OVMF/OVMF_$1_4M.fd" ;;
        qemu-arm64) echo "/usr/share/AAVMF/AAVMF_$1.fd" ;;
    esac
}

# power_on [OPTION OF QEMU...]: starts it. What its disk is told goes into a scratch layer, and into an account of it: what comes of that is
# settled when it is switched off. Its console is the file console-N.log.
power_on() {
    boots=$((boots + 1))
    console=$PWD/console-$boots.log
    : >"$console"
    rm -f scratch.qcow2 writes.log
    qemu-img create -q -f qcow2 -b "$PWD/disk.img" -F raw scratch.qcow2 || return 1
    truncate -s 8G writes.log
    local emulator arguments
    case $board in
        qemu-amd64) emulator=qemu-system-x86_64 arguments=(-M q35 -cpu qemu64) ;;
        qemu-arm64) emulator=qemu-system-aarch64 arguments=(-M virt -cpu cortex-a57) ;;
    esac
    "$emulator" "${arguments[@]}" -accel "$(accelerator)" -smp "$processors" -m 1G -nodefaults -display none \
        -serial "file:$console" -uuid 4c6f6f6b-6261-636b-0000-000000000001 -action watchdog=reset \
        -drive "if=pflash,format=raw,readonly=on,file=$(firmware CODE)" -drive if=pflash,format=raw,file=uefi.fd \
        -blockdev driver=file,node-name=layer,filename=scratch.qcow2 -blockdev driver=qcow2,node-name=top,file=layer \
        -blockdev driver=file,node-name=account,filename=writes.log \
        -blockdev driver=blklogwrites,node-name=disk,file=top,log=account \
        -device virtio-blk-pci,drive=disk -device i6300esb \
        -netdev user,id=net -device virtio-net-pci,netdev=net "$@" >qemu.out 2>&1 </dev/null &
    machine=$!
    children+=("$machine")
}

accelerator() {
    # Others offer a device of this name, in which a stock kernel hangs.
    if [ "$board" = qemu-amd64 ] && [ -w /dev/kvm ] && [ -n "$(ls -d /sys/module/kvm_{intel,amd} 2>/dev/null)" ]; then
        echo kvm
    else
        echo tcg,thread=multi
    fi
}

running() { kill -0 "$machine" 2>/dev/null; }

# saw EXPRESSION SECONDS [COUNT]: its console shows a line with this (COUNT of them) within that time.
saw() {
    local until=$((SECONDS + $2))
    while [ "$(grep -acE -- "$1" "$console")" -lt "${3:-1}" ]; do
        [ $SECONDS -lt $until ] && running || { echo "nothing of '$1' within $2 s; the last of the console:"; tail -n 40 "$console"; cat qemu.out; return 1; }
        sleep 0.3
    done
}

# eventually SECONDS COMMAND...
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >eventually.out 2>&1; do
        [ $SECONDS -lt $until ] && running || { echo "not within the time; at last:"; cat eventually.out; tail -n 30 "$console"; return 1; }
        sleep 2
    done
}

# since_boot EXPRESSION: what the clock of the kernel said when the console showed it, in seconds.
since_boot() { grep -aE -- "$1" "$console" | sed -nE '1s/^[^[]*\[ *([0-9.]+)\].*/\1/p'; }

# power_cut SEED [--orderly]: and what the disk then holds.
power_cut() {
    kill -KILL "$machine"
    wait "$machine" 2>/dev/null
    python3 "$here/power_cut.py" disk.img writes.log "$@" || return 1
    rm -f scratch.qcow2 writes.log
}

# What the camera told on its console of events that were new, over all boots so far; an id a line.
told() {
    cat console-*.log | tr -d '\r' | sed -nE 's/^[^{]*(\{.*"id":.*\})[^}]*$/\1/p' | python3 -c '
import json, sys
for line in sys.stdin:
    try:
        event = json.loads(line)
    except ValueError:
        continue
    if event.get("id") and event.get("kind", "incident") == "incident":
        print(event["id"])' | sort -u
}

# busy NAME: the configuration of a camera of which every look at the scene becomes an event: there is much to lose.
busy() {
    cat <<END
[device]
name = "$1"
data_dir = "/data/lookback"
[[camera]]
source = "sim:seed=263"
[store]
bytes_max_mb = 256
evidence_mb = 128
[sentinel]
patrol_s = 5
[inquiry]
turns = 1
frames = 4
[events]
report_normal = true
END
}

# with_data COMMAND...: runs it while a copy of the data partition is mounted at ./data; the machine is off. Mounting
# plays its journal; a copy, since the camera is to meet it as it was left.
with_data() {
    local code=0
    mkdir -p data
    data_copy && mount "$copy" data || return 1
    "$@" || code=$?
    umount data
    losetup -d "$copy"
    return $code
}

# The file system of the data partition: its journal is played, as the camera would, and then nothing is wrong.
data_is_sound() {
    local code=0
    data_copy || return 1
    # 1: what a file system that was not put away has to have mended, and that is all.
    e2fsck -p "$copy" || [ $? = 1 ] || code=1
    e2fsck -fn "$copy" || code=1
    losetup -d "$copy"
    return $code
}

# place_of PARTITION: where on the disk it begins, and its size, in bytes.
place_of() {
    sfdisk -J disk.img | python3 -c '
import json, sys
part = next(p for p in json.load(sys.stdin)["partitiontable"]["partitions"] if p.get("name") == sys.argv[1])
print(part["start"] * 512, part["size"] * 512)' "$1"
}

# copy: a block device with what the data partition of the disk holds.
data_copy() {
    cp --sparse=always disk.img look.img && copy=$(losetup --find --show --offset "$(place_of data | cut -d' ' -f1)" look.img)
}

# with_data nothing_is_lost: every event in told.ids is in the log, and all its evidence is there and is what it was.
nothing_is_lost() {
    "$lookback" events --data-dir data/lookback --limit 1000000 --json >logged.jsonl || return 1
    python3 - <<'END'
import json
logged = {row["id"] for row in map(json.loads, open("logged.jsonl"))}
told = set(open("told.ids").read().split())
assert told, "nothing was told"
assert told <= logged, f"told and not in the log: {told - logged}"
END
    # Another processor may compute other digits; what counts here is that all evidence is there and is what it was.
    "$lookback" replay --data-dir data/lookback --json >replay.jsonl
    python3 - <<'END'
import json
rows = [json.loads(line) for line in open("replay.jsonl")]
lacking = [row for row in rows if row.get("error")]
assert rows and not lacking, lacking[:3]
print(f"{len(rows)} replayed, {sum(row['same'] for row in rows)} to the same tokens")
END
}
