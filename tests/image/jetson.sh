#!/bin/bash
# A Jetson without a Jetson: its package, RAUC's backend against a boot loader that behaves as NVIDIA's source says, and
# RAUC itself in between. No board was at hand: what only one can show is in image-build/jetson/README.md.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
jetson=$repository/image-build/jetson
fake=$repository/tests/image/fake-nvbootctrl
programs=$jetson/root/usr/lib/lookback
backend=$programs/nvbootctrl-rauc
# The system's own Python first: the boot loader is asked some hundred times.
export PATH=/usr/bin:$PATH:/usr/sbin:/sbin SOURCE_DATE_EPOCH=1790000000

# --- the backend: what it says
export FAKE_JETSON=$scratch/board LOOKBACK_NVBOOTCTRL=$fake LOOKBACK_EFIVARS=$scratch/board/efivars
export LOOKBACK_TRIAL=$scratch/data/trial LOOKBACK_OWN_ROOT=$scratch/own-root LOOKBACK_NVBOOTCTRL_LIMIT_S=1
printf '#!/bin/sh\necho "$@" >>%s/made-own\n' "$scratch" >own-root && chmod +x own-root

new_board() { rm -rf board data made-own && mkdir board && "$fake" new "$@" && "$fake" verify >/dev/null; }
says() { [ "$("$backend" "${@:2}")" = "$1" ] || { echo "it says '$("$backend" "${@:2}" 2>&1)'"; return 1; }; }
fault() { echo "$*" >board/fault; }
whole() { rm -f board/fault; }
starts() { local began; began=$("$fake" restart "${@:2}") && [ "$began" = "$1" ] || { echo "$began starts"; return 1; }; }

new_board
check 'a board as flashed starts APP, which is sound, as is APP_b' eval \
    'says APP get-primary && says APP get-current && says good get-state APP && says good get-state APP_b'
check 'APP_b marked bad is bad, by the variable that the boot loader reads' eval \
    '"$backend" set-state APP_b bad && says bad get-state APP_b && "$fake" -t rootfs dump-slots-info | grep -q "slot: 1,.*unbootable"'
check 'the variable has the form that efivarfs asks: attributes and four bytes' \
    [ "$(od -An -tx1 board/efivars/RootfsStatusSlotB-* | tr -d ' ')" = 07000000ff000000 ]
refuses 1 'one has to start' 'with one system bad the other cannot be marked bad too' "$backend" set-state APP bad
check 'APP_b marked good is good again' eval '"$backend" set-state APP_b good && says good get-state APP_b'
check 'the system that runs is marked good by nvbootctrl itself' eval \
    ': >board/asked && "$backend" set-state APP good && grep -qx verify board/asked'
check 'APP_b chosen is what starts next, and not before' eval \
    '"$backend" set-primary APP_b && says APP_b get-primary && says APP get-current'
check 'before that it was made to start from its own partition' grep -qx '/dev/disk/by-partlabel/APP_b APP_b' made-own
check 'it is on trial' [ "$(cat data/trial)" = APP_b ]
check 'APP chosen again ends that' eval '"$backend" set-primary APP && says APP get-primary && [ ! -e data/trial ]'

# --- what it must not believe
refuses 1 'usage' 'no command is refused' "$backend"
refuses 1 'usage' 'an unknown command is refused' "$backend" get-slots
refuses 1 'usage' 'an argument too many is refused' "$backend" get-primary APP
refuses 1 'usage' 'an argument too few is refused' "$backend" set-primary
refuses 1 "no system 'A'" 'a system of another board is refused' "$backend" get-state A
refuses 1 "no system ''" 'a system without a name is refused' "$backend" set-primary ''
refuses 1 "'good' or 'bad', not 'fine'" 'a state that there is not is refused' "$backend" set-state APP fine
fault fail
refuses 1 'exit code 1: Error: failed to open' 'an nvbootctrl that fails is told' "$backend" get-primary
refuses 1 'exit code 1' 'so it is when a system is to be chosen' "$backend" set-primary APP_b
check 'nothing was changed by that' eval 'whole && says APP get-primary && says good get-state APP_b'
fault hang
refuses 1 'no answer within 1 s' 'an nvbootctrl that hangs is given up' "$backend" get-state APP
fault garbage
refuses 1 'cannot be understood' 'an answer that is none is refused' "$backend" get-primary
fault old
refuses 1 'cannot be understood' 'the answer of an older nvbootctrl is refused' "$backend" get-current
fault map
refuses 1 'does not name two systems: Error: memory map failed' \
    'a kernel that hides the tries from nvbootctrl is told' "$backend" get-state APP
