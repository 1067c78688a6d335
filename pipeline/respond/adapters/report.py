"""What the adapters can do, as rows and as a table, and what is wrong with those in use: for the command and doctor."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from pipeline.config.tree import Respond
from pipeline.respond.adapters.adapter import Adapter, Granularity
from pipeline.respond.adapters.build import gateways, matrices
from schemas.incident import Rung

RUNGS: Final[tuple[Rung, ...]] = get_args(Rung)
CHECK_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Row:
    """One rung of one adapter. `in_use`: the configuration has it."""

    adapter: str
    rung: Rung
    granularity: Granularity
    delay_s: float
    undo: bool
    in_use: bool
    ends_old: str = ""  # rotate: who ends the old key, gateway or keywatch
    own_scopes: tuple[str, ...] = ()  # deny: what is denied where the rule names no scopes

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def rows(respond: Respond) -> list[Row]:
    """All adapters' supported rungs, from the mildest to revoke. Raises `ConfigError`."""
    used = set(gateways(respond)) | ({"webhook"} if respond.endpoints else set())
    return [
        Row(name, rung, has.granularity, has.delay_s, has.undo, name in used, has.ends_old, has.own_scopes)
        for name, matrix in matrices(respond.adapters).items()
        for rung in RUNGS
        if (has := matrix.get(rung))
    ]


def table(found: list[Row]) -> str:
    """One line per adapter, one column per rung: what is hit and whether it can be undone; - is not supported."""
    rungs = [rung for rung in RUNGS if any(row.rung == rung for row in found)]
    lines = [f"{'adapter':16}{'delay':>6}  " + "".join(f"{rung:20}" for rung in rungs).rstrip()]
    for name in dict.fromkeys(row.adapter for row in found):
        own = {row.rung: row for row in found if row.adapter == name}
        cells = [f"{_cell(own[rung]) if rung in own else '-':20}" for rung in rungs]
        first = next(iter(own.values()))
        lines.append(f"{name + ('*' if first.in_use else ''):16}{first.delay_s:>5g}s  " + "".join(cells).rstrip())
    return "\n".join([
        *lines, "", "* in use; `no undo` is by hand, at the gateway; `consumer` hits all keys of it",
        "  rotate: at its deadline the gateway ends the old key (`it`), or Keywatch revokes it (`we`)",
        "  deny: `own list` needs no scopes in the rule, --json shows it; elsewhere the rule must name them",
    ])  # fmt: skip


def _cell(row: Row) -> str:
    ends = {"gateway": ", it ends old", "keywatch": ", we end old"}.get(row.ends_old, "")
    return row.granularity + (", own list" if row.own_scopes else "") + (ends if row.undo else ", no undo")


async def check(respond: Respond) -> dict[str, list[str]]:
    """By adapter in use: what is wrong, each with what to do; nothing is changed. Raises `ConfigError`."""
    found = gateways(respond)
    problems = await asyncio.gather(*(_bounded(adapter) for adapter in found.values()))
    return dict(zip(found, problems, strict=True))


async def _bounded(adapter: Adapter) -> list[str]:
    try:
        async with asyncio.timeout(CHECK_S):
            return await adapter.check()
    except TimeoutError:
        return [f"{adapter.name} gave no answer within {CHECK_S:.0f} s"]
