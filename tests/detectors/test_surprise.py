"""detectors/surprise.py against exact sums, its properties, and compiled against plain Python to the bit."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import surprise

COUNT = st.integers(1, 5000)
MEAN = st.floats(1e-4, 1e4)
SIZE = st.floats(0.02, 1e9)
RELATIVE = 1e-7  # of tails, as the module promises


def exact_negative_binomial(n: int, mean: Fraction, size: int) -> tuple[float, float]:
    """(P(N >= n), P(N = n)) by exact fractions; whole sizes only."""
    x = mean / (mean + size)
    point = (1 - x) ** size
    below = Fraction(0)
    for i in range(n):
        below += point
        point *= x * (size + i) / (i + 1)
    return float(1 - below), float(point)


def exact_poisson(n: int, mean: int) -> tuple[float, float]:
    """(P(N >= n), P(N = n)) with 60 digits."""
    with localcontext() as context:
        context.prec = 120
        point = (-Decimal(mean)).exp()
        below = Decimal(0)
        for i in range(n):
            below += point
            point *= Decimal(mean) / (i + 1)
        return float(1 - below), float(point)


@pytest.mark.parametrize("n", [1, 2, 7, 30, 120])
@pytest.mark.parametrize("mean", [Fraction(1, 20), Fraction(3), Fraction(50)])
@pytest.mark.parametrize("size", [1, 4, 30, 1000])
def test_the_negative_binomial_agrees_with_exact_fractions(n: int, mean: Fraction, size: int) -> None:
    tail, point = exact_negative_binomial(n, mean, size)
    assert surprise.negative_binomial_tail(n, float(mean), float(size)) == pytest.approx(tail, rel=RELATIVE, abs=1e-300)
    log_point = surprise.log_negative_binomial(n, float(mean), float(size))
    assert math.exp(log_point) == pytest.approx(point, rel=RELATIVE)


@pytest.mark.parametrize(("n", "mean"), [(1, 3), (5, 3), (40, 3), (90, 100), (101, 100), (250, 100)])
def test_the_poisson_tail_agrees_with_a_hundred_digits(n: int, mean: int) -> None:
    tail, point = exact_poisson(n, mean)
    assert surprise.poisson_tail(n, float(mean)) == pytest.approx(tail, rel=RELATIVE)
    assert math.exp(surprise.log_negative_binomial(n, float(mean), 1e9)) == pytest.approx(point, rel=RELATIVE)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 170])
def test_log_gamma_agrees_with_factorials_and_the_root_of_pi(n: int) -> None:
    assert surprise.log_gamma(float(n)) == pytest.approx(math.log(math.factorial(n - 1)), rel=1e-14, abs=1e-14)
    half = math.factorial(2 * n) / (4**n * math.factorial(n)) * math.sqrt(math.pi)
    assert surprise.log_gamma(n + 0.5) == pytest.approx(math.log(half), rel=1e-13, abs=1e-14)


@given(st.floats(1e-3, 1e7))
def test_log_gamma_agrees_with_the_platform_to_thirteen_digits(x: float) -> None:
    assert surprise.log_gamma(x) == pytest.approx(math.lgamma(x), rel=1e-13, abs=1e-13)


@pytest.mark.parametrize(
    ("t", "freedom", "tail"),
    [  # closed forms: Cauchy is freedom 1; freedom 2 is 1/2 - t/(2 sqrt(2 + t^2)); freedom 3 by arctan
        (1.0, 1.0, 0.25),
        (3.0, 2.0, 0.5 - 3 / (2 * math.sqrt(11))),
        (-3.0, 2.0, 0.5 + 3 / (2 * math.sqrt(11))),
        (40.0, 2.0, 0.5 - 40 / (2 * math.sqrt(1602))),
        (0.0, 17.0, 0.5),
        (2.0, 3.0, 0.5 - (math.atan(2 / math.sqrt(3)) + (2 / math.sqrt(3)) / (1 + 4 / 3)) / math.pi),
    ],
)
def test_student_tails_agree_with_their_closed_forms(t: float, freedom: float, tail: float) -> None:
    assert surprise.student_tail(t, freedom) == pytest.approx(tail, rel=1e-8)


@pytest.mark.parametrize("freedom", [2.0, 4.0, 12.0, 30.0])
def test_the_density_of_student_is_the_slope_of_its_tail(freedom: float) -> None:
    for t in (-2.0, 0.3, 5.0):
        slope = (surprise.student_tail(t - 1e-4, freedom) - surprise.student_tail(t + 1e-4, freedom)) / 2e-4
        assert surprise.student_density(t, freedom) == pytest.approx(slope, rel=5e-3)


def test_the_beta_binomial_agrees_with_exact_fractions() -> None:
    def rising(x: Fraction, n: int) -> Fraction:
        return math.prod((x + i for i in range(n)), start=Fraction(1))

    a, b, n = Fraction(1, 2), Fraction(3), 20
    points = [math.comb(n, k) * rising(a, k) * rising(b, n - k) / rising(a + b, n) for k in range(n + 1)]
    for k in (0, 1, 5, 20):
        assert surprise.beta_binomial_tail(k, n, 0.5, 3.0) == pytest.approx(float(sum(points[k:])), rel=1e-11)
    assert surprise.beta_binomial_tail(21, n, 0.5, 3.0) == 0.0


@given(COUNT, MEAN, SIZE)
def test_tails_are_probabilities_that_fall_with_the_count_and_rise_with_the_mean(
    n: int, mean: float, size: float
) -> None:
    tail = surprise.negative_binomial_tail(n, mean, size)
    assert 0.0 <= tail <= 1.0 + 1e-12
    assert surprise.negative_binomial_tail(n + 1, mean, size) <= tail * (1 + RELATIVE) + 1e-12
    assert surprise.negative_binomial_tail(n, mean * 1.1, size) >= tail * (1 - RELATIVE) - 1e-12


@given(COUNT, MEAN, SIZE)
def test_a_tail_is_the_sum_of_its_first_point_and_the_rest(n: int, mean: float, size: float) -> None:
    point = math.exp(surprise.log_negative_binomial(n, mean, size))
    rest = surprise.negative_binomial_tail(n + 1, mean, size)
    tail = surprise.negative_binomial_tail(n, mean, size)
    assert tail - rest == pytest.approx(point, rel=1e-4, abs=1e-9)


@given(st.floats(-100, 100), st.floats(2, 30))
def test_student_tails_are_symmetric_and_within_bounds(t: float, freedom: float) -> None:
    tail = surprise.student_tail(t, freedom)
    assert 0.0 <= tail <= 1.0
    assert tail + surprise.student_tail(-t, freedom) == pytest.approx(1.0, abs=1e-12)


@given(st.floats(allow_nan=False))
def test_bits_are_within_bounds_for_any_probability(probability: float) -> None:
    assert 0.0 <= surprise.bits_of(probability) <= surprise.BITS_MAX


def test_bits_are_the_logarithm_and_rounding_is_to_a_64th() -> None:
    assert surprise.bits_of(0.125) == pytest.approx(3.0)
    assert surprise.bits_of(0.0) == surprise.BITS_MAX
    assert surprise.quantise(1.0 + 1 / 128) == 1.0 + 1 / 64
    assert surprise.quantise(surprise.bits_of(0.3)) * 64 % 1 == 0
    assert surprise.mid_p(0.3, 0.2) == pytest.approx(0.2)
    assert surprise.halved(3.0) == pytest.approx(0.125)
    assert surprise.log2_of(8.0) == pytest.approx(3.0)


PROBE = """
import random, json
from detectors import surprise as s
r = random.Random(7)
out = []
for _ in range(1500):
    n, mean, size = int(2 ** r.uniform(0, 12)), 2 ** r.uniform(-8, 12), 2 ** r.uniform(-5, 31)
    t, freedom = r.gauss(0, 4), r.uniform(2, 30)
    out += [s.negative_binomial_tail(n, mean, size), s.log_negative_binomial(n, mean, size), s.log_gamma(mean)]
    out += [s.student_tail(t, freedom), s.student_density(t, freedom), s.poisson_tail(n, mean), s.halved(t)]
    out += [s.quantise(s.bits_of(s.mid_p(out[-7], 0.1))), s.beta_binomial_tail(n % 9, 9, mean, freedom)]
print(json.dumps([float(x).hex() for x in out]))
"""


def probe(disable_jit: str) -> list[str]:
    """The probe's figures as exact text, from a process of its own."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "NUMBA_DISABLE_JIT": disable_jit, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=200, check=True
    )
    figures: list[str] = json.loads(done.stdout)
    return figures


def test_compiled_and_plain_python_agree_to_the_bit() -> None:
    assert probe("0") == probe("1")


@settings(max_examples=30)
@given(st.integers(10_000, 1_000_000), st.floats(0.5, 2.0))
def test_counts_up_to_a_million_stay_finite_and_in_range(n: int, share: float) -> None:
    tail = surprise.poisson_tail(n, n * share)
    assert 0.0 <= tail <= 1.0 + 1e-9
    assert (tail > 0.4) == (share >= 1.0) or abs(share - 1.0) < 0.01
