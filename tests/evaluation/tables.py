"""The tables of deploy/docs/figures.md, in Markdown, from a run of keybench.

Run: `python -m tests.evaluation.tables keybench.json [part ..]`. Parts: those of PARTS, all where none is named.
A figure stands with its 95 % interval over keys; figures below 1 are written without the leading 0, as in figures.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

Found = dict[str, Any]


def ranged(each: dict[str, Any] | None, digits: int = 2) -> str:
    """`.72 [.69-.75]`."""
    if not each or each["mean"] is None:
        return "-"
    ends = "" if each.get("low") is None else f" [{plain(each['low'], digits)}-{plain(each['high'], digits)}]"
    return f"{plain(each['mean'], digits)}{ends}"


def plain(value: float | None, digits: int = 2) -> str:
    """Without the leading 0, and 0 as 0."""
    if value is None:
        return "-"
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return "0"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def words(name: str) -> str:
    """A scenario or detector as prose."""
    return name.replace("_", " ")


def headline(found: Found) -> str:
    """What was run, and the figures that sum it up."""
    run, ranges, pages = found["run"], found["intervals"], found["untouched_at"]["10"]
    leak = found["leak_audit_max"]
    without = found["macro_recall_without_findings_by_design"]
    rows = [
        ("macro recall at the listed budget, of all placements, 40 bits wanted", ranged(ranges["macro_recall"]),
         ">= .85"),
        (f"macro recall at the listed budget, of placements that reach 40 bits{left_out(found)}",
         ranged(found["recall_of_reached"]["40"]["macro"]), ">= .85"),
        (f"the first without {', '.join(map(words, found['findings_by_design']))}", ranged(without), ""),
        ("the second without it", ranged(found["recall_of_reached"]["40"]["macro_apart"]), ">= .85"),
        ("of what an oracle could catch", ranged(found["relative_to_oracle"]["macro"]), ""),
        ("incidents per 100,000 key-days, untouched keys", ranged(found["untouched_at"]["100"], 0), "50 to 200"),
        ("of page grade", ranged(pages, 0), "5 to 20"),
        ("placebo arm / the same keys untouched", ranged(found["placebo"] | {"mean": found["placebo_ratio"]}), "1"),
        ("first reason right", ranged(ranges["reason_hit_rate"]), ">= .90"),
        ("delay, median, s", ranged(ranges["delay_p50_s"], 0), ""),
        ("delay, 95 of 100, s", ranged(ranges["delay_p95_s"], 0), ""),
        ("delay, median, planted calls", ranged(ranges["delay_p50_events"], 0), ""),
        ("delay, 95 of 100, planted calls", ranged(ranges["delay_p95_events"], 0), ""),
        ("leak audit, largest AUC", ranged(leak | {"mean": leak["auc"]}), "<= .60"),
    ]  # fmt: skip
    seeds = f"{run['seeds'][0]}" if len(run["seeds"]) == 1 else f"{run['seeds'][0]}-{run['seeds'][-1]}"
    about = (
        f"`--seeds {seeds} --keys {run['keys']} --placements {run['placements']} --days {run['days']}"
        f" --half {run['half']}`:"
        f" {run['key_days']:,.0f} key-days, {run['events_untouched']:,} untouched events."
    )
    return f"{about}\n\n" + table(("figure", "found", "aim"), rows)


def left_out(found: Found) -> str:
    """The attacks that few placements bring to 40 bits."""
    names = found["recall_of_reached"]["40"]["left_out"]
    return f" (too few of {', '.join(map(words, names))})" if names else ""


def reached(found: Found) -> str:
    """Per attack and strength: recall at the listed budget of the placements that reach it, and how many these are."""
    by = found["recall_of_reached"]
    rows = []
    for name in found["recall"]:
        each = [told["recall"].get(name) for told in by.values()]
        cells = [(ranged(e) if e["n"] else "-", f"{e['n']} of {e['of']}") if e else ("", "") for e in each]
        rows.append([words(name), *(cell for pair in cells for cell in pair)])
    macro = [(ranged(told["macro"]), f"{len(told['recall']) - len(told['left_out'])} attacks") for told in by.values()]
    rows.append(["**macro**", *(cell for pair in macro for cell in pair)])
    return table(("attack", *(text for bits in by for text in (f"of those with {bits} bits", "placements"))), rows)


def recall(found: Found) -> str:
    """Of all placements: recall by strength at the listed budget, and at the other two for the headline strength."""
    strengths, budgets = list(found["recall_by_strength"]), sorted(found["recall_at"], key=int)
    others = [budget for budget in budgets if budget != "100"]
    head = ["attack", *(f"{bits} bits" for bits in strengths), *(f"40 bits at {b}" for b in others),
            "bits had", "calls", "an oracle's", "ours of it"]  # fmt: skip
    rows = []
    for name in found["recall"]:
        by = [found["recall_by_strength"][bits].get(name) for bits in strengths]
        main = found["recall_by_strength"]["40"][name]
        told = main["relative"]
        rows.append([
            words(name), *(ranged(each) for each in by), *(plain(main["at"][b]["mean"]) for b in others),
            plain(main["bits"], 0), plain(main["calls"], 0), plain(told["oracle"]["mean"]),
            ranged(told["ours"]) if told["ours"]["n"] else "-",
        ])  # fmt: skip
    macro = found["macro_by_strength"]
    rows.append([
        "**macro**", *(ranged(macro[bits]["100"]) for bits in strengths), *(ranged(macro["40"][b]) for b in others),
        "", "", "", ranged(found["relative_to_oracle"]["macro"]),
    ])  # fmt: skip
    return table(head, rows)


def volumes(found: Found) -> str:
    """Recall by how much a key is used."""
    by = found["recall_by_volume"]
    rows = [[words(name), *(plain(each.get(name)) for each in by.values())] for name in found["recall"]]
    return table(("attack", *(f"{name} calls" for name in by)), rows)


def delays(found: Found) -> str:
    """Per attack: delays of what was caught, and the reason named first."""
    rows = [
        [words(name), str(each["caught"]), *(plain(each.get(of), 0) for of in
         ("p50_s", "p95_s", "p50_events", "p95_events")), plain(each.get("within_5_events_or_10_s")),
         ranged(found["reasons"][name]), ", ".join(f"{reason} {n}" for reason, n in sorted(
             found["first_reasons"][name].items(), key=lambda item: -item[1])[:3])]
        for name, each in found["delay"].items()
    ]  # fmt: skip
    return table(("attack", "caught", "median s", "95 of 100, s", "median calls", "95 of 100, calls",
                  "within 5 calls or 10 s", "right first", "named first"), rows)  # fmt: skip


def innocents(found: Found) -> str:
    """Share of placements listed, and how many would have been acted on."""
    acted = found["acted_on_innocent"]
    rows = [[words(n), ranged(each), str(acted.get(n, 0))] for n, each in found["intervals"]["innocent_rate"].items()]
    return table(("innocent", "listed (aim <= .02)", "acted on"), rows)


def budgets(found: Found) -> str:
    """Nominal against observed: by budget, and the calibration by return period."""
    rows = [[b, ranged(each, 0)] for b, each in sorted(found["untouched_at"].items(), key=lambda item: int(item[0]))]
    periods = [
        [f"{row['nominal_days']:,.0f}", plain(row["observed_days"], 0), f"{row['incidents']:.0f}",
         f"{plain(row['ratio'])} [{plain(row['low'])}-{plain(row['high'])}]"]
        for row in found["calibration"]
    ]  # fmt: skip
    first = table(("nominal, per 100,000 key-days", "on untouched keys"), rows)
    return f"{first}\n\n" + table(("said: once in key-days", "seen", "incidents", "times as often as said"), periods)


def baselines(found: Found) -> str:
    """Each simple rule by itself and all together, at the same budget."""
    ours = [
        "Keywatch",
        ranged(found["ours_at_budget"]["interval"]),
        "",
        plain(found["ours_at_budget_innocent"]["macro"]),
    ]
    rows = [
        [words(n), ranged(found["baseline_intervals"][n]), ranged(found["lead_over_baselines"][n]),
         plain(found["baselines_innocent"][n]["macro"])]
        for n in found["baselines"]
    ]  # fmt: skip
    return table(("rule", "macro recall at 100", "ours is better by", "innocent scenarios listed"), [ours, *rows])


def ablation(found: Found) -> str:
    """Without each detector, and without the fusion."""
    rows = [
        [words(n), ranged(each["interval"]), ranged(each["lost"], 3), plain(each.get("incidents_per_100k_key_days"), 0)]
        for n, each in found["ablation"].items()
    ]
    return table(("ablation", "macro recall", "lost, same placements", "untouched per 100,000"), rows)


def twins(found: Found) -> str:
    """Attack against its innocent look-alike."""
    return table(("twins", "pair AUC"), [[words(n), ranged(each)] for n, each in found["twin_intervals"].items()])


def precision(found: Found) -> str:
    """What a team would see."""
    rows = [
        [f"{row['keys']:,}", f"{row['attacked_a_year']:g}",
         f"{plain(row['incidents_a_day'], 1)} [{plain(row['incidents_a_day_low'], 1)}-"
         f"{plain(row['incidents_a_day_high'], 1)}]",
         f"{plain(row['precision'], 4)} [{plain(row['low'], 4)}-{plain(row['high'], 4)}]"]
        for row in found["precision"]
    ]  # fmt: skip
    return table(("keys", "attacked a year", "incidents a day", "precision"), rows)


def beside(found: Found) -> str:
    """What else a run tells: variants, real logs, ramp, oracle."""
    apache, windows = found["real_logs"]["apache"], found["real_logs"]["invictus"]
    ramp = found["ramp"]
    rows = [[f"{words(n)} (without it {ranged(each['without'])})", ranged(each["recall"])]
            for n, each in found["variants"].items()]  # fmt: skip
    rows.append(["Apache log, incidents per 100,000 key-days "
                 f"({apache['incidents']} in {apache['key_days']:,.0f} key-days)",
                 ranged({**apache, "mean": apache["per_100k_key_days"]}, 0)])  # fmt: skip
    rows.append(["invictus: attacked windows alarmed; others",
                 f"{windows['alarmed_of_them']} of {windows['attacked_windows']}; "
                 f"{windows['alarmed_innocent']} of {windows['innocent_windows']}"])  # fmt: skip
    rows += [[f"largest unseen gain of a ramp in {days} days", f"{'at least ' if ramp['bounded'][days] else ''}"
              f"{gain:.1f} x"] for days, gain in ramp["gain"].items()]  # fmt: skip
    most = {bits: max((each[bits] for each in found["oracle_exceedance"].values()), key=lambda each: each["mean"])
            for bits in ("4", "8")}  # fmt: skip
    rows += [[f"innocent visits with {bits} bits by the oracle (at most {plain(2.0 ** -int(bits), 4)} are due)",
              ranged(each, 4)] for bits, each in most.items()]  # fmt: skip
    return table(("besides", "found"), rows)


def aims(found: Found) -> str:
    """Those that are not met."""
    rows = [[words(each["aim"]), each["wanted"], ranged(each, 0 if each["mean"] and each["mean"] >= 5 else 2)
             + (f", {each['placements']}" if "placements" in each else "")]
            for each in found["aims"] if not each["met"]]  # fmt: skip
    met = sum(each["met"] for each in found["aims"])
    return f"{met} of {len(found['aims'])} aims are met. Not:\n\n" + table(("aim", "wanted", "found"), rows)


PARTS: Final[dict[str, Callable[[Found], str]]] = {
    "headline": headline, "aims": aims, "recall": recall, "reached": reached, "volumes": volumes, "delays": delays,
    "innocents": innocents, "budgets": budgets, "baselines": baselines, "ablation": ablation,
    "twins": twins, "precision": precision, "beside": beside,
}  # fmt: skip


def main() -> None:
    """Print the parts."""
    path, *wanted = sys.argv[1:]
    found = json.loads(Path(path).read_bytes())
    sys.stdout.write("\n\n".join(f"**{name}**\n\n{PARTS[name](found)}" for name in wanted or PARTS) + "\n")


if __name__ == "__main__":
    main()
