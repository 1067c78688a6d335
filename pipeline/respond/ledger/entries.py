"""The records on the topic `api.decisions`: what responders and people write, and `ledger.py` reads in order.

Whoever may write this topic may make the responder act (deploy/SECURITY.md). A proposal carries every number it is to
be judged by, so that all readers come to one verdict whatever their own configuration says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final, Literal, get_args

import msgspec

from pipeline.config.policy import Approver
from pipeline.respond.night.records import NightRecord


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
    cap: str = "usual"  # what it is counted as: usual | fence | flag | proof
    owner: str = ""
    max_per_owner: int = 0  # different keys of one owner within an hour; 0: no such cap
    settled: bool = True  # the key is old enough to count towards the breaker
    breaker_owners: int = 0  # 0: no breaker
    breaker_s: float = 600.0
    approvals: int = 0  # by so many different people, before it is granted
    approval_s: float = 1800.0
    approvers: tuple[Approver, ...] = ()  # who may; also who may raise its caps
    exempt_s: float = 0.0  # refused for so long after a person undid an act on this key
    partition: int = -1  # of the incident: who owns that carries it out
    adapter: str = ""
    rule: str = ""  # of the policy
    duration_s: float = 0.0  # from the grant on; 0 is without end
    networks: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    limit_per_s: float = 0.0
    first_us: int = 0  # the first suspicious event
    bits: float = 0.0  # ranks what waits
    labels: tuple[str, ...] = ()  # what it has in common with others: asn:64500, client:curl, owner:acme
    group: str = ""  # of a bulk: approved together
    promotion_required: bool = False  # refused where its rung is above what was earned
    promotion_approvals: int = 0  # so many of its approvers must have signed a step up
    evidence_hash: str = ""
    policy_version: str = ""
    max_overlap_s: float = 0.0  # rotate: so long after the grant its end may be put off; 0: it may not
    force_approvals: int = 0  # rotate: so many of its approvers must sign an undo that deletes a key in use
    deadline_us: int = 0  # the end of a rotation whose deadline is over: refused where that was put off; 0: it drained


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """What became of a granted act, or of its undo. After `failed` and `expired` it may be tried again."""

    act_id: str
    response_id: str
    result: Literal["done", "failed", "expired"]
    outcome: str = ""
    direction: Literal["apply", "undo"] = "apply"
    before: str = ""  # what the undo needs to restore
    new_key_id: str = ""
    ends_old: bool = False  # rotate: the old key is Keywatch's to end; False: its gateway does, or an older release did
    ended_by: str = ""  # undo: said again behind a `Kept` that came too late: who ended it, asked for or not


class Noted(msgspec.Struct, frozen=True, kw_only=True, tag="noted"):
    """What was there before a granted act, written before anything is changed. The first one counts."""

    act_id: str
    response_id: str
    before: str
    no_act: bool = True


class Undo(msgspec.Struct, frozen=True, kw_only=True, tag="undo"):
    """ "Take this act back": by a person, or because its time is over (`by` TIME). Each attempt has one of its own.

    `force`: though it deletes a key in use, once enough approvers have signed the ticket, in the time of an approval.
    """

    act_id: str
    by: str
    reason: str
    responder: str
    force: bool = False
    asked_us: int = 0  # force: when (broker's time); what is signed is good for then alone

    @property
    def ticket(self) -> str:
        """Names all of it, by whom, and when; not who wrote it down, so that a retry is of the same one."""
        return FORCE + _digest(msgspec.json.encode(msgspec.structs.replace(self, responder="")))


class Used(msgspec.Struct, frozen=True, kw_only=True, tag="used"):
    """The new key of a rotation was seen in use: a request with it was let in. The first one counts."""

    act_id: str
    response_id: str
    at_us: int
    no_act: bool = True


class Extended(msgspec.Struct, frozen=True, kw_only=True, tag="extended"):
    """A person puts a rotation's end off. Not `no_act`: whoever can't read it must not end the old key meanwhile."""

    act_id: str
    response_id: str
    until_us: int
    by: str
    reason: str
    responder: str


class Signed(msgspec.Struct, frozen=True, kw_only=True, tag="signed"):
    """One person's word on what waits: `ticket` of an act, a bulk or a raise; `signature` over `signed_text`."""

    ticket: str
    yes: bool
    person: str
    signature: str  # Ed25519, base64
    reason: str = ""
    responder: str = ""


