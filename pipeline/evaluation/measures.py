"""keybench's figures from what the processes found: recall, false alarms, delay, reasons, calibration, comparisons.

Intervals are 95 %, by bootstrap over keys (whole keys are drawn, since incidents cluster on keys). A placement is
*caught* at a budget if planted calls brought an incident that became at least that rare: 100 and 10 per 100,000
key-days are the shipped thresholds; 1,000 comes from a second run with `listed_days` 100.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import baselines
from pipeline.evaluation.bootstrap import DRAWS, Valued
from pipeline.evaluation.run import Opened, Outcome, Placement
from pipeline.evaluation.world import VISIT_US

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

BUDGETS: Final = (10, 100, 1000)
LISTED: Final = 100
DAY_US: Final = 86_400_000_000
AUC_LIMIT: Final = 0.6
"""Of the leak audit: the issue."""
AUDITED: Final = {
    "client": {"client"}, "place": {"network", "country", "travel"}, "operation": {"route", "method"},
    "status": {"error", "outcome"}, "bytes_out": {"bytes", "route"}, "hour": {"hour"},
    "second": set(), "microsecond": set(), "object": {"route"}, "object_common": {"route"},
}  # fmt: skip
"""Field -> names in a scenario's list that make it what the scenario is about; the leak audit then leaves it out."""


def caught(placement: Placement, budget: float) -> bool:
    """Whether planted calls brought an incident (`Opened.planted`) that reached the budget's return period."""
    return bool(brought(placement, budget))


def brought(placement: Placement, budget: float) -> list[Opened]:
    """The incidents that planted calls brought, as rare as this budget lists."""
    return [each for each in placement.opened if each.planted and each.return_days >= 1e5 / budget]


def caught_late(placement: Placement) -> bool:
    """Whether it is caught at the listed budget by nothing within half an hour of a planted call (`run.brought_by`)."""
    found = brought(placement, LISTED)
    return bool(found) and all(each.after_us > VISIT_US for each in found)


def in_reach(placement: Placement, budget: float) -> bool:
    """Whether an oracle that knows both generators would alert at this budget.

    Its ratio reaches 2^b by chance in at most one of 2^b innocent visits, so that the budget allows it
    log2(visits a day x key-days per incident) bits.
    """
    return placement.bits >= np.log2(max(1.0, placement.visits_a_day * 1e5 / budget))


def relative(placements: Sequence[Placement], budget: float) -> dict[str, dict[str, float]]:
    """`oracle`: what share is in its reach; `ours`: what share of that we catch."""
    reach = [each for each in placements if in_reach(each, budget)]
    hits = np.array([in_reach(each, budget) for each in placements], np.float64)
    return {"oracle": share([each.key for each in placements], hits), "ours": recall_of(reach, budget)}


def hits_of(placements: Sequence[Placement], budget: float) -> Valued:
    """1 where a placement was caught."""
    return Valued([each.key for each in placements], [float(caught(each, budget)) for each in placements])


def by_scenario(placements: Sequence[Placement], bits: float | None = None) -> dict[str, list[Placement]]:
    """Placements of each scenario at one strength (all that have none)."""
    found: dict[str, list[Placement]] = defaultdict(list)
    for each in placements:
        if each.calls and (bits is None or each.wanted_bits in (0.0, bits)):
            found[each.scenario].append(each)
    return dict(sorted(found.items()))


