"""Novel client: the key is used by a kind of client (user-agent family) that it has never been used by.

Detects: a thief's tool where the owner's program was: curl, a scanner, another SDK. Tested once per visit against how
often this key brings new clients (`novelty`), so that a key of many browsers says little and a server's key much. The
slow rule counts a client of the last 7 days again each time that it comes back after an older one: an update
replaces the old client, a second user alternates with it. Where one that the key knows comes between a new one's calls
within a visit, these are worth more, as long as peers' new clients hardly see that (`turn_bits`).
Told, but worth nothing by itself: a known client of an older major version than the key ever used, since programs are
updated and thieves' copies are not.
Where the gateway logs them: a known client whose connection has a TLS fingerprint that it never had for this key, so
that its user agent may be a copy (`fingerprints`). It is rare as a client that is new, and counts as one.
Misses: a thief who sends the owner's user agent, which costs nothing, where the log has no fingerprints, where he uses
the owner's program, too, or claims another version of it; a client swap within one family and version; the first visit
of a key; requests without a user agent.
False alarms: a new SDK, a person's curl, a monitor, above all beside the old one within half an hour; a TLS library
that was updated while the client's version stayed, told in up to four visits, and little where other keys' did, too.
Clients and places change together when owners move house: beside a new place a new client counts as rare as it is among
peers' new places, and no rarer.
Source: reference/evidence.md, section 4 (e2) and 1 (mixture of 4 experts; new with 1/60 a visit was simulated there).
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors import fingerprints, novelty
from detectors.compile import compiled
from detectors.detector import SEES_CLIENT, Context, Detector, known_words, tells
from detectors.known_values import (
    COUNT_UNIT,
    HOUR_US,
    LEAK_BITS,
    SLOT,
    WAITING,
    any_new,
    clear,
    find,
    forget_lately,
    hours,
    is_strangers,
    is_young,
    keep,
    p_value,
    wait,
)
from detectors.surprise import log2_of, quantise
from detectors.teaching import teaches

CLIENTS: Final = 4
PENDING: Final = 2
OLDER_BITS: Final = 2.0  # told with an incident, never a finding of its own: how rare it is nobody counted
STAY: Final = 0.3  # share of strangers whose client the key knows
STAY_BITS: Final = math.floor(64.0 * math.log2(STAY) + 0.5) / 64.0
TURNS: Final = 0.4  # of strangers, those that the owner's calls come between within a visit [judged]
TURNED: Final = 128  # bit of `last`: a known client has come back after a new one in this visit
TAKEN: Final = 64  # and a new one that had called before has called again
TURNS_KEPT: Final = 10_000.0  # visits with a new client; then both counts are halved
LEAST_TURNS: Final = 0.01  # share of visits
FOREIGN: Final = 0.2  # of strangers, those whose client it only seems to be [judged]


class NovelClient(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.novel_client]"""

    slow_days: float = 7.0  # a client counts as young for the slow rule this long
    return_bits: float = 4.0  # what a return of a young client adds to the slow rule, and a new one at most [judged]
    peers_new: float = 0.25  # of visits from a new place, those with a new client: until the partition has counted
    peers_weight: float = 20.0  # visits that this guess weighs
    peers_turn: float = 0.1  # of visits with a new client, those in which a known one comes between its calls: at least


STATE: Final = np.dtype(
    [
        ("mixture", novelty.SMALL_MIXTURE),
        ("clients", SLOT, (CLIENTS,)),
        ("waiting", WAITING, (PENDING,)),
        ("last", "u1"),  # bit mask of the last visit's clients; TURNED and TAKEN are of this visit
        ("oldest", "u1", (CLIENTS,)),  # major version that the client in this slot was used in; 0: none said
        ("visit_oldest", "u1", (PENDING,)),  # the same of `waiting`
        ("brought", "u1"),  # fingerprint of the visit, a foreign one first; + 128 if with the second of `waiting`
    ],
    align=True,
)
SHARED: Final = np.dtype(
    [
        ("new_places", "f8"), ("both_new", "f8"), ("new_clients", "f8"), ("turned", "f8"),
        *novelty.FLEET_FIELDS, *fingerprints.FIELDS,
    ],
    align=True,
)  # fmt: skip
"""Visits of known keys from a new place, and of these with a new client too; visits with a new client, and of these
those in which a known one came between its calls."""