fault deaf
refuses 1 'and yet it is APP' 'an nvbootctrl that says yes and does nothing is found out' "$backend" set-primary APP_b
whole
LOOKBACK_NVBOOTCTRL=$scratch/none refuses 1 'no nvbootctrl at' 'without nvbootctrl it says so' "$backend" get-primary
LOOKBACK_EFIVARS=$scratch/none refuses 1 'not mounted' 'without UEFI variables it says so' "$backend" set-state APP_b bad
LOOKBACK_TRIAL=/proc/none/trial refuses 1 'could not be told' \
    'where a trial cannot be noted no system is chosen' "$backend" set-primary APP_b
new_board single
refuses 1 'flashed without ROOTFS_AB=1' 'a board that was flashed for one system is told' "$backend" get-primary
refuses 1 'flashed without ROOTFS_AB=1' 'no system is chosen on it' "$backend" set-primary APP_b
echo 'exit 1' >own-root
new_board
refuses 1 'its own partition' 'a system that cannot be made to start from its own partition is not chosen' "$backend" set-primary APP_b
check 'what starts is still APP' says APP get-primary
printf '#!/bin/sh\n' >own-root

# --- an update, as RAUC does one: marked bad, written, marked good by choosing it
install_update() { "$backend" set-state APP_b bad && "$backend" set-primary APP_b; }
hook() {
    LOOKBACK_BACKEND=$backend LOOKBACK_SYSTEMCTL=$1 LOOKBACK_CMDLINE=$scratch/cmdline LOOKBACK_CONFIRMED=$scratch/confirmed \
        LOOKBACK_DEADLINE_S=${deadline:-3} LOOKBACK_STEADY_S=1 LOOKBACK_STEP_S=1 "$jetson/root/usr/sbin/user_rootfs_validation.sh"
}
new_board
check 'without an update the check at boot lets NVIDIA mark the system as sound at once' hook false
check 'a new system starts' eval 'install_update && starts APP_b'
echo 'root=PARTUUID=1 rauc.slot=APP_b lookback.root=abc' >cmdline
: >confirmed
by_agent() {
    deadline=60 in_background hook true
    sleep 1.5
    [ -e data/trial ] && "$backend" set-state APP_b good && wait "$child" && grep -q 'APP_b was confirmed' child.out
}
check 'it is on trial until the agent has it confirmed' by_agent
keeps_on() { for _ in 1 2 3 4 5; do starts APP_b && "$fake" verify >/dev/null || return 1; done; }
check 'it is what starts from then on' keeps_on
at_once() { new_board && install_update && starts APP_b && hook true | grep -q 'APP_b watches, and is confirmed' && [ ! -e data/trial ]; }
echo abc >confirmed
check 'one that was confirmed before needs only to watch' at_once
echo 'root=PARTUUID=1' >cmdline
: >confirmed
check 'so does one that the agent cannot tell from another' at_once
echo 'lookback.root=abc' >cmdline
unconfirmed() { new_board && install_update && starts APP_b && ! hook true >said && grep -q 'APP starts' said; }
check 'a new system that watches and is not confirmed makes room in time' unconfirmed
new_board
install_update && "$fake" restart >/dev/null
does_not_watch() { ! hook false >said && grep -q 'APP starts' said; }
check 'a new system that does not watch makes room in time' does_not_watch
check 'the old one starts, and is sound' eval 'starts APP && says APP get-primary && says good get-state APP'
check 'the new one is bad' says bad get-state APP_b
new_board
install_update
hangs() { for _ in 1 2 3; do starts APP_b || return 1; done && starts APP; }
check 'a new system that hangs at boot has three tries, then the old one starts' hangs
check 'which is not on trial' hook false
new_board
install_update && "$fake" restart >/dev/null
only_one() { printf '\7\0\0\0\377\0\0\0' >board/efivars/RootfsStatusSlotA-* && hook false && says APP_b get-primary; }
check 'a new system that does not watch stays, if there is no other' only_one
new_board
echo left >"$(echo board/efivars/RootfsStatusSlotA-*| sed s/RootfsStatusSlotA/BootChainFwStatus/)"
check 'the outcome of an earlier switch does not keep the next one from happening' eval '"$backend" set-primary APP_b && starts APP_b'

