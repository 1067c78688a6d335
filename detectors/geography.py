"""Geography: the key is used from a network or country that it has never been used from, or from two at once.

Detects: a visit from a new network (ASN) or country, tested once per visit against how often this key brings new
ones (`novelty`); a new network that hosts servers or hides its users, for a key that never comes from such; two
successes too far apart to travel between (over 1,000 km/h and 500 km or both accuracies), from networks that do not
usually occur together for this key. How rare a new network is, the fleet has a say in (`novelty.fleet_p`).
Misses: a thief in one of the owner's own networks (same cloud region, same mobile carrier); whatever comes from an
address of which the database knows neither network nor country; the very first visit of a key. Networks that it does
not know are told apart by country only.
Not judged: a new address within a known network. Of 64 clients of the Apache log 27 never brought one and 26 in every
third visit; judged, with 24 bytes a key, it found 1 of 24 more ("same provider", keybench, seed 31): within chance.
False alarms: trips, a second site, a moved server, a carrier's new address block: novelties come in runs, so fusion
opens one incident a day at most. A swap of the geo database: an address that the key used lately (ring of
`ADDRESSES`) is never new, whatever the database now calls its network, and is learned silently under its new name.
Source: reference/evidence.md, sections 1, 4 and 5; travel: reference/detections.md, section 7.

Likelihood ratios: place = .3 + .7 / p_new * country * company * peers, where
 country: a new network in a new country .7 against the peers' rate of that (prior .3), in a known one .3 against .7;
 company: 60 % of strangers come from hosting, proxy or anycast networks [our judgement], against this key's own share,
          within a quarter bit .. 2 bits;
 journey: a sixteenth where a key of six visits a day and more was silent for 4 to 24 hours before, and the way is
          possible in that time;
 travel:  with a new network, half of strangers against the rate of that among peers of few visits or of many (prior
          .125), since a server that moves goes on at once, too; it holds for the rest of the visit. Between known
          networks the key's own rate;
 peers:   a network common among peers halves, one unseen among 50 or more of them doubles; below 50 it says nothing.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from detectors import novelty
from detectors.compile import compiled
from detectors.detector import (
    NET_ANYCAST,
    NET_HOSTING,
    NET_KNOWN,
    NET_PRIVATE,
    NET_PROXY,
    SEES_ADDRESS,
    Context,
    Detector,
    network_words,
    tells,
)
from detectors.fusion import visits_group, visits_per_day
from detectors.known_values import (
    COUNT_UNIT,
    HOUR_US,
    LEAK_BITS,
    SLOT,
    WAITING,
    any_new,
    find,
    is_strangers,
    keep,
    p_value,
    wait,
)
from detectors.places import (
    ADDRESSES,
    NETWORKS,
    PENDING,
    forget_hour,
    forget_visit,
    join,
    keep_addresses,
    leapt_here,
    recent,
    short,
    wait_address,
)
from detectors.surprise import log2_of, quantise
from detectors.teaching import FIRST, teaches
from detectors.travel import TRAVEL_KM_PER_H, has_place, p_travel, travels

COUNTRIES: Final = 6
PENDING_COUNTRIES: Final = 2
PEER_CELLS: Final = 256
PEERS_MIN: Final = 50
STAY: Final = 0.3  # share of strangers who come from a place the key knows
STAY_BITS: Final = math.floor(64.0 * math.log2(STAY) + 0.5) / 64.0
HOSTING_STRANGERS: Final = 0.6
NET_ELSEWHERE: Final = NET_HOSTING | NET_PROXY | NET_ANYCAST
TRAVEL_LR: Final = 32.0
TRAVELLERS: Final = 0.5  # strangers from somewhere new who come while the owner is elsewhere [judged]
GROUPS: Final = 2
LEAPS: Final = 0.125  # of moves, those with no time to travel, until the partition has counted [judged]
LEAST_LEAPS: Final = 0.03  # keybench, development half: 0 of 156 moves of keys of few visits, 6 of 147 of others
REST_VISITS: Final = 6.0  # a day
REST_US: Final = 4 * HOUR_US
REST_MOST_US: Final = 24 * HOUR_US
REST_LR: Final = 1.0 / 16.0  # [judged]
NEW_NETWORK: Final = 1
NEW_COUNTRY: Final = 2
TRAVEL: Final = 4
LEAKED: Final = 8


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """[detectors.geography]"""

    travel_km_per_h: float = TRAVEL_KM_PER_H


STATE: Final = np.dtype(
    [
        ("network", novelty.MIXTURE),
        ("country", novelty.SMALL_MIXTURE),
        ("place_us", "i8"),  # of the last success with a place
        ("networks", SLOT, (NETWORKS,)),
        ("countries", SLOT, (COUNTRIES,)),
        ("waiting", WAITING, (PENDING,)),
        ("waiting_countries", WAITING, (PENDING_COUNTRIES,)),
        ("addresses", "u4", (ADDRESSES,)),
        ("waiting_addresses", "u4", (2,)),
        ("place_lat", "f4"),
        ("place_lon", "f4"),
        ("place_km", "f4"),
        ("place_asn", "u4"),
        ("place_address", "u4"),
        ("elsewhere", "f4"),  # share of visits from hosting, proxy or anycast networks
        ("travels", "u2"),
        ("address_next", "u1"),
        ("was_elsewhere", "u1"),  # this visit
        ("rested", "u1"),  # this visit began after a journey's silence
        ("leapt", "u1"),  # this visit came to a new network with no time to travel
        ("lately", "u1"),  # addresses that came last (`keep_addresses`)
        ("lately_h", "u1"),  # hour of the last learned visit, modulo 256
    ],
    align=True,
)
SHARED: Final = np.dtype(
    [
        ("keys", "f8"),  # keys that have learned a network
        ("networks", "f4", (PEER_CELLS,)),  # keys by hashed network, each key counted once per network
        ("new_networks", "f8"),  # visits of known keys with a new network
        ("both_new", "f8"),  # of these with a new country too
        ("moves", "f8", (GROUPS,)),  # `new_networks` of keys of few visits and of others
        ("leaps", "f8", (GROUPS,)),  # of these with no time to travel
        *novelty.FLEET_FIELDS,
    ],
    align=True,
)


@compiled
def p_of(waiting: Any, slots: Any, mixture: Any, value: int, known_address: bool, ts_us: int) -> float:
    """As `p_value`, but from an address that the key used lately nothing is new."""
    if known_address and find(waiting, value) < 0:
        return 1.0
    return p_value(waiting, slots, mixture, value, ts_us)


@compiled
def peers_factor(shared: Any, asn: int) -> float:
    """Half for a network that is common among peers, up to twice for one that none uses; 1 where peers are few."""
    if shared.keys < PEERS_MIN:
        return 1.0
    share = (float(shared.networks[asn % PEER_CELLS]) + 0.5) / (shared.keys + 0.5 * PEER_CELLS)
    return min(2.0, 0.5 + 0.5 / PEER_CELLS / share)


@compiled
def company_factor(state: Any, event: Any) -> float:
    """What the kind of network says: hosting, proxy or anycast against this key's own share of such."""
    own = min(0.95, max(0.15, float(state.elsewhere)))
    if event.net_flags & NET_ELSEWHERE != 0:
        return max(1.0, HOSTING_STRANGERS / own)
    return max(0.84, min(4.0, (1.0 - HOSTING_STRANGERS) / (1.0 - own)))


