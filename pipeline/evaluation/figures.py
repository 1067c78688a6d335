"""keybench's figures: what the issue asks for, from what all processes found, as one dictionary for JSON and page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipeline.evaluation import aims, bootstrap, measures, reached
from pipeline.evaluation.bootstrap import Valued
from pipeline.evaluation.measures import BUDGETS, LISTED
from pipeline.evaluation.run import Outcome, Placement
from pipeline.evaluation.world import CLASSES

Group = dict[str, list[Placement]]
"""scenario -> its placements."""
FLEETS: Final = tuple((keys, prior) for keys in (1_000, 50_000) for prior in (0.001, 0.01, 0.1))
"""(keys, share of them attacked in a year), as `precision` is told of."""


def of(
    outcomes: Sequence[Outcome], declared: dict[str, Any], fleets: Sequence[tuple[int, float]] = FLEETS
) -> dict[str, Any]:
    """What the issue asks for, from the run with the shipped setting."""
    placements = [each for outcome in outcomes for each in outcome.placements]
    at_headline = measures.by_scenario(placements, float(declared["headline_bits"]))
    attacks = {name: mine for name, mine in at_headline.items() if name in declared["attacks"]}
    innocents = {name: mine for name, mine in at_headline.items() if name in declared["innocents"]}
    twins = {f"{a} / {b}": _twin(at_headline, a, b) for a, b in declared["twins"]}
    found = {
        **_headline(outcomes, attacks, innocents, declared),
        "precision": precision(attacks, outcomes, fleets),
        **_of_attacks(outcomes, attacks, placements, declared),
        "acted_on_innocent": {n: sum(o.acted and o.planted for p in m for o in p.opened) for n, m in innocents.items()},
        "caught_late": {n: sum(map(measures.caught_late, m)) for n, m in (attacks | innocents).items()},
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
    return found | {"aims": aims.of(found, declared)}


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
    for group in sorted({each for outcome in outcomes for each in outcome.exceeded}):
        rows = [row for outcome in outcomes for row in outcome.exceeded.get(group, [])]
        keys, most = [key for key, _ in rows], np.array([bits for _, bits in rows])
        found[group] = {
            str(bits): measures.share(keys, (most >= bits).astype(np.float64)) for bits in (2, 4, 6, 8, 10, 12)
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
    seconds, events = measures.delays_of(joined)
    delay = {f"delay_p{percent}_{unit}": bootstrap.percentile(of, percent)
             for unit, of in (("s", seconds), ("events", events)) for percent in (50, 95)}  # fmt: skip
    reasons = measures.reason_hit(joined, accepted)
    macro = bootstrap.macro([measures.hits_of(mine, LISTED) for mine in attacks.values()])
    apart = [measures.hits_of(m, LISTED) for n, m in attacks.items() if n not in declared["finding_by_design"]]
    return {
        "macro_recall": macro["mean"],
        "macro_recall_without_findings_by_design": bootstrap.macro(apart),
        "findings_by_design": declared["finding_by_design"],
        "recall": {name: each["mean"] for name, each in recall.items()},
        "innocent_rate": {name: each["mean"] for name, each in listed.items()},
        "incidents_per_100k_key_days": untouched["mean"],
        "placebo_ratio": control["ratio"],
        **{name: each["mean"] for name, each in delay.items()},
        "reason_hit_rate": reasons["mean"],
        "intervals": {
            "macro_recall": macro,
            "recall": recall,
            "innocent_rate": listed,
            **delay,
            "incidents_per_100k_key_days": untouched,
            "reason_hit_rate": reasons,
        },
        "placebo": control,
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
        "recall_of_reached": reached.by_strength(placements, declared),
        "macro_by_strength": {
            bits: _macro_at(placements, declared, bits, (10, LISTED)) for bits in _strengths(declared)
        },
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
    ours_quiet = at_budget(outcomes, attacks)
    return {
        "baselines": measures.compare(outcomes, attacks, LISTED),
        "baseline_intervals": {name: bootstrap.macro(list(by.values())) for name, by in hits.items()},
        "baselines_at_our_rate": measures.compare(outcomes, attacks, ours),
        "baselines_innocent": measures.compare(outcomes, innocents, LISTED),
        "ours_at_budget": ours_quiet,
        "ours_at_budget_innocent": at_budget(outcomes, innocents),
        "lead_over_baselines": _leads(attacks, hits, 1e5 / ours_quiet["return_days"]),
        "ablation": {"fusion: loudest detector alone": _loudest(outcomes, attacks, 1e5 / ours_quiet["return_days"])},
    }


def _leads(attacks: Group, hits: dict[str, dict[str, Valued]], budget: float) -> dict[str, dict[str, float]]:
    """rule -> macro recall of ours less the rule's, at the same budget, placement by placement."""
    return {
        rule: bootstrap.macro([_less(measures.hits_of(attacks[n], budget), theirs) for n, theirs in by.items()])
        for rule, by in hits.items()
    }