# --- the power goes in the midst of it
# cut_at COMMAND: nvbootctrl is at it when the power goes.
cut_at() {
    new_board && fault hang-at "$1"
    LOOKBACK_NVBOOTCTRL_LIMIT_S=5 in_background "$backend" "${@:2}"
    wait_for 10 grep -q -- "$1" board/asked && kill -KILL "$child" && { wait "$child" 2>/dev/null || whole; } && starts APP cold
}
check 'cut off while it asks, the old system starts' cut_at dump-slots-info set-primary APP_b
check 'cut off while it chooses, the old system starts' cut_at set-active-boot-slot set-primary APP_b
cut_while_written() { new_board && "$backend" set-state APP_b bad && starts APP cold && says bad get-state APP_b; }
check 'cut off while the new system is written, the old one starts, and what was written does not count' cut_while_written
# What NVIDIA's source says of the tries that are left: a system that was bad when the power came has none until it goes again.
again() { "$backend" set-primary APP_b 2>warned && grep -q 'no tries left' warned; }
check 'a second attempt without a power cut says that it needs one' again
check 'by a restart the old system starts' starts APP
second() { "$backend" set-primary APP_b 2>/dev/null && starts APP_b cold; }
check 'by a power cut the new one does' second

# --- the line by which the kernel finds its root
extlinux=one/boot/extlinux/extlinux.conf
uuid=b1946ac9-2e1e-4a3c-9d10-000000000002
mkdir -p ${extlinux%/*} one/usr/lib one/var/lib/dpkg
echo 'IMAGE_VERSION=1.2.3' >one/usr/lib/os-release
echo 'Package: lookback' >one/var/lib/dpkg/status
made_of=$(cat one/usr/lib/os-release one/var/lib/dpkg/status | sha256sum | cut -c1-64)
cat >$extlinux <<'CONF'
TIMEOUT 30
DEFAULT primary

LABEL primary
      LINUX /boot/Image
      INITRD /boot/initrd
      APPEND ${cbootargs} root=PARTUUID=old rw rootwait rootfstype=ext4 console=ttyTCU0,115200

# LABEL backup
CONF
own() { "$programs/own-root" --in one $uuid APP_b; }
names="root=PARTUUID=$uuid rauc.slot=APP_b lookback.root=$made_of"
appended() { own && grep -qx "      APPEND \${cbootargs} rw rootwait rootfstype=ext4 console=ttyTCU0,115200 $names" $extlinux; }
check 'a system is made to start from its own partition, and says which one it is' appended
check 'nothing else of the file changes' [ "$(grep -c . $extlinux) $(grep -c 'LABEL\|LINUX\|INITRD\|TIMEOUT' $extlinux)" = '7 5' ]
unchanged() { local before; before=$(stat -c %i $extlinux) && own && [ "$before" = "$(stat -c %i $extlinux)" ]; }
check 'a second time there is nothing to do' unchanged
another_one() {
    echo 'Package: newer' >one/var/lib/dpkg/status && own && ! grep -q "$made_of" $extlinux || return 1
    echo 'Package: lookback' >one/var/lib/dpkg/status && own
}
check 'another system says so' another_one
refuses 1 'no system of a Jetson' 'a file system that is none of a Jetson is refused' "$programs/own-root" --in data $uuid APP
refuses 1 'no partition' 'a partition that is not there is refused' "$programs/own-root" /dev/disk/by-partlabel/none APP

# --- the power mode
power() {
    LOOKBACK_POWER_MODE=$scratch/wanted LOOKBACK_NVPMODEL_CONF=$scratch/modes LOOKBACK_NVPMODEL=$scratch/nvpmodel \
        LOOKBACK_JETSON_CLOCKS=$scratch/clocks "$programs/power-mode"
}
printf '< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n' >modes
printf '#!/bin/sh\ncat >answer\necho "$@" >called\n' >nvpmodel
printf '#!/bin/sh\n: >clocked\n' >clocks && chmod +x nvpmodel clocks
sed s/15W$/25W/ "$jetson/root/etc/lookback/power-mode" >wanted
check 'a power mode is set by its name, whatever its number' eval 'power && [ "$(cat called)" = "-m 1" ] && [ ! -e clocked ]'
check 'a question whether to start anew is answered with no' [ "$(cat answer)" = no ]
cp "$jetson/root/etc/lookback/power-mode" wanted
check 'the mode that the package names is not the highest' eval 'power && [ "$(cat called)" = "-m 0" ]'
printf 'mode=7W\n' >wanted
not_there() { ! power >said && grep -q "no power mode '7W'; it has: 15W 25W MAXN_SUPER" said; }
check 'a mode that the board has not is told, with those that it has' not_there
printf 'mode=15W\nclocks=max\n' >wanted
check 'clocks are held at the most only where that is asked for' eval 'power && [ -e clocked ]'

# --- the layout of the disk
cat >nvidia.xml <<'XML'
<partition_layout version="01.00.0000">
    <device type="external" instance="0" sector_size="512" num_sectors="EXT_NUM_SECTORS" >
        <partition name="UDA" type="data"><allocation_attribute> 8 </allocation_attribute></partition>
        <partition name="APP" id="1" type="data"><allocation_attribute> 0x8 </allocation_attribute></partition>
        <partition name="APP_b" id="2" type="data"><allocation_attribute> 0x8 </allocation_attribute></partition>
        <partition name="secondary_gpt" type="secondary_gpt"></partition>
    </device>
</partition_layout>
XML
last_and_growing() {
    "$jetson/layout" nvidia.xml ours.xml && python3 -c '
import xml.etree.ElementTree as tree
parts = tree.parse("ours.xml").getroot()[0]
names = [part.get("name") for part in parts]
assert names == ["UDA", "APP", "APP_b", "lookback", "secondary_gpt"], names
assert [part.find("allocation_attribute").text.strip() for part in parts[:4]] == ["8", "0x8", "0x8", "0x808"]'
}
check 'the data partition comes last in the layout, and grows' last_and_growing
refuses 1 'already' 'a layout that has it is refused' "$jetson/layout" ours.xml ours.xml
grep -v APP_b nvidia.xml >single.xml
refuses 1 '_rootfs_ab.xml' 'a layout for one system is refused' "$jetson/layout" single.xml ours.xml

# --- the package
# elf OUT MACHINE GLIBC LIBRARY: the smallest program that names a library and a version of glibc.
elf() {
    python3 - "$@" <<'PYTHON'
import struct, sys
out, machine, glibc, library = sys.argv[1:]
names = b"\0" + library.encode() + b"\0GLIBC_" + glibc.encode() + b"\0"
at, version = 64 + 2 * 56, 2 + len(library)
needs = struct.pack("<HHIII", 1, 1, 1, 16, 0) + struct.pack("<IHHII", 0, 0, 2, version, 0)
strings, dynamic = at + len(needs), at + len(needs) + len(names)
tags = [(1, 1), (5, strings), (0x6FFFFFFE, at), (0x6FFFFFFF, 1), (0, 0)]
size = dynamic + 16 * len(tags)
header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, int(machine), 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
loaded = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
table = struct.pack("<IIQQQQQQ", 2, 4, dynamic, dynamic, dynamic, 16 * len(tags), 16 * len(tags), 8)
open(out, "wb").write(header + loaded + table + needs + names + b"".join(struct.pack("<QQ", *tag) for tag in tags))
PYTHON
}
elf arm 183 2.34 libc.so.6
elf intel 62 2.34 libc.so.6
elf newer 183 2.43 libm.so.6
elf strange 183 2.34 libfoo.so.1
head -c 150 arm >cut-off-program
agent=${LOOKBACK_AARCH64:-$scratch/arm}
build=("$jetson/build" --version 1.2.3)
check '`--help` explains it' sh -c '"$0" --help | grep -q "SOURCE_DATE_EPOCH"' "$jetson/build"
refuses 1 'not a program for aarch64' 'a program for another processor is refused' "${build[@]}" --agent intel --out out
refuses 1 'needs glibc 2.43, and JetPack 6 has 2.35' 'a program for a newer system is refused' "${build[@]}" --agent newer --out out
refuses 1 'libfoo.so.1' 'a program that needs an unknown library is refused' "${build[@]}" --agent strange --out out
refuses 1 'no program' 'what is no program is refused' "${build[@]}" --agent own-root --out out
refuses 1 'cut off or damaged' 'a program that is cut off is refused' "${build[@]}" --agent cut-off-program --out out
refuses 1 'no program none' 'a program that is not there is refused' "${build[@]}" --agent none --out out
refuses 1 'is no version' 'what is no version is refused' "$jetson/build" --agent arm --out out --version 1.2
refuses 1 'needs --agent' 'a missing option is refused' "$jetson/build" --agent arm
refuses 1 "no option '--fast'" 'an unknown option is refused' "$jetson/build" --fast
refuses 1 'no certificate' 'a keyring that is none is refused' "${build[@]}" --agent arm --out out --keyring modes
check 'after all of which there is no package' [ ! -e out ]
printf -- '-----BEGIN CERTIFICATE-----\n' >cert.pem
build_json() { "${build[@]}" --agent "$agent" --out out --keyring cert.pem --json >built.json; }
check 'the package is made' build_json || finish
holds 'what was made is one object, with the hash of the package' built.json '
    len(rows) == 1 and rows[0]["package"] == "lookback_1.2.3_arm64.deb" and rows[0]["board"] == "jetson-orin-nano"
    and rows[0]["sha256"] == __import__("hashlib").sha256(open("out/lookback_1.2.3_arm64.deb", "rb").read()).hexdigest()'
deb=out/lookback_1.2.3_arm64.deb
elsewhere() { umask 077 && cd / && TZ=Asia/Tokyo "${build[@]}" --agent "$agent" --out "$scratch/again" --keyring "$scratch/cert.pem"; }
again_the_same() { (elsewhere) && cmp $deb "again/${deb#out/}"; }
check 'made again, elsewhere, it is the same to the byte' again_the_same
dpkg-deb -c $deb >contents
check 'all in it belongs to root' eval '! grep -v " root/root " contents'
check 'nothing in it can be written by others' eval '! grep -E "^[^l]....w|^[^l].......w" contents'
check 'nothing in it has a mark of this machine' eval '! dpkg-deb --fsys-tarfile $deb | grep -qaE "$repository|$scratch"'
has() { local file; for file; do grep -qE " \./$file( ->|\$)" contents || { echo "$file is not in it"; return 1; }; done; }
check 'it has the agent, its unit, its user, its backend and the links that enable it' has usr/bin/lookback \
    usr/lib/systemd/system/lookback.service usr/lib/systemd/system/lookback.service.d/{10-jetson,20-caches}.conf \
    usr/lib/sysusers.d/lookback.conf usr/lib/lookback/{nvbootctrl-rauc,slots,data,own-root,power-mode} \
    usr/lib/systemd/system/multi-user.target.wants/{lookback{,-data,-power,-own-root}.service,lookback-reboot.path} \
    usr/sbin/user_rootfs_validation.sh \
    etc/rauc/{system.conf,keyring.pem} etc/lookback/{lookback.toml,power-mode} usr/share/doc/lookback/{copyright,changelog.gz}
dpkg-deb -e $deb control
check 'it needs the libraries that the program names' \
    grep -qE '^Depends: libc6 \(>= 2\.[0-9]+\), (libgcc-s1, )?systemd \(>= 249\)' control/control
check 'what an owner may change in /etc is kept when it is updated' \
    [ "$(tr '\n' ' ' <control/conffiles)" = '/etc/lookback/lookback.toml /etc/lookback/power-mode /etc/rauc/keyring.pem /etc/rauc/system.conf ' ]
dpkg-deb -x $deb inside
unit=usr/lib/systemd/system/lookback.service
check 'the unit is the one of the other images' cmp inside/$unit "$repository/image-build/root/$unit"
sed "s#/data/lookback#$scratch/store#; /^root = /d" inside/etc/lookback/lookback.toml >own.toml
check 'the configuration in it is sound' "$lookback" --config own.toml config
check 'it names the board that the program knows' grep -qx 'description = "orin-nano"' inside/etc/lookback/lookback.toml
for script in inside/usr/lib/lookback/* inside/usr/sbin/* control/p*; do sh -n "$script" || echo "$script"; done >unread 2>&1
check 'every script in it can be read by a plain shell' [ ! -s unread ]

# --- in the root of an image
mkdir -p image/var/lib/dpkg/{updates,info} image/etc image/usr/bin
touch image/var/lib/dpkg/{status,available}
printf 'root:x:0:0:root:/root:/bin/sh\n' >image/etc/passwd
printf 'root:x:0:\n' >image/etc/group
in_image() {
    dpkg --root="$scratch/image" --force-script-chrootless --force-architecture --force-depends --force-not-root \
        --force-bad-path "$@"
}
# with_disk COMMAND...: with the user of the image, on a disk that is a file.
with_disk() {
    export LOOKBACK_DATA_DEVICE=$disk LOOKBACK_DATA=$scratch/mounted LOOKBACK_DEFAULT=$jetson/root/etc/lookback/lookback.toml
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private sh -c '
        mount --bind image/etc/passwd /etc/passwd && mount --bind image/etc/group /etc/group && "$0" && eval "$1"' "$programs/data" "$1"
}
check_disk() {
    truncate -s 256M disk.img
    if ! unshare --mount true 2>/dev/null || ! disk=$(losetup --find --show disk.img 2>/dev/null); then
        skip 'an empty data partition at the first boot' 'this machine has no loop devices or allows no mounts (root)'
        return
    fi
    check 'an empty data partition is formatted at the first boot' with_disk 'mountpoint -q mounted && echo kept >mounted/lookback/footage'
    check 'at the second its content is there' with_disk 'grep -qx kept mounted/lookback/footage'
    check 'the store in the configuration fits the disk' with_disk \
        '[ "$(grep -cE "^(bytes_max_mb = 1[0-9]{2}|evidence_mb = [23][0-9])$" mounted/config/lookback.toml)" = 2 ]'
    check 'the caches of CUDA have their folder there, which belongs to the agent' with_disk \
        '[ "$(stat -c %U%a mounted/lookback/cache/cuda)" = lookback750 ]'
    check 'the agent reads its configuration, and cannot change it' with_disk \
        '[ "$(stat -c %U:%G%a mounted/config/lookback.toml)" = root:lookback640 ]'
    check 'what an owner has changed in it stays' with_disk \
        'file=mounted/config/lookback.toml; echo "# mine" >>$file && umount mounted && "$0" && grep -qx "# mine" $file'
    dd if=/dev/zero of="$disk" bs=4096 count=4 conv=notrunc 2>/dev/null
    check 'one whose beginning is damaged is mended' with_disk 'grep -qx kept mounted/lookback/footage'
    dd if=/dev/urandom of="$disk" bs=4096 seek=1 conv=notrunc 2>/dev/null
    check 'one that is damaged all over is used all the same' with_disk '[ -d mounted/lookback ] && [ -s mounted/config/lookback.toml ]'
    # A revision that e2fsck does not know: it can say neither that it is sound nor that it is not.
    debugfs -w -R 'set_super_value rev_level 7' "$disk" 2>/dev/null
    printf '#!/bin/sh\necho "$*" >>restarts\n' >restart && chmod +x restart
    export LOOKBACK_VAIN=$scratch/vain/count LOOKBACK_SYSTEMCTL=$scratch/restart LOOKBACK_PAUSE_S=0
    left_as_it_is() {
        for _ in 1 2 3 4; do
            ! with_disk true >left.out 2>&1 && grep -q 'cannot be examined' left.out || return 1
            [ "$(blkid -p -o value -s LABEL "$disk")" = data ] || return 1
        done
    }
    check 'one that cannot be examined is left as it is' left_as_it_is
    check 'and the board starts anew each time' [ "$(grep -cx -- '--no-block reboot' restarts)" = 4 ]
    check 'until five starts were in vain' with_disk '[ -s mounted/made-anew ] && [ -d mounted/lookback ] && [ ! -e "$LOOKBACK_VAIN" ]'
    # The partition table is blkid's word here, since not every kernel looks for one in a file.
    mkfs.ext4 -q -F -d one "$disk" && mkdir -p bin && printf '#!/bin/sh\necho %s\n' $uuid >bin/blkid && chmod +x bin/blkid
    own_disk() {
        sed -i 's/PARTUUID=[^ ]*/PARTUUID=old/' $extlinux
        mkfs.ext4 -q -F -d one "$disk" && PATH=$scratch/bin:$PATH "$programs/own-root" "$disk" APP_b
    }
    check 'a system on a disk is made to start from its own partition' own_disk
    check 'as its file says' eval 'debugfs -R "cat /boot/extlinux/extlinux.conf" "$disk" 2>/dev/null | grep " $names$"'
    refuses 1 'no number of its own' 'a disk that is no partition is refused' "$programs/own-root" "$disk" APP_b
    dd if=/dev/zero of="$disk" bs=1M count=1 conv=notrunc 2>/dev/null
    PATH=$scratch/bin:$PATH refuses 1 'no ext4' 'a partition without a file system is refused' "$programs/own-root" "$disk" APP_b
    losetup --detach "$disk"
}
if command -v systemd-sysusers >/dev/null; then
    check 'it is installed into the root of an image, where nothing runs' in_image -i $deb
    check 'its user is there, and the groups that the unit names' eval \
        'grep -q "^lookback:.*:/data/lookback:" image/etc/passwd && [ "$(grep -cE "^(lookback|video|render|gpio):" image/etc/group)" = 4 ]'
    echo '# mine' >>image/etc/lookback/power-mode
    newer() { "$jetson/build" --version 1.2.4 --agent "$agent" --out newest && in_image --force-confold -i newest/lookback_1.2.4_arm64.deb; }
    check 'a newer one is installed over it' newer
    check 'and leaves what the owner has changed' grep -qx '# mine' image/etc/lookback/power-mode
    # What the units start is NVIDIA's or Debian's, but for our own.
    verify_units() {
        local said unit
        cp -r image whole && mkdir -p whole/usr/lib/systemd/system whole/usr/sbin && : >whole/usr/sbin/nvpmodel
        chmod +x whole/usr/bin/lookback
        for unit in local-fs-pre sysinit basic shutdown multi-user; do printf '[Unit]\n' >whole/usr/lib/systemd/system/$unit.target; done
        said=$(systemd-analyze verify --root=whole --man=no --recursive-errors=no \
            lookback{,-data,-power,-own-root}.service lookback-reboot.path 2>&1) || said+=' (it refuses them)'
        [ -z "$said" ] || { echo "$said"; return 1; }
    }
    if [[ $(systemd-analyze --help 2>/dev/null) = *--root=* ]]; then
        check 'systemd finds nothing wrong with the units' verify_units
    else
        skip 'systemd finds nothing wrong with the units' 'this systemd-analyze looks into no other root'
    fi
    check 'it is removed again' in_image -r lookback
    check_disk
