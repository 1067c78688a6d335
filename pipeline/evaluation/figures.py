"""keybench's figures: what the issue asks for, from what all processes found, as one dictionary for JSON and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import bootstrap, measures
from pipeline.evaluation.bootstrap import Valued
from pipeline.evaluation.measures import BUDGETS, LISTED
from pipeline.evaluation.run import Outcome, Placement
from pipeline.evaluation.world import CLASSES

Group = dict[str, list[Placement]]
"""scenario -> its placements."""


def of(outcomes: Sequence[Outcome], declared: dict[str, Any]) -> dict[str, Any]:
    """What the issue asks for, from the run with the shipped setting."""
    placements = [each for outcome in outcomes for each in outcome.placements]
    at_headline = measures.by_scenario(placements, float(declared["headline_bits"]))
    attacks = {name: mine for name, mine in at_headline.items() if name in declared["attacks"]}
    innocents = {name: mine for name, mine in at_headline.items() if name in declared["innocents"]}
    twins = {f"{a} / {b}": _twin(at_headline, a, b) for a, b in declared["twins"]}
    return {
        **_headline(outcomes, attacks, innocents, declared),
        **_of_attacks(outcomes, attacks, placements, declared),
        "acted_on_innocent": {n: sum(o.acted and o.planted for p in m for o in p.opened) for n, m in innocents.items()},
        "acts": {
            "untouched": measures.acts(o for each in outcomes for o in each.untouched),
            "attacks": measures.acts(o for m in attacks.values() for p in m for o in p.opened if o.planted),
            "innocents": measures.acts(o for m in innocents.values() for p in m for o in p.opened if o.planted),
        },
        "untouched_reasons": _tally([o.first_reason or "fusion only" for each in outcomes for o in each.untouched]),
        "calibration": measures.calibration(outcomes),
        "twins": {pair: each["mean"] for pair, each in twins.items()},
        "twin_intervals": twins,
        **_comparisons(outcomes, attacks, innocents),
        "relative_to_oracle": relative_to_oracle(attacks),
        "oracle_exceedance": _exceedance(outcomes),
        "variants": _variants(at_headline, declared),
    }


def relative_to_oracle(attacks: Group) -> dict[str, Any]:
    """Per attack what an oracle could catch at the listed budget, and what share of that we do.

    `macro`: its mean over attacks of which an oracle could catch anything; `out_of_reach`: the others.
    """
    reach = {n: [each for each in m if measures.in_reach(each, LISTED)] for n, m in attacks.items()}
    return {
        "macro": bootstrap.macro([measures.hits_of(m, LISTED) for m in reach.values()]),
        "recall": {n: measures.relative(m, LISTED) for n, m in attacks.items()},
        "out_of_reach": [n for n, m in reach.items() if not m],
    }


def _exceedance(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """class, stretch -> bits -> share of innocent visits that have so many by the oracle; 2^-bits at most are due."""
    found = {}
    for group in sorted({each for outcome in outcomes for each in outcome.exceeded if each[2] == "sum"}):
        mine = [outcome.exceeded[group] for outcome in outcomes if group in outcome.exceeded]
        keys, most = (np.concatenate(each) for each in zip(*mine, strict=True))
        found[f"{group[0]}, {group[1]}"] = {
            str(bits): measures.share(keys.tolist(), (most >= bits).astype(np.float64)) for bits in (2, 4, 6, 8, 10, 12)
        }
    return found


def _variants(at_headline: Group, declared: dict[str, Any]) -> dict[str, Any]:
    """Recall of what is reported beside the 16, and of the attack that it varies."""
    found = {}
    for name, each in declared["variants"].items():
        mine, plain = at_headline.get(name, []), at_headline.get(each["of"], [])
        found[name] = {
            "of": each["of"], "recall": measures.recall_of(mine, LISTED),
            "without": measures.recall_of(plain, LISTED), "first_reasons": _first_reasons(mine),
            "calls": float(np.median([p.calls for p in mine])) if mine else None,
        }  # fmt: skip
    return found


def _headline(
    outcomes: Sequence[Outcome], attacks: Group, innocents: Group, declared: dict[str, Any]
) -> dict[str, Any]:
    """The keys that the issue names, and their intervals."""
    accepted = {name: each["reasons"] for name, each in declared["attacks"].items()}
    recall = {name: measures.recall_of(mine, LISTED) for name, mine in attacks.items()}
    listed = {name: measures.recall_of(mine, LISTED) for name, mine in innocents.items()}
    untouched, control = measures.untouched_rate(outcomes, LISTED), measures.placebo(outcomes, LISTED)
    joined = [each for mine in attacks.values() for each in mine]
    p50, p95 = (bootstrap.percentile(measures.delays_of(joined), percent) for percent in (50, 95))
    reasons = measures.reason_hit(joined, accepted)
    macro = bootstrap.macro([measures.hits_of(mine, LISTED) for mine in attacks.values()])
    return {
        "macro_recall": macro["mean"],
        "recall": {name: each["mean"] for name, each in recall.items()},
        "innocent_rate": {name: each["mean"] for name, each in listed.items()},
        "incidents_per_100k_key_days": untouched["mean"],
        "placebo_ratio": control["ratio"],
        "delay_p50_s": p50["mean"],
        "delay_p95_s": p95["mean"],
        "reason_hit_rate": reasons["mean"],
        "intervals": {
            "macro_recall": macro,
            "recall": recall,
            "innocent_rate": listed,
            "delay_p50_s": p50,
            "delay_p95_s": p95,
            "incidents_per_100k_key_days": untouched,
            "reason_hit_rate": reasons,
        },
        "placebo": control,
        "precision": precision(recall, outcomes),
    }


def _of_attacks(
    outcomes: Sequence[Outcome], attacks: Group, placements: Sequence[Placement], declared: dict[str, Any]
) -> dict[str, Any]:
    """By budget, strength and volume; delays, reasons, leaks."""
    accepted = {name: each["reasons"] for name, each in declared["attacks"].items()}
    names = {name: each["names"] for name, each in declared["attacks"].items()}
    audit = measures.leak_audit(placements, names)
    return {
        "recall_at": {str(b): _means({n: measures.recall_of(m, b) for n, m in attacks.items()}) for b in (10, LISTED)},
        "untouched_at": {str(budget): measures.untouched_rate(outcomes, budget) for budget in (10, LISTED)},
        "recall_by_strength": by_strength(placements, declared),
        "recall_by_volume": _by_volume(attacks),
        "oracle_bits": {n: float(np.median([each.bits for each in m])) for n, m in attacks.items()},
        "delay": {n: _delay(m) for n, m in attacks.items()},
        "reasons": {n: measures.reason_hit(m, accepted) for n, m in attacks.items()},
        "first_reasons": {n: _first_reasons(m) for n, m in attacks.items()},
        "leak_audit": audit,
        "leak_audit_max": measures.worst_leak(audit),
    }


def _comparisons(outcomes: Sequence[Outcome], attacks: Group, innocents: Group) -> dict[str, Any]:
    """Baselines at the listed budget, and at the rate that ours really has; the fusion against its loudest part."""
    ours = max(float(LISTED), measures.untouched_rate(outcomes, LISTED)["mean"])
    hits = measures.baseline_hits(outcomes, attacks, LISTED)
    return {
        "baselines": measures.compare(outcomes, attacks, LISTED),
        "baseline_intervals": {name: bootstrap.macro(list(by.values())) for name, by in hits.items()},
        "baselines_at_our_rate": measures.compare(outcomes, attacks, ours),
        "baselines_innocent": measures.compare(outcomes, innocents, LISTED),
        "ours_at_budget": at_budget(outcomes, attacks),
        "ours_at_budget_innocent": at_budget(outcomes, innocents),
        "ablation": {"fusion: loudest detector alone": _loudest(outcomes, attacks)},
    }


def at_budget(outcomes: Sequence[Outcome], attacks: Group) -> dict[str, Any]:
    """Our share caught with the threshold raised until untouched keys have 100 per 100,000 key-days, as baselines."""
    days = sum(outcome.key_days for outcome in outcomes)
    periods = np.sort([each.return_days for outcome in outcomes for each in outcome.untouched])[::-1]
    allowed = int(LISTED * days / 1e5)
    above = float(periods[allowed]) if allowed < len(periods) else 1_000.0
    budget = min(float(LISTED), 1e5 / (above * (1.0 + 1e-9)))
    recall = _means({name: measures.recall_of(mine, budget) for name, mine in attacks.items()})
    macro = bootstrap.macro([measures.hits_of(mine, budget) for mine in attacks.values()])
    return {"return_days": above, "macro": macro["mean"], "interval": macro, "recall": recall}


def _means(found: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: each["mean"] for name, each in found.items()}


def add_wide(found: dict[str, Any], outcomes: Sequence[Outcome], declared: dict[str, Any]) -> None:
    """Recall at 1,000 per 100,000 key-days, by strength too, and the rate there: from the other run."""
    placements = [each for outcome in outcomes for each in outcome.placements]
    mine = measures.by_scenario(placements, float(declared["headline_bits"]))
    found["recall_at"]["1000"] = {n: measures.recall_of(mine[n], 1000)["mean"] for n in found["recall"]}
    found["untouched_at"]["1000"] = measures.untouched_rate(outcomes, 1000)
    for bits, by in found["recall_by_strength"].items():
        mine = measures.by_scenario(placements, float(bits))
        for name in by:
            by[name]["at"]["1000"] = measures.recall_of(mine[name], 1000)["mean"]


def by_strength(placements: Sequence[Placement], declared: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Recall at the listed budget, `at` each budget, and how many of the wanted bits the scenario reached."""
    found: dict[str, dict[str, Any]] = {}
    for bits in declared["strengths_bits"]:
        mine = measures.by_scenario(placements, float(bits))
        found[str(bits)] = {name: _strength(mine[name]) for name in declared["attacks"] if name in mine}
    return found


