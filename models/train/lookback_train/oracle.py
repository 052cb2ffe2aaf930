"""Records streamed by `lookback-oracle`, the Rust program that renders and teaches.

Python never draws a scene or carries out an operator: it reads what the oracle writes.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

HEIGHT, WIDTH = 128, 192
CELL_ROWS, CELL_COLUMNS = 8, 12
KINDS, SIGHTS = 10, 4
"""Kinds of incident, and what a pair may show of each."""

TRAIN, VAL, TEST, FRESH = 0, 5_000_000, 6_000_000, 7_000_000
"""First seed of each split."""


@dataclass
class Pairs:
    """Frame pairs and what is where in them."""

    frames: np.ndarray
    """Luma, u8 `[n, 2, 128, 192]`."""
    cells: np.ndarray
    """1 where a class is present, u8 `[n, classes, 8, 12]`."""
    sees: np.ndarray
    """What each shows of each kind, u8 `[n, 10]`: 0 nothing, 1 the ambiguous state, 2 the harmful
    transition, 3 the harmless one."""


@dataclass
class Trace:
    """A taught inquiry."""

    episode: dict
    """Segments, labels and times, as `models/oracle` writes them."""
    frames: np.ndarray
    """Luma of its pairs, u8 `[pairs, 2, 128, 192]`."""


@dataclass
class Vigil:
    """A window of consecutive frames, as the sentinel sees it."""

    fps: int
    """Frames a second."""
    lead: int
    """Frames at one a second before it, by which a background is learnt."""
    stories: list[dict]
    """What happens, as `oracle::Told` says it, in seconds since the first frame after the lead."""
    frames: np.ndarray
    """Luma, u8 `[lead + frames, height, width]`."""


def classes(binary: Path) -> list[str]:
    """Names of the classes of `Pairs.cells`, in order."""
    return json.loads(subprocess.run([binary, "classes"], check=True, capture_output=True).stdout)


def stream_pairs(
    binary: Path, start: int, count: int, pairs: int, n_classes: int
) -> Iterator[Pairs]:
    """One record per seed in `[start, start + count)`."""
    arguments = ["pairs", "--from", str(start), "--count", str(count), "--pairs", str(pairs)]
    with _Stream(binary, arguments) as pipe:
        while (header := read_header(pipe)) is not None:
            n = header["pairs"]
            frames = read_bytes(pipe, n * 2 * HEIGHT * WIDTH).reshape(n, 2, HEIGHT, WIDTH)
            cells = read_bytes(pipe, n * n_classes * CELL_ROWS * CELL_COLUMNS)
            cells = cells.reshape(n, n_classes, CELL_ROWS, CELL_COLUMNS)
            yield Pairs(frames, cells, read_bytes(pipe, n * KINDS).reshape(n, KINDS))


def stream_vigils(binary: Path, start: int, count: int, size: tuple[int, int]) -> Iterator[Vigil]:
    """One window per seed in `[start, start + count)`, in frames of `size` (width, height)."""
    arguments = ["vigils", "--from", str(start), "--count", str(count)]
    arguments += ["--width", str(size[0]), "--height", str(size[1])]
    with _Stream(binary, arguments) as pipe:
        while (header := read_header(pipe)) is not None:
            width, height = header["size"]
            n = header["lead"] + header["frames"]
            luma = read_bytes(pipe, n * height * width).reshape(n, height, width)
            yield Vigil(header["fps"], header["lead"], header["stories"], luma)


def stream_traces(
    binary: Path,
    start: int,
    count: int,
    manifest: Path,
    template: Path,
    frames: bool = True,
    slips: float = 0.0,
    pupil: Path | None = None,
    passive: bool = False,
    few: bool = False,
) -> Iterator[Trace]:
    """One taught inquiry per seed in `[start, start + count)`.

    `slips` is the share of turns that are mistakes, to be recovered from and not to be learnt; the
    policy in the bundle `pupil` makes its own. `passive`: the whole budget goes into the glance;
    `few`: long stretches on few frames only.
    """
    arguments = ["traces", "--from", str(start), "--count", str(count)]
    arguments += ["--manifest", str(manifest), "--template", str(template)]
    arguments += ["--few"] if few else []
    if passive:
        arguments += ["--passive"]
    else:
        arguments += ["--policy", str(pupil)] if pupil else ["--slips", str(slips)]
    yield from _traces(binary, arguments, frames)


def stream_rollouts(
    binary: Path,
    start: int,
    count: int,
    policy: Path,
    each: int,
    temperature: float = 1.0,
    few: bool = False,
) -> Iterator[Trace]:
    """`each` inquiries of the bundle `policy` about each seed in `[start, start + count)`; `few`:
    long stretches on few frames only."""
    arguments = ["rollouts", "--from", str(start), "--count", str(count), "--policy", str(policy)]
    arguments += ["--each", str(each), "--temperature", str(temperature)]
    arguments += ["--few"] if few else []
    yield from _traces(binary, arguments, frames=True)


def _traces(binary: Path, arguments: list[str], frames: bool) -> Iterator[Trace]:
    with _Stream(binary, arguments + ([] if frames else ["--no-frames"])) as pipe:
        while (episode := read_header(pipe)) is not None:
            n = len(episode["pairs"]) if frames else 0
            luma = read_bytes(pipe, n * 2 * HEIGHT * WIDTH).reshape(n, 2, HEIGHT, WIDTH)
            yield Trace(episode, luma)


class _Stream:
    """The oracle as a child process; closed with the loop that reads it."""

    def __init__(self, binary: Path, arguments: list[str]) -> None:
        self.arguments = [str(binary), *arguments]

    def __enter__(self) -> IO[bytes]:
        self.child = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, bufsize=1 << 20)
        assert self.child.stdout is not None
        return self.child.stdout

    def __exit__(self, *_: object) -> None:
        assert self.child.stdout is not None
        finished = self.child.stdout.read(1) == b""
        self.child.stdout.close()
        code = self.child.wait()
        if finished and code != 0:
            raise RuntimeError(f"{' '.join(self.arguments)} ended with code {code}")


def read_header(pipe: IO[bytes]) -> dict | None:
    """The JSON that begins a record, or None at the end."""
    length = pipe.read(4)
    if len(length) < 4:
        return None
    return json.loads(pipe.read(struct.unpack("<I", length)[0]))


def read_bytes(pipe: IO[bytes], length: int) -> np.ndarray:
    """So many bytes of a record, u8."""
    data = pipe.read(length)
    if len(data) != length:
        raise EOFError("the oracle ended in the middle of a record")
    return np.frombuffer(data, np.uint8)
