"""How far a patient attacker gets: bounded, whatever growth he chooses."""

from __future__ import annotations

import pytest

from pipeline.evaluation import ramp
from pipeline.evaluation.ramp import FIRST, MOST_A_DAY, Ramp, extra
from tests.pipeline.test_progress import sit_down
from tests.real_data import FOLDER, real

pytestmark = pytest.mark.timeout(900)


def test_a_gain_counts_whole_days_before_the_incident_only() -> None:
    assert Ramp(100.0, 1.5, 0).gain(28) == 1.0, "seen on the first day: nothing was gained"
    assert Ramp(100.0, 1.5, 4).gain(28) == pytest.approx(1.0 + FIRST * 1.5**3)
    assert Ramp(100.0, 1.5, 40).gain(28) == pytest.approx(1.0 + extra(100.0, 1.5, 27)), "later than asked about"


def test_a_gain_at_the_runs_own_bound_is_said_to_be_one() -> None:
    endless = Ramp(100.0, 2.0, None)
    assert endless.gain(60) == 1.0 + MOST_A_DAY / 100.0
    assert endless.bounded(60)
    assert not Ramp(100.0, 1.15, None).bounded(28)


def test_the_fastest_ramps_are_seen_and_the_best_gain_is_that_of_the_best_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real("weblog-elastic-apache")
    monkeypatch.setattr(ramp, "PER_DAY", (24.0, 600.0))
    monkeypatch.setattr(ramp, "GROWTH", (1.15, 1.25, 2.0))
    terminal = sit_down(monkeypatch)
    found = ramp.measure(FOLDER, "development")
    assert "attackers" in terminal.getvalue() and "6/6" in terminal.getvalue()
    by_growth = {name: each["gain"] for name, each in found["by_growth"].items()}
    assert len(by_growth) == 6
    assert found["gain"]["60"] == max(by_growth.values())
    assert 1.0 <= found["gain"]["28"] <= found["gain"]["60"]
    unseen = [name for name, each in found["by_growth"].items() if each["seen_day"] is None]
    for name in unseen:
        growth, per_day = float(name.split(" x ")[0]), float(name.split()[-4])
        assert by_growth[name] == 1.0 + extra(per_day, growth, 59), "nothing but detection ends a ramp before"
    busy = [each for name, each in found["by_growth"].items() if name.endswith(", 600 calls a day")]
    assert all(each["seen_day"] is not None for each in busy[-2:]), "15 % a day and more, on a busy key"
