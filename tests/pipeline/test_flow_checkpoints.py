"""The core with its checkpoints: what the dirty marks bring into the pages is all that the arrays hold."""

from __future__ import annotations

import msgspec
import numpy as np

from pipeline.column import count
from pipeline.core import Sides
from pipeline.flow import KeyCore
from pipeline.state.checkpoint import Checkpoint, Directory
from pipeline.times import rfc3339
from schemas.event import Event
from tests.pipeline.log_of_requests import GEO, START_US, Declared, Outcome, Record, core, log, record, slices
from tests.pipeline.test_flow import assert_same, restored, run

Pages = dict[tuple[str, int], bytes]
MINUTE_US = 60_000_000


def checkpoint(judge: KeyCore, writer: Checkpoint, pages: Pages) -> None:
    """Steps 2 and 3 of the order of effects, without their sending."""
    judge.due_rows()
    plan = writer.plan(judge, 1)
    pages.update({(table, block): raw for table, block, raw in plan.raw})
    arrays = {array.name: array for array in judge.arrays}
    for table, numbers, raw in (part for piece in plan.rows for part in piece):
        block_rows, size = arrays[table].block_rows, arrays[table].dtype.itemsize
        for n, row in enumerate(np.frombuffer(numbers, "<i4").tolist()):
            block, at = row // block_rows, row % block_rows * size
            page = bytearray(pages.get((table, block), bytes(block_rows * size)))
            page[at : at + size] = raw[n * size : (n + 1) * size]
            pages[table, block] = bytes(page)


def assert_pages_hold_the_arrays(judge: KeyCore, pages: Pages) -> None:
    for array in judge.arrays:
        for block in range(len(array.dirty)):
            raw = array.block_bytes(block)
            assert pages.get((array.name, block), bytes(len(raw))) == raw, f"block {block} of {array.name}"


def use(key: int, minute: float) -> Record:
    ts_us = START_US - START_US % MINUTE_US + round(minute * MINUTE_US)
    return record(Event(key_id=f"pk_{key}", ts_us=ts_us, outcome="success", request_id=f"{key}/{minute}"))


def unknown(minute: float) -> Record:
    """Of a key that never authenticates: it only moves the watermark."""
    ts_us = START_US - START_US % MINUTE_US + round(minute * MINUTE_US)
    return record(Event(key_id="junk", ts_us=ts_us, outcome="invalid", status=401))


def judged(parts: list[list[Record]]) -> tuple[KeyCore, Pages]:
    judge, writer, pages, first = core(), Checkpoint(0, "epoch", 1, "me", Directory()), Pages(), 0
    for part in parts:
        judge.process(slices(part, [], first)[0])
        first += len(part)
        checkpoint(judge, writer, pages)
        assert_pages_hold_the_arrays(judge, pages)
    return judge, pages


def test_a_window_whose_neighbour_in_the_chain_is_final_is_written_again() -> None:
    """Else its link leads into a row that another key, or the same one, takes after a restart."""
    three_blocks = [use(key, 0.5) for key in range(384)]
    judged([three_blocks, [use(0, 1.5)], [unknown(3.1)]])


def test_the_books_first_use_is_that_of_the_log_not_of_the_slice() -> None:
    """The words of an incident say since when a key is known: a late event behind it must not change them."""
    records = [r for r in log(1) if r[0] == b"pk_1"]
    opened = next(iter(run(slices(records, []))[0].incidents.values())).opened_at
    at = 1 + next(i for i, r in enumerate(records) if rfc3339(msgspec.json.decode(r[1] or b"")["ts_us"]) == opened)
    old = use(1, -9 * 24 * 60)
    records.insert(at, (old[0], old[1], records[at][2]))
    one, many = run(slices(records, []))[0], run(slices(records, range(len(records))))[0]
    assert one.incidents == many.incidents


def test_rows_made_ahead_of_a_checkpoint_leave_the_tables_as_they_were() -> None:
    records, judge, pieces = log(3), core(), Outcome()
    plain, _ = run(slices(records, []))
    ahead = 0
    for part in slices(records, [500, 750]):
        pieces.take(judge.process(part))
        rows = judge.rows_ahead(2)
        assert all(count(columns) <= 2 for columns in rows.values())
        ahead += sum(map(count, rows.values()))
        pieces.finish(rows)
    pieces.finish(judge.due_rows())
    assert ahead >= 4
    assert_same(pieces, plain)


def test_a_keys_last_use_is_the_same_row_wherever_checkpoints_lie() -> None:
    """Several events at one time, and one that comes late: one version never has two contents."""

    def seen(address: str, ts_us: int) -> Record:
        return record(Event(key_id="pk_0", ts_us=ts_us, client_ip=address, outcome="success", request_id=address))

    records = [seen("8.8.8.8", START_US), seen("9.9.9.9", START_US), seen("8.8.4.4", START_US - 60 * MINUTE_US)]
    contents: dict[int, set[tuple[str, ...]]] = {}
    newest = set()
    for cuts in ([], [1], [2], [1, 2]):
        judge = core()
        last: tuple[int, tuple[str, ...]] = (0, ())
        for part in slices(records, cuts):
            judge.process(part)
            for row in zip(*judge.due_rows().get("keys_last_used", {}).values(), strict=True):
                last = max(last, (int(row[-1]), tuple(map(str, row))))
                contents.setdefault(int(row[-1]), set()).add(tuple(map(str, row)))
        newest.add(last)
    assert len(newest) == 1
    assert max(map(len, contents.values())) == 1
    assert len(contents) == 2


def test_an_adoption_whose_row_was_lost_in_a_crash_is_told_again() -> None:
    """A partition that is loaded adopts without waiting for ClickHouse: the manifest stands, the row may be gone."""
    before, outcome = core(), Outcome()
    outcome.take(before.process(slices([use(0, 0.5)], [])[0]))
    dying = restored(before)
    dying.adopt(Sides(Declared(), GEO, "c2"))
    outcome.finish(restored(dying).adopt(Sides(Declared(), GEO, "c2")))
    told = {(row[3], row[4], row[5]) for row in outcome.rows["adoptions"].values()}
    assert told == {
        ("0", "catalogue", "test-1"), ("0", "geo", GEO.build), ("0", "config", "c1"), ("1", "config", "c2"),
    }  # fmt: skip


def test_of_two_adoptions_at_one_offset_the_later_one_is_told_last() -> None:
    before, outcome = core(), Outcome()
    outcome.take(before.process(slices([use(0, 0.5)], [])[0]))
    dying = restored(before)
    dying.adopt(Sides(Declared(), GEO, "c2"))
    after = restored(dying)
    outcome.finish(after.adopt(Sides(Declared(), GEO, "c3")))
    outcome.take(after.process(slices([use(0, 1.5)], [], 1)[0]))
    told = {(row[3], row[4], row[5]) for row in outcome.rows["adoptions"].values()}
    assert ("1", "config", "c3") in told
    assert ("1", "config", "c2") not in told