def share(keys: Sequence[int], hits: Floats, seed: int = 0) -> dict[str, float]:
    """Mean with its interval over keys."""
    if not len(hits):
        return {"mean": 0.0, "low": 0.0, "high": 1.0, "n": 0}
    names, which = np.unique(np.asarray(keys), return_inverse=True)
    total, count = np.bincount(which, hits), np.bincount(which).astype(np.float64)
    picks = np.random.default_rng(seed).integers(0, len(names), (DRAWS, len(names)))
    means = total[picks].sum(axis=1) / count[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    if hits.min() == hits.max():  # a bootstrap of equals knows no doubt: the rule of three
        rest = 3.0 / len(names)
        low, high = (max(0.0, low - rest), high) if hits.min() > 0 else (low, min(1.0, high + rest))
    return {"mean": float(np.mean(hits)), "low": float(low), "high": float(high), "n": len(hits)}


def recall_of(placements: Sequence[Placement], budget: float) -> dict[str, float]:
    """Recall of one scenario's placements."""
    hits = np.array([caught(each, budget) for each in placements], np.float64)
    return share([each.key for each in placements], hits)


def untouched_rate(outcomes: Sequence[Outcome], budget: float) -> dict[str, float]:
    """Incidents per 100,000 key-days on untouched keys, with its interval over keys; by the rule of three if none."""
    kept = sum(each.return_days >= 1e5 / budget for outcome in outcomes for each in outcome.untouched)
    days = sum(outcome.key_days for outcome in outcomes)
    low, high = np.percentile(untouched_draws(outcomes, budget), [2.5, 97.5]) if kept else (0.0, 3e5 / days)
    return {"mean": 1e5 * kept / days, "low": float(low), "high": float(high)}


def untouched_draws(outcomes: Sequence[Outcome], budget: float) -> Floats:
    """Incidents per 100,000 key-days of DRAWS sets of as many keys, drawn whole."""
    return 1e5 * _count_draws(outcomes, 1e5 / budget) / sum(outcome.key_days for outcome in outcomes)


def _count_draws(outcomes: Sequence[Outcome], least_days: float) -> Floats:
    """Incidents at least so rare on DRAWS sets of as many keys."""
    kept = [each.key for outcome in outcomes for each in outcome.untouched if each.return_days >= least_days]
    keys = max(1, sum(outcome.keys for outcome in outcomes))
    counts = np.bincount(kept, minlength=keys).astype(np.float64) if kept else np.zeros(keys)
    draws: Floats = np.random.default_rng(1).choice(counts, (DRAWS, len(counts))).sum(axis=1)
    return draws


def placebo(outcomes: Sequence[Outcome], budget: float) -> dict[str, float]:
    """The placebo arm's incidents over those of the same keys in the same days untouched, with its interval.

    Paired, since what differs then is the machinery alone: against the rate of all keys the ratio of 400 stretches is
    off by half either way by which keys and days were drawn (`unpaired`; incidents cluster on keys). `rate` is the
    arm's, per 100,000 key-days; the interval draws stretches.
    """
    arm = [(each, outcome) for outcome in outcomes for each in outcome.placements if each.scenario == "placebo"]
    days = float(sum(each.days for each, _ in arm))
    hits = np.array([sum(one.return_days >= 1e5 / budget for one in each.opened) for each, _ in arm], np.float64)
    twins = np.array([_meanwhile(each, outcome, budget) for each, outcome in arm], np.float64)
    rate = 1e5 * float(hits.sum()) / days if days else 0.0
    base = untouched_rate(outcomes, budget)["mean"]
    low, high = _ratio_interval(hits, twins)
    return {
        "rate": rate, "ratio": float(hits.sum() / twins.sum()) if twins.any() else float("nan"), "low": low,
        "high": high, "key_days": days, "incidents": int(hits.sum()), "untouched_incidents": int(twins.sum()),
        "unpaired": rate / base if base else float("nan"),
    }  # fmt: skip


def _meanwhile(placement: Placement, outcome: Outcome, budget: float) -> int:
    """Incidents of the placement's key in its days on untouched traffic."""
    end_us = placement.start_us + int(placement.days * DAY_US)
    return sum(
        each.key == placement.key and placement.start_us <= each.at_us < end_us and each.return_days >= 1e5 / budget
        for each in outcome.untouched
    )


def _ratio_interval(hits: Floats, twins: Floats) -> tuple[float, float]:
    """95 % of the placebo arm's incidents over the untouched ones of the same stretches."""
    if not twins.any():
        return 0.0, float("nan")
    picks = np.random.default_rng(2).integers(0, len(hits), (DRAWS, len(hits)))
    above, below = hits[picks].sum(axis=1), twins[picks].sum(axis=1)
    low, high = np.percentile(above[below > 0] / below[below > 0], [2.5, 97.5])
    return float(low), float(high)


def acts(openings: Iterable[Opened]) -> dict[str, int]:
    """Of these incidents, at their opening: how many would lead to an act; `by_own`: had each family its own bits."""
    mine = list(openings)
    return {
        "incidents": len(mine), "given": sum(each.acted for each in mine),
        "by_own": sum(each.acted_by_own for each in mine),
    }  # fmt: skip


def first_hit(placement: Placement) -> Opened | None:
    """The first incident that planted calls brought."""
    return min(brought(placement, LISTED), key=lambda each: each.at_us, default=None)


def delays(placements: Sequence[Placement]) -> tuple[list[float], list[int]]:
    """Seconds and planted calls from the first planted call to the first incident, of what was caught."""
    seconds, events = [], []
    for each in placements:
        if hit := first_hit(each):
            seconds.append(max(0.0, (hit.at_us - each.first_us) / 1e6))
            events.append(hit.events)
    return seconds, events


def delays_of(placements: Sequence[Placement]) -> tuple[Valued, Valued]:
    """The seconds and the planted calls, and on which keys."""
    keys = [each.key for each in placements if first_hit(each)]
    seconds, events = delays(placements)
    return Valued(keys, seconds), Valued(keys, [float(each) for each in events])


def reason_hit(placements: Sequence[Placement], accepted: dict[str, list[str]]) -> dict[str, float]:
    """How often the first-named reason is one of those accepted, of what was caught."""
    pairs = [(each, hit) for each in placements if (hit := first_hit(each))]
    right = np.array([hit.first_reason in accepted[each.scenario] for each, hit in pairs], np.float64)
    return share([each.key for each, _ in pairs], right)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Area under the curve by ranks, ties by half; 0.5 where a side is empty."""
    if not len(positive) or not len(negative):
        return 0.5
    both = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


def rarest(placement: Placement) -> float:
    """Largest return period in days of what was planted, whether or not an incident opened."""
    return max([placement.rarest_days, *(each.return_days for each in placement.opened if each.planted)])


def leak_audit(placements: Sequence[Placement], names: dict[str, list[str]]) -> dict[str, dict[str, dict[str, float]]]:
    """scenario -> field -> AUC and 95 % bounds of a classifier of planted against innocent calls by this field.

    The classifier learns smoothed log odds per value on half of the keys and is judged on the other half; sizes and
    times are cut into 20 equal parts first. Fields that the scenario is about are left out.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for scenario, mine in by_scenario(placements).items():
        if scenario not in names:
            continue
        usable = [each for each in mine if each.fields]
        fields = [field for field, about in AUDITED.items() if not about & set(names[scenario])]
        found[scenario] = {field: _field_auc(usable, field) for field in fields if len(usable) >= 20}
    return found


def worst_leak(audit: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The largest AUC of any pair and which; how many of the pairs are above the limit with all of their interval."""
    every = [(v["auc"], v["low"], v["high"], f"{name}.{field}") for name, by in audit.items()
             for field, v in by.items()]  # fmt: skip
    area, low, high, pair = max(every, default=(0.5, 0.0, 1.0, ""))
    return {"auc": area, "low": low, "high": high, "pair": pair, "pairs": len(every),
            "above": sorted(name for _, least, _, name in every if least > AUC_LIMIT)}  # fmt: skip


def _field_auc(placements: Sequence[Placement], field: str) -> dict[str, float]:
    planted = np.array([each.fields[f"planted.{field}"] for each in placements])
    innocent = np.array([each.fields[f"innocent.{field}"] for each in placements])
    if field in ("bytes_out", "microsecond", "second"):
        edges = np.quantile(np.concatenate([planted, innocent]), np.linspace(0, 1, 21)[1:-1])
        planted, innocent = np.searchsorted(edges, planted), np.searchsorted(edges, innocent)
    learns = np.array([each.key % 2 == 0 for each in placements])
    odds: dict[float, float] = {}
    for value in np.unique(np.concatenate([planted[learns], innocent[learns]])):
        here = (planted[learns] == value).sum(), (innocent[learns] == value).sum()
        odds[float(value)] = float(np.log((here[0] + 2.0) / (here[1] + 2.0)))
    judged = [[odds.get(float(value), 0.0) for value in side[~learns]] for side in (planted, innocent)]
    area, n = auc(judged[0], judged[1]), max(1, len(judged[0]))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)  # Hanley and McNeil's variance
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / n**2
    off = 1.96 * float(np.sqrt(max(0.0, variance)))
    return {"auc": area, "low": area - off, "high": area + off, "n": n}


def compare(
    outcomes: Sequence[Outcome], attacks: dict[str, list[Placement]], budget: float
) -> dict[str, dict[str, float]]:
    """rule -> macro recall and recall by scenario of the baselines at this budget."""
    found = {}
    for name, by in baseline_hits(outcomes, attacks, budget).items():
        means = {scenario: float(np.mean(hits.values)) for scenario, hits in by.items()}
        found[name] = {"macro": float(np.mean(list(means.values()))) if means else 0.0, **means}
    return found


def baseline_hits(
    outcomes: Sequence[Outcome], attacks: dict[str, list[Placement]], budget: float
) -> dict[str, dict[str, Valued]]:
    """rule -> scenario -> chance of an alarm for each placement; `union` shares the budget out equally."""
    samples = {name: np.concatenate([each.baselines[name] for each in outcomes]) for name in baselines.RULES}
    found: dict[str, dict[str, Valued]] = {}
    for part, names in ((1, baselines.RULES), (len(baselines.RULES), ("union",))):
        limits = {
            name: baselines.threshold(samples[name], len(samples[name]), budget / part) for name in baselines.RULES
        }
        for name in names:
            rules = baselines.RULES if name == "union" else (name,)
            found[name] = {scenario: _alarms(mine, rules, limits) for scenario, mine in attacks.items()}
    return found


def _alarms(placements: Sequence[Placement], rules: Sequence[str], limits: dict[str, tuple[float, float]]) -> Valued:
    missed = np.ones(len(placements))
    for rule in rules:
        scores = np.array([each.scores.get(rule, -1.0) for each in placements])
        missed *= 1.0 - baselines.chance(scores, limits[rule])
    return Valued([each.key for each in placements], (1.0 - missed).tolist())


def calibration(outcomes: Sequence[Outcome]) -> list[dict[str, float]]:
    """Nominal against observed return period on untouched keys, from the listed threshold on; intervals over keys."""
    days = sum(outcome.key_days for outcome in outcomes)
    periods = np.array([each.return_days for outcome in outcomes for each in outcome.untouched])
    rows = []
    for nominal in (1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0):
        count = int((periods >= nominal).sum())
        ends = np.percentile(_count_draws(outcomes, nominal), [2.5, 97.5]) if count else (0.0, 3.0)  # the rule of three
        low, high = (float(end) * nominal / days for end in ends)
        rows.append(
            {
                "nominal_days": nominal, "observed_days": days / count if count else float("inf"),
                "ratio": count * nominal / days, "low": low, "high": high,
                "incidents": float(count),
            }
        )  # fmt: skip
    return rows
