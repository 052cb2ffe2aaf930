#!/bin/bash
# The sector that says which of the two systems starts, as RAUC and the initrd write it.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
program=$repository/image-build/root/usr/lib/lookback/slots
export LOOKBACK_BOOTENV=$PWD/bootenv

slots() { "${shell[@]}" "$program" "$@"; }
new() { head -c 1M /dev/zero >bootenv; }
# is WORDS COMMAND...: it prints just that.
is() { local words=$1 got; shift; got=$("$@") && [ "$got" = "$words" ] || { echo "'$got', not '$words'"; return 1; }; }
# unchanged COMMAND...: it fails, and the partition is what it was.
unchanged() { cp bootenv before && ! "$@" && cmp bootenv before; }
only_the_sector_differs() { new && cp bootenv before && slots set-state B bad && [ "$(cmp -l bootenv before | awk '$1 <= 4096 || $1 > 5120' | wc -l)" = 0 ]; }
flushed() { cp bootenv before && slots flush && cmp bootenv before; }
unflushed() { ! LOOKBACK_BOOTENV=$PWD/none/bootenv slots flush 2>flush.err && grep -q 'was not told to flush' flush.err; }
without_a_write() { chmod u-w bootenv; touch -d @1 bootenv; slots set-state A good && [ "$(stat -c %Y bootenv)" = 1 ]; }

for each in "dash" "busybox sh"; do
    read -r -a shell <<<"$each"
    if ! command -v "${shell[0]}" >/dev/null; then skip "the state by $each" 'it is not installed'; continue; fi
    new
    check "$each: a state that cannot be read is that of a new device" is 'ORDER=A B A_LEFT=5 B_LEFT=5' slots show
    check 'a system is marked bad' slots set-state B bad
    check 'and is' is bad slots get-state B
    check 'while the other one is good' is good slots get-state A
    check 'the other one is preferred' is A slots get-primary
    check 'a system is chosen' slots set-primary B
    check 'and preferred, with all its tries' is 'ORDER=B A A_LEFT=5 B_LEFT=5' slots show
    printf '# GRUB Environment Block\nORDER=B A\nA_LEFT=2\nB_LEFT=0\n' | dd of=bootenv bs=1024 seek=4 conv=notrunc status=none
    check 'what the boot loader has counted down is read' is 'ORDER=B A A_LEFT=2 B_LEFT=0' slots show
    check 'a system that is found good has its tries back, and the other one its own' \
        eval "slots set-state A good && is 'ORDER=B A A_LEFT=5 B_LEFT=0' slots show"
    check 'which is not written once more' without_a_write
    check 'a system that is none changes nothing' unchanged slots set-primary C
    check 'nor does a state that is none' unchanged slots set-state A fine
    check 'nor a command that is none' unchanged slots start A
    check 'a disk that is told to flush it keeps it as it is' flushed
    check 'and one that cannot is told of' unflushed
    check 'nothing but its sectors is written' only_the_sector_differs
    head -c 1M /dev/urandom >bootenv
    check 'and garbage there is a new device again' is 'ORDER=A B A_LEFT=5 B_LEFT=5' slots show
done
finish
