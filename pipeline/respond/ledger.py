"""The one ordered state of all acts: what the topic `api.decisions` says, from its start, in its order.

A responder that wants to act *proposes* it on the topic, waits for the acknowledgement and reads its own record back
through this state machine, as all other responders do. Which proposals stand follows from the order on the topic
alone: within any hour and any day only as many different keys as the cap allows, the later ones are refused. So two
responders cannot exceed a cap together, and a restart neither repeats an act nor forgets one.

 - Time is the broker's (the record's timestamp), never behind that of an earlier record: a responder's wrong clock
   cannot make room.
 - A proposal is judged by the numbers it carries (its responder's policy), so that every reader comes to the same
   verdict; whatever was granted to anybody counts.
 - What fails still counts towards the caps: whether the target did it is not known.
 - A record that cannot be read may be an act that we don't know of: for a day nothing is granted.
Simulated proposals have counts of their own, so that a simulation shows what enforcement would have done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US


class Proposed(msgspec.Struct, frozen=True, kw_only=True, tag="proposed"):
    """ "I want to act on this key": `act_id` = what is done to which version of which key (the idempotency key)."""

    act_id: str
    response_id: str
    incident_id: str
    revision: int
    key_id: str
    key_version: int
    responder: str
    rung: str = "revoke"
    simulated: bool = False
    max_per_hour: int = 0
    max_per_day: int = 0
    max_share_of_active: float = 0.0
    active_keys: int = 0  # 0 is unknown: nothing is granted
    reason: str = ""  # for the target


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """What became of a granted act. After `failed` and `expired` the key may be proposed again."""

    act_id: str
    response_id: str
    result: Literal["done", "failed", "expired"]
    outcome: str = ""


class Switched(msgspec.Struct, frozen=True, kw_only=True, tag="switched"):
    """The kill switch on the topic: while `stop`, nothing is granted and nothing granted is sent."""

    stop: bool
    by: str
    reason: str = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag="joined"):
    """A reader's own mark: once it reads this back it has read all that was there before."""

    responder: str
    mark: str


class HandedOver(msgspec.Struct, frozen=True, kw_only=True, tag="handed_over"):
    """A webhook that could not be delivered yet (`pipeline/respond/outbox.py`); `body` only in its first record."""

    message_id: str
    endpoint: str
    partition: int  # of the incident: who owns that retries
    attempts: int
    next_at_us: int
    body: str = ""


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """A handed-over webhook is delivered or given up."""

    message_id: str
    endpoint: str
    delivered: bool


Record = Proposed | Finished | Switched | Joined | HandedOver | Settled


def encode(record: Record) -> bytes:
    """The record as it stands on the topic."""
    return msgspec.json.encode(record)


def decode(value: bytes | None) -> Record | None:
    """The record, or None for what is none of ours."""
    try:
        return _decoder.decode(value or b"")
    except msgspec.MsgspecError:
        return None


_decoder: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)

Stage = Literal["open", "done", "failed", "expired"]


