#!/usr/bin/env python3
"""What a disk holds after its power was cut: `power_cut.py DISK WRITES SEED [--orderly]`.

DISK is the disk as it was when the machine was switched on, and becomes what is left of it. WRITES is the account
of what the machine did with it, as QEMU's `blklogwrites` keeps it (the format of the kernel's dm-log-writes).
What was written before the last flush is there. Of what came after it, a disk with a cache of its own keeps some:
each write with even odds, drawn from SEED, and the last one is torn in two. With --orderly all of it is there,
as when the machine is switched off after a sync.
"""

import mmap
import random
import struct
import sys

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
SECTOR_BYTES = 512
ENTRY = struct.Struct("<QQQQ")


def main():
    """Plays the account on the disk, and prints what became of it."""
    orderly = "--orderly" in sys.argv
    disk, writes, seed = [argument for argument in sys.argv[1:] if argument != "--orderly"]
    draw = random.Random(seed)
    with open(writes, "rb") as file:
        log = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    entries = account(log)
    flushed = max((at for at, entry in enumerate(entries) if entry[2] & FLUSH), default=-1)
    kept = lost = 0
    with open(disk, "r+b") as file:
        for at, (sector, sectors, flags, begin) in enumerate(entries):
            if flags & DISCARD or not sectors:
                continue
            if at > flushed and not orderly and not flags & FUA and draw.random() < 0.5:
                lost += 1
                continue
            last = at == len(entries) - 1 and at > flushed and not orderly
            length = (draw.randint(0, sectors) if last else sectors) * SECTOR_BYTES
            file.seek(sector * SECTOR_BYTES)
            file.write(log[begin : begin + length])
            kept += 1
    print(f"{kept} writes kept, {lost} lost")


def account(log):
    """All entries as (sector, sectors, flags, where its bytes begin)."""
    magic, version, noted, sector_bytes = struct.unpack_from("<QQQI", log)
    # Before the first flush the head of the account is not written; the entries are.
    if magic and (magic, version, sector_bytes) != (MAGIC, 1, SECTOR_BYTES):
        sys.exit("power_cut.py: this is no account of writes")
    entries, at = [], SECTOR_BYTES
    while at + ENTRY.size <= len(log):
        sector, sectors, flags, _ = ENTRY.unpack_from(log, at)
        if not sectors and not flags:
            break  # Whatever was still being written down when the machine was killed.
        begin = at + SECTOR_BYTES
        at = begin + (0 if flags & DISCARD else sectors * SECTOR_BYTES)
        if at > len(log):
            break
        entries.append((sector, sectors, flags, begin))
    if magic and len(entries) < noted:
        # What follows is lost to us, flushed or not, which no disk does: this says nothing about the camera.
        after = next((i for i in range(at, min(len(log), at + (64 << 20)), SECTOR_BYTES) if any(log[i : i + ENTRY.size])), None)
        sys.exit(
            f"power_cut.py: the account is broken after entry {len(entries)} of {noted}, the last of which is {entries[-1:]}; "
            f"there is nothing at {at}, and the next that is not zero is at {after}"
        )
    return entries


if __name__ == "__main__":
    main()