@compiled
def country_factor(shared: Any, new: bool) -> float:
    """A new network brings a new country for 70 % of strangers [our judgement], for peers as counted."""
    both = (shared.both_new + 6.0) / (shared.new_networks + 20.0)
    both = min(0.95, max(0.05, both))
    return 0.7 / both if new else 0.3 / (1.0 - both)


@compiled
def leap_factor(shared: Any, visit: Any) -> float:
    """What impossible travel to a new network says: as far as moves of such keys do not bring it, at most 4 bits."""
    group = visits_group(visit)
    share = (shared.leaps[group] + 20.0 * LEAPS) / (shared.moves[group] + 20.0)
    return TRAVELLERS / min(0.5, max(LEAST_LEAPS, share))


@compiled
def place_ratio(p_network: float, p_country: float, context: float, country: float) -> float:
    """Likelihood ratio of a place that is new under a stranger; `context` is company and peers."""
    if p_network < 1.0:
        return STAY + (1.0 - STAY) / p_network * context * country
    return STAY + 0.5 * (1.0 - STAY) / p_country * context  # a network of many countries: half of a new network's


@compiled
def has_rested(state: Any, visit: Any, event: Any) -> bool:
    """Whether a key of many visits a day was silent for hours before this visit: as its owner on a journey is.

    A thief of such a key comes between its owner's calls. A silence of more than a day is another matter (`dormant`).
    """
    if int(visit.events) > 0:
        return int(state.rested) == 1
    silent_us = event.ts_us - visit.last_us
    return visits_per_day(visit, event.ts_us) >= REST_VISITS and REST_US <= silent_us <= REST_MOST_US


