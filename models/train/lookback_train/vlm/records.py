"""Where records come from: the oracle itself, or a file in which its stream was saved."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from .. import oracle
from ..oracle import HEIGHT, WIDTH, Trace
from . import Refusal

FRAME_PAIR = 2 * HEIGHT * WIDTH


class Source(Protocol):
    """Records that can be read again, from any of them on."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def traces(self, first: int = 0) -> Iterator[Trace]:
        """From number `first` to the last."""
        ...


@dataclass(frozen=True)
class Taught:
    """Taught inquiries, rendered when they are asked for."""

    binary: Path
    manifest: Path
    template: Path
    start: int
    """First seed."""
    count: int
    slips: float = 0.0

    def __len__(self) -> int:
        """One for each seed."""
        return self.count

    def traces(self, first: int = 0) -> Iterator[Trace]:
        """From seed `start + first` on."""
        seeds = (self.start + first, self.count - first)
        stream = oracle.stream_traces(
            self.binary, *seeds, self.manifest, self.template, slips=self.slips
        )
        yield from in_one_sentence(stream)


@dataclass(frozen=True)
class Saved:
    """Some of the records in a file that was written by `lookback-oracle … > FILE`."""

    path: Path
    places: list[int]
    """Where each of them begins."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def traces(self, first: int = 0) -> Iterator[Trace]:
        """One after the other."""
        with self.path.open("rb") as file:
            for place in self.places[first:]:
                file.seek(place)
                header = oracle.read_header(file)
                assert header is not None, "it was there when the file was opened"
                frames = oracle.read_bytes(file, len(header["pairs"]) * FRAME_PAIR)
                yield Trace(header, frames.reshape(-1, 2, HEIGHT, WIDTH))


def opened(path: Path) -> tuple[Saved, Saved]:
    """The records of training and of validation in a file, told apart by their seeds."""
    if not path.is_file():
        raise Refusal(f"{path} is not there: it should hold what lookback-oracle wrote")
    train, val = Saved(path, []), Saved(path, [])
    with path.open("rb") as file:
        for place, header in _walk(file):
            seed = header["seed"]
            if seed >= oracle.TEST:
                raise Refusal(
                    f"{path} holds seed {seed}: seeds from {oracle.TEST} on are for measuring only"
                )
            (train if seed < oracle.VAL else val).places.append(place)
        if file.tell() != path.stat().st_size:
            raise Refusal(f"{path} is cut in the middle of a record")
    if not train:
        raise Refusal(f"{path} holds no record to train on (seeds below {oracle.VAL})")
    return train, val


def _walk(file: IO[bytes]) -> Iterator[tuple[int, dict]]:
    """Place and header of each whole record; leaves the file at the end of the last of them."""
    size = file.seek(0, 2)
    place = file.seek(0)
    while size - place >= 4:
        length = struct.unpack("<I", file.read(4))[0]
        text = file.read(length)
        try:
            header = json.loads(text)
            end = place + 4 + length + len(header["pairs"]) * FRAME_PAIR
        except (ValueError, TypeError, KeyError) as e:
            if len(text) < length:
                break
            raise Refusal(f"{file.name} is no stream of inquiries of lookback-oracle") from e
        if end > size:
            break
        yield place, header
        place = file.seek(end)
    file.seek(place)


def kept(path: Path, count: int, stream: Callable[[int], Iterator[Trace]]) -> None:
    """Writes `count` records into `path`; `stream` gives them from a number on.

    A model of 2B takes its time for an inquiry: what was rolled out before a kill is kept.
    """
    if path.exists():
        return
    part = path.with_suffix(".part")
    part.touch()
    with part.open("r+b") as file:
        done = sum(1 for _ in _walk(file))
        file.truncate()
        if done < count:
            for trace in in_one_sentence(stream(done)):
                text = json.dumps(trace.episode, separators=(",", ":")).encode()
                file.write(struct.pack("<I", len(text)) + text + trace.frames.tobytes())
                file.flush()
                done += 1
                print(f"rollouts: {done}/{count} windows", flush=True)
    part.rename(path)


def round_and_round(source: Source, number: int) -> Iterator[Trace]:
    """From this number on, without end."""
    number %= len(source)
    while True:
        yield from source.traces(number)
        number = 0


def in_one_sentence(stream: Iterator[Trace]) -> Iterator[Trace]:
    """The oracle says itself what it lacks; here it only ends."""
    try:
        yield from stream
    except (RuntimeError, OSError, EOFError) as e:
        raise Refusal(f"the oracle gave up: {e}") from e
