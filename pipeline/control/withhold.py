"""What is not told, though it was found: the row that says so, and on what findings an incident rests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from detectors.fusion import Settings
from pipeline.column import Columns
from pipeline.control.controls import Said
from pipeline.times import micros
from schemas.control import Control, Feedback, Mute, Planned, control_id
from schemas.incident import Finding

FINDING_BITS: Final = Settings().finding_bits


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """One message that was not sent, and whose word kept it."""

    control: Control
    key_id: str
    ts_us: int
    rule: str
    change: str
    severity: str
    bits: float
    return_period_days: float
    detectors: tuple[str, ...]
    text: str
    offset: int


def rests_on(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that carry it: all that are told by themselves, else the strongest."""
    strong = [finding for finding in findings if finding.proof or finding.bits >= FINDING_BITS]
    return strong or sorted(findings, key=lambda finding: -finding.bits)[:1]


def who(control: Control) -> str:
    """Whose word it is."""
    match control:
        case Feedback():
            return control.owner
        case Mute():
            return control.owner_of_mute
        case _:
            return control.by


def said_by(control: Control) -> str:
    """Who said this: of a mute or a plan that was ended before its time who ended it."""
    return (control.ended_by if isinstance(control, Mute | Planned) else "") or who(control)


def rows(withheld: Sequence[Withheld], partition: int) -> Columns:
    """`withheld`, one row each."""
    return {
        "withheld_id": [_id(each) for each in withheld],
        "control_id": [control_id(each.control) for each in withheld],
        "key_id": [each.key_id for each in withheld],
        "at": [each.ts_us for each in withheld],
        "rule": [each.rule for each in withheld],
        "change": [each.change for each in withheld],
        "severity": [each.severity for each in withheld],
        "bits": [each.bits for each in withheld],
        "return_period_days": [each.return_period_days for each in withheld],
        "detectors": [list(each.detectors) for each in withheld],
        "text": [each.text for each in withheld],
        "reason": [each.control.reason for each in withheld],
        "by": [who(each.control) for each in withheld],
        "partition": [partition] * len(withheld),
        "version": [each.offset for each in withheld],
    }


def _id(each: Withheld) -> str:
    text = f"{each.key_id}\0{each.rule}\0{each.change}\0{each.ts_us}\0{each.offset}"
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"kw-withheld").hexdigest()


def control_rows(said: Sequence[Said]) -> Columns:
    """`controls`, one row for each."""
    controls = [each.control for each in said]
    return {
        "control_id": [control_id(each) for each in controls],
        "seq": [each.seq for each in said],
        "kind": [type(each).__name__.lower() for each in controls],
        "key_id": [getattr(each, "key_id", "") for each in controls],
        "incident_id": [getattr(each, "incident_id", "") for each in controls],
        "verdict": [getattr(each, "verdict", "") for each in controls],
        "detectors": [_detectors(each) for each in controls],
        "by": [said_by(each) for each in controls],
        "reason": [each.reason for each in controls],
        "at": [micros(each.at) for each in controls],
        "until": [micros(getattr(each, "until", "") or getattr(each, "to", "")) or None for each in controls],
        "body": [msgspec.json.encode(each).decode() for each in controls],
        "version": [each.seq for each in said],
    }


def _detectors(control: Control) -> list[str]:
    if isinstance(control, Feedback):
        return list(control.detectors)
    return [control.detector] if isinstance(control, Mute) and control.detector else []