@compiled
def describe(state: Any, event: Any, reading: Any) -> None:
    """Observed: this key's visits from this network (decayed); the band: from its networks."""
    j = find(state.networks, event.asn)
    reading.observed = state.networks[j].count / COUNT_UNIT if j >= 0 else 0.0
    low, high, total, used = 1e9, 0.0, 0.0, 0
    for k in range(NETWORKS):
        if state.networks[k].value != 0:
            visits = state.networks[k].count / COUNT_UNIT
            low = min(low, visits)
            high = max(high, visits)
            total += visits
            used += 1
    if used > 0:
        reading.low = low
        reading.high = high
        reading.median = total / used


def score(state: Any, shared: Any, visit: Any, event: Any, config: Any, reading: Any) -> None:
    """Fill `reading`; a = network, b = country + 65,536 * (1 new network, 2 new country, 4 travel, 8 leaked)."""
    if event.sees & SEES_ADDRESS == 0 or event.net_flags & NET_KNOWN == 0 or event.net_flags & NET_PRIVATE != 0:
        return
    if event.asn == 0:
        return
    reading.covered = 1
    if float(state.network.visits) <= 0.0:  # the first visit tests nothing
        return
    known = recent(state.addresses, short(event.address))
    p_network = p_of(state.waiting, state.networks, state.network, event.asn, known, event.ts_us)
    p_network = novelty.fleet_p(shared, p_network)
    p_country = 1.0
    if event.country != 0:
        p_country = p_of(state.waiting_countries, state.countries, state.country, event.country, known, event.ts_us)
    moved = not known and travels(state, event, config)
    moved = moved or (p_network < 1.0 and leapt_here(state, event))
    ratio, p = STAY, min(p_network, p_country)
    if p < 1.0:
        context = company_factor(state, event) * peers_factor(shared, event.asn)
        ratio = place_ratio(p_network, p_country, context, country_factor(shared, p_country < 1.0))
        if not moved and has_rested(state, visit, event):
            ratio *= REST_LR
    if moved:
        known_pair = min(TRAVEL_LR, STAY + (1.0 - STAY) / p_travel(state))
        ratio *= leap_factor(shared, visit) if p_network < 1.0 else known_pair
        p = min(p, p_travel(state))
    reading.bits = quantise(log2_of(1.0 / p)) if p < 1.0 else 0.0  # mid-p gives 1 bit, the larger of two takes it back
    reading.lr_stranger = quantise(log2_of(ratio)) if ratio != STAY else STAY_BITS
    kind = (NEW_NETWORK if p_network < 1.0 else 0) + (NEW_COUNTRY if p_country < 1.0 else 0)
    reading.a = event.asn
    leaked = is_strangers(state.networks, event.asn, visit, event)
    if leaked and known and find(state.networks, event.asn) < 0:
        leaked = False  # renamed by a new database
    reading.proof = 1 if leaked else 0
    reading.bits = max(float(reading.bits), LEAK_BITS) if leaked else float(reading.bits)
    if tells(reading):
        describe(state, event, reading)
    reading.b = event.country + 65_536.0 * (kind + (TRAVEL if moved else 0) + (LEAKED if leaked else 0))


