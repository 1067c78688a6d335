"""An incident's sentence: what speaks for it, and nothing that contradicts itself."""

from __future__ import annotations

import msgspec

from pipeline.decide import merge, words
from schemas.incident import Band, Finding, Incident, Sample

AT = "2026-09-21T12:30:00Z"


def finding(detector: str, family: str, observed: float, high: float) -> Finding:
    return Finding(
        detector=detector, family=family, bits=8.0, at=AT, observed=observed, unit="things", text=f"{detector} speaks",
        expected=Band(low=0, median=1, high=high), authenticated=True, sample=Sample(at=AT),
    )  # fmt: skip


INCIDENT = Incident(
    incident_id="ab" * 16, key_id="k", rule="visit", revision=1, change="opened", state="open", severity="high",
    rung="flag", opened_at=AT, last_at=AT, return_period_days=3650.0,
)  # fmt: skip


def said(*findings: Finding) -> str:
    return words(msgspec.structs.replace(INCIDENT, findings=findings))


def test_a_count_within_what_is_usual_is_not_said_beside_one_that_is_not() -> None:
    text = said(finding("spike", "volume", 185, 8), finding("errors", "outcome", 17, 21))
    assert text == "k: spike speaks: rarer than once in about 10 key-years"


def test_a_finding_without_a_band_is_said_whatever_its_numbers() -> None:
    text = said(finding("spike", "volume", 185, 8), finding("geography", "network", 0, 47.7))
    assert text.startswith("k: spike speaks, geography speaks: ")


def test_where_all_is_within_what_is_usual_all_is_said() -> None:
    text = said(finding("spike", "volume", 5, 8), finding("errors", "outcome", 17, 21))
    assert text.startswith("k: spike speaks, errors speaks: ")


def test_who_used_the_key_is_named_before_what_was_done_where_that_is_a_finding() -> None:
    """An intruder's refused requests are louder than the network they came from, and say less of what has happened."""
    errors, network, faint = (
        msgspec.structs.replace(finding(detector, family, 1.0, 0.0), bits=bits)
        for detector, family, bits in (
            ("errors", "outcome", 14.0),
            ("geography", "network", 7.0),
            ("geography", "network", 5.0),
        )
    )
    assert [each.detector for each in merge((), [errors, network])] == ["geography", "errors"]
    assert [each.detector for each in merge((), [errors, faint])] == ["errors", "geography"]
    client = msgspec.structs.replace(finding("novel_client", "client", 1.0, 0.0), bits=11.0)
    assert [each.detector for each in merge((), [client, network])] == ["geography", "novel_client"]
    proof = msgspec.structs.replace(finding("decoy", "declared", 1.0, 0.0), bits=32.0, proof=True)
    assert [each.detector for each in merge((), [network, proof])] == ["decoy", "geography"]


def test_stronger_findings_of_who_does_not_hold_the_key_drive_out_none_of_who_does() -> None:
    """An act needs the holder's; anybody can send refused requests from a network that the key never had."""
    held = msgspec.structs.replace(finding("geography", "network", 1.0, 0.0), bits=11.0, authenticated=True)
    others = [msgspec.structs.replace(held, bits=20.0 + n, authenticated=False, text=str(n)) for n in range(9)]
    assert held in merge((held,), others)
    assert held in merge(tuple(others), [held])


def test_the_sentence_says_what_the_holder_did_where_refused_requests_are_louder() -> None:
    held = finding("errors", "outcome", 30, 3)
    louder = msgspec.structs.replace(held, bits=40.0, authenticated=False, text="a stranger's errors speak")
    assert said(*merge((held,), [louder])).startswith("k: errors speaks: ")
    assert said(louder).startswith("k: a stranger's errors speak: ")


def test_what_only_carries_on_is_named_once_and_gives_way_to_a_surprise() -> None:
    """What a visit brought before its incident opened has no bits any more at the request that opened it."""
    network, surprise = finding("geography", "network", 1.0, 0.0), finding("novel_operation", "operation", 1.0, 0.0)
    carried = msgspec.structs.replace(surprise, bits=0.0, text="earlier in this visit a deletion")
    assert [each.bits for each in merge((), [network, carried])] == [8.0, 0.0]
    assert merge((carried,), [surprise]) == (surprise,) == merge((surprise,), [carried])
    assert merge((carried,), [carried]) == (carried,)
    assert said(*merge((), [network, carried])).startswith("k: geography speaks, earlier in this visit a deletion: ")
