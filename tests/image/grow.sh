#!/bin/bash
# The table of partitions of a disk that is larger than the image, and a power cut while it is written.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
program=$repository/image-build/root/usr/lib/lookback/grow
export TMPDIR=$PWD PATH=$PATH:/usr/sbin:/sbin

# The image, of which the last partition is to grow, on a disk of 256 MiB and a bit.
flashed() {
    rm -f disk
    truncate -s 64M disk
    printf 'label: gpt\nfirst-lba: 2048\nstart=1MiB, size=8MiB, name=esp\nstart=9MiB, size=50MiB, name=data\n' | sfdisk --quiet disk
    printf 'what the boot loader is' | dd of=disk bs=1M seek=1 conv=notrunc status=none
    truncate -s $((256 * 1048576 + 4096)) disk
}
# The sectors of the partition, by the table that stands first on the disk, or by the one at its end.
sectors() { sfdisk -J "$1" 2>/dev/null | python3 -c 'import json, sys; print([p["size"] for p in json.load(sys.stdin)["partitiontable"]["partitions"]][1])'; }
first_table_lost() { cp disk lost && dd if=/dev/zero of=lost bs=512 seek=1 count=33 conv=notrunc status=none; }
last_table_lost() { cp disk lost && dd if=/dev/zero of=lost bs=512 seek=$((256 * 2048 + 8 - 33)) count=33 conv=notrunc status=none; }
sound() { sfdisk --verify disk 2>&1 | grep -q 'No errors detected'; }
# dd, whose Nth write to the disk is where the power goes.
cut_at() {
    mkdir -p shim
    cat >shim/dd <<END
#!/bin/sh
case "\$*" in *of=disk*fsync*) echo x >>writes; [ "\$(wc -l <writes)" -lt $1 ] || exit 1 ;; esac
exec $(command -v dd) "\$@"
END
    chmod +x shim/dd
    rm -f writes
    ! PATH=$PWD/shim:$PATH "$program" disk 2
}
is() { [ "$1" = "$2" ] || { echo "$1, not $2"; return 1; }; }

flashed
small=$(sectors disk)
check 'the last partition grows to the end of the disk' "$program" disk 2
large=$(sectors disk)
check 'as far as the table there allows' is "$large" $((256 * 2048 + 8 - 33 - 9 * 2048))
check 'the table is sound' sound
check 'what was in the first partition is there' grep -aq 'what the boot loader is' disk
check 'both tables say so: without the first one' eval 'first_table_lost && is "$(sectors lost)" "$large"'
check 'and without the last one' eval 'last_table_lost && is "$(sectors lost)" "$large"'
cp disk before
check 'once more changes nothing' eval '"$program" disk 2 && cmp disk before'
flashed
check 'the power is cut before the first write' cut_at 1
check 'the table is what it was' is "$(sectors disk)" "$small"
flashed
check 'the power is cut between the two' cut_at 2
check 'the first table is what it was' is "$(sectors disk)" "$small"
check 'and the one at the end says how it will be' eval 'first_table_lost && is "$(sectors lost)" "$large"'
check 'the next start completes it' eval '"$program" disk 2 && is "$(sectors disk)" "$large"'
check 'nothing of it is left in memory' eval '! ls table.* 2>/dev/null'
refuses 1 '' 'a disk that is none is refused' "$program" nodisk 2
finish
