"""Outside of keybench findings come about as often as they say, and what anybody would try first is found."""

from __future__ import annotations

import pytest

from tests.evaluation.plain import BITS, attacked, judged, loudness, untouched
from tests.evaluation.plain_world import ATTACKS, plain_keys

DAYS = 35


def test_findings_on_plain_keys_come_hardly_more_often_than_they_say() -> None:
    """Of keybench's own traffic egress said 8 bits of what came 17 times as often here, and 16 bits 18 times."""
    events = untouched(plain_keys(40, 3), DAYS)
    outcome = judged(events)
    loud = loudness(outcome, events)
    assert any(any(each) for each in loud.values()), "something is said of ten thousand visits"
    assert {name: each[BITS.index(8)] for name, each in loud.items() if each[BITS.index(8)] > 3.0} == {}
    assert len(outcome.incidents) <= 5, "1.4 are due in 1,400 key-days"


@pytest.mark.parametrize(
    ("attack", "least"),
    [
        ("40 paths that are not there", 12),
        ("12 refused calls of admin routes", 12),
        ("1,000 calls in two minutes", 12),
        ("60 from abroad by another client", 9),
    ],
)  # fmt: skip
def test_what_anybody_would_try_first_is_found(attack: str, least: int) -> None:
    after = attacked(ATTACKS[attack], 3)
    assert sum(each is not None for each in after.values()) >= least, after
