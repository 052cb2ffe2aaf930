# shellcheck shell=bash
# What time and hands do to it: a root that has rotted, five starts in vain, a table of partitions and a superblock that
# were torn; then what the installer and the builder may ask for: a stick, a fixed address, an encrypted data partition.
# Sourced by run.
# shellcheck disable=SC2154 # what is not set here is set by run

part_harm() {
    rm -rf console-*.log www repo-keys second
    check 'a repository is made' quiet "$fleet" repo init www/lookback --keys repo-keys || return
    cp www/lookback/metadata/1.root.json root.json
    check 'a new policy is published' new_policy || return
    check 'and put on a stick' a_stick || return
    check 'a camera is flashed' flash "$(image_of 0.1.0)" 3
    check 'and set up with a fixed address' set_up_for_harm
    local data
    power_on -object "filter-dump,id=dump,netdev=net,file=$PWD/net.pcap" \
        -device qemu-xhci -drive if=none,id=stick,format=raw,file=stick.img -device usb-storage,drive=stick
    check 'it watches' it_watches || return
    check 'it speaks from its fixed address' eventually "$(within 120)" speaks_from 10.0.2.77
    check 'it takes the policy from the stick' saw 'is the policy from now on' "$(within 900)"
    power_cut harm

    check 'a second system is built' image 0.2.0 || return
    check 'and stands beside it, with a root that has rotted' eval 'beside "$(image_of 0.2.0)" && rotted'
    power_on
    check 'the first block that is not what was built is found' saw 'is corrupted' "$start_s"
    check 'after its tries the other system starts, by itself' saw 'system A is good' $((5 * start_s))
    power_cut rotted
    check 'as the state says' state_is 'ORDER=B A A_LEFT=5 B_LEFT=0'

    check 'the second system stands beside it, whole' beside "$(image_of 0.2.0)"
    check 'its power is cut in each of its five starts' five_cuts
    power_on
    check 'the other system starts' saw 'system A is good' "$start_s"
    power_cut five

    check 'the table of partitions was torn' spoilt 512 512
    power_on
    check 'it watches all the same' it_watches
    power_cut table

    data=$(place_of data)
    check 'the superblock of the data partition was torn' spoilt "$((${data% *} + 1024 + 512))" 16
    power_on
    check 'it watches all the same' it_watches
    check 'and was not formatted' not_formatted
    power_cut end --orderly
    told >told.ids
    check 'every event that was told is in the log, with its evidence' with_data nothing_is_lost
    check 'and the file system is sound' data_is_sound

    check 'the data partition is one that e2fsck does not know' of_a_newer_system
    power_on
    check 'it is left as it is, while there are starts to try' saw 'cannot be examined' $((4 * start_s)) 4
    check 'and made anew at the last, and it watches' it_watches
    check 'as it says' saw 'beyond repair: it is made anew' 1
    power_cut newer

    printf '#!/bin/sh\ncat /sys/class/dmi/id/product_uuid\n' >hook && chmod +x hook
    check 'a system with an encrypted data partition is built' image 0.8.0 --data-key-hook hook || return
    check 'it is flashed' flash "$(image_of 0.8.0)" 3
    check 'and set up' set_up_for_harm
    rm -f console-*.log
    power_on
    check 'it watches' it_watches
    check 'and tells an event' saw '"id":' "$(within 240)"
    power_cut encrypted
    check 'the data partition is encrypted' encrypted
    power_on
    check 'it watches again' it_watches
    check 'and was not formatted' not_formatted
}

set_up_for_harm() {
    { busy harm; cat; } >lookback.toml <<END
[update]
root = "/data/config/root.json"
stick = "/run/media"
trial_minutes = 0.5
END
    cat >10-fixed.network <<END
[Match]
Name=en* eth*
[Network]
Address=10.0.2.77/24
Gateway=10.0.2.2
DNS=10.0.2.3
END
    set_up lookback.toml root.json 10-fixed.network
}

a_stick() { rm -f stick.img && truncate -s 128M stick.img && mformat -i stick.img -v STICK :: && mcopy -s -i stick.img www/lookback ::policies; }

speaks_from() {
    python3 - "$1" <<'END'
import socket, struct, sys
data, at = open("net.pcap", "rb").read(), 24
while at + 16 <= len(data):
    length = struct.unpack_from("<8xI", data, at)[0]
    frame = data[at + 16 : at + 16 + length]
    if frame[12:14] == b"\x08\x00" and socket.inet_ntoa(frame[26:30]) == sys.argv[1]:
        sys.exit(0)
    at += 16 + length
sys.exit(f"no packet from {sys.argv[1]}")
END
}

# beside IMAGE: its system is in the other slot, and preferred.
beside() {
    local part begin bytes
    for part in boot root; do
        read -r begin bytes < <(place_of $part-a)
        dd if="$1" of=disk.img bs=1M conv=notrunc,sparse status=none iflag=skip_bytes,count_bytes oflag=seek_bytes \
            skip="$begin" seek="$(place_of $part-b | cut -d' ' -f1)" count="$bytes" || return 1
    done
    with_state set-primary B
}

# Every mebibyte of it another block.
rotted() {
    local begin bytes at
    read -r begin bytes < <(place_of root-b)
    for ((at = begin + 4096; at < begin + bytes; at += 1048576)); do spoilt "$at" 16 || return 1; done
}

# spoilt AT BYTES: they are something else.
spoilt() { head -c "$2" /dev/zero | tr '\000' '\245' | dd of=disk.img bs=1 seek="$1" conv=notrunc status=none; }

# with_state COMMAND...: `slots` on the state of the disk.
with_state() {
    local begin bytes
    read -r begin bytes < <(place_of bootenv)
    dd if=disk.img of=state bs=1M iflag=skip_bytes,count_bytes skip="$begin" count="$bytes" status=none &&
        LOOKBACK_BOOTENV=$PWD/state "$repository/image-build/root/usr/lib/lookback/slots" "$@" &&
        dd if=state of=disk.img bs=1M oflag=seek_bytes seek="$begin" conv=notrunc status=none
}
state_is() { local state; state=$(with_state show) && [ "$state" = "$1" ] || { echo "$state"; return 1; }; }

# Each when systemd has cleared its console, or some seconds further on: the start is counted by then, on the disk, and long
# after that it would watch, however slow this machine is.
five_cuts() {
    local left
    for left in 4 3 2 1 0; do
        power_on
        saw '\[!p' "$start_s" || return 1
        sleep "$left"
        ! grep -aq 'the sentinel watches' "$console" || { echo 'it watched'; return 1; }
        power_cut "five $left"
        state_is "ORDER=B A A_LEFT=5 B_LEFT=$left" || return 1
    done
}

# A revision of ext4 that there is not yet; and five starts are left, and none of the other system.
of_a_newer_system() {
    local device code=0
    with_state set-primary A && with_state set-state B bad || return 1
    device=$(losetup --find --show --offset "$(place_of data | cut -d' ' -f1)" disk.img) || return 1
    debugfs -w -R 'set_super_value rev_level 7' "$device" || code=1
    losetup -d "$device"
    return $code
}

not_formatted() { ! grep -aE 'first boot|made anew' "$console"; }

encrypted() {
    local begin bytes
    read -r begin bytes < <(place_of data)
    [ "$(blkid -p -O "$begin" -o value -s TYPE disk.img)" = crypto_LUKS ] && [ "$(blkid -p -O "$begin" -o value -s LABEL disk.img)" = data ]
}