def learn(state: Any, shared: Any, visit: Any, event: Any, weight: float, config: Any) -> None:
    """Take the event's values into the visit; its place becomes the last one."""
    if int(visit.events) == 0:
        state.rested = 1 if has_rested(state, visit, event) else 0
    if weight <= 0.0 or event.sees & SEES_ADDRESS == 0 or event.net_flags & NET_KNOWN == 0:
        return
    if event.net_flags & NET_PRIVATE != 0 or event.asn == 0:
        return
    address = short(event.address)
    known = recent(state.addresses, address)
    if find(state.waiting, event.asn) < 0:
        p = p_of(state.waiting, state.networks, state.network, event.asn, known, event.ts_us)
        if p == 1.0 and known and find(state.networks, event.asn) < 0:
            p = 2.0  # renamed by a new database: learned, but not as a new value
        wait(state.waiting, event.asn, p)
    if event.country != 0 and find(state.waiting_countries, event.country) < 0:
        p = p_of(state.waiting_countries, state.countries, state.country, event.country, known, event.ts_us)
        wait(state.waiting_countries, event.country, p)
    if address != 0:
        wait_address(state, address)
    if event.net_flags & NET_ELSEWHERE != 0:
        state.was_elsewhere = 1
    if has_place(event):
        if travels(state, event, config):
            state.travels = min(60_000, int(state.travels) + 1)
            if not known and find(state.networks, event.asn) < 0:
                state.leapt = 1
        state.place_us = event.ts_us
        state.place_lat = event.lat
        state.place_lon = event.lon
        state.place_km = event.accuracy_km
        state.place_asn = event.asn
        state.place_address = address


@compiled
def count_peers(state: Any, shared: Any, visit: Any) -> None:
    """Each key counts once per network; how often a new network brings a new country."""
    first = int(visit.teaches) == FIRST
    if first:
        shared.keys += 1.0
        for j in range(NETWORKS):
            if int(state.networks[j].value) != 0:
                shared.networks[int(state.networks[j].value) % PEER_CELLS] += 1.0
    elif any_new(state.waiting):
        shared.new_networks += 1.0
        if any_new(state.waiting_countries):
            shared.both_new += 1.0
        group = visits_group(visit)
        shared.moves[group] += 1.0
        if int(state.leapt) == 1:
            shared.leaps[group] += 1.0
    for j in range(PENDING):
        value = int(state.waiting[j].value)
        if value != 0 and (float(state.waiting[j].p) < 1.0 or (first and find(state.networks, value) < 0)):
            shared.networks[value % PEER_CELLS] += 1.0


def settle(state: Any, shared: Any, visit: Any, weight: float, config: Any) -> None:
    """Move the visit's values into the forecast."""
    if int(visit.tainted) == 1:
        forget_hour(state, visit)
    if weight <= 0.0 or state.waiting[0].value == 0:
        forget_visit(state)
        return
    ts_us = visit.last_us
    first = float(state.network.visits) <= 0.0
    if teaches(visit):
        count_peers(state, shared, visit)
    new = any_new(state.waiting)
    if not first and teaches(visit):
        novelty.tell_fleet(shared, novelty.p_new(state.network, ts_us), new)
    novelty.learn_visit(state.network, ts_us, new)
    if state.waiting_countries[0].value != 0:
        novelty.learn_visit(state.country, ts_us, any_new(state.waiting_countries))
    for j in range(PENDING):
        if state.waiting[j].value != 0:
            keep(state.networks, state.waiting[j].value, ts_us, first or float(state.waiting[j].p) > 1.0)
    for j in range(PENDING_COUNTRIES):
        if state.waiting_countries[j].value != 0:
            keep(state.countries, state.waiting_countries[j].value, ts_us, first)
    join(state, ts_us)
    rate = max(0.01, 1.0 / (float(state.network.visits) + 1.0))
    state.elsewhere = float(state.elsewhere) + rate * (int(state.was_elsewhere) - float(state.elsewhere))
    keep_addresses(state, ts_us)
    forget_visit(state)


def explain(reading: Any, context: Context) -> str:
    """In words: "from AS64500 (NAME) in RO, never seen for this key in 14 days"."""
    kind = int(reading["b"]) // 65_536
    place = "from " + network_words(int(reading["a"]), context.network)
    place += f" in {context.country}" if context.country else ""
    since = f"for this key in {max(1, round(context.seen_days))} days"
    said = []
    if kind & NEW_NETWORK:
        said.append(f"never seen {since}")
    elif kind & NEW_COUNTRY:
        said.append(f"a network it uses, but this country was never seen {since}")
    if kind & TRAVEL:
        said.append("too far from its last place to have travelled")
    if kind & LEAKED:
        said.append("its secret is public, and this network was not its owner's before that")
    return f"{place}, {' and '.join(said) or 'seen before'}"


GEOGRAPHY: Final = Detector(
    name="geography",
    family="network",
    unit="visits from this network",
    state=STATE,
    shared=SHARED,
    config=Config(),
    score=score,
    learn=learn,
    settle=settle,
    explain=explain,
    finds_places=True,
)
