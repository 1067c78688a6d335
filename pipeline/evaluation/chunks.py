"""A long run in pieces: two processes make them, a folder keeps what each found, and a run goes on with the rest.

A piece is a partition of one seed's world (or the ramp, or the real logs). Its file is written by the process that made
it and named by what it is; the digest of the code, the scenarios and the sizes stands in it, and another digest's file
is made anew. So a crash loses the pieces under way, `--seeds 51` and then `--seeds 51-53` into one folder makes two
seeds, and folders of several machines are merged by copying their files together.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from pipeline import private
from pipeline.errors import ConfigError
from pipeline.progress import counted

CHECKOUT: Final = Path(__file__).parents[2]
READERS: Final = frozenset(
    {"aims", "bootstrap", "commands", "figures", "measures", "reached", "report", "report_plots", "report_reached"}
)
"""Modules of pipeline/evaluation that only read what was found: a change of them makes nothing anew."""


class Piece(NamedTuple):
    """`make(*given)` gives a value of type `of`, which msgpack can hold."""

    name: str
    of: Any
    make: Callable[..., Any]
    given: tuple[Any, ...]


def code_digest(*more: str) -> str:
    """Of all code that a piece runs, and of whatever else decides it."""
    every = sorted([*(CHECKOUT / "detectors").rglob("*.py"), *(CHECKOUT / "pipeline").rglob("*.py")])
    own = Path(__file__).parent
    made = hashlib.sha256()
    for path in every:
        if path.parent != own or path.stem not in READERS:
            made.update(path.read_bytes())
    for text in more:
        made.update(text.encode())
    return made.hexdigest()


def gather(pieces: Sequence[Piece], processes: int, folder: Path | None, digest: str) -> dict[str, Any]:
    """name -> what was found, in the pieces' order; those that the folder has are read."""
    found = {each.name: kept for each in pieces if folder and (kept := read(folder, each, digest)) is not None}
    missing = [each for each in pieces if each.name not in found]
    if processes == 1 or len(missing) <= 1:
        for each in counted(missing, "pieces", len(missing)):
            found[each.name] = made(each, folder, digest)
    else:
        found |= _in_processes(missing, processes, folder, digest)
    return {each.name: found[each.name] for each in pieces}


def _in_processes(pieces: list[Piece], processes: int, folder: Path | None, digest: str) -> dict[str, Any]:
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        names = {pool.submit(made, each, folder, digest): each.name for each in pieces}
        try:
            return {names[each]: each.result() for each in counted(as_completed(names), "pieces", len(pieces))}
        except BrokenProcessPool as error:
            again = f"what is in {folder} stays: run it again" if folder else "--chunks FOLDER keeps what is finished"
            raise ConfigError(f"a process was killed, perhaps for its memory; {again}") from error


def made(piece: Piece, folder: Path | None, digest: str) -> Any:
    """Make it, and keep it: the file is whole or not there."""
    value = piece.make(*piece.given)
    if folder:
        private.folder(folder)
        part = folder / f"{piece.name}.part"
        private.write(part, msgspec.msgpack.encode((digest, value)))
        part.rename(folder / f"{piece.name}.msgpack")
    return value


def read(folder: Path, piece: Piece, digest: str) -> Any:
    """What the folder has of it; None where that is of other code, or unreadable."""
    try:
        content = (folder / f"{piece.name}.msgpack").read_bytes()
        of, raw = msgspec.msgpack.decode(content, type=tuple[str, msgspec.Raw])
        return msgspec.msgpack.decode(raw, type=piece.of) if of == digest else None
    except (OSError, msgspec.DecodeError):
        return None
