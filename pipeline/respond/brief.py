"""What somebody woken at three must read first: one struct for every message, screen and channel.

Who owns the key, what happened, is the owner still working, what was touched, the safest act, what that would break,
one command to do it and one to undo it. Numbers come from ClickHouse if they come in time (`usage.py`); one that is
missing is said to be unknown, never guessed.
"""

from __future__ import annotations

import shlex
from typing import Final, Literal

import msgspec

from pipeline.respond import fence
from pipeline.respond.ladder import Means, Others, why_no_fence
from pipeline.respond.ledger.standing import Standing, enough
from pipeline.respond.set_up import SetUp
from schemas.incident import KEY_RULES, PROOF_RULES, Finding, Incident, Rung
from schemas.key import Key

MOST_TOUCHED: Final = 5
WHAT_CHARS: Final = 400
UNKNOWN: Final = "unknown"
ACT: Final = "keywatch respond act {incident} --rung {rung}"
UNDO: Final = "keywatch respond undo {incident} --reason TEXT"
LOOK: Final = "keywatch explain {incident}"
INSTEAD: Final = {"breaker": "keywatch respond queue"}
"""Of what is of no single key: where to look first, by rule."""
WHY: Final = {
    "fence": "it goes on working from the networks it has long used, and nowhere else",
    "suspend": "it ends by itself, and nothing is lost",
}
LADDER: Final[tuple[Rung, ...]] = ("observe", "fence", "suspend")
"""What one command does and one undoes, without a new key; the safest act is always one of these."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a key, each None where it is not known."""

    clients: int | None = None  # distinct (client, network) pairs of the day before the incident
    per_minute: float | None = None  # requests, mean of that day's active hours
    usual_requests: int | None = None  # since the incident opened, from networks used before it
    touched: tuple[str, ...] | None = None  # operations of the evidence, most requests first
    requests: int | None = None  # of the evidence
    bytes_out: int | None = None
    fence_networks: tuple[str, ...] | None = None  # used on 7 days before: what a fence would let it go on from


