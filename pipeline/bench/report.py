"""What a run found: the JSON object, the aims beside the figures, and the table for people.

Keys that were not measured (a peer that is not installed, a part that was left out) are there and null.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from pipeline.bench.latency import Latency
from pipeline.bench.peers import PEERS, installed
from pipeline.bench.trial import median_of

RATES: Final = {
    "ceiling_eps": "consume + decode alone",
    "worker_eps": "whole worker",
    "one_worker_eps": "one worker, ClickHouse elsewhere",
    "two_workers_eps": "two workers, ClickHouse elsewhere",
    "one_pinned_eps": "one worker on one processor",
    "two_pinned_eps": "two workers on one processor each",
    **{peer.key: peer.words for peer in PEERS},
}


@dataclass(slots=True)
class Found:
    """Everything that was measured, one of each per repetition where it is a list."""

    rates: dict[str, list[float | None]] = field(default_factory=lambda: {key: [] for key in RATES})
    cpu_us: dict[str, list[float | None]] = field(default_factory=dict)  # of the process, per event
    spent: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {"1": [], "2": []})  # by workers: us
    sustained_eps: float | None = None
    start_s: list[float] = field(default_factory=list)
    rows_per_event: list[float] = field(default_factory=list)
    key_minutes_per_event: float = 0.0
    ns: dict[str, float] | None = None
    bytes_per_key: float | None = None
    failed: dict[str, str] = field(default_factory=dict)  # part -> why
    latency: dict[str, Latency] = field(default_factory=dict)  # by name of the load


@dataclass(frozen=True, slots=True)
class Aim:
    """`figure` is a key of `ratios`; reached where it is at least (at most) `wanted`."""

    figure: str
    words: str
    wanted: float
    at_least: bool = True
    unit: str = ""

    def verdict(self, value: float | None) -> str:
        """reached, not reached, or not measured."""
        if value is None:
            return "not measured"
        return "reached" if (value >= self.wanted if self.at_least else value <= self.wanted) else "not reached"


WORDS: Final = {"half": "at half load", "most": "at 90 %", "hot": "at half load, one key of 30 %"}
"""Of what is sustained while events are produced."""
AIMS: Final = (
    Aim("worker_over_ceiling", "worker / consume + decode", 0.5),
    Aim("worker_over_faust", "worker / plain Faust", 40.0),
    Aim("worker_over_quix", "worker / Quix Streams", 5.0),
    Aim("worker_over_bytewax", "worker / Bytewax", 5.0),
    Aim("two_workers_over_one", "two workers / one", 1.8),
    Aim("latency_p99_1000_ms", "event to incident, p99 at 1,000/s", 250.0, False, " ms"),
    Aim("latency_p99_5000_ms", "event to incident, p99 at 5,000/s", 250.0, False, " ms"),
    Aim("latency_p99_half_ms", "event to incident, p99 at half load", 250.0, False, " ms"),
    Aim("latency_p99_most_ms", "event to incident, p99 at 90 %", 1000.0, False, " ms"),
    Aim("hot_key_over_half", "the same with a key of 30 %, p99 / p99", 1.5, False),
    Aim("start_s", "start to first event", 10.0, False, " s"),
)


def over(ones: Sequence[float | None], others: Sequence[float | None]) -> float | None:
    """Median of the ratios within each repetition: what the machine did meanwhile cancels out."""
    pairs = zip(ones, others, strict=False)
    return _round(median_of([a / b if a and b else None for a, b in pairs]), 3)


def report(found: Found, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All figures and what they were measured with."""
    rates = {key: _round(median_of(values)) for key, values in found.rates.items()}
    half, most = found.latency.get("half"), found.latency.get("most")
    worker = rates["worker_eps"]
    one, two = rates.pop("one_worker_eps"), rates.pop("two_workers_eps")
    return {
        **rates,
        "cpu_us": {key: _round(median_of(found.cpu_us.get(key, ())), 2) for key in found.rates},
        "scaling_cpu_us": {workers: medians(each) for workers, each in found.spent.items()},
        "sustained_eps": _round(found.sustained_eps),
        "ns": found.ns,
        "bytes_per_key": _round(found.bytes_per_key, 1),
        "latency_p50_ms": half.p50_ms if half else None,
        "latency_p99_ms": half.p99_ms if half else None,
        "latency_ms": half.steps_ms if half else None,
        "latency_p50_90_ms": most.p50_ms if most else None,
        "latency_p99_90_ms": most.p99_ms if most else None,
        "latency": dict(found.latency),
        "scaling": {"1": one, "2": two},
        "ratios": {key: None if value == inf else value for key, value in ratios(found).items()},
        "spread": {key: _spread(values) for key, values in found.rates.items()},
        "rows_per_event": _round(median_of(found.rows_per_event), 2),
        "key_minutes_per_s": _round(worker * found.key_minutes_per_event) if worker else None,
        "aims": {aim.figure: aim.verdict(ratios(found)[aim.figure]) for aim in AIMS},
        "missing": {peer.key: peer.install for peer in PEERS if not installed(peer)},
        "failed": found.failed,
        "parameters": dict(parameters),
    }