@compiled
def ratio_of(p: float) -> float:
    """e2: likelihood ratio of the visit's client under a stranger."""
    return STAY + (1.0 - STAY) / p if p < 1.0 else STAY


@compiled
def among_peers(shared: Any, config: Any) -> float:
    """Share of peers' visits from a new place that bring a new client, too."""
    weight = float(config.peers_weight)
    share = (float(shared.both_new) + weight * float(config.peers_new)) / (float(shared.new_places) + weight)
    return min(0.9, share)


@compiled
def takes_turn(state: Any, event: Any) -> bool:
    """Whether a known client has come between this event and an earlier one of its new client."""
    return int(state.last) & TURNED != 0 and find(state.waiting, event.client) >= 0


@compiled
def turn_bits(state: Any, shared: Any, event: Any, config: Any) -> float:
    """What a new client's call is worth more where a known client came between; never less than nothing.

    Whoever has stolen a key has its owner beside him. How often an owner's own new client runs beside the old one (curl
    beside a program, a release that reaches one machine after another) is counted, and can only lower what it is worth:
    peers whose new clients never take turns, and keybench's untouched ones don't, bear nothing out for others.
    """
    if not takes_turn(state, event):
        return 0.0
    weight = float(config.peers_weight)
    share = (float(shared.turned) + weight * float(config.peers_turn)) / (float(shared.new_clients) + weight)
    return max(0.0, log2_of(TURNS / max(LEAST_TURNS, float(config.peers_turn), share)))


@compiled
def note_turn(state: Any, visit: Any, event: Any) -> None:
    """Keep of the visit that a known client has come back after a new one, and that the new one then called again."""
    if int(event.ts_us) < int(visit.last_us):
        return
    if find(state.clients, event.client) < 0:
        state.last = int(state.last) | (TAKEN if takes_turn(state, event) else 0)
    elif any_new(state.waiting):
        state.last = int(state.last) | TURNED


@compiled
def count_turn(state: Any, shared: Any) -> None:
    """One visit more with a new client."""
    shared.new_clients += 1.0
    shared.turned += 1.0 if int(state.last) & TAKEN != 0 else 0.0
    if shared.new_clients > TURNS_KEPT:
        shared.new_clients *= 0.5
        shared.turned *= 0.5


@compiled
def forgets(state: Any, event: Any, config: Any) -> bool:
    """Whether all slots are taken, and another one by a young client, too: then this one may only be back."""
    others = 0
    for j in range(CLIENTS):
        value = int(state.clients[j].value)
        if value == 0:
            return False
        if value != int(event.client) and is_young(state.clients, value, event.ts_us, config):
            others += 1
    return others > 0


@compiled
def returns(state: Any, visit: Any, event: Any, config: Any) -> bool:
    """Whether a client of the last days comes back after one known for longer: in this visit or in the one before.

    What a key brought in its first week is its own and never returns. A key of more clients than there are slots
    forgets them in turn, and what it forgot looks young again: such keys rang for weeks (keybench, development half:
    16 of the 18 runs that came to 26 bits and more).
    """
    if not is_young(state.clients, event.client, event.ts_us, config) or forgets(state, event, config):
        return False
    slot = state.clients[find(state.clients, event.client)]
    young_h = (hours(event.ts_us) - int(slot.first_h)) % 65_536
    if (event.ts_us - visit.first_seen_us) / HOUR_US - young_h < float(config.slow_days) * 24.0:
        return False
    if (int(state.last) >> find(state.clients, event.client)) & 1 == 0:
        for j in range(CLIENTS):
            before = (int(state.last) >> j) & 1 == 1
            if before and not is_young(state.clients, state.clients[j].value, event.ts_us, config):
                return True
    for j in range(PENDING):
        value = int(state.waiting[j].value)
        known = value != 0 and find(state.clients, value) >= 0
        if known and not is_young(state.clients, value, event.ts_us, config):
            return True
    return False


