"""Intervals over keys: wide where few keys say it all, and the figures are the plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation import bootstrap, measures
from pipeline.evaluation.bootstrap import Valued
from pipeline.evaluation.run import Opened, Outcome


def test_a_macro_mean_weighs_groups_equally_and_its_interval_holds_it() -> None:
    first = Valued(list(range(40)), [1.0, 0.0] * 20)
    second = Valued(list(range(10)), [1.0] * 10)
    told = bootstrap.macro([first, second, Valued([], [])])
    assert told["mean"] == pytest.approx(0.75)
    assert told["low"] < 0.75 < told["high"]
    assert told["high"] - told["low"] < 0.25


def test_what_one_key_says_often_is_no_surer_than_what_it_says_once() -> None:
    once = bootstrap.macro([Valued(list(range(10)), [1.0, 0.0] * 5)])
    often = bootstrap.macro([Valued(list(range(10)) * 50, [1.0, 0.0] * 250)])
    apart = bootstrap.macro([Valued(list(range(500)), [1.0, 0.0] * 250)])
    assert (often["low"], often["high"]) == (once["low"], once["high"])
    assert apart["high"] - apart["low"] < 0.3 * (often["high"] - often["low"])


def test_an_area_is_that_by_ranks_and_has_an_interval() -> None:
    rng = np.random.default_rng(2)
    positive, negative = rng.integers(2, 8, 60).astype(float).tolist(), rng.integers(0, 6, 60).astype(float).tolist()
    told = bootstrap.area(Valued(list(range(60)), positive), Valued(list(range(60)), negative))
    assert told["mean"] == pytest.approx(measures.auc(positive, negative))
    assert told["low"] < told["mean"] < told["high"]
    assert bootstrap.area(Valued([], []), Valued([1], [1.0]))["mean"] == 0.5


def test_a_percentile_has_an_interval_of_values_that_were_seen() -> None:
    told = bootstrap.percentile(Valued(list(range(101)), [float(i) for i in range(101)]), 50)
    assert told["mean"] == 50.0
    assert told["low"] is not None and told["high"] is not None
    assert 30 < told["low"] < 50 < told["high"] < 70
    assert bootstrap.percentile(Valued([], []), 50)["mean"] is None


def test_calibration_is_unsurer_where_one_key_has_all_incidents() -> None:
    def outcome(keys: list[int]) -> Outcome:
        opened = [Opened(-1, key, 0, 2_000.0, False, "spike", False, 0) for key in keys]
        return Outcome(keys=100, key_days=10_000.0, untouched=opened)

    clustered, spread = (measures.calibration([outcome(keys)])[0] for keys in ([7] * 10, list(range(10))))
    assert clustered["ratio"] == spread["ratio"] == pytest.approx(1.0)
    assert clustered["low"] == 0.0 < spread["low"]
    assert clustered["high"] > 1.5 * spread["high"]
    assert measures.calibration([outcome([])])[0]["high"] == pytest.approx(0.3)