def _strength(placements: Sequence[Placement]) -> dict[str, Any]:
    reached = {name: float(np.median([getattr(each, name) for each in placements])) for name in ("bits", "calls")}
    at = {str(budget): measures.recall_of(placements, budget)["mean"] for budget in BUDGETS[:2]}
    return {**measures.recall_of(placements, LISTED), **reached, "at": at}


def _by_volume(attacks: Group) -> dict[str, dict[str, float]]:
    found = {}
    for number, name in enumerate(CLASSES):
        mine = {n: [each for each in m if each.volume == number] for n, m in attacks.items()}
        found[name] = _means({n: measures.recall_of(m, LISTED) for n, m in mine.items()})
    return found


def _delay(placements: Sequence[Placement]) -> dict[str, Any]:
    seconds, events = measures.delays(placements)
    if not seconds:
        return {"caught": 0}
    quick = [s <= 10.0 or e <= 5 for s, e in zip(seconds, events, strict=True)]
    return {"caught": len(seconds), "p50_s": float(np.median(seconds)), "p50_events": float(np.median(events)),
            "within_5_events_or_10_s": float(np.mean(quick))}  # fmt: skip


def _first_reasons(placements: Sequence[Placement]) -> dict[str, int]:
    return _tally([hit.first_reason or "fusion only" for each in placements if (hit := measures.first_hit(each))])


