"""Bits of a family given another: never more than its own, none of what the other's cause explains."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.fusion import FAMILIES
from pipeline.decide import rung
from pipeline.given import MOVED_BITS, NEWCOMER_BITS, RELEASE, best, lift, strongest_pair
from tests.pipeline.respond.incidents import finding

_bits = st.floats(0.0, 1_000.0)
_families = st.dictionaries(st.sampled_from(FAMILIES), _bits, max_size=len(FAMILIES))


@given(bits=_families)
def test_nothing_has_more_bits_given_another_than_by_itself_nor_less_than_none(bits: dict[str, float]) -> None:
    pair = strongest_pair(bits)
    assert (pair is None) == (len(bits) < 2)
    if pair:
        assert 0.0 <= pair.second_given <= pair.second_bits == bits[pair.second]
        assert pair.second_given <= pair.first_given <= pair.first_bits == bits[pair.first]


@given(bits=_families, more=st.sampled_from(FAMILIES), much=_bits)
def test_more_evidence_of_any_kind_never_makes_the_strongest_pair_weaker_than_it_was(
    bits: dict[str, float], more: str, much: float
) -> None:
    before = strongest_pair(bits)
    after = strongest_pair({**bits, more: max(much, bits.get(more, 0.0))})
    if before and after and more not in (before.first, before.second):
        assert after.weaker >= before.weaker


@pytest.mark.parametrize("pair", list(combinations(sorted(RELEASE), 2)))
def test_a_family_whose_bits_another_explains_has_none_left(pair: tuple[str, str]) -> None:
    found = strongest_pair({pair[0]: 200.0, pair[1]: 30.0})
    assert found is not None
    assert found.weaker == 0.0


def test_a_new_client_beside_a_new_network_is_the_same_visitor() -> None:
    found = strongest_pair({"network": 16.0, "client": 16.6})
    assert found is not None
    assert (found.first, found.weaker) == ("client", NEWCOMER_BITS)


@pytest.mark.parametrize("pair", [("network", "outcome"), ("declared", "volume"), ("declared", "outcome")])
def test_families_without_a_common_cause_keep_theirs(pair: tuple[str, str]) -> None:
    found = strongest_pair({pair[0]: 12.0, pair[1]: 11.0})
    assert found is not None
    assert (found.first_given, found.second_given) == (12.0, 11.0)


@given(one=st.sampled_from(FAMILIES), other=st.sampled_from(FAMILIES), bits=_bits)
def test_what_a_pair_has_in_common_is_the_same_from_both_sides(one: str, other: str, bits: float) -> None:
    assert lift(one, other, bits) == lift(other, one, bits)
    assert 0.0 <= lift(one, other, bits) <= bits


def test_what_was_measured_of_visits_from_a_new_place_is_taken_off() -> None:
    assert lift("network", "operation", 20.0) == pytest.approx(math.log2(0.0084 / 0.0010), abs=0.05)
    assert lift("time", "network", 9.0) == MOVED_BITS["time"] == pytest.approx(math.log2(0.09 / 0.04), abs=0.05)


def test_what_is_no_number_or_has_no_family_is_no_evidence() -> None:
    findings = [finding("network", bits=math.nan), finding("client", bits=math.inf), finding("", bits=50.0)]
    findings += [finding("volume", bits=3.0), finding("volume", bits=2.0)]
    assert best((each.family, each.bits) for each in findings) == {"volume": 3.0}


def test_the_rung_that_an_incident_recommends_rests_on_the_same_two_facts() -> None:
    assert rung((finding("network", bits=12.0), finding("outcome", bits=12.0))) == "revoke"
    assert rung((finding("network", bits=16.0), finding("client", bits=16.0))) == "throttle"
    assert rung((finding("volume", bits=99.0), finding("outcome", bits=99.0))) == "throttle"
    assert rung((finding("network", bits=12.0), finding("outcome", bits=12.0, authenticated=False))) == "throttle"
