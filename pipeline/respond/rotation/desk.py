"""`keywatch respond leftovers` and `deleted KEY`: revoked keys that are still at their gateway, disabled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pipeline import moments
from pipeline.asking.answers import Shown, print_json, say_line, show_table
from pipeline.config.tree import Config
from pipeline.respond.night.desk import Desk, Opened, at_desk, missing, opened, reading
from pipeline.respond.night.records import LeftoverGone
from pipeline.respond.rotation.leftovers import Left


def list_leftovers(config: Config, as_json: bool, desk: Opened = reading) -> int:
    """All of them, the oldest first."""

    def work(this: Desk) -> int:
        left = sorted(this.books.leftovers.left.values(), key=lambda each: each.due_us)
        rows = [_row(each, this.decisions.ledger.now_us) for each in left]
        if as_json:
            return print_json(rows)
        return show_table("revoked keys to delete", rows, _COLUMNS) if rows else say_line("no revoked key is left over")

    return at_desk(config, work, desk)


def deleted(config: Config, key_id: str, by: str, reason: str, desk: Opened = opened) -> int:
    """Somebody has deleted the key: all its revoked versions are over."""

    async def work(this: Desk) -> int:
        found = [each.record for each in this.books.leftovers.left.values() if each.record.key_id == key_id]
        if not found:
            return missing(f"{key_id!r} is none of them: `keywatch respond leftovers` lists them")
        await this.write([
            LeftoverGone(key_id=each.key_id, key_version=each.key_version, by=by, why=reason) for each in found
        ])  # fmt: skip
        return say_line(f"{key_id} is deleted: nobody is told of it any more")

    return at_desk(config, work, desk)


def _row(left: Left, now_us: int) -> dict[str, Any]:
    of = left.record
    return {
        "key_id": of.key_id, "key_version": of.key_version, "adapter": of.adapter, "incident_id": of.incident_id,
        "revoked": moments.of_us(of.since_us), "delete_from": moments.of_us(left.due_us),
        "due": now_us >= left.due_us, "told": of.told,
    }  # fmt: skip


_COLUMNS: Final[Sequence[Shown]] = (
    ("key", lambda row: row["key_id"], "left"),
    ("version", lambda row: row["key_version"], "right"),
    ("at", lambda row: row["adapter"], "left"),
    ("revoked", lambda row: row["revoked"], "left"),
    ("delete from", lambda row: row["delete_from"] + (": now" if row["due"] else ""), "left"),
)
