"""Spray: one source touches many keys.

Detects: a batch of stolen keys, used from one address' prefix, or over many addresses of one hosting or proxy network:
keys of several owners that were never used from there appear within an hour or a day. And guessing: one source named
many keys that it was refused for; worse where it then used one.
Misses: a thief with a source for each key; keys of one owner alone (an office and a thief look the same from here; the
keys' own incidents tell them apart); a batch that trickles in over weeks; a source where many new keys are usual.
False alarms: an agency that takes on several customers in an hour; a VPN product that all of a sudden becomes popular.
A carrier's new network, or a geo database with other names, brings many keys from an address of each one's own: told as
one incident of the fleet, not as a theft.
Source: reference/detections.md, no. 12 (Splunk: over 10 accounts and mean + 3 sigma per address in 10 min; Datadog and
Auth0 for guessing). Described incidents: the tokens stolen from CI providers in April 2022 and January 2023, and the
165 Snowflake customers of 2024, whose keys came from few VPN exits and rented servers.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Final

import msgspec

from pipeline.times import rfc3339
from pipeline.topologies.episodes import Episodes, Evidence
from pipeline.topologies.gatherings import (
    NETWORK_WEIGHT,
    OWN_WEIGHT,
    SHIPPED_WEIGHT,
    Law,
    surprise_bits,
    upper,
)
from pipeline.topologies.register import Register
from schemas.incident import Band, Finding, Incident, Rung, Sample, Severity
from schemas.sighting import Sighting, source_of

HOUR_US: Final = 3_600_000_000
SPANS_US: Final = (HOUR_US, 24 * HOUR_US)
SPAN_WORDS: Final = ("an hour", "a day")
SHIPPED: Final = (0.15, 0.4)  # further owners in such a window of a prefix
SHIPPED_WHOLE: Final = (0.3, 0.8)  # of a network
SHIPPED_REFUSED: Final = 0.3
STRAGGLERS_US: Final = 600_000_000
"""Partitions tell at their own pace: what is older than a window by less belongs to it if it is not known."""
KNOWN_DAYS: Final = 7
"""At first every network is new to every key: a key counts a day after its first request, of a whole network a week."""
ADOPTED_US: Final = 7 * 24 * HOUR_US
LISTED_BITS: Final = 13.0
PAGED_BITS: Final = 18.0
CERTAIN_BITS: Final = 24.0
CERTAIN_OWNERS: Final = 8
ELSEWHERE_BITS: Final = 2.0
"""60 % of strangers come from hosting or proxy networks against some 15 % of owners (detectors/geography.py)."""
GUESSED_KEYS: Final = 20
MOST_USED: Final = 128
MOST_REFUSED: Final = 256
MOST_PREFIXES: Final = 32
MOST_NETWORKS: Final = 20_000
OWN_ADDRESSES: Final = 0.6
"""Above this share of prefixes to keys each key has an address of its own: a carrier, not a thief."""


class Window(msgspec.Struct):
    """One span of one scope: who came in it."""

    start_us: int
    used: dict[str, str] = {}  # key id -> owner
    refused: dict[str, int] = {}  # key id -> when
    prefixes: dict[str, int] = {}  # prefix -> keys that came by it
    carried: dict[str, int] = {}  # keys of the last minutes of the window before
    times: dict[str, int] = {}  # key id -> when it was used
    young: dict[str, int] = {}  # keys of `used` that are not known for long enough
    first_id: str = ""
    accused: bool = False

    def owners(self) -> int:
        """Unrelated owners; of keys that nobody declared two count as one."""
        return _owners(list(self.used.values()))

    def accused_of(self) -> list[str]:
        """The keys that say something: young ones only teach what is usual."""
        return [key for key in self.used if key not in self.young]

    def strange_owners(self) -> int:
        """Owners of those."""
        return _owners([self.used[key] for key in self.accused_of()])


class Scope(msgspec.Struct):
    """A prefix or a whole network."""

    windows: list[Window | None] = msgspec.field(default_factory=lambda: [None, None])
    used: list[Law] = msgspec.field(default_factory=lambda: [Law(), Law()])
    refused: Law = msgspec.field(default_factory=Law)
    accused_us: int = 0  # since when it is, window after window; 0: it is not
    last_us: int = 0


class Network(msgspec.Struct):
    """One key of the topic: a network with the prefixes that were seen of it lately."""

    whole: Scope
    prefixes: dict[str, Scope] = {}
    each: list[Law] = msgspec.field(default_factory=lambda: [Law(), Law()])  # of all its prefixes together
    first_us: int = 0
    last_us: int = 0


class Shared(msgspec.Struct):
    """What all networks of the partition have taught."""

    prefixes: list[Law] = msgspec.field(default_factory=lambda: [Law(), Law()])
    whole: list[Law] = msgspec.field(default_factory=lambda: [Law(), Law()])


class Spray:
    """Judges sightings. `episodes` belongs to the topology, `partition` is where it runs."""

    def __init__(self, episodes: Episodes, partition: int) -> None:
        self.register: Register[Network] = Register("networks", Network, MOST_NETWORKS)
        self.shared = Shared()
        self._episodes = episodes
        self._partition = partition

    def see(self, seen: Sighting, offset: int, out: list[Incident]) -> None:
        """One sighting, whether or not it was seen before."""
        name = source_of(seen.asn, seen.prefix)
        if not name:
            return
        network = self.register.get(name) or self.register.add(name, Network(Scope(), first_us=seen.ts_us))
        network.last_us = max(network.last_us, seen.ts_us)
        self.register.touch(name)
        prefix = self._prefix(network, seen)
        for span in range(len(SPANS_US)):
            means = self._means(network, prefix, span)
            self._turn(network, prefix, seen, span, means)
            fresh = _enter(prefix.windows[span], seen, young=seen.kind == "first")
            if _enter(network.whole.windows[span], seen, young=seen.known_days < KNOWN_DAYS) or fresh:
                self._judge(name, network, prefix, seen, span, means, offset, out)

    def _prefix(self, network: Network, seen: Sighting) -> Scope:
        scope = network.prefixes.get(seen.prefix)
        if scope is None:
            scope = Scope()
            if len(network.prefixes) < MOST_PREFIXES or self._made_room(network, seen):
                network.prefixes[seen.prefix] = scope
        scope.last_us = max(scope.last_us, seen.ts_us)
        return scope

    def _made_room(self, network: Network, seen: Sighting) -> bool:
        """Forget a prefix, first those where no key was used of late: refusals cost nothing, and drive out no use."""
        known, now_us = network.prefixes, seen.ts_us
        least = min(known, key=lambda each: (_has_uses(known[each], now_us), known[each].last_us, each))
        if seen.kind == "refused" and _has_uses(known[least], now_us):
            return False
        self._forget(network, known.pop(least), now_us)
        return True

    def _forget(self, network: Network, prefix: Scope, now_us: int) -> None:
        """Its windows teach what its network's other prefixes may be like."""
        for span, window in enumerate(prefix.windows):
            if window is not None and window.used and _is_learned(prefix, window, now_us):
                mean = self._means(network, prefix, span)[0]
                for law in (network.each[span], self.shared.prefixes[span]):
                    law.learn(float(max(0, window.owners() - 1)), mean, now_us)

    def _means(self, network: Network, prefix: Scope, span: int) -> tuple[float, float]:
        """Further owners expected in a window of the prefix, and of the whole network."""
        shipped = self.shared.prefixes[span].mean(SHIPPED[span], SHIPPED_WEIGHT)
        each = network.each[span].mean(shipped, NETWORK_WEIGHT)
        whole = self.shared.whole[span].mean(SHIPPED_WHOLE[span], SHIPPED_WEIGHT)
        return prefix.used[span].mean(each, OWN_WEIGHT), network.whole.used[span].mean(whole, OWN_WEIGHT)

    def _turn(self, network: Network, prefix: Scope, seen: Sighting, span: int, means: tuple[float, float]) -> None:
        """End the windows whose time has passed and begin new ones with this sighting."""
        for scope, mean, laws in (
            (prefix, means[0], (network.each[span], self.shared.prefixes[span])),
            (network.whole, means[1], (self.shared.whole[span],)),
        ):
            window = scope.windows[span]
            if window is not None and seen.ts_us < window.start_us + SPANS_US[span]:
                continue
            if window is not None and _is_learned(scope, window, seen.ts_us):
                for law in (scope.used[span], *laws) if window.used else ():
                    law.learn(float(max(0, window.owners() - 1)), mean, seen.ts_us)
                if window.refused and span == 0:
                    scope.refused.learn(float(len(window.refused) - 1), SHIPPED_REFUSED, seen.ts_us)
            scope.windows[span] = _begun(window, seen)

    def _judge(
        self, name: str, network: Network, prefix: Scope, seen: Sighting, span: int, means: tuple[float, float],
        offset: int, out: list[Incident],
    ) -> None:  # fmt: skip
        window, whole = prefix.windows[span], network.whole.windows[span]
        assert window is not None and whole is not None
        bonus = ELSEWHERE_BITS if seen.elsewhere else 0.0
        if (bits := surprise_bits(window.strange_owners() - 1, means[0])) and bits + bonus >= LISTED_BITS:
            prefix.accused_us = prefix.accused_us or seen.ts_us
            return self._accuse(f"source:{seen.prefix}", window, seen, span, bits + bonus, means[0], offset, out)
        if span == 0 and len(window.refused) >= GUESSED_KEYS:
            self._guessed(window, prefix, seen, offset, out)
        spread = 2 * max(whole.prefixes.values(), default=0) < len(whole.used)  # else it is that prefix's business
        bits = surprise_bits(whole.strange_owners() - 1, means[1]) if spread else 0.0
        if bits + bonus >= LISTED_BITS:
            network.whole.accused_us = network.whole.accused_us or seen.ts_us
            if len(whole.prefixes) < OWN_ADDRESSES * len(whole.used) or seen.elsewhere:
                self._accuse(f"source:{name}", whole, seen, span, bits + bonus, means[1], offset, out)
            else:
                self._renamed(name, whole, seen, span, bits, means[1], offset, out)

    def _accuse(
        self, subject: str, window: Window, seen: Sighting, span: int, bits: float, mean: float,
        offset: int, out: list[Incident],
    ) -> None:  # fmt: skip
        window.accused = True
        owners, keys = window.strange_owners(), window.accused_of()
        certain = bits >= CERTAIN_BITS and owners >= CERTAIN_OWNERS and seen.elsewhere
        severity: Severity = "critical" if certain else "high" if bits >= PAGED_BITS else "medium"
        rung: Rung = "deny" if certain else "flag"
        tried = f" It was refused for {_count(window.refused, MOST_REFUSED)} others." if window.refused else ""
        place = f" over {len(window.prefixes)} prefixes" if subject == f"source:{source_of(seen.asn, '')}" else ""
        text = (
            f"{_place(subject, seen)}: {_count(keys, MOST_USED)} valid keys of {owners} unrelated owners came from "
            f"there{place} in {SPAN_WORDS[span]}, none of them ever before, where 1 [1-{upper(mean):.0f}] is usual: "
            f"{_named(keys)}.{tried}"
        )
        finding = _finding("spray", bits, seen, owners, mean, "owners", text, authenticated=True)
        self._tell(subject, "spray", window, seen, severity, rung, text, finding, keys, offset, out)

    def _guessed(self, window: Window, prefix: Scope, seen: Sighting, offset: int, out: list[Incident]) -> None:
        mean = prefix.refused.mean(SHIPPED_REFUSED, OWN_WEIGHT)
        bits = surprise_bits(len(window.refused) - 1, mean)
        if bits < LISTED_BITS:
            return
        window.accused = True
        held = window.accused_of()
        then = f", and used {len(held)} that it holds: {_named(held)}" if held else ""
        text = (
            f"{_place(f'source:{seen.prefix}', seen)}: named {_count(window.refused, MOST_REFUSED)} keys in an hour "
            f"and was refused, "
            f"where 1 [1-{upper(mean):.0f}] is usual{then}. Of the keys: {_named(list(window.refused))}."
        )
        finding = _finding("spray", bits, seen, len(window.refused), mean, "keys", text, authenticated=bool(held))
        self._tell(
            f"source:{seen.prefix}", "guessing", window, seen, "high" if held else "medium", "flag", text, finding,
            [*held, *window.refused], offset, out,
        )  # fmt: skip

    def _renamed(
        self, name: str, window: Window, seen: Sighting, span: int, bits: float, mean: float,
        offset: int, out: list[Incident],
    ) -> None:  # fmt: skip
        window.accused = True
        keys = window.accused_of()
        text = (
            f"{_place(f'fleet:{name}', seen)}: {len(keys)} keys of {window.strange_owners()} owners came from this "
            f"network for the first time in {SPAN_WORDS[span]}, each from an address of its own: a carrier's new "
            f"network, or a geo database with other names; not a theft by one source. {_named(keys)}."
        )
        finding = _finding("spray", bits, seen, window.strange_owners(), mean, "owners", text, authenticated=True)
        self._tell(
            f"fleet:{name}", "outbreak", window, seen, "medium", "observe", text, finding, keys,
            offset, out,
        )  # fmt: skip

    def _tell(
        self, subject: str, rule: str, window: Window, seen: Sighting, severity: Severity, rung: Rung, text: str,
        finding: Finding, keys: list[str], offset: int, out: list[Incident],
    ) -> None:  # fmt: skip
        evidence = Evidence(
            subject=subject, rule=rule, first_us=window.start_us, first_id=window.first_id, ts_us=seen.ts_us,
            severity=severity, rung=rung, text=text, findings=(finding,), keys=tuple(keys), keys_total=len(keys),
        )  # fmt: skip
        self._episodes.tell(evidence, offset, self._partition, out)


