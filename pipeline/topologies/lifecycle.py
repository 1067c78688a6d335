"""Lifecycle: what is done to a key does not fit what is done with it.

Detects: a live key made by somebody who is no admin, or by another key; from a network that its maker never made keys
from; made and then used within the hour from another network, another country, a network that hosts or hides; shown to
somebody (revealed) and then used from a network that is new to it; given more scopes and then read in bulk; used from a
new network after its owner has departed.
Misses: whoever makes and uses a key from the victim's own network, at leisure; key services that do not log who did it.
False alarms: a developer who makes a key in the office and deploys it abroad: alone that is no incident, and where many
do so it is usual, since each sign is weighed by how often it occurs at all here (`rates.Rate`, fading in 90 days).
One sign alone is told as a finding only in the incident it helps to open; two, or one that is rare enough, open one.
Source: reference/detections.md, section 3 (Elastic: a key that mints keys, used within an hour); real case: the access
keys that the intruder of the invictus log makes with a stolen one. Shares before anything is learned: our judgement.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from detectors.detector import NET_ANYCAST, NET_HOSTING, NET_PROXY
from pipeline.config.tree import Config
from pipeline.core import Sides
from pipeline.geo.provider import NOWHERE, Place
from pipeline.state.pages import Blobs, PagedArray
from pipeline.times import rfc3339
from pipeline.topologies.core import TopologyCore
from pipeline.topologies.episodes import Episodes, Evidence
from pipeline.topologies.rates import Rate
from pipeline.topologies.register import Register
from schemas.incident import Band, Finding, Incident, Sample, Severity
from schemas.key_event import KeyEvent

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
LISTED_BITS: Final = 10.0
PAGED_BITS: Final = 16.0
LEAST_BITS: Final = 1.0
"""A sign that two of one occasions show is none."""
MOST_KEYS: Final = 100_000
MOST_ACTORS: Final = 20_000
MOST_NETWORKS: Final = 16
ELSEWHERE: Final = NET_HOSTING | NET_PROXY | NET_ANYCAST
NON_ADMINS: Final = frozenset({"member", "service", "key"})

SIGNS: Final[dict[str, tuple[float, str]]] = {
    "made_by_key": (0.01, "made by another key"),
    "made_by_other": (0.1, "made by somebody who is no admin"),
    "made_for_other": (0.05, "for somebody else, by no admin"),
    "maker_elsewhere": (0.1, "made from a network that its maker never made keys from"),
    "used_elsewhere": (0.3, "used within the hour from another network"),
    "used_abroad": (0.1, "in another country"),
    "used_hidden": (0.15, "through a network that hosts or hides"),
    "shown_then_new": (0.05, "used from a network new to it within the hour after it was shown"),
    "widened_then_bulk": (0.03, "read in bulk within a day after it was given more scopes"),
    "departed_then_new": (0.01, "used from a network new to it after its owner had departed"),
}
"""Name -> the share of occasions that show it, before anything is learned; and its words."""


class Life(msgspec.Struct):
    """One key's."""

    last_us: int
    made_us: int = 0
    made_asn: int = 0
    made_prefix: str = ""
    made_country: str = ""
    shown_us: int = 0
    shown_by: str = ""
    widened_us: int = 0
    widened_to: tuple[str, ...] = ()
    departed_us: int = 0
    owner: str = ""
    environment: str = ""
    was_used: bool = False
    first_used_us: int = 0  # since it was made, or before that was told
    first_ip: str = ""
    networks: list[str] = []
    signs: dict[str, tuple[float, int, str]] = {}  # name -> bits, time, words
    told: list[str] = []  # ids of events that were taken


class Actor(msgspec.Struct):
    """Who makes keys, and from where."""

    last_us: int
    networks: list[str] = []
    made: int = 0


class Seen(NamedTuple):
    """One key event and where it came from."""

    event: KeyEvent
    place: Place
    offset: int


