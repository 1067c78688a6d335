"""One key in many places at once, against its own way."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.detector import NET_KNOWN, NET_PRIVATE
from tests.detectors.one_more import bits_of, found_in, one_more
from tests.detectors.streams import Array, daily_visits

pytestmark = pytest.mark.timeout(900)


def spread_out(life: Array, addresses: int, networks: int) -> Array:
    """A visit of that many addresses in that many networks."""
    which = np.arange(addresses)
    visit = one_more(life, calls=6)
    visit = np.repeat(visit[:1], addresses)
    visit["ts_us"] += which * 1_000_000
    visit["request"] += which.astype("u8")
    visit["address"] = (which + 1).astype("u8") << np.uint64(33)
    visit["asn"] = np.where(which % networks == 0, 64_500, 64_500 + which % networks)
    return visit


def test_a_servers_key_at_forty_addresses_in_an_hour_is_a_finding() -> None:
    life = daily_visits(40)
    found = found_in("sharing", life, spread_out(life, 40, 12))
    assert max(row["bits"] for row in found) > 8
    assert max(row["observed"] for row in found) >= 8


def test_one_address_is_none_and_one_more_is_little() -> None:
    life = daily_visits(40)
    assert bits_of("sharing", life, one_more(life)) == 0
    assert bits_of("sharing", life, spread_out(life, 2, 1)) < 6.5


def test_a_mobile_applications_key_is_used_to_it() -> None:
    life = daily_visits(40)
    calls = np.arange(len(life))
    life["address"] = (1 + calls * 7919 % 5_000).astype("u8") << np.uint64(33)
    life["asn"] = 64_500 + calls % 3
    assert bits_of("sharing", life, spread_out(life, 7, 3)) < 3


def test_private_addresses_are_no_places() -> None:
    life = daily_visits(40)
    visit = spread_out(life, 40, 12)
    visit["net_flags"] = NET_KNOWN | NET_PRIVATE
    assert bits_of("sharing", life, visit) == 0