class Bulked(msgspec.Struct, frozen=True, kw_only=True, tag="bulked"):
    """What one bulk consists of: written before its proposals, none of which counts that isn't named here."""

    group: str  # `group_of` the rest
    rung: str
    nonce: str
    act_ids: tuple[str, ...]
    by: str = ""
    contents: tuple[str, ...] = ()  # `content_of` each proposal; () is of a release that bound the act ids alone

    @property
    def is_whole(self) -> bool:
        """Whether it is named by what is in it."""
        if self.contents:
            return self.group == group_of(self.contents, self.rung, self.nonce)
        return self.group == "bulk-" + _digest("\0".join((self.rung, self.nonce, *sorted(self.act_ids))).encode())

    def holds(self, wanted: Proposed) -> bool:
        """Whether this very proposal is in it, with its networks, its duration and all."""
        return content_of(wanted) in self.contents if self.contents else wanted.act_id in self.act_ids


class Raised(msgspec.Struct, frozen=True, kw_only=True, tag="raised"):
    """Wider caps for a while: in force once two different approvers of a proposal have signed its ticket."""

    cap: str
    max_per_hour: int
    max_per_day: int
    max_share_of_active: float
    until_us: int
    by: str
    reason: str

    @property
    def ticket(self) -> str:
        """Names all of it."""
        return "raise-" + _digest(msgspec.json.encode(self))


class Switched(msgspec.Struct, frozen=True, kw_only=True, tag="switched"):
    """The kill switch on the topic: while `stop`, nothing is granted and nothing granted is sent; undos are."""

    stop: bool
    by: str
    reason: str = ""
    again: bool = False  # said again before retention forgets it: nobody's word


class Simulating(msgspec.Struct, frozen=True, kw_only=True, tag="simulating"):
    """The simulate switch on the topic: while `on`, an enforcing policy only simulates; undos and timed ends go on.

    It makes nothing stricter than the policy is: where that says simulate, or off, it changes nothing.
    """

    on: bool
    by: str
    reason: str = ""
    again: bool = False  # as of Switched


class Promoted(msgspec.Struct, frozen=True, kw_only=True, tag="promoted"):
    """Up to which stage acts happen by themselves from now on: earned, gone back to, or asked for without (`override`).

    A step up is in force for a proposal once enough of its approvers have signed the ticket (`earned.py`).
    """

    to: Literal["simulate", "fence", "suspend", "revoke"]
    by: str
    reason: str
    override: bool = False
    policy: str = ""  # the version whose acts were counted
    counted: str = ""  # in words
    nonce: str = ""  # makes its ticket unlike an earlier one's
    again: bool = False  # said again before retention forgets it: nobody's word
    at_us: int = 0  # again: when it was said first
    asked_us: int = 0  # when signatures were asked for (broker's time), good for then alone; 0: it only lowers
    words: tuple[Signed, ...] = ()  # again: who signed it

    @property
    def ticket(self) -> str:
        """Names what was said first."""
        return PROMOTION + _digest(msgspec.json.encode(msgspec.structs.replace(self, again=False, at_us=0, words=())))


class Reset(msgspec.Struct, frozen=True, kw_only=True, tag="reset"):
    """A person closes the breaker: automatic acts go on."""

    by: str
    reason: str


class Paged(msgspec.Struct, frozen=True, kw_only=True, tag="paged"):
    """The page about the breaker that opened at this offset is delivered or handed over."""

    opened_offset: int


class Build(msgspec.Struct, frozen=True, kw_only=True, tag="build"):
    """Incidents of this partition now come from this build; or a responder begins to judge by this policy.

    `again`: all that is known of either, in one record, before the topic's retention forgets it: no news.
    """

    partition: int  # -1: of no one partition
    config_version: str
    geo_build: str
    policy_version: str = ""  # of a responder that starts; its partition is -1
    again: bool = False
    partitions: tuple[tuple[int, str, str], ...] = ()  # again: each one's build
    changed_us: int = 0  # again: when the fleet's build last changed
    policy_changed_us: int = 0


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """What is still in force, said again before the topic's retention forgets it: an act, or the open breaker."""

    proposal: Proposed | None = None
    offset: int = -1
    at_us: int = 0
    until_us: int = 0
    before: str = ""
    new_key_id: str = ""
    ends_old: bool = False
    used_us: int = 0
    undo: Undo | None = None  # wanted, though it failed so far: so often, last at `undo_us`; forced by these words
    undo_us: int = 0
    undo_tries: int = 0
    undo_words: tuple[Signed, ...] = ()
    approved_by: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()  # of the breaker
    simulated: bool = False
    responder: str = ""  # who says it, and waits to hear whether it still stands


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag="joined"):
    """A reader's own mark: once it reads this back it has read all that was there before. Tells the broker's time."""

    responder: str
    mark: str


