"""`keywatch replay ... --against OTHER.toml`: one log judged by two configurations, and what is different.

Both judge every record in one reading of the log. Incidents are told apart by key and time, not by id: with another
threshold an episode may open at another event. Who "would have been acted on" passes the very guards of the responder
with `mode` and freshness left out (a replay is never fresh, and the question is what enforcement would do), each by its
own configuration's policy. Caps are not applied: what comes second on a bad day depends on the day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from rich.console import Console

from pipeline.asking.answers import printable
from pipeline.config.tree import Config
from pipeline.keys.catalogue import Catalogue
from pipeline.respond import guard
from pipeline.respond.ladder import ladder_of
from pipeline.times import micros
from schemas.incident import Incident

NEAR_US: Final = 3_600_000_000
"""Episodes of one key that lie this near each other are one: an incident closes after an idle hour."""
NOT_ASKED: Final = frozenset({"mode", "kill_switch", "state", "freshness"})


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one configuration brought about."""

    incidents: int
    listed: int  # without proofs, which stand outside the budgets
    paged: int
    per_100k: float  # listed incidents in 100,000 key-days
    per_100k_paged: float
    budget: float
    budget_page: float
    acted_on: tuple[str, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two configurations over one log."""

    key_days: float
    ours: Side
    theirs: Side
    come: tuple[Incident, ...]  # only with the other configuration
    go: tuple[Incident, ...]  # only with ours


def acted_on(incidents: Iterable[Incident], config: Config, catalogue: Catalogue) -> tuple[str, ...]:
    """Keys that the policy would have acted on, were it enforced, without its caps."""
    ladder, keys = ladder_of(config.respond), set()
    for incident in incidents:
        question = guard.Question(incident, ladder, catalogue.get(incident.key_id), "", "", 0.0)
        if not [no for no in guard.refusals(guard.judge(question)) if no.guard not in NOT_ASKED]:
            keys.add(incident.key_id)
    return tuple(sorted(keys))


def side(incidents: Mapping[str, Incident], config: Config, catalogue: Catalogue, key_days: float) -> Side:
    """Counts, rates and acts of one configuration."""
    chance = [incident for incident in incidents.values() if incident.rule != "proof"]
    paged = [incident for incident in chance if incident.severity != "medium"]
    per = 1e5 / key_days if key_days else 0.0
    return Side(
        incidents=len(incidents), listed=len(chance), paged=len(paged), per_100k=len(chance) * per,
        per_100k_paged=len(paged) * per, budget=config.budget.listed, budget_page=config.budget.page,
        acted_on=acted_on(incidents.values(), config, catalogue),
    )  # fmt: skip


def compare(
    ours: Mapping[str, Incident], theirs: Mapping[str, Incident], configs: tuple[Config, Config],
    catalogue: Catalogue, key_days: float,
) -> Comparison:  # fmt: skip
    """`configs`: ours, the other."""
    return Comparison(
        key_days=key_days, ours=side(ours, configs[0], catalogue, key_days),
        theirs=side(theirs, configs[1], catalogue, key_days),
        come=only(theirs.values(), ours.values()), go=only(ours.values(), theirs.values()),
    )  # fmt: skip


def only(these: Iterable[Incident], those: Iterable[Incident]) -> tuple[Incident, ...]:
    """Incidents of the first that no incident of the second is near, by time."""
    of_key: dict[str, list[Incident]] = {}
    for incident in those:
        of_key.setdefault(incident.key_id, []).append(incident)
    alone = [x for x in these if not any(_near(x, other) for other in of_key.get(x.key_id, ()))]
    return tuple(sorted(alone, key=lambda x: (x.opened_at, x.incident_id)))


def _near(one: Incident, other: Incident) -> bool:
    first, second = sorted((one, other), key=lambda x: x.opened_at)
    return micros(second.opened_at) <= micros(first.last_at) + NEAR_US


def summary(found: Comparison) -> dict[str, Any]:
    """As `--json` prints it."""
    return {
        "key_days": round(found.key_days, 3),
        "ours": msgspec.structs.asdict(found.ours),
        "theirs": msgspec.structs.asdict(found.theirs),
        "come": [_brief(incident) for incident in found.come],
        "go": [_brief(incident) for incident in found.go],
        "no_longer_acted_on": sorted(set(found.ours.acted_on) - set(found.theirs.acted_on)),
        "newly_acted_on": sorted(set(found.theirs.acted_on) - set(found.ours.acted_on)),
    }


def _brief(incident: Incident) -> dict[str, Any]:
    names = ("incident_id", "key_id", "opened_at", "severity", "bits", "text")
    return {name: getattr(incident, name) for name in names}


def show(found: Comparison, other: str, console: Console) -> None:
    """For people."""
    told = summary(found)
    console.print(f"against {other}, {found.key_days:,.1f} key-days", highlight=False)
    rows = ("listed", found.ours.listed, found.theirs.listed), ("page", found.ours.paged, found.theirs.paged)
    rates = (found.ours.per_100k, found.theirs.per_100k), (found.ours.per_100k_paged, found.theirs.per_100k_paged)
    budgets = (found.ours.budget, found.theirs.budget), (found.ours.budget_page, found.theirs.budget_page)
    for (name, before, after), (rate, rate_after), (budget, budget_after) in zip(rows, rates, budgets, strict=True):
        console.print(
            f"  {name:7} {before} -> {after} incidents: {rate:,.0f} -> {rate_after:,.0f} in 100,000 key-days, "
            f"budget {budget:,.0f} -> {budget_after:,.0f}", highlight=False,
        )  # fmt: skip
    for title, incidents in (("come", found.come), ("go", found.go)):
        console.print(f"  {title}: {len(incidents) or 'none'}", highlight=False)
        for x in incidents:
            console.print(f"    {x.severity} {x.opened_at} ", printable(x.text), highlight=False, markup=False)
    for title, keys in (("newly", told["newly_acted_on"]), ("no longer", told["no_longer_acted_on"])):
        console.print(f"  {title} acted on: {', '.join(keys) or 'none'}", highlight=False, markup=False)