class LifecycleJudge:
    """Implements `pipeline.topologies.core.Judge`."""

    rules = frozenset({"lifecycle"})

    def __init__(self, partition: int) -> None:
        self.episodes = Episodes(DAY_US)
        self.lives: Register[Life] = Register("lives", Life, MOST_KEYS)
        self.actors: Register[Actor] = Register("actors", Actor, MOST_ACTORS)
        self.rates: dict[str, Rate] = {}
        self.arrays: tuple[PagedArray, ...] = ()
        self.blobs: tuple[Blobs, ...] = (self.episodes.register.blobs, self.lives.blobs, self.actors.blobs)
        self._partition = partition
        self._sides: Sides | None = None
        self._decode = msgspec.json.Decoder(KeyEvent).decode

    def take(self, value: bytes, key: bytes, offset: int, out: list[Incident]) -> int:
        """One key event. Raises msgspec's errors, ValueError where its key is another's."""
        event = self._decode(value)
        if key != event.key_id.encode():
            raise ValueError("the record's key is not the event's key_id")
        place = self._place(event.client_ip)
        life = self.lives.get(event.key_id) or self.lives.add(event.key_id, Life(event.ts_us))
        if _is_new(life, event):
            self._live(life, Seen(event, place, offset), out)
        return event.ts_us

    def _place(self, address: str) -> Place:
        found: Place = self._sides.geo.look_up(address) if self._sides and address else NOWHERE
        return found

    def _live(self, life: Life, seen: Seen, out: list[Incident]) -> None:
        event = seen.event
        life.last_us = max(life.last_us, event.ts_us)
        life.owner, life.environment = event.owner or life.owner, event.environment or life.environment
        life.signs = {name: sign for name, sign in life.signs.items() if sign[1] >= event.ts_us - DAY_US}
        before = len(life.signs)
        {
            "created": self._created, "revealed": self._revealed, "rotated": self._rotated,
            "scope_changed": self._scope_changed, "owner_departed": self._departed, "ended": self._ended,
            "used": self._used, "bulk": self._bulk,
        }[event.kind](life, seen)  # fmt: skip
        self.lives.touch(event.key_id)
        if len(life.signs) > before:
            self._judge(life, seen, out)

    # -- what is done to it

    def _created(self, life: Life, seen: Seen) -> None:
        event, place = seen.event, seen.place
        life.made_us, life.made_asn, life.made_prefix = event.ts_us, place.asn, place.prefix
        life.made_country, life.networks = place.country, []
        early_us = life.first_used_us if life.was_used and life.first_used_us >= event.ts_us else 0
        life.was_used = early_us != 0
        if event.environment == "test":
            return
        if event.actor_role:
            self._sign(life, seen, "made_by_key", event.actor_role == "key", f"({event.actor})")
            self._sign(life, seen, "made_by_other", event.actor_role in ("member", "service"), f"({event.actor})")
        if event.actor and event.owner:
            for_other = event.actor != event.owner and event.actor_role in NON_ADMINS
            self._sign(life, seen, "made_for_other", for_other, f"({event.owner})")
        if event.actor:
            self._from_where(life, seen)
        if 0 < early_us <= event.ts_us + HOUR_US:  # the key service tells later than the worker does
            self._first_use(life, Seen(event, self._place(life.first_ip), seen.offset))

    def _from_where(self, life: Life, seen: Seen) -> None:
        network = _network(seen.place)
        actor = self.actors.get(seen.event.actor) or self.actors.add(seen.event.actor, Actor(seen.event.ts_us))
        if network and actor.made:
            self._sign(life, seen, "maker_elsewhere", network not in actor.networks, f"({_where(seen.place)})")
        actor.last_us, actor.made = max(actor.last_us, seen.event.ts_us), actor.made + 1
        _remember(actor.networks, network)
        self.actors.touch(seen.event.actor)

    def _revealed(self, life: Life, seen: Seen) -> None:
        life.shown_us, life.shown_by = seen.event.ts_us, seen.event.actor

    def _rotated(self, life: Life, seen: Seen) -> None:
        """The new secret was shown to who rotated it."""
        self._revealed(life, seen)

    def _scope_changed(self, life: Life, seen: Seen) -> None:
        more = tuple(sorted(set(seen.event.scopes) - set(seen.event.scopes_before)))
        if more:
            life.widened_us, life.widened_to = seen.event.ts_us, more

    def _departed(self, life: Life, seen: Seen) -> None:
        life.departed_us = seen.event.ts_us

    def _ended(self, life: Life, seen: Seen) -> None:
        """Whoever uses it afterwards is `misuse`'s business, in the key's own topology."""
        life.shown_us = life.widened_us = life.made_us = 0

    # -- what is done with it

    def _used(self, life: Life, seen: Seen) -> None:
        """The worker tells first use and every network that is new to the key."""
        now, place = seen.event.ts_us, seen.place
        network = _network(place)
        if life.made_us and not life.was_used and network and now - life.made_us <= HOUR_US:
            self._first_use(life, seen)
        if life.was_used and network and network not in life.networks:
            if life.shown_us:
                by = f"({life.shown_by}; {_where(place)})" if life.shown_by else f"({_where(place)})"
                self._sign(life, seen, "shown_then_new", 0 <= now - life.shown_us <= HOUR_US, by)
                self._sign(life, seen, "used_hidden", place.flags & ELSEWHERE != 0, "")
                life.shown_us = 0
            if life.departed_us:
                self._sign(life, seen, "departed_then_new", now > life.departed_us, f"({_where(place)})")
        if not life.was_used:
            life.first_used_us, life.first_ip, life.was_used = now, seen.event.client_ip, True
        _remember(life.networks, network)

    def _first_use(self, life: Life, seen: Seen) -> None:
        place = seen.place
        same = place.asn == life.made_asn if place.asn and life.made_asn else place.prefix == life.made_prefix
        if not life.made_prefix:
            return
        self._sign(life, seen, "used_elsewhere", not same, f"({_where(place)})")
        if not same:
            known = bool(place.country and life.made_country)
            if known:
                abroad = place.country != life.made_country
                self._sign(life, seen, "used_abroad", abroad, f"({place.country}, made in {life.made_country})")
            self._sign(life, seen, "used_hidden", place.flags & ELSEWHERE != 0, "")

    def _bulk(self, life: Life, seen: Seen) -> None:
        if life.widened_us:
            soon = 0 <= seen.event.ts_us - life.widened_us <= DAY_US
            self._sign(life, seen, "widened_then_bulk", soon, f"(with {', '.join(life.widened_to)[:120]})")
            life.widened_us = 0

    # -- weighing

    def _sign(self, life: Life, seen: Seen, name: str, shown: bool, words: str) -> None:
        """An occasion on which a sign shows or not: weighed by how often it did, then learned."""
        share, text = SIGNS[name]
        rate = self.rates.setdefault(name, Rate())
        bits = rate.bits(share)
        if shown and bits >= LEAST_BITS:
            life.signs[name] = (bits, seen.event.ts_us, f"{text} {words}".strip())
        rate.learn(shown, seen.event.ts_us)

    def _judge(self, life: Life, seen: Seen, out: list[Incident]) -> None:
        total = sum(bits for bits, _, _ in life.signs.values())
        if total < LISTED_BITS:
            return
        event = seen.event
        for name in life.signs:
            self.rates[name].doubt()
        severity: Severity = "high" if total >= PAGED_BITS else "medium"
        signs = sorted(life.signs.items(), key=lambda sign: (sign[1][1], sign[0]))
        text = f"{event.key_id}: {', '.join(words for _, (_, _, words) in signs)}"
        first_name, (_, first_us, _) = signs[0]
        findings = tuple(_finding(name, sign, seen) for name, sign in signs)
        self.episodes.tell(
            Evidence(
                subject=event.key_id, rule="lifecycle", first_us=first_us, first_id=first_name, ts_us=event.ts_us,
                severity=severity, rung="flag", text=text, findings=findings, keys=(event.key_id,),
                keys_total=len(signs), owner=life.owner, environment=life.environment,
            ), seen.offset, self._partition, out,
        )  # fmt: skip

    # -- the judge's face

    def pass_time(self, watermark_us: int, offset: int, out: list[Incident]) -> None:
        """Close what was quiet for a day."""
        self.episodes.pass_time(watermark_us, out)

    def adopt(self, sides: Sides) -> None:
        """Another geo database."""
        self._sides = sides

    def save(self) -> bytes:
        """Blobs, and the rates."""
        for register in (self.episodes.register, self.lives, self.actors):
            register.save()
        return msgspec.msgpack.encode(self.rates)

    def restore(self, extra: bytes) -> None:
        """Blobs are filled."""
        for register in (self.episodes.register, self.lives, self.actors):
            register.restore()
        self.episodes.restored()
        self.rates = msgspec.msgpack.decode(extra, type=dict[str, Rate])


