"""River's streaming statistics and scorer are the reference where one of ours does the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from river import anomaly, stats

from detectors import log_sizes
from detectors.records import records

pytestmark = pytest.mark.timeout(900)


def law_of(sizes: list[float]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    law = records(np.zeros(1, log_sizes.LAW))
    for size in sizes:
        log_sizes.learn_size(law[0], size)
    return law


def test_a_law_learns_the_mean_and_variance_that_river_does() -> None:
    sizes = np.random.default_rng(3).lognormal(8.0, 0.7, 90).tolist()
    mean, variance = stats.Mean(), stats.Var()
    for size in sizes:
        mean.update(math.log(size))
        variance.update(math.log(size))
    law = law_of(sizes)[0]
    assert float(law["mean"]) == pytest.approx(mean.get(), abs=0.05)
    assert float(law["variance"]) == pytest.approx(variance.get(), rel=0.15)


def test_its_bits_are_those_of_rivers_gaussian_scorer_but_for_the_heavier_tail() -> None:
    sizes = np.random.default_rng(4).lognormal(8.0, 0.7, 100).tolist()
    scorer = anomaly.GaussianScorer(grace_period=1)
    for size in sizes:
        scorer.learn_one(None, math.log(size))
    law = law_of(sizes)
    for deviations in (1.0, 1.5, 2.0, 2.5):
        size = log_sizes.usual(law[0], deviations)
        two_sided = 1.0 - scorer.score_one(None, math.log(size))
        theirs = -math.log2(two_sided / 2.0)
        ours = log_sizes.size_bits(law[0], size)
        assert theirs - 2.5 < ours <= theirs + 0.5, deviations