else
    skip 'the package in the root of an image' 'this machine has no systemd-sysusers'
fi

# --- RAUC itself, on a bus of its own
asked() { rauc --conf=system.conf "$@"; }
rauc_starts() {
    new_board
    sed -e "s#/usr/lib/lookback/nvbootctrl-rauc#$backend#; s#/dev/disk/by-partlabel#$scratch/disk#" \
        -e "s#^statusfile=.*#statusfile=$scratch/rauc-status#" \
        -e "s#^path=.*#path=$scratch/keys/cert.pem#; s#^mountprefix=.*#mountprefix=$scratch/mount#" inside/etc/rauc/system.conf >system.conf
    mkdir -p disk keys mount && truncate -s 8M disk/APP disk/APP_b
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/O=test/CN=image' \
        -addext 'extendedKeyUsage=emailProtection,codeSigning' -keyout keys/key.pem -out keys/cert.pem 2>/dev/null || return 1
    cat >bus.conf <<BUS
<busconfig><type>system</type><listen>unix:path=$scratch/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/></policy></busconfig>
BUS
    in_background dbus-daemon --config-file=bus.conf --nofork
    bus=$child
    wait_for 5 test -S bus || return 1
    export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$scratch/bus
    start_rauc APP
}
start_rauc() {
    in_background rauc --conf=system.conf --override-boot-slot="$1" service
    service=$child
    # In a shell that says nothing of how it ends: without the service it crashes.
    wait_for 10 sh -c 'rauc --conf=system.conf status || exit 1'
}
stop_rauc() { kill "$service" && { wait "$service" 2>/dev/null || true; }; }
# slot_is SLOT KEY VALUE
slot_is() {
    asked status --output-format=json >status.json && python3 - "$@" <<'PYTHON'
import json, sys
slot, key, value = sys.argv[1:]
told = json.load(open("status.json"))
found = next(each[slot] for each in told["slots"] if slot in each) | {"primary": told["boot_primary"]}
sys.exit(0 if found[key] == value else f"{key} is {found[key]}")
PYTHON
}
# bundle FORMAT: a system of nothing but a file.
bundle() {
    rm -rf bundle update.raucb && mkdir -p bundle/root && head -c 1M /dev/urandom >bundle/root/file
    mkfs.ext4 -q -F -d bundle/root bundle/rootfs.ext4 4M && rm -r bundle/root
    printf '%s\n' '[update]' compatible=lookback-jetson-orin-nano version=1.2.4 '[bundle]' "format=$1" '[image.rootfs]' \
        filename=rootfs.ext4 >bundle/manifest.raucm
    rauc --cert=keys/cert.pem --key=keys/key.pem bundle bundle update.raucb
}
if command -v rauc >/dev/null && command -v dbus-daemon >/dev/null && command -v openssl >/dev/null; then
    check "RAUC ($(rauc --version | grep -o '[0-9.]*')) starts with the configuration of the package" rauc_starts || finish
    check 'it sees which system runs, and that both are sound' eval \
        'slot_is rootfs.0 state booted && slot_is rootfs.0 boot_status good && slot_is rootfs.1 boot_status good &&
        slot_is rootfs.0 primary rootfs.0'
    check 'it marks the other system bad' eval \
        'asked status mark-bad other && slot_is rootfs.1 boot_status bad && says bad get-state APP_b'
    check 'it is refused to mark both bad' eval '! asked status mark-bad booted && slot_is rootfs.0 boot_status good'
    check 'it chooses the other system' eval \
        'asked status mark-active other && slot_is rootfs.1 primary rootfs.1 && says APP_b get-primary'
    check 'it confirms the system that runs' eval 'asked status mark-good && says good get-state APP'
    check 'a bundle is made and signed for it' eval 'bundle verity && asked info update.raucb'
    fault fail
    check 'with an nvbootctrl that fails nothing is confirmed' eval '! asked status mark-good'
    whole
    # Written to files in place of partitions; a plain bundle, since a signed image needs the kernel's dm-verity to be read.
    sed -i 's/^bundle-formats=.*/bundle-formats=plain/' system.conf
    stop_rauc && new_board && start_rauc APP && bundle plain >bundled 2>&1
    if mount -t squashfs -o loop,ro update.raucb mount 2>/dev/null && umount mount; then
        check 'it installs the bundle into the other system, and chooses that' eval \
            'asked install update.raucb && says APP_b get-primary && says good get-state APP_b'
        check 'what was written is what was in the bundle' eval 'debugfs -R "stat /file" disk/APP_b 2>/dev/null | grep -q "Size: 1048576"'
        check 'the system that runs was not touched' [ "$(tr -d '\0' <disk/APP | wc -c)" = 0 ]
        check 'the new one starts, on trial, and RAUC confirms it' eval \
            'stop_rauc && starts APP_b && [ "$(cat data/trial)" = APP_b ] && start_rauc APP_b &&
            asked status mark-good && [ ! -e data/trial ]'
        fault hang-at set-active-boot-slot
        check 'an install whose choice hangs fails' eval '! asked install update.raucb'
        whole
        check 'and the system before it goes on' eval 'says APP_b get-primary && starts APP_b'
    else
        skip 'RAUC installs a bundle' 'this machine mounts no bundle (a loop device with squashfs, as root)'
    fi
    stop_rauc
else
    skip 'RAUC with the configuration of the package' 'this machine has no rauc, no dbus-daemon or no openssl'
fi
[ -z "${bus-}" ] || { kill "$bus" && wait "$bus" 2>/dev/null; }
finish