NO_NUMBERS: Final = Usage()


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """The first screen. Texts are for people; the numbers beside them are for programs, None is unknown."""

    owner: str  # "" is not declared
    what: str
    working: Literal["yes", "no", "unknown"]
    working_words: str
    touched: tuple[str, ...]
    touched_words: str
    act: Rung
    act_words: str
    clients: int | None
    per_minute: float | None
    criticality: str  # "" is not known
    breaks_words: str
    do: str
    undo: str
    look: str
    standing: tuple[Standing, ...] = ()  # what is done to the key already, waits or is under way


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a brief is made of beside the incident and its key."""

    usage: Usage = NO_NUMBERS
    unreadable: str = ""  # why the catalogue can't be read
    set_up: SetUp | None = None  # what can be done here; None: everything
    others: Others = (None, None)  # which a wider act would hit
    standing: tuple[Standing, ...] = ()


NOTHING_KNOWN: Final = Known()


def brief(incident: Incident, key: Key | None, known: Known = NOTHING_KNOWN) -> Brief:
    """`key` is None where the catalogue doesn't know it.

    A command is named only where it would work, and only where nothing that stands makes it needless.
    """
    usage = known.usage
    act, why = safest(incident, key, known)
    no = _not_here(incident, key, act, known) if act != "observe" else ""
    done = enough(known.standing, act) if act != "observe" else None
    working, words = still_working(usage)
    touched = usage.touched if usage.touched is not None else _sampled(incident)
    stops, look = act != "observe", INSTEAD.get(incident.rule) or LOOK.format(incident=_quoted(incident))
    return Brief(
        owner=(key.owner if key else "") or incident.owner,
        what=incident.text[:WHAT_CHARS],
        working=working,
        working_words=words,
        touched=touched[:MOST_TOUCHED],
        touched_words=_touched_words(touched, usage, incident),
        act=act,
        act_words=_act_words(act, why, no, done),
        clients=usage.clients,
        per_minute=usage.per_minute,
        criticality=key.criticality if key else "",
        breaks_words=_breaks_words(key, usage, stops),
        do=_do(incident, act, done) if stops and (done or not no) else look,
        undo=_undo(incident, known.standing, gives=stops and not no and not done),
        look=look,
        standing=known.standing,
    )


def _not_here(incident: Incident, key: Key | None, act: Rung, known: Known) -> str:
    if known.set_up is None:
        return ""
    return known.set_up.closed(incident, key) or known.set_up.cannot(incident, key, act, known.others)


def _act_words(act: Rung, why: str, no: str, done: Standing | None) -> str:
    if done and done.broken:
        return f"the gateway does not obey the {done.rung} in force: stop the key at the gateway itself"
    if done:
        return f"nothing more: {done.rung} is {done.now}; {act} would be the safest act"
    return f"{act}: {why}" + (f"; Keywatch can't do it here ({no}): do it at the gateway" if no else "")


def _do(incident: Incident, act: Rung, done: Standing | None) -> str:
    if done:
        return done.approve or LOOK.format(incident=_quoted(incident))
    return ACT.format(incident=_quoted(incident), rung=act)


def _undo(incident: Incident, stands: tuple[Standing, ...], gives: bool) -> str:
    """Of what stands first: that is what whoever is called by the owner needs."""
    undos = [each.undo for each in stands if each.undo]
    if undos:
        return "; ".join(undos)
    if any(each.state == "being undone" for each in stands):
        return "it is being undone"
    if gives:
        return UNDO.format(incident=_quoted(incident))
    return "a revocation has no undo" if any(each.state == "revoked" for each in stands) else "nothing to undo"


def _quoted(incident: Incident) -> str:
    return shlex.quote(incident.incident_id)


def safest(incident: Incident, key: Key | None, known: Known = NOTHING_KNOWN) -> tuple[Rung, str]:
    """The mildest act that stops what was seen and that the key's gateway can do, and why that one.

    A throttle is none: it lets whoever has the key go on.
    """
    unreadable = known.unreadable
    if incident.rule not in KEY_RULES | PROOF_RULES:
        return "observe", "it is of no single key: look at what is shared first"
    if unreadable:
        return "observe", f"the catalogue cannot be read ({unreadable}): whether the key is protected is {UNKNOWN}"
    if key is None:
        return "observe", "nobody declared this key, so nobody can say what it serves: find its owner first"
    if key.decoy:
        return "observe", "a decoy serves nobody; find out who has it, and what else he has"
    approval = "; it is protected, so people must approve" if key.protected else ""
    if not _from_elsewhere(incident.findings):
        return "suspend", f"{WHY['suspend']}{approval}"
    no_fence = _no_fence(incident, key, known)
    if not no_fence or (known.set_up and known.set_up.cannot(incident, key, "suspend", known.others)):
        return "fence", f"{WHY['fence']}{approval}"
    return "suspend", f"{WHY['suspend']}{approval}; no fence: {no_fence}"


def _no_fence(incident: Incident, key: Key, known: Known) -> str:
    if any(each.broken and each.rung == "fence" for each in known.standing):
        return "the gateway does not obey the one in force"
    if known.usage.fence_networks is not None:
        networks = fence.with_declared(known.usage.fence_networks, key)
        if why := why_no_fence(Means("", None, networks, suspects=fence.suspects(incident))):
            return why
    return known.set_up.cannot(incident, key, "fence", known.others) if known.set_up else ""


def still_working(usage: Usage) -> tuple[Literal["yes", "no", "unknown"], str]:
    """Whether the key is also used from where it was used before: then a block hits its owner."""
    if usage.usual_requests is None:
        return "unknown", UNKNOWN
    if usage.usual_requests == 0:
        return "no", "no request from its usual networks since the incident opened"
    return "yes", f"yes, {usage.usual_requests:,} requests from its usual networks since the incident opened"


def lines(told: Brief) -> tuple[tuple[str, str], ...]:
    """(label, text) in the order of reading; every channel shows these."""
    stands = "; ".join(each.words for each in told.standing)
    return (
        *((("In force", stands),) if stands else ()),
        ("Owner", told.owner or "nobody is declared"),
        ("What", told.what),
        ("Owner still working", told.working_words),
        ("Touched", told.touched_words),
        ("Safest act", told.act_words),
        ("It would break", told.breaks_words),
        ("Do", told.do),
        ("Undo", told.undo),
    )


def _from_elsewhere(findings: tuple[Finding, ...]) -> bool:
    return any(finding.family == "network" and finding.authenticated for finding in findings)


def _sampled(incident: Incident) -> tuple[str, ...]:
    seen = (f"{each.sample.method} {each.sample.route}".strip() for each in incident.findings if each.sample.route)
    return tuple(dict.fromkeys(seen))


def _touched_words(touched: tuple[str, ...], usage: Usage, incident: Incident) -> str:
    if not touched:
        return UNKNOWN
    names = ", ".join(touched[:MOST_TOUCHED])
    more = f" and {len(touched) - MOST_TOUCHED} more" if len(touched) > MOST_TOUCHED else ""
    if usage.requests is None or usage.bytes_out is None:
        return f"{names}{more} (samples; the whole is {UNKNOWN})"
    return f"{names}{more}: {max(usage.requests, incident.events):,} requests, {size(usage.bytes_out)} sent"


def _breaks_words(key: Key | None, usage: Usage, stops: bool) -> str:
    clients = UNKNOWN if usage.clients is None else f"{usage.clients:,}"
    rate = UNKNOWN if usage.per_minute is None else f"{usage.per_minute:,.1f}".removesuffix(".0")
    critical = f"{key.criticality} criticality" if key else f"criticality {UNKNOWN}"
    told = f"distinct clients {clients}, requests a minute {rate}, {critical}"
    return told if stops else f"nothing is stopped ({told})"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
