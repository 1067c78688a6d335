"""A long run in pieces: what is kept is what was made, and only what is missing is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation import chunks
from pipeline.evaluation.chunks import Piece
from pipeline.evaluation.keybench import Partitioned
from pipeline.evaluation.run import Opened, Outcome, Placement

MADE: list[str] = []


def square(name: str, number: int) -> dict[str, Any]:
    MADE.append(name)
    return {"square": number * number}


def die(_name: str, _number: int) -> dict[str, Any]:
    os._exit(9)


def pieces(count: int) -> list[Piece]:
    return [Piece(f"p{i}", dict[str, Any], square, (f"p{i}", i)) for i in range(count)]


def test_a_run_goes_on_where_it_ended_and_another_code_begins_anew(tmp_path: Path) -> None:
    MADE.clear()
    chunks.gather(pieces(2), 1, tmp_path, "code")
    found = chunks.gather(pieces(4), 1, tmp_path, "code")
    assert MADE == ["p0", "p1", "p2", "p3"], "the first two were kept"
    assert found == {f"p{i}": {"square": i * i} for i in range(4)}
    chunks.gather(pieces(1), 1, tmp_path, "other code")
    assert MADE[4:] == ["p0"]


def test_a_file_that_is_cut_off_or_that_nobody_finished_counts_as_missing(tmp_path: Path) -> None:
    chunks.gather(pieces(1), 1, tmp_path, "code")
    file = tmp_path / "p0.msgpack"
    file.write_bytes(file.read_bytes()[:-3])
    (tmp_path / "p1.part").write_bytes(b"half")
    MADE.clear()
    chunks.gather(pieces(2), 1, tmp_path, "code")
    assert MADE == ["p0", "p1"]


def test_a_killed_process_is_said(tmp_path: Path) -> None:
    dying = Piece("z", dict[str, Any], die, ("z", 0))
    with pytest.raises(ConfigError, match="run it again"):
        chunks.gather([dying, dying._replace(name="y")], 2, tmp_path, "code")
    assert not list(tmp_path.iterdir())


def test_what_a_partition_found_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    opened = [Opened(0, 1, 5, float("inf"), True, "spike", False, 3)]
    placement = Placement(
        "bulk_read", 40.0, 7, 1, 9, 3.0, 41.5, 10, 3, 2.0, opened, 12.0, {"ewma_z": 1.5}, {"a.b": 2.0}
    )
    outcome = Outcome(3, 90.0, 1000, opened, [placement], [4.5], {"union": [0.0, 1.0]}, {"few, visit": [(3, 1.5)]})
    found = Partitioned(outcome, Outcome(keys=3), {"": outcome, "spike": Outcome(keys=1)})
    piece = Piece("31-0", Partitioned, lambda: found, ())
    assert chunks.made(piece, tmp_path, "code") is found
    kept = chunks.read(tmp_path, piece, "code")
    assert kept == found
    assert msgspec.msgpack.encode(kept) == msgspec.msgpack.encode(found)


def test_the_digest_knows_the_detectors_and_passes_over_what_only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = chunks.code_digest("size"), Path.read_bytes
    assert chunks.code_digest("another size") != before

    def changed(name: str) -> str:
        monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == name))
        return chunks.code_digest("size")

    assert changed("spike.py") != before
    assert changed("oracle.py") != before
    assert changed("figures.py") == changed("nothing.py") == before
    own = {path.stem for path in Path(chunks.__file__).parent.glob("*.py")}
    assert own >= chunks.READERS
