"""What the bench tells: every key of the contract, ratios within a repetition, aims that can be missed."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from pipeline.bench import peers, profile, scaling
from pipeline.bench.latency import Latency
from pipeline.bench.report import AIMS, Aim, Found, over, report, show
from pipeline.bench.trial import median_of
from pipeline.errors import ConfigError
from pipeline.runners.bench import PARTS, parts_of

CONTRACT = (
    "ceiling_eps", "worker_eps", "faust_eps", "quix_eps", "bytewax_eps", "river_eps", "ns", "bytes_per_key",
    "latency_p50_ms", "latency_p99_ms", "scaling",
)  # fmt: skip


def found() -> Found:
    made = Found(start_s=[4.0, 6.0, 5.0], rows_per_event=[1.5], key_minutes_per_event=0.25)
    made.rates |= {
        "ceiling_eps": [100.0, 50.0, 80.0], "worker_eps": [40.0, 30.0, 40.0], "one_worker_eps": [40.0, 30.0, 40.0],
        "two_workers_eps": [60.0, None, 76.0],
        "one_pinned_eps": [30.0, 20.0, 30.0], "two_pinned_eps": [57.0, 38.0, 54.0],
        "quix_eps": [10.0, 5.0, 10.0],
    }  # fmt: skip
    made.latency |= {
        "half": Latency(20.0, 20.0, 200.0, 300.0, 400, 0, 1.0), "most": Latency(36.0, 90.0, None, None, 390, 10, 1.0),
        "hot": Latency(20.0, 20.0, 220.0, 300.0, 400, 0, 1.0),
    }  # fmt: skip
    return made


def test_every_key_of_the_contract_is_there_also_where_nothing_was_measured() -> None:
    empty = report(Found(), {})
    assert all(key in empty for key in CONTRACT)
    assert all(empty[key] is None for key in CONTRACT if key != "scaling")
    assert empty["scaling"] == {"1": None, "2": None}
    assert set(empty["aims"].values()) == {"not measured"}


def test_ratios_are_taken_within_a_repetition_and_their_median_is_told() -> None:
    told = report(found(), {"events": 9})
    assert told["worker_eps"] == 40
    assert told["ratios"]["worker_over_ceiling"] == 0.5  # of 0.4, 0.6, 0.5
    assert told["ratios"]["two_workers_over_one"] == 1.7  # of 1.5 and 1.9
    assert told["ratios"]["two_pinned_over_one"] == 1.9  # of 1.9, 1.9 and 1.8
    assert told["ratios"]["worker_over_faust"] is None
    assert told["scaling"] == {"1": 40, "2": 68}
    assert told["spread"]["worker_eps"] == [30, 40]
    assert told["key_minutes_per_s"] == 10
    assert told["latency_p99_ms"] == 200.0


def test_aims_are_told_as_reached_or_not() -> None:
    aims = report(found(), {})["aims"]
    assert aims["worker_over_ceiling"] == "reached"
    assert aims["worker_over_quix"] == "not reached"
    assert aims["latency_p99_half_ms"] == "reached"
    assert aims["latency_p99_most_ms"] == "not reached"  # incidents never came
    assert aims["hot_key_over_half"] == "reached"
    assert aims["start_s"] == "reached"


def test_incidents_that_never_came_miss_the_aim_of_latency() -> None:
    made = found()
    made.latency["half"] = Latency(20.0, 20.0, None, None, 390, 10, 1.0)
    assert report(made, {})["aims"]["latency_p99_half_ms"] == "not reached"


def test_what_all_processors_could_do_at_the_price_of_an_event_bounds_what_two_workers_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    made = found()
    made.rates["one_worker_eps"] = [40_000.0]
    made.spent["1"] = [{"workers": 20.0, "broker": 4.0, "clickhouse": 9.0}, {"workers": 18.0, "clickhouse": 7.0}]
    told = report(made, {})
    assert told["scaling_cpu_us"] == {"1": {"workers": 19.0, "broker": 4.0, "clickhouse": 8.0}, "2": {}}
    assert told["ratios"]["two_workers_at_most"] == round(2e6 / 31.0 / 40_000, 2)


def test_an_aim_that_is_just_met_is_reached() -> None:
    assert Aim("x", "", 5.0).verdict(5.0) == "reached"
    assert Aim("x", "", 5.0).verdict(4.99) == "not reached"
    assert Aim("x", "", 5.0, at_least=False).verdict(5.01) == "not reached"


def test_the_table_shows_figures_aims_and_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.bench.report.installed", lambda peer: peer.key != "bytewax_eps")
    out = StringIO()
    made = found()
    made.failed["faust_eps"] = "plain_agent ended with code 1"
    show(report(made, {"events": 9}), Console(file=out, width=200))
    text = out.getvalue()
    assert "no wheel for 3.13" in text
    assert "faust_eps failed: plain_agent ended with code 1" in text
    assert all(aim.words in text for aim in AIMS)
    assert text.count("not reached") >= 1
    assert "390 incidents, 10 missing" in text


def test_a_ratio_needs_both_sides() -> None:
    assert over([1.0, 2.0], []) is None
    assert over([None, 2.0], [1.0, 4.0]) == 0.5
    assert median_of([None, 3.0, 1.0]) == 2.0


def test_a_pinned_worker_has_one_processor_and_we_keep_ours() -> None:
    tell = "import os, sys; sys.stdin.readline(); print(os.sched_getaffinity(0))"
    child = subprocess.Popen([sys.executable, "-c", tell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    mine = os.sched_getaffinity(0)
    scaling.pin(child.pid, 0)
    assert child.communicate("go\n", timeout=20)[0].splitlines()[0] == str({min(mine)})
    assert os.sched_getaffinity(0) == mine
    assert scaling.can_pin(1)
    assert not scaling.can_pin(100_000)


def test_scaling_counts_only_the_time_in_which_all_work() -> None:
    counts = [(0, 0), (100, 0), (200, 100), (300, 200), (400, 300), (450, 400), (450, 550)]
    samples = [scaling.Sample(at, each, {"workers": 0.02 * at}) for at, each in enumerate(counts)]
    told = scaling.rate(samples, 1_000)
    assert told is not None
    assert told.per_s == pytest.approx(200.0)  # from 2 s to 4 s, not the tail of one
    assert told.cpu_us == {"workers": 100.0}  # 0.04 s for the 400 events of that while
    assert scaling.rate(samples[:3], 1_000) is None


def test_unknown_parts_are_refused_and_rates_are_always_measured() -> None:
    assert parts_of("") == PARTS
    assert parts_of("latency") == ("rates", "latency")
    with pytest.raises(ConfigError, match="no part speed"):
        parts_of("speed")


def test_a_profile_is_told_by_thread_under_the_innermost_function_of_ours() -> None:
    told = profile.by_thread(
        [
            "thread (0x7F1): core;run (threading.py);process (pipeline/flow.py);decode (msgspec/__init__.py) 6",
            "thread (0x7F1): core;run (threading.py);process (pipeline/flow.py);sorted (enum.py) 2",
            "thread (0x7F2): MainThread;run (asyncio/base_events.py);_run (asyncio/events.py) 2",
            "thread (0x7F2): MainThread;run (asyncio/base_events.py);select (selectors.py) 90",
            "thread (0x7F3): pages_0;run (threading.py:982);_worker (concurrent/futures/thread.py:81) 90",
            "",
        ]
    )
    assert list(told) == ["core", "MainThread"]
    assert told["core"] == {
        "share": 0.8, "functions": {"msgspec/__init__.py:decode": 0.6, "pipeline/flow.py:process": 0.2},
    }  # fmt: skip
    assert told["MainThread"]["functions"] == {"_run (asyncio/events.py)": 0.2}


def test_without_py_spy_the_profile_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"py-spy is not installed: pip install .*keywatch\[bench\]"):
        profile.program()
    assert peers.INSTALL in peers.PEERS[2].install