def ratios(found: Found) -> dict[str, float | None]:
    """What the aims are about; endless where incidents never came."""
    rates, half, most, hot = found.rates, *(found.latency.get(name) for name in ("half", "most", "hot"))
    p99, hot_p99 = _p99(half), _p99(hot)
    return {
        "worker_over_ceiling": over(rates["worker_eps"], rates["ceiling_eps"]),
        "worker_over_faust": over(rates["worker_eps"], rates["faust_eps"]),
        "worker_over_quix": over(rates["worker_eps"], rates["quix_eps"]),
        "worker_over_bytewax": over(rates["worker_eps"], rates["bytewax_eps"]),
        "worker_over_river": over(rates["worker_eps"], rates["river_eps"]),
        "two_workers_over_one": over(rates["two_workers_eps"], rates["one_worker_eps"]),
        "two_pinned_over_one": over(rates["two_pinned_eps"], rates["one_pinned_eps"]),
        "two_workers_at_most": at_most(medians(found.spent["1"]), median_of(rates["one_worker_eps"])),
        "latency_p99_1000_ms": _p99(found.latency.get("1,000/s")),
        "latency_p99_5000_ms": _p99(found.latency.get("5,000/s")),
        "latency_p99_half_ms": p99,
        "latency_p99_most_ms": _p99(most),
        "hot_key_over_half": _round(hot_p99 / p99, 2) if hot_p99 and p99 and p99 < inf else None,
        "start_s": _round(median_of(found.start_s), 2),
    }


def medians(spent: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each process' microseconds per event over the repetitions."""
    names = dict.fromkeys(name for each in spent for name in each)
    return {name: _round(median_of([each.get(name) for each in spent]), 2) or 0.0 for name in names}


def at_most(spent: Mapping[str, float], per_s: float | None) -> float | None:
    """Times the rate of one worker that all processors of this machine together could do at the same us per event."""
    total_us = sum(spent.values())
    return _round((os.cpu_count() or 1) * 1e6 / total_us / per_s, 2) if total_us and per_s else None


def _p99(latency: Latency | None) -> float | None:
    if latency is None:
        return None
    return inf if latency.p99_ms is None else latency.p99_ms


def _round(value: float | None, digits: int | None = None) -> float | None:
    return None if value is None else round(value, digits)


def _spread(values: Sequence[float | None]) -> list[int] | None:
    kept = [round(value) for value in values if value is not None]
    return [min(kept), max(kept)] if kept else None


def show(result: Mapping[str, Any], console: Console) -> None:
    """The report for people."""
    console.print(_rates(result))
    console.print(_aims(result))
    for workers, spent in result["scaling_cpu_us"].items():
        if spent:
            console.print(f"processor us per event, {workers} worker(s): {_listed(spent)}")
    if (pinned := result["ratios"]["two_pinned_over_one"]) is not None:
        console.print(f"on one processor each: two workers / one {pinned}")
    if result["ratios"]["two_workers_at_most"] is not None:
        console.print(f"all processors at that price: {result['ratios']['two_workers_at_most']} x one worker at most")
    if result["sustained_eps"] is not None:
        console.print(f"sustained beside a live producer: {result['sustained_eps']:,}/s")
    for name, latency in result["latency"].items():
        _show_latency(WORDS.get(name, f"at {name}"), latency, console)
    if result["ns"] is not None:
        console.print("ns per event: " + ", ".join(f"{step} {ns:,.0f}" for step, ns in result["ns"].items()))
        console.print(f"state: {result['bytes_per_key']:,} bytes per key")
    if result["rows_per_event"] is not None:
        console.print(f"{result['rows_per_event']} rows per event, {result['key_minutes_per_s']:,} key-minutes/s")
    for part, why in result["failed"].items():
        console.print(f"{part} failed: {why}")
    console.print("measured with: " + ", ".join(f"{name} {value}" for name, value in result["parameters"].items()))


def _show_latency(words: str, latency: Latency, console: Console) -> None:
    console.print(
        f"event to incident {words} ({latency.per_s:,.0f}/s): p50 {latency.p50_ms} ms, p99 {latency.p99_ms} ms,"
        f" worst {latency.worst_ms} ms, {latency.incidents} incidents, {latency.missing} missing"
    )
    console.print(
        "  p50 / p99 at most, ms: " + _listed({k: "{p50} / {p99}".format(**v) for k, v in latency.steps_ms.items()})
    )
    console.print(f"  99 of 100, ms: {_listed(latency.stages_p99_ms)}; processors: {_listed(latency.cpu)}")


def _listed(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _rates(result: Mapping[str, Any]) -> Table:
    table = Table("", "events/s", "lowest - highest", "processor us", box=None)
    figures = {**result, "one_worker_eps": result["scaling"]["1"], "two_workers_eps": result["scaling"]["2"]}
    for key, words in RATES.items():
        spread = result["spread"][key]
        if spread is None:
            table.add_row(words, "-", result["missing"].get(key, "not measured"))
        else:
            table.add_row(
                words, f"{figures[key]:,}", f"{spread[0]:,} - {spread[1]:,}", str(result["cpu_us"][key] or "-")
            )
    return table


def _aims(result: Mapping[str, Any]) -> Table:
    table = Table("", "figure", "aim", "", box=None)
    for aim in AIMS:
        value = result["ratios"][aim.figure]
        sign = ">=" if aim.at_least else "<="
        shown = "-" if value is None else f"{value:,}{aim.unit}"
        table.add_row(aim.words, shown, f"{sign} {aim.wanted:g}{aim.unit}", result["aims"][aim.figure])
    return table