def _is_learned(scope: Scope, window: Window, now_us: int) -> bool:
    """What is accused is not normal; after a week of it, it is: adopted without a review."""
    if not window.accused:
        scope.accused_us = 0
    return not window.accused or now_us - scope.accused_us >= ADOPTED_US


def _has_uses(scope: Scope, now_us: int) -> bool:
    """Whether keys were used there in a window that goes on."""
    pairs = zip(scope.windows, SPANS_US, strict=True)
    return any(window is not None and window.used and now_us < window.start_us + span for window, span in pairs)


def _owners(owners: list[str]) -> int:
    named = {owner for owner in owners if owner}
    return len(named) + sum(1 for owner in owners if not owner) // 2


def _enter(window: Window | None, seen: Sighting, *, young: bool) -> bool:
    """Take a sighting into a window; False where that changes nothing."""
    if window is None or seen.ts_us < window.start_us - STRAGGLERS_US:
        return False
    if window.carried.get(seen.key_id, -1) >= seen.ts_us:
        return False
    if seen.kind == "refused":
        if seen.key_id in window.refused or len(window.refused) >= MOST_REFUSED:
            return False
        window.refused[seen.key_id] = seen.ts_us
        return True
    if seen.key_id in window.used or len(window.used) >= MOST_USED:
        return False
    window.used[seen.key_id] = seen.owner
    window.times[seen.key_id] = seen.ts_us
    if young:
        window.young[seen.key_id] = seen.ts_us
    window.prefixes[seen.prefix] = window.prefixes.get(seen.prefix, 0) + 1
    return True


