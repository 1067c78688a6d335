"""Events of files in the order of their times: what `replay` judges and `intake` sends, so that both see one log.

A file of up to `WHOLE_FILE_EVENTS` is sorted whole (CloudTrail's are not in order); a longer one within the lateness.
Files are merged by (time, file, line), whatever order they are named in; folders are read with all they hold.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError
from pipeline.formats import Options, Refused, read_file
from schemas.event import Event

WHOLE_FILE_EVENTS: Final = 200_000
Place = tuple[int, int, int]  # time in us, file, line: the order of events
Entry = tuple[Place, Event | Refused]


def files(paths: Sequence[Path]) -> list[Path]:
    """The named files and all files below the named folders, by name; raises ConfigError where one is missing."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path} does not exist")
        found += sorted(p for p in path.rglob("*") if _is_log(p)) if path.is_dir() else [path]
    if not found:
        raise ConfigError(f"no files in {', '.join(map(str, paths))}")
    return found


def _is_log(path: Path) -> bool:
    """Data sets come with a licence and a readme, which would count as hundreds of rejected lines."""
    return path.is_file() and not path.name.startswith((".", "LICENSE", "README", "NOTICE"))


def ordered(paths: Sequence[Path], format_name: str, options: Options, lateness_us: int) -> Iterator[Event | Refused]:
    """Every event and every refused record of the files; a refused one takes the time of the record before it."""
    streams = [_one(path, number, format_name, options, lateness_us) for number, path in enumerate(files(paths))]
    for _, record in heapq.merge(*streams, key=lambda entry: entry[0]):
        yield record


def _one(path: Path, number: int, format_name: str, options: Options, lateness_us: int) -> Iterator[Entry]:
    entries = _numbered(path, number, format_name, options)
    head = list(islice(entries, WHOLE_FILE_EVENTS))
    if len(head) < WHOLE_FILE_EVENTS:
        yield from sorted(head, key=lambda entry: entry[0])
        return
    yield from _within(head, entries, lateness_us)


def _within(head: list[Entry], rest: Iterator[Entry], lateness_us: int) -> Iterator[Entry]:
    """Sorted as far as `lateness_us` of reordering reaches; what comes later still follows at its place in the file."""
    heap = [(place, i, record) for i, (place, record) in enumerate(head)]
    heapq.heapify(heap)
    newest = max(place[0] for place, _ in head)
    for i, (place, record) in enumerate(rest, start=len(head)):
        heapq.heappush(heap, (place, i, record))
        newest = max(newest, place[0])
        while heap[0][0][0] <= newest - lateness_us:
            first, _, oldest = heapq.heappop(heap)
            yield first, oldest
    while heap:
        first, _, oldest = heapq.heappop(heap)
        yield first, oldest


def _numbered(path: Path, number: int, format_name: str, options: Options) -> Iterator[Entry]:
    ts_us = 0
    for line, record in enumerate(read_file(path, format_name, options)):
        if isinstance(record, Event):
            ts_us = record.ts_us
        yield (ts_us, number, line), record