@compiled
def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = 1: the client is new, 2: a young one returns, 3: of a leaked key, 4: an old version,
    5: a foreign fingerprint, 6: new, and in turn with a known one.

    b = known clients, of an old version the oldest that was known before * 256 + this one.
    """
    if int(event.sees) & SEES_CLIENT == 0 or int(event.client) == 0:
        return
    reading.covered = 1
    if float(state.mixture.visits) <= 0.0:  # the first visit tests nothing
        return
    p = novelty.fleet_p(shared, p_value(state.waiting, state.clients, state.mixture, event.client, event.ts_us))
    reading.bits = quantise(log2_of(1.0 / p)) if p < 1.0 else 0.0  # mid-p of the only value that could be rarer
    beside = among_peers(shared, config) if int(visit.new_place) == 1 else 0.0
    if p < 1.0:
        reading.lr_stranger = quantise(log2_of(ratio_of(max(p, beside))) + turn_bits(state, shared, event, config))
        reading.lr_stranger_slow = min(float(config.return_bits), max(0.0, reading.lr_stranger))
    else:
        reading.lr_stranger = quantise(log2_of(STAY / (1.0 - beside))) if beside > 0.0 else STAY_BITS
        if returns(state, visit, event, config):
            reading.lr_stranger_slow = float(config.return_bits)
            reading.bits = float(config.return_bits)
            reading.a = 2.0
    j = find(state.clients, event.client)
    if p >= 1.0 and j >= 0:
        judge_fingerprint(state.clients[j], shared, event, beside, config, reading)
    if j < 0:
        reading.a = 6.0 if takes_turn(state, event) else 1.0
    older = reading.bits < OLDER_BITS and is_older(state, j, event)
    if older:
        reading.bits = OLDER_BITS
        reading.a = 4.0
    if is_strangers(state.clients, event.client, visit, event):
        reading.proof = 1
        reading.bits = LEAK_BITS
        reading.a = 3.0
    if tells(reading):
        describe(state, j, reading)
        if older:
            reading.b = int(state.oldest[j]) * 256.0 + int(event.version)


@compiled
def judge_fingerprint(slot: Any, shared: Any, event: Any, beside: float, config: Any, reading: Any) -> None:
    """Add to the reading of a known client that its fingerprint is foreign; beside a new place as a new client is."""
    if not fingerprints.is_foreign(slot, fingerprints.short(event.fingerprint), int(event.version)):
        return
    stands = fingerprints.standing(slot)
    p = fingerprints.p_foreign(shared, stands)
    told = quantise(log2_of(1.0 / p))
    reading.lr_stranger = max(float(reading.lr_stranger), quantise(log2_of(FOREIGN / max(p, beside))))
    if stands == fingerprints.LONGEST:  # an update comes in the visits after this one, too: a fact once
        slow = min(float(config.return_bits), max(0.0, float(reading.lr_stranger)))
        reading.lr_stranger_slow = max(float(reading.lr_stranger_slow), slow)
    if told > reading.bits:
        reading.bits = told
        reading.a = 5.0


@compiled
def is_older(state: Any, j: int, event: Any) -> bool:
    """Whether the known client in slot j comes in an older major version than this key ever used."""
    return j >= 0 and 0 < int(event.version) < int(state.oldest[j])


@compiled
def older(known: int, version: int) -> int:
    """The older of two major versions; 0 is none."""
    return version if known == 0 else known if version == 0 else min(known, version)


@compiled
def describe(state: Any, j: int, reading: Any) -> None:
    """Visits by the client in slot j (-1: a new one); the band: by each of the key's clients."""
    reading.observed = int(state.clients[j].count) / COUNT_UNIT if j >= 0 else 0.0
    low, high, total, known = 1e9, 0.0, 0.0, 0
    for k in range(CLIENTS):
        if int(state.clients[k].value) != 0:
            visits = int(state.clients[k].count) / COUNT_UNIT
            low = min(low, visits)
            high = max(high, visits)
            total += visits
            known += 1
    if known > 0:
        reading.low = low
        reading.high = high
        reading.median = total / known
    reading.b = float(known)


@compiled
def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Take the event's client into the visit."""
    if weight <= 0.0 or int(event.sees) & SEES_CLIENT == 0 or int(event.client) == 0:
        return
    wait(state.waiting, event.client, p_value(state.waiting, state.clients, state.mixture, event.client, event.ts_us))
    note_turn(state, visit, event)
    k = find(state.waiting, event.client)
    if k >= 0:
        state.visit_oldest[k] = older(int(state.visit_oldest[k]), int(event.version))
        bring_fingerprint(state, shared, visit, event, k)