def _begun(before: Window | None, seen: Sighting) -> Window:
    """A window that begins with this sighting; what the one before had lately is not counted again."""
    carried: dict[str, int] = {}
    if before is not None:
        times = {**before.refused, **before.times}
        carried = {key: at for key, at in times.items() if at >= seen.ts_us - 2 * STRAGGLERS_US}
    return Window(seen.ts_us, carried=carried, first_id=f"{seen.key_id}\0{seen.kind}")


def _finding(
    name: str, bits: float, seen: Sighting, observed: int, mean: float, unit: str, text: str, *, authenticated: bool
) -> Finding:
    at = rfc3339(seen.ts_us)
    sample = Sample(
        at=at, client_ip=seen.client_ip, country=seen.country, asn=seen.asn, network=seen.network, client=seen.client
    )
    return Finding(
        detector=name, family="network", bits=bits, at=at, observed=float(observed), unit=unit, text=text,
        expected=Band(low=1.0, median=1.0, high=round(upper(mean), 2)), authenticated=authenticated, sample=sample,
    )  # fmt: skip


def _place(subject: str, seen: Sighting) -> str:
    """E.g. "source:198.51.100.0/24 (AS64500 Exemplu Hosting, RO)"."""
    network = " ".join(part for part in (f"AS{seen.asn}" if seen.asn else "", seen.network) if part)
    return f"{subject} ({', '.join(part for part in (network, seen.country) if part) or 'an unknown network'})"


def _named(keys: list[str]) -> str:
    """The first five by name, the others by number."""
    rest = len(keys) - 5
    return ", ".join(keys[:5]) + (f" and {rest} more" if rest > 0 else "")


def _count(keys: Sized, most: int) -> str:
    return f"{len(keys)} or more" if len(keys) >= most else f"{len(keys)}"
