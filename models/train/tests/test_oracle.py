"""Reading what the oracle writes: whole records, cut ones, and a child that fails."""

import json
import stat
import sys
from pathlib import Path

import pytest

from lookback_train import oracle

FRAME_PAIR = 2 * oracle.HEIGHT * oracle.WIDTH
CELLS = oracle.CELL_ROWS * oracle.CELL_COLUMNS


def program(folder: Path, body: str) -> Path:
    """A stand-in for the oracle that writes what `body` tells it to."""
    path = folder / "oracle"
    path.write_text(
        f"#!{sys.executable}\nimport json, struct, sys\nout = sys.stdout.buffer\n"
        "def header(value):\n"
        "    text = json.dumps(value).encode()\n"
        "    out.write(struct.pack('<I', len(text)) + text)\n" + body
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_pairs_are_read_record_by_record(tmp_path: Path) -> None:
    binary = program(
        tmp_path,
        f"for n in (1, 2):\n    header({{'pairs': n}})\n"
        f"    out.write(bytes([n]) * (n * {FRAME_PAIR}) + bytes([1]) * (n * 3 * {CELLS}))\n"
        "    out.write(bytes([2]) * (n * 10))\n",
    )
    records = list(oracle.stream_pairs(binary, 0, 2, 4, 3))
    assert [r.frames.shape for r in records] == [(1, 2, 128, 192), (2, 2, 128, 192)]
    assert [int(r.frames.max()) for r in records] == [1, 2]
    assert records[1].cells.shape == (2, 3, 8, 12)
    assert records[1].sees.tolist() == [[2] * 10] * 2


def test_it_is_asked_for_the_seeds_wanted(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    binary = program(tmp_path, f"json.dump(sys.argv[1:], open({str(asked)!r}, 'w'))\n")
    template = tmp_path / "template"
    assert list(oracle.stream_traces(binary, 7, 5, tmp_path / "manifest", template, False)) == []
    arguments = json.loads(asked.read_text())
    assert arguments[:5] == ["traces", "--from", "7", "--count", "5"]
    assert "--no-frames" in arguments


def test_a_record_that_is_cut_is_an_error(tmp_path: Path) -> None:
    binary = program(tmp_path, "header({'pairs': 1})\nout.write(b'abc')\n")
    with pytest.raises(EOFError, match="middle of a record"):
        list(oracle.stream_pairs(binary, 0, 1, 1, 3))


def test_an_oracle_that_fails_is_an_error(tmp_path: Path) -> None:
    binary = program(tmp_path, "sys.exit(3)\n")
    with pytest.raises(RuntimeError, match="code 3"):
        list(oracle.stream_pairs(binary, 0, 1, 1, 3))


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    binary = program(
        tmp_path,
        "try:\n    while True:\n        header({'pairs': 0})\nexcept BrokenPipeError:\n"
        "    sys.stderr.close()\n    sys.exit(1)\n",
    )
    stream = oracle.stream_pairs(binary, 0, 1, 1, 3)
    assert len(next(stream).frames) == 0
    stream.close()