def _is_new(life: Life, event: KeyEvent) -> bool:
    """Whether this event was not taken before: by its id, or by what it says and when."""
    name = event.event_id or f"{event.kind} {event.ts_us} {event.client_ip}"
    if name in life.told:
        return False
    life.told = [*life.told[-31:], name]
    return True


def _remember(networks: list[str], network: str) -> None:
    """The last ones, the newest at the end."""
    if network:
        if network in networks:
            networks.remove(network)
        networks.append(network)
        del networks[:-MOST_NETWORKS]


def _network(place: Place) -> str:
    return f"AS{place.asn}" if place.asn else place.prefix


def _where(place: Place) -> str:
    network = " ".join(part for part in (_network(place), place.network) if part)
    return ", ".join(part for part in (network, place.country) if part)


def _finding(name: str, sign: tuple[float, int, str], seen: Seen) -> Finding:
    bits, at_us, words = sign
    place, at = seen.place, rfc3339(at_us)
    sample = Sample(
        at=at, client_ip=place.text, country=place.country, asn=place.asn, network=place.network,
        request_id=seen.event.event_id,
    )  # fmt: skip
    return Finding(
        detector="lifecycle", family="declared", bits=bits, at=at, observed=1.0, unit=name, text=words,
        expected=Band(low=0.0, median=0.0, high=1.0), authenticated=seen.event.kind in ("used", "bulk"), sample=sample,
    )  # fmt: skip


def open_core(partition: int, config: Config, sides: Sides, topic_epoch: str, partitions: int = 0) -> TopologyCore:
    """An empty core of one partition of `api.key_events`."""
    return TopologyCore(partition, config, sides, topic_epoch, LifecycleJudge(partition))