def _tally(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _twin(mine: Group, attack: str, innocent: str) -> dict[str, float]:
    sides = (mine.get(attack, []), mine.get(innocent, []))
    return bootstrap.area(*(Valued([p.key for p in side], [measures.rarest(p) for p in side]) for side in sides))


def _loudest(outcomes: Sequence[Outcome], attacks: Group) -> dict[str, float]:
    """Instead of the fusion: the largest bits of any detector on a key-day, at the budget on untouched traffic."""
    untouched = np.concatenate([np.asarray(outcome.loudest) for outcome in outcomes])
    days = sum(outcome.key_days for outcome in outcomes)
    at = np.sort(untouched)[::-1][min(len(untouched) - 1, int(LISTED * days / 1e5))] if len(untouched) else math.inf
    recall = [float(np.mean([each.loudest > at for each in m])) for m in attacks.values()]
    return {"macro_recall": float(np.mean(recall)) if recall else 0.0, "threshold_bits": float(at)}


def precision(recall: dict[str, dict[str, float]], outcomes: Sequence[Outcome]) -> list[dict[str, float]]:
    """Incidents a day and the share of them that are true, for N keys of which a share P is attacked in a year."""
    rate = measures.untouched_rate(outcomes, LISTED)
    caught = float(np.mean([each["mean"] for each in recall.values()])) if recall else 0.0
    rows = []
    for keys in (1_000, 50_000):
        for prior in (0.001, 0.01, 0.1):
            true = keys * prior / 365 * caught
            false = {end: keys * rate[end] / 1e5 for end in ("mean", "low", "high")}
            rows.append({
                "keys": keys, "attacked_a_year": prior, "incidents_a_day": true + false["mean"],
                "precision": true / max(1e-12, true + false["mean"]), "low": true / max(1e-12, true + false["high"]),
                "high": true / max(1e-12, true + false["low"]),
            })  # fmt: skip
    return rows