@dataclass(slots=True)
class Act:
    """One granted act."""

    proposal: Proposed
    offset: int
    at_us: int
    stage: Stage = "open"
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the order on the topic says of one record. `act` is the granted one, or the one that stands in the way."""

    granted: bool
    guard: str
    reason: str
    act: Act | None = None


IGNORED: Final = Verdict(False, "none", "not a proposal")


@dataclass(slots=True)
class Ledger:
    """The state: equal records in equal order give equal verdicts. Keeps what was granted within a day."""

    next_offset: int = 0
    now_us: int = 0
    stopped: Switched | None = None
    blind_until_us: int = 0
    acts: dict[tuple[bool, str], Act] = field(default_factory=dict)  # by (simulated, act_id): the latest
    granted: list[tuple[int, bool, str]] = field(default_factory=list)  # (time, simulated, key_id) of the last day

    def apply(self, offset: int, at_us: int, record: Record | None) -> Verdict:
        """Take the record at `offset` with the broker's time; offsets ascend, one that was applied does nothing."""
        if offset < self.next_offset:
            return IGNORED
        self.next_offset, self.now_us = offset + 1, max(self.now_us, at_us)
        self._forget()
        if isinstance(record, Proposed):
            return self._judge(offset, record)
        if isinstance(record, Finished):
            self._finish(record)
        elif isinstance(record, Switched):
            self.stopped = record if record.stop else None
        elif record is None:
            self.blind_until_us = self.now_us + DAY_US
        return IGNORED

    def act_of(self, act_id: str, simulated: bool = False) -> Act | None:
        """The latest granted act with this id, whatever became of it."""
        return self.acts.get((simulated, act_id))

    def used(self, span_us: int, simulated: bool = False) -> int:
        """Different keys with a granted act within the last `span_us` as of the newest record."""
        return len(set(self._keys(span_us, simulated)))

    def _judge(self, offset: int, wanted: Proposed) -> Verdict:
        verdict = self._refusal(wanted)
        if verdict is None:
            act = Act(wanted, offset, self.now_us)
            self.acts[wanted.simulated, wanted.act_id] = act
            self.granted.append((self.now_us, wanted.simulated, wanted.key_id))
            hour, day = self.used(HOUR_US, wanted.simulated), self.used(DAY_US, wanted.simulated)
            verdict = Verdict(True, "caps", f"key {hour} of this hour and {day} of this day, within the caps", act)
        return verdict

    def _refusal(self, wanted: Proposed) -> Verdict | None:
        before = self.act_of(wanted.act_id, wanted.simulated)
        if before and before.stage in ("open", "done"):
            return Verdict(False, "already_acted", _already(before), before)
        if self.stopped and not wanted.simulated:
            return Verdict(False, "kill_switch", f"stopped by {self.stopped.by}: {self.stopped.reason or 'no reason'}")
        if self.now_us < self.blind_until_us:
            return Verdict(False, "caps", "a record on the decisions topic cannot be read, so the counts are not known")
        return self._over_cap(wanted)

    def _over_cap(self, wanted: Proposed) -> Verdict | None:
        share = share_of(wanted.active_keys, wanted.max_share_of_active)
        for span_us, cap, word in ((HOUR_US, wanted.max_per_hour, "hour"), (DAY_US, wanted.max_per_day, "day")):
            keys = set(self._keys(span_us, wanted.simulated))
            limit = min(cap, share)
            if wanted.key_id not in keys and len(keys) >= limit:
                return Verdict(False, "caps", _cap_reason(len(keys), limit, word, cap, share, wanted.active_keys))
        return None

    def _keys(self, span_us: int, simulated: bool) -> Iterator[str]:
        start = self.now_us - span_us
        return (key for at, simulation, key in self.granted if at > start and simulation == simulated)

    def _finish(self, record: Finished) -> None:
        act = self.acts.get((False, record.act_id))
        if act and act.proposal.response_id == record.response_id and act.stage == "open":
            act.stage, act.outcome = record.result, record.outcome

    def _forget(self) -> None:
        start = self.now_us - DAY_US
        while self.granted and self.granted[0][0] <= start:
            self.granted.pop(0)
        old = [name for name, act in self.acts.items() if act.at_us <= start]
        for name in old:
            del self.acts[name]


def share_of(active_keys: int, share: float) -> int:
    """Whole keys in a share of the active ones, rounded down; 0 where either is not known or nonsense."""
    return int(active_keys * share + 1e-9) if active_keys > 0 and 0.0 < share <= 1.0 else 0


def _already(act: Act) -> str:
    what = "is being acted on" if act.stage == "open" else "was acted on"
    return f"this version of the key {what} for incident {act.proposal.incident_id}"


def _cap_reason(used: int, limit: int, word: str, cap: int, share: int, active: int) -> str:
    known = f"{share} by share of {active} active keys" if active > 0 else "0, as the active keys are not known"
    return f"{used} keys acted on within the {word}, at most {limit} ({cap} by number, {known})"