def _less(ours: Valued, theirs: Valued) -> Valued:
    """Of the same placements in the same order."""
    return Valued(ours.keys, [a - b for a, b in zip(ours.values, theirs.values, strict=True)])


def at_budget(outcomes: Sequence[Outcome], attacks: Group) -> dict[str, Any]:
    """Our share caught with the threshold raised until untouched keys have 100 per 100,000 key-days, as baselines."""
    days = sum(outcome.key_days for outcome in outcomes)
    periods = np.sort([each.return_days for outcome in outcomes for each in outcome.untouched])[::-1]
    allowed = int(LISTED * days / 1e5)
    above = float(periods[allowed]) * (1.0 + 1e-9) if allowed < len(periods) else 1_000.0
    budget = min(float(LISTED), 1e5 / above)
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
            by[name]["at"]["1000"] = measures.recall_of(mine[name], 1000)
        found["macro_by_strength"][bits] |= _macro_at(placements, declared, bits, (1000,))


def _strengths(declared: dict[str, Any]) -> list[str]:
    return [str(bits) for bits in declared["strengths_bits"]]


def _macro_at(
    placements: Sequence[Placement], declared: dict[str, Any], bits: str, budgets: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Macro recall over the attacks at one strength, by budget."""
    mine = [m for n, m in measures.by_scenario(placements, float(bits)).items() if n in declared["attacks"]]
    return {str(budget): bootstrap.macro([measures.hits_of(m, budget) for m in mine]) for budget in budgets}


def by_strength(placements: Sequence[Placement], declared: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Recall at the listed budget, `at` each budget, relative to an oracle, and the bits that the scenario reached."""
    found: dict[str, dict[str, Any]] = {}
    for bits in _strengths(declared):
        mine = measures.by_scenario(placements, float(bits))
        found[bits] = {name: _strength(mine[name]) for name in declared["attacks"] if name in mine}
    return found


def _strength(placements: Sequence[Placement]) -> dict[str, Any]:
    reached = {name: float(np.median([getattr(each, name) for each in placements])) for name in ("bits", "calls")}
    at = {str(budget): measures.recall_of(placements, budget) for budget in BUDGETS[:2]}
    return {**at[str(LISTED)], **reached, "at": at, "relative": measures.relative(placements, LISTED)}


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
    told = {f"p{percent}_{unit}": float(np.percentile(of, percent))
            for unit, of in (("s", seconds), ("events", events)) for percent in (50, 95)}  # fmt: skip
    return {"caught": len(seconds), **told, "within_5_events_or_10_s": float(np.mean(quick))}


def _first_reasons(placements: Sequence[Placement]) -> dict[str, int]:
    return _tally([hit.first_reason or "fusion only" for each in placements if (hit := measures.first_hit(each))])


def _tally(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _twin(mine: Group, attack: str, innocent: str) -> dict[str, float]:
    sides = (mine.get(attack, []), mine.get(innocent, []))
    return bootstrap.area(*(Valued([p.key for p in side], [measures.rarest(p) for p in side]) for side in sides))


def _loudest(outcomes: Sequence[Outcome], attacks: Group, budget: float) -> dict[str, Any]:
    """Instead of the fusion: the largest bits of any detector on a key-day, at the budget on untouched traffic.

    `lost`: of what ours catches at a budget.
    """
    untouched = np.concatenate([np.asarray(outcome.loudest) for outcome in outcomes])
    days = sum(outcome.key_days for outcome in outcomes)
    at = np.sort(untouched)[::-1][min(len(untouched) - 1, int(LISTED * days / 1e5))] if len(untouched) else math.inf
    hits = {n: Valued([p.key for p in m], [float(p.loudest > at) for p in m]) for n, m in attacks.items()}
    lost = [_less(measures.hits_of(m, budget), hits[n]) for n, m in attacks.items()]
    macro = bootstrap.macro(list(hits.values()))
    return {
        "macro_recall": macro["mean"],
        "interval": macro,
        "lost": bootstrap.macro(lost),
        "threshold_bits": float(at),
    }


def ablated(parts: Sequence[Mapping[str, Outcome]]) -> dict[str, Any]:
    """Without each detector ("": with all): recall, untouched rate, and what is `lost` of the same placements."""
    found = {}
    for name in parts[0]:
        outcomes = [part[name] for part in parts]
        hits, whole = _hits(outcomes), _hits([part[""] for part in parts])
        macro = bootstrap.macro(list(hits.values()))
        found[f"without {name}" if name else "all, on a third"] = {
            "macro_recall": macro["mean"], "interval": macro,
            "lost": bootstrap.macro([_less(whole[n], hits[n]) for n in hits]),
            "incidents_per_100k_key_days": measures.untouched_rate(outcomes, LISTED)["mean"],
            "recall": {n: float(np.mean(each.values)) for n, each in hits.items()},
        }  # fmt: skip
    return found


def _hits(outcomes: Sequence[Outcome]) -> dict[str, Valued]:
    mine = measures.by_scenario([each for outcome in outcomes for each in outcome.placements])
    return {name: measures.hits_of(m, LISTED) for name, m in mine.items()}


def precision(
    attacks: Group, outcomes: Sequence[Outcome], fleets: Sequence[tuple[int, float]]
) -> list[dict[str, float]]:
    """Incidents a day and the share of them that are true, for N keys of which a share P is attacked in a year.

    The intervals draw both, what is caught and what opens on untouched keys; where nothing opened, by e^-(its rate).
    """
    groups = [hits for m in attacks.values() if (hits := measures.hits_of(m, LISTED)).keys]
    caught, rate = bootstrap.macro(groups)["mean"], measures.untouched_rate(outcomes, LISTED)["mean"]
    caught_draws = bootstrap.macro_draws(groups) if groups else np.zeros(bootstrap.DRAWS)
    none = np.random.default_rng(3).exponential(1e5 / sum(each.key_days for each in outcomes), bootstrap.DRAWS)
    rate_draws = measures.untouched_draws(outcomes, LISTED) if rate else none
    rows = []
    for keys, prior in fleets:
        true, false = keys * prior / 365 * caught, keys * rate / 1e5
        trues, falses = keys * prior / 365 * caught_draws, keys * rate_draws / 1e5
        precise = true / max(1e-12, true + false)
        low, high = np.percentile(trues / np.maximum(1e-12, trues + falses), bootstrap.ENDS)
        fewest, most = np.percentile(trues + falses, bootstrap.ENDS)
        rows.append({
            "keys": keys, "attacked_a_year": prior, "incidents_a_day": true + false,
            "incidents_a_day_low": min(fewest, true + false), "incidents_a_day_high": most,
            "precision": precise, "low": low, "high": max(high, precise),
        })  # fmt: skip
    return rows
