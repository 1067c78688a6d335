"""keybench's page: one HTML file with inline plots, no dependency, and the summary for the terminal."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from pipeline.evaluation import report_reached
from pipeline.evaluation.report_plots import bars, ranged, scatter

STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1d2733;background:#fff}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #d8dee6}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
td,th{padding:.22rem .7rem;text-align:right;border-bottom:1px solid #edf0f4}
td:first-child,th:first-child{text-align:left}th{color:#5b6b7f;font-weight:600}
.figures{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.figure{border:1px solid #d8dee6;border-radius:8px;padding:.6rem 1rem;min-width:9rem}
.figure b{display:block;font-size:1.5rem}.figure span{color:#5b6b7f;font-size:13px}
.bad{color:#b3261e}.good{color:#1a7f4b}p.note{color:#5b6b7f;max-width:75ch}
.wide{overflow-x:auto}.wide td,.wide th{padding:.2rem .45rem}.wide td{white-space:nowrap}small{color:#5b6b7f}
svg{display:block;margin:.6rem 0}svg text{font:12px system-ui,sans-serif}
"""


def summary(found: dict[str, Any]) -> str:
    """Some lines for the terminal."""
    rate = found["intervals"]["incidents_per_100k_key_days"]
    lines = [
        f"macro recall {ranged(found['intervals']['macro_recall'])} of all placements at the listed threshold (aim .85)"
        f", {report_reached.line(found)}; of what an oracle could catch"
        f" {ranged(found['relative_to_oracle']['macro'])}{_beyond(found)}; of all without {_by_design(found)}"
        f" {ranged(found['macro_recall_without_findings_by_design'])}",
        f"untouched: {rate['mean']:.0f} [{rate['low']:.0f}-{rate['high']:.0f}] per 100,000 key-days (budget 100); "
        f"macro recall with the threshold raised to the budget {found['ours_at_budget']['macro']:.3f}",
        f"placebo ratio {_number(found['placebo_ratio'])}, first reason right {found['reason_hit_rate']:.2f}, "
        f"delay p50 {_number(found['delay_p50_s'])} s, p95 {_number(found['delay_p95_s'])} s; "
        f"{_number(found['delay_p50_events'])} and {_number(found['delay_p95_events'])} planted calls",
        f"page grade: {ranged(found['untouched_at']['10'], 0)} per 100,000 key-days on untouched keys (budget 10)",
        "largest undetected gain of a ramp: "
        + ", ".join(_gain(found["ramp"], days) for days in found["ramp"]["gain"]),
        _leaks(found["leak_audit_max"]),
        _exceeded(found["oracle_exceedance"]),
        "recall: " + ", ".join(f"{n} {v:.2f}" for n, v in found["recall"].items()),
        "innocent, listed: " + ", ".join(f"{n} {v:.2f}" for n, v in found["innocent_rate"].items()),
        "would be acted on when they open (had each family its own bits), of incidents: "
        + ", ".join(f"{n} {v['given']} ({v['by_own']}) of {v['incidents']}" for n, v in found["acts"].items()),
        "baselines at the same budget, macro recall: "
        + ", ".join(f"{n} {v['macro']:.2f}" for n, v in found["baselines"].items())
        + "; not surely beaten: " + (", ".join(_unbeaten(found)) or "none"),
        "off-hours use with more: "
        + ", ".join(f"{n} {v['recall']['mean']:.2f} (without {v['without']['mean']:.2f})"
                    for n, v in found["variants"].items()),
        "aims not met: " + ", ".join(each["aim"] for each in found["aims"] if not each["met"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _by_design(found: dict[str, Any]) -> str:
    """The attacks that by design stay a finding."""
    return ", ".join(found["findings_by_design"])


def _unbeaten(found: dict[str, Any]) -> list[str]:
    return [rule for rule, lead in found["lead_over_baselines"].items() if lead["low"] <= 0]


def _gain(ramp: dict[str, Any], days: str) -> str:
    return f"{'at least ' if ramp['bounded'][days] else ''}{ramp['gain'][days]:.1f} x in {days} days"


def _leaks(worst: dict[str, Any]) -> str:
    """The leak audit in a line."""
    if not worst["pairs"]:
        return "leak audit: not judged on fewer than 20 placements of a scenario"
    over = f"surely over it: {', '.join(worst['above'])}" if worst["above"] else "none surely over it"
    return (f"leak audit: largest AUC {worst['auc']:.2f} [{worst['low']:.2f}-{worst['high']:.2f}] ({worst['pair']}) of"
            f" {worst['pairs']} pairs, limit .60, {over}")  # fmt: skip


def _exceeded(found: dict[str, Any]) -> str:
    """How often the oracle has so many bits of innocent visits, in the class and stretch where that is most often."""
    most = {bits: max((each[bits] for each in found.values()), key=lambda each: each["mean"]) for bits in ("4", "8")}
    said = (
        f"{bits} bits in {ranged(each, 4)} (at most {2.0 ** -int(bits):.4f} are due)" for bits, each in most.items()
    )
    return f"the oracle on innocent visits: {', '.join(said)}"


def _number(value: Any) -> str:
    if value is None or value != value:
        return "n.a."
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def page(found: dict[str, Any], declared: dict[str, Any]) -> str:
    """The whole page."""
    parts = [
        _head(found), _aims(found), _attacks(found, declared), report_reached.section(found),
        _innocents(found, declared), _budgets(found), _baselines(found), _calibration(found), _twins(found),
        _reasons(found), _audit(found), _precision(found), _real(found), _ramp(found),
    ]  # fmt: skip
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Keywatch: keybench</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _tally(counts: dict[str, int]) -> str:
    """Most often first."""
    return escape(", ".join(f"{n} {count}" for n, count in sorted(counts.items(), key=lambda item: -item[1])))


def _beyond(found: dict[str, Any]) -> str:
    """The attacks that this share leaves out."""
    beyond = found["relative_to_oracle"]["out_of_reach"]
    return f" (none of {', '.join(beyond)})" if beyond else ""


def _head(found: dict[str, Any]) -> str:
    run, rate = found["run"], found["intervals"]["incidents_per_100k_key_days"]
    figures = (
        ("macro recall, all placements", ranged(found["intervals"]["macro_recall"], 2), "aim 0.85"),
        report_reached.box(found),
        (
            f"macro recall without {_by_design(found)}",
            ranged(found["macro_recall_without_findings_by_design"], 2),
            "which by design stays a finding",
        ),
        (
            "of what an oracle could catch",
            ranged(found["relative_to_oracle"]["macro"], 2),
            f"at the same budget{_beyond(found)}",
        ),
        ("incidents / 100,000 key-days", f"{rate['mean']:.0f}", f"{rate['low']:.0f} to {rate['high']:.0f}; budget 100"),
        ("page grade / 100,000 key-days", ranged(found["untouched_at"]["10"], 0), "budget 10"),
        ("placebo / the same untouched", _number(found["placebo_ratio"]), _placebo(found["placebo"])),
        ("first reason right", ranged(found["intervals"]["reason_hit_rate"], 2), "aim 0.90"),
        (
            "delay, median, s",
            ranged(found["intervals"]["delay_p50_s"], 1),
            f"95 %: {ranged(found['intervals']['delay_p95_s'], 0)}",
        ),
        (
            "delay, median, planted calls",
            ranged(found["intervals"]["delay_p50_events"], 0),
            f"95 %: {ranged(found['intervals']['delay_p95_events'], 0)}",
        ),
    )
    boxes = "".join(f"<div class=figure><span>{a}</span><b>{b}</b><span>{c}</span></div>" for a, b, c in figures)
    return (
        f"<h1>keybench</h1><p class=note>Detectors: {', '.join(run['detectors'])}. {run['half'].capitalize()} sources, "
        f"seeds {run['seeds']}, {run['keys']:,} keys, {run['days']} days ({run['events_untouched']:,} untouched "
        f"events, {run['key_days']:,.0f} key-days counted), {run['placements']} placements per scenario, one setting. "
        f"Strength 40 oracle bits unless another is named, but residential swarms, which are placed whole (20 addresses"
        f" and more within six hours), with the bits they then have; intervals are 95 %, by bootstrap over keys, the"
        f" baselines' thresholds held as they are. {escape(_exceeded(found['oracle_exceedance']).capitalize())}.</p>"
        f"<div class=figures>{boxes}</div>"
    )


def _aims(found: dict[str, Any]) -> str:
    """Every aim of the issue, met or not."""
    rows = "".join(
        f"<tr><td>{escape(each['aim'])}</td><td>{escape(each['wanted'])}</td><td>{_figure(each)}</td>"
        f"<td class={'good' if each['met'] else 'bad'}>{'met' if each['met'] else 'not met'}</td></tr>"
        for each in found["aims"]
    )
    count = sum(each["met"] for each in found["aims"])
    return (f"<h2>Aims: {count} of {len(found['aims'])} met</h2><table><tr><th>aim</th><th>wanted</th><th>found</th>"
            f"<th></th></tr>{rows}</table>")  # fmt: skip


def _figure(each: dict[str, Any]) -> str:
    """With its interval where it has one."""
    digits = 0 if each["mean"] is not None and each["mean"] >= 5 else 2
    some = f", {each['placements']}" if "placements" in each else ""
    return ranged(each, digits) + some if each["low"] is not None else _number(each["mean"])


def _placebo(control: dict[str, Any]) -> str:
    count = f"{control['incidents']} incidents against {control['untouched_incidents']}"
    return f"{count}, {_number(control['low'])} to {_number(control['high'])}; should be 1"


def _attacks(found: dict[str, Any], declared: dict[str, Any]) -> str:
    recall, union = found["intervals"]["recall"], found["baselines"].get("union", {})
    rows = [(n, v["mean"], v["low"], v["high"], union.get(n)) for n, v in recall.items()]
    strengths = found["recall_by_strength"]
    head = "".join(f"<th>{b} bits</th><th>had</th><th>calls</th><th>oracle's</th><th>of it</th>" for b in strengths)
    body = "".join(
        f"<tr><td>{escape(n)}{' (easy)' if n in declared['easy'] else ' (hard)' if n in declared['hard'] else ''}</td>"
        + "".join(_strength(strengths[b].get(n)) for b in strengths) + "</tr>"
        for n in recall
    )  # fmt: skip
    macro = "".join(f"<td colspan=5>{ranged(found['macro_by_strength'][b]['100'], 2)}</td>" for b in strengths)
    return (
        "<h2>Attacks caught at the listed threshold, of all placements</h2>" + bars(rows, {"aim .85": 0.85})
        + "<p class=note>Red: the union of the baselines at a budget of 100. Below by strength, in bits of an oracle"
        " that knows both generators: recall, how many of the wanted bits the scenario had (median) in how many calls,"
        " what share that oracle could catch at the budget (its bits above log2 of the key's visits in 1,000 key-days),"
        " and what share of it we catch.</p>"
        f"<div class=wide><table><tr><th>attack</th>{head}</tr>{body}<tr><td>macro</td>{macro}</tr></table></div>"
        + _beside(found) + _volumes(found)
    )  # fmt: skip


def _volumes(found: dict[str, Any]) -> str:
    """Recall by how much a key is used."""
    by = found["recall_by_volume"]
    head = "".join(f"<th>{escape(name)} calls</th>" for name in by)
    rows = "".join(
        f"<tr><td>{escape(n)}</td>" + "".join(f"<td>{_number(each.get(n))}</td>" for each in by.values()) + "</tr>"
        for n in found["recall"]
    )
    return f"<details><summary>by volume of the key</summary><table><tr><th></th>{head}</tr>{rows}</table></details>"


def _beside(found: dict[str, Any]) -> str:
    """What is reported beside the 16."""
    said = "; ".join(
        f"<b>{escape(n)}</b> {ranged(v['recall'], 2)} (without it {ranged(v['without'], 2)})"
        for n, v in found["variants"].items()
    )
    return f"<p class=note>Off-hours use from the owner's own address, with more than hour and volume: {said}.</p>"


def _strength(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "<td></td>" * 5
    told, ours = cell["relative"], cell["relative"]["ours"]
    share = f"{ours['mean']:.2f}" if ours["n"] else "-"
    return (f"<td>{cell['mean']:.2f}</td><td>{cell['bits']:.0f}</td><td>{cell['calls']:.0f}</td>"
            f"<td>{told['oracle']['mean']:.2f}</td><td>{share}</td>")  # fmt: skip


def _innocents(found: dict[str, Any], declared: dict[str, Any]) -> str:
    rows = [(n, v["mean"], v["low"], v["high"], None) for n, v in found["intervals"]["innocent_rate"].items()]
    acted = {n: c for n, c in found["acted_on_innocent"].items() if c}
    said = "; ".join(f"<b>{escape(n)}</b>: {escape(t)}" for n, t in declared["innocents"].items())
    return (
        "<h2>Innocent but tricky: share of placements listed</h2>" + bars(rows, {"aim .02": 0.02})
        + "<p class=note>Would have been acted on (two families, strong given each other): "
        + f"{_tally(acted) or 'none'}. {said}.</p>"
    )  # fmt: skip


def _budgets(found: dict[str, Any]) -> str:
    """Nominal against observed rates; recall by strength and budget."""
    budgets, by_bits = sorted(found["recall_at"], key=int), found["recall_by_strength"]
    head = "".join(f"<th>{b}</th>" for b in budgets)
    rates = "".join(f"<td>{ranged(found['untouched_at'][b], 0)}</td>" for b in budgets)
    columns = [(bits, budget) for bits in by_bits for budget in budgets]
    crossed = "".join(f"<th>{bits} bits at {budget}</th>" for bits, budget in columns)
    rows = "".join(
        f"<tr><td>{escape(n)}</td>" + "".join(f"<td>{_small(by_bits[b].get(n, {}).get('at', {}).get(at))}</td>"
                                              for b, at in columns) + "</tr>"
        for n in found["recall"]
    )  # fmt: skip
    macro = "".join(f"<td>{_small(found['macro_by_strength'][b][at])}</td>" for b, at in columns)
    return (
        "<h2>Budgets</h2><p class=note>10 is page grade, 100 what is listed; 1,000 comes from a second run whose"
        f" threshold is a tenth.</p><table><tr><th>nominal incidents per 100,000 key-days</th>{head}</tr>"
        f"<tr><td>on untouched keys</td>{rates}</tr></table><div class=wide><table><tr><th>recall by strength and"
        f" budget</th>{crossed}</tr>{rows}<tr><td>macro</td>{macro}</tr></table></div>"
    )


def _small(each: dict[str, Any] | None) -> str:
    """A figure above its interval."""
    return f"{each['mean']:.2f}<br><small>{each['low']:.2f}-{each['high']:.2f}</small>" if each else ""


def _baselines(found: dict[str, Any]) -> str:
    row = "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.3f}</td><td>{:.3f}</td></tr>"
    ranges, leads = found["baseline_intervals"], found["lead_over_baselines"]
    innocent = found["baselines_innocent"]
    quiet, theirs = found["ours_at_budget"]["interval"], found["baselines_at_our_rate"]
    ours = (ranged(quiet), "", found["ours_at_budget_innocent"]["macro"], found["macro_recall"])
    rows = row.format("keywatch", *ours) + "".join(
        row.format(escape(n), ranged(ranges[n]), ranged(leads[n]), innocent[n]["macro"], theirs[n]["macro"])
        for n in found["baselines"]
    )
    ablation = "".join(
        f"<tr><td>{escape(n)}</td><td>{ranged(v['interval'])}</td><td>{ranged(v['lost'])}</td>"
        f"<td>{_number(v.get('incidents_per_100k_key_days'))}</td></tr>"
        for n, v in found["ablation"].items()
    )
    return (
        "<h2>Against what others do, and without each part</h2>"
        "<div class=wide><table><tr><th>rule</th><th>macro recall at 100 on these keys</th><th>ours is better by</th>"
        "<th>innocent scenarios listed there</th>"
        f"<th>macro recall at the rate Keywatch's shipped threshold has</th></tr>{rows}</table></div><p class=note>All"
        " thresholds but the last column's see the traffic they are judged on; that is as shipped. What ours is"
        " better by, and what an ablation loses, is of the same placements.</p>"
        "<table><tr><th>ablation</th><th>macro recall</th><th>lost</th><th>incidents per 100,000</th></tr>"
        f"{ablation}</table>"
    )


def _calibration(found: dict[str, Any]) -> str:
    rows = found["calibration"]
    body = "".join(
        f"<tr><td>{r['nominal_days']:,.0f}</td><td>{_number(r['observed_days'])}</td><td>{r['ratio']:.2f}"
        f" [{r['low']:.2f}-{r['high']:.2f}]</td><td>{r['incidents']:.0f}</td></tr>" for r in rows
    )  # fmt: skip
    return (
        "<h2>Calibration: how often what is called that rare happens</h2>" + scatter(rows)
        + "<table><tr><th>said: once in key-days</th><th>seen</th><th>times as often as said</th>"
        "<th>incidents</th></tr>"
        + body + "</table>"
    )  # fmt: skip


def _twins(found: dict[str, Any]) -> str:
    pairs = found["twin_intervals"].items()
    rows = "".join(f"<tr><td>{escape(n)}</td><td>{ranged(v, 2)}</td></tr>" for n, v in pairs)
    return f"<h2>Twins: attack against its innocent look-alike, pair AUC of the rarest score</h2><table>{rows}</table>"


def _reasons(found: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(n)}</td><td>{v['mean']:.2f}</td><td>{_tally(found['first_reasons'][n])}</td>"
        + "".join(
            f"<td>{_number(found['delay'][n].get(of))}</td>" for of in ("p50_s", "p95_s", "p50_events", "p95_events")
        )
        + f"<td>{_number(found['delay'][n].get('within_5_events_or_10_s'))}</td></tr>"
        for n, v in found["reasons"].items()
    )
    return (
        "<h2>Reasons and delays of what was caught</h2>"
        "<table><tr><th>attack</th><th>right first</th><th>named first</th>"
        f"<th>median s</th><th>95 % s</th><th>median calls</th><th>95 % calls</th><th>within 5 calls or 10 s</th></tr>"
        f"{rows}</table>"
        f"<p class=note>Named first on untouched keys: {_tally(found['untouched_reasons'])}.</p>"
    )


def _audit(found: dict[str, Any]) -> str:
    every = [
        (v["auc"], v["low"], v["high"], f"{n}.{f}") for n, by in found["leak_audit"].items() for f, v in by.items()
    ]
    said = ", ".join(f"{escape(n)} {area:.2f} [{low:.2f}-{high:.2f}]" for area, low, high, n in sorted(every)[::-1][:8])
    return (
        "<h2>Leak audit</h2><p class=note>AUC of a single field that the scenario is not about, of one planted against"
        f" one innocent call. {escape(_leaks(found['leak_audit_max']))}. The largest: {said or 'none'}. What a scenario"
        " does not name (routes, statuses, sizes, objects) is drawn as the key's own calls are; recorded attacks give"
        " the pace, and the sensitivity where routes are named.</p>"
    )


def _precision(found: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{r['keys']:,}</td><td>{r['attacked_a_year']:g}</td><td>{r['incidents_a_day']:.1f}"
        f" [{r['incidents_a_day_low']:.1f}-{r['incidents_a_day_high']:.1f}]</td>"
        f"<td>{r['precision']:.4f} [{r['low']:.4f}-{r['high']:.4f}]</td></tr>" for r in found["precision"]
    )  # fmt: skip
    head = "<tr><th>keys</th><th>attacked a year</th><th>incidents a day</th><th>precision</th></tr>"
    return f"<h2>What a team would see</h2><table>{head}{rows}</table>"


def _real(found: dict[str, Any]) -> str:
    apache, windows = found["real_logs"]["apache"], found["real_logs"]["invictus"]
    return (
        "<h2>Unmodified real logs</h2><p class=note>Apache log, a key being an address, false alarms only:"
        f" {apache['incidents']} in {apache['key_days']:,.0f} key-days of {apache['keys']:,} keys, per 100,000"
        f" {apache['per_100k_key_days']:.0f} [{apache['low']:.0f}-{apache['high']:.0f}].<br>invictus by ten-minute"
        f" windows, no history before: {windows['alarmed_of_them']} of {windows['attacked_windows']} attacked ones"
        f" alarmed, {windows['alarmed_innocent']} of {windows['innocent_windows']} others.</p>"
    )


def _ramp(found: dict[str, Any]) -> str:
    gains = ", ".join(_gain(found["ramp"], days) for days in found["ramp"]["gain"])
    rows = "".join(
        f"<tr><td>{escape(n)}</td><td>{'never' if v['seen_day'] is None else v['seen_day']}</td>"
        f"<td>{v['gain']:.1f}</td></tr>"
        for n, v in found["ramp"]["by_growth"].items()
    )
    return (
        f"<h2>A patient ramp</h2><p class=note>Largest undetected multiple of the owner's traffic: {gains}.</p>"
        "<details><summary>by growth and traffic</summary><table><tr><th>attacker</th><th>seen on day</th>"
        f"<th>multiple until then</th></tr>{rows}</table></details>"
    )
