"""The aims of detection (issue 5) beside what a run of keybench found: met or not, at the listed budget and 40 bits.

A figure is held against its aim as it stands, easy attacks by their lower 95 % bound, as the issue says; where an
interval holds the aim, more keys may turn the answer. What the issue says of attacks is held twice: of all placements,
and of those that reach the strength (`reached`), where too few of them can meet nothing.
"""

from __future__ import annotations

from typing import Any, Final

from pipeline.evaluation.measures import AUC_LIMIT, LISTED
from pipeline.evaluation.reached import LEAST

MACRO: Final = 0.85
EASY_LOW: Final = 0.98
HARD: Final = 0.5
INNOCENT: Final = 0.02
REASON: Final = 0.9
QUICK: Final = ("leaked_abroad", "bulk_read", "endpoint_scan")
QUICK_SHARE: Final = 0.95
"""Of their caught placements within 5 events or 10 s: the issue names no share; delays are told at 95 %, too."""
FACTOR: Final = 2.0
"""Of the budget, either way."""


def of(found: dict[str, Any], declared: dict[str, Any]) -> list[dict[str, Any]]:
    """Each aim: what of, what is wanted, what was found (with its interval), whether it is met."""
    ranges, strong = found["intervals"], found["recall_of_reached"][str(declared["headline_bits"])]
    rows = [
        *_attacks("of all placements", ranges["macro_recall"], ranges["recall"], declared),
        *_attacks(f"of placements that reach {declared['headline_bits']} bits", strong["macro"], strong["recall"],
                  declared),
        _row(f"macro recall, of placements that reach {declared['headline_bits']} bits, without findings by design",
             f">= {MACRO}", strong["macro_apart"], (strong["macro_apart"]["mean"] or 0.0) >= MACRO),
        *(_row(f"innocent: {n}", f"<= {INNOCENT} listed", each, each["mean"] <= INNOCENT)
          for n, each in ranges["innocent_rate"].items()),
        _count("innocent: acted on", sum(found["acted_on_innocent"].values())),
    ]  # fmt: skip
    for name in QUICK:
        quick = found["delay"].get(name, {}).get("within_5_events_or_10_s")
        if quick is not None:
            rows.append(_row(f"{name} within 5 events or 10 s", f">= {QUICK_SHARE} of the caught", {"mean": quick},
                             quick >= QUICK_SHARE))  # fmt: skip
    rows.append(_row("first reason right", f">= {REASON}", ranges["reason_hit_rate"],
                     ranges["reason_hit_rate"]["mean"] >= REASON))  # fmt: skip
    for name, budget in (("listed", LISTED), ("page grade", 10)):
        rate = found["untouched_at"][str(budget)]
        rows.append(_row(f"incidents per 100,000 key-days, {name}", f"{budget / FACTOR:g} to {budget * FACTOR:g}", rate,
                         budget / FACTOR <= rate["mean"] <= budget * FACTOR))  # fmt: skip
    for rule, lead in found["lead_over_baselines"].items():
        rows.append(_row(f"macro recall over {rule} at the same budget", "> 0", lead, lead["mean"] > 0))
    placebo = found["placebo"]
    if placebo["untouched_incidents"]:
        rows.append(_row("placebo arm over the same keys untouched", "1 within its interval",
                         placebo | {"mean": placebo["ratio"]}, placebo["low"] <= 1.0 <= placebo["high"]))  # fmt: skip
    if found["leak_audit_max"]["pairs"]:
        rows.append(_count(f"leaks surely over AUC {AUC_LIMIT}", len(found["leak_audit_max"]["above"])))
    return rows


def _attacks(
    of_which: str, macro: dict[str, float | None], recall: dict[str, dict[str, Any]], declared: dict[str, Any]
) -> list[dict[str, Any]]:
    """The macro recall, the easy attacks and the hard ones, of these placements."""
    enough = {name: "of" not in each or each["n"] >= LEAST for name, each in recall.items()}
    return [
        _row(f"macro recall, {of_which}", f">= {MACRO}", macro, (macro["mean"] or 0.0) >= MACRO),
        *(_row(f"{n}, {of_which}", f"lower bound >= {EASY_LOW}", recall[n], recall[n]["low"] >= EASY_LOW and enough[n])
          for n in declared["easy"] if n in recall),
        *(_row(f"{n}, {of_which}", f">= {HARD}", recall[n], recall[n]["mean"] >= HARD and enough[n])
          for n in declared["hard"] if n in recall),
    ]  # fmt: skip


def _row(what: str, wanted: str, figure: dict[str, Any], met: bool) -> dict[str, Any]:
    ends = {end: figure.get(end) for end in ("mean", "low", "high")}
    counted = {"placements": f"{figure['n']} of {figure['of']}"} if "of" in figure else {}
    return {"aim": what, "wanted": wanted, **ends, **counted, "met": bool(met)}


def _count(what: str, count: int) -> dict[str, Any]:
    return _row(what, "none", {"mean": float(count)}, count == 0)