@compiled
def bring_fingerprint(state: Any, shared: Any, visit: Any, event: Any, k: int) -> None:
    """Keep the visit's first fingerprint, or its first foreign one; `waiting[k]` is the event's client."""
    brought = fingerprints.short(event.fingerprint)
    j = find(state.clients, event.client)
    foreign = j >= 0 and fingerprints.differs(state.clients[j], brought)
    if brought == 0 or (int(state.brought) != 0 and (not foreign or brought_foreign(state))):
        return
    state.brought = brought + 128 * k
    foreign = foreign and not fingerprints.updated(state.clients[j], int(event.version))
    if foreign and fingerprints.standing(state.clients[j]) == fingerprints.LONGEST and teaches(visit):
        shared.lately += 1.0  # peers know at once, not when the visit has ended


@compiled
def brought_foreign(state: Any) -> bool:
    """Whether the fingerprint that is kept of this visit is another one than its client had."""
    j = find(state.clients, state.waiting[int(state.brought) >> 7].value)
    return j >= 0 and fingerprints.differs(state.clients[j], int(state.brought) & 127)


@compiled
def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """Move the visit's clients into the forecast."""
    if int(visit.tainted) == 1:
        state.last = int(state.last) & (255 - forget_lately(state.clients, visit))
    if weight > 0.0 and int(state.waiting[0].value) != 0:
        ts_us = visit.last_us
        first = float(state.mixture.visits) <= 0.0
        new = any_new(state.waiting)
        if not first and teaches(visit):
            novelty.tell_fleet(shared, novelty.p_new(state.mixture, ts_us), new)
            if new:
                count_turn(state, shared)
        novelty.learn_visit(state.mixture, ts_us, new)
        mask = 0
        for j in range(PENDING):
            if int(state.waiting[j].value) != 0:
                known = find(state.clients, state.waiting[j].value) >= 0
                slot = keep(state.clients, state.waiting[j].value, ts_us, first)
                state.oldest[slot] = older(int(state.oldest[slot]) if known else 0, int(state.visit_oldest[j]))
                mask |= 1 << slot
        state.last = mask
        k = int(state.brought) >> 7
        j = find(state.clients, state.waiting[k].value) if int(state.brought) != 0 else -1
        if j >= 0:  # of two new ones the second may have taken the first one's slot
            brought, version = int(state.brought) & 127, int(state.visit_oldest[k])
            fingerprints.learn(state.clients[j], shared, brought, version, visit, teaches(visit))
        if int(visit.new_place) == 1 and not first and teaches(visit):
            shared.new_places += 1.0
            shared.both_new += 1.0 if new else 0.0
    state.last = int(state.last) & (TAKEN - 1)
    clear(state.waiting)
    state.brought = 0
    for j in range(PENDING):
        state.visit_oldest[j] = 0


def explain(reading: Any, context: Context) -> str:
    """In words: "by curl, a client never seen for this key in 14 days (it uses 2)"."""
    name = context.client or "an unnamed client"
    if reading.a == 0.0:
        return f"by {name}, seen before"
    if reading.a == 2.0:
        return f"by {name}, which it has known for days only, in turn with an older client"
    if reading.a == 3.0:
        return f"by {name}, not its owner's client before its secret was public"
    if reading.a == 4.0:
        oldest, version = divmod(int(reading.b), 256)
        return f"by {name} {version}, older than any that it was used by (from {oldest} on)"
    if reading.a == 5.0:
        return f"by {name} in name, but with a TLS fingerprint that it never had for this key: a copied user agent?"
    known = math.floor(reading.b)
    others = f"it uses {known} other{'' if known == 1 else 's'}" if known < CLIENTS else f"it uses {known} and more"
    turn = ", between whose calls come those of one that it knows" if reading.a == 6.0 else ""
    return f"by {name}, a client never seen for this key in {known_words(context.seen_days)}{turn} ({others})"


NOVEL_CLIENT: Final = Detector(
    name="novel_client",
    family="client",
    unit="visits by this client",
    state=STATE,
    shared=SHARED,
    config=NovelClient(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
)