class HandedOver(msgspec.Struct, frozen=True, kw_only=True, tag="handed_over"):
    """A webhook that could not be delivered yet (`delivery/outbox.py`); `body` only in its first record."""

    message_id: str
    endpoint: str
    partition: int  # of the incident: who owns that retries
    attempts: int
    next_at_us: int
    body: str = ""
    thread: str = ""  # what has one comes in order; "" is alone


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """A handed-over webhook is delivered or given up."""

    message_id: str
    endpoint: str
    delivered: bool
    why: str = ""  # given up


class PassedOver(msgspec.Struct, frozen=True, kw_only=True, tag="passed_over"):
    """What a later release wrote, and what says of itself that nothing is acted on by it: nothing to us."""


Record = (
    Proposed
    | Finished
    | Noted
    | Undo
    | Used
    | Extended
    | Signed
    | Bulked
    | Raised
    | Switched
    | Simulating
    | Promoted
    | Reset
    | Paged
    | Build
    | Kept
    | Joined
    | HandedOver
    | Settled
    | PassedOver
    | NightRecord
)
"""A new kind by which nothing is granted has a field `no_act: bool = True`: an older responder passes over it. Any
other that it can't read may be an act, and it grants nothing for a day. A new field of a proposal is named in `LATER`:
their names (`ticket_of`, `content_of`) would be others when the topic is read again, and what people signed lost."""

LATER: Final = {"promotion_required", "promotion_approvals", "max_overlap_s", "force_approvals", "deadline_us"}
"""Fields of proposals that earlier releases lack: not in a name while they are 0 or False."""
PROMOTION: Final = "promote-"
FORCE: Final = "undo-"
BOUND: Final = "bulk2-"
"""Begins the name of a bulk that stands for everything its acts do; none with another is carried out any more."""


def encode(record: Record) -> bytes:
    """The record as it stands on the topic."""
    return msgspec.json.encode(record)


def decode(value: bytes | None) -> Record | None:
    """The record, or None for what is none of ours, or may be an act that we can't read."""
    try:
        return _decoder.decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        head = _head(value)
        return PassedOver() if head.no_act and head.type not in KINDS else None


def unread(value: bytes | None) -> str:
    """What can be said of a record that can't be read: its kind, and whether that is known."""
    kind = _head(value).type
    return f"it is of the kind {kind!r}, unknown to this release" if kind and kind not in KINDS else "it is damaged"


class _Head(msgspec.Struct, frozen=True):
    """What every record has, whatever its release."""

    type: Annotated[str, msgspec.Meta(max_length=64)] = ""
    no_act: bool = False


def _head(value: bytes | None) -> _Head:
    try:
        return msgspec.json.decode(value or b"", type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Head()


_decoder: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)
KINDS: Final = frozenset(str(each.__struct_config__.tag) for each in get_args(Record))


def ticket_of(proposal: Proposed, offset: int) -> str:
    """Names one act that waits: all that would be done, and where it stands, so that no approval serves twice."""
    return "act-" + _digest(_signed(proposal) + str(offset).encode())


def content_of(proposal: Proposed) -> str:
    """All that would be done, but for the bulk it is of and who writes it down."""
    return _digest(_signed(msgspec.structs.replace(proposal, group="", responder="")))


def group_of(contents: Iterable[str], rung: str, nonce: str) -> str:
    """Names a bulk by all that would be done (`content_of` each); `nonce` makes it unlike an earlier, equal one."""
    return BOUND + _digest("\0".join((rung, nonce, *sorted(contents))).encode())


def _signed(proposal: Proposed) -> bytes:
    """All of it, as the release that wrote it knew it."""
    fields: dict[str, object] = msgspec.to_builtins(proposal)
    return msgspec.json.encode({name: each for name, each in fields.items() if each or name not in LATER})


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
