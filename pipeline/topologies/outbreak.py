"""Outbreak: incidents, or odd errors, of many keys at once that have one cause.

Detects: within a quarter of an hour the incidents or errors of five keys and more share what brought them about (the
same detector on the same route and status, in the same network, or just the same detector), where one is usual. They
are told once as an incident of the fleet that names the cause and the keys; the keys' own incidents stay as they are,
since what else may be in them the common cause does not explain. Refused requests, whose callers did not hold the
keys, are a cause of their own, by status alone: an outage of what checks keys is one, and so is a scan in the names of
keys whose ids somebody knows. Beside its holders' errors, it would make these usual, or be taken for why they come.
Misses: keys that the cause made odd but not enough for a finding of errors or an incident of their own.
False alarms: a campaign against many keys by the same means looks the same; its incident says what they share, and
`spray` says so where it comes from one source.
Independent of the number of partitions: breaks of all of them come to one place.
Source: reference/evidence.md, section 3 (an outage made 31 times as many odd sessions as chance); issue 3, section 6.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pipeline.times import rfc3339
from pipeline.topologies.episodes import Episodes, Evidence
from pipeline.topologies.gatherings import Law, surprise_bits, upper
from pipeline.topologies.register import Register
from schemas.incident import Band, Finding, Incident, Sample
from schemas.sighting import Break

SPAN_US: Final = 900_000_000
LEAST_KEYS: Final = 5
LISTED_BITS: Final = 13.0
SHIPPED: Final = 0.3  # further keys with an incident of the same cause in a quarter of an hour
SHIPPED_WEIGHT: Final = 20.0
MOST_RECENT: Final = 2_000
MOST_CAUSES: Final = 2_000
TELLING: Final = 0.8
"""A narrower cause is named if it explains this share of what the widest does."""
REFUSED_ADVICE: Final = (
    "what checks keys fails, or somebody names keys that he does not hold; it explains nothing else of these keys"
)


class Cause(msgspec.Struct):
    """A window of one cause, and how many keys its windows usually have."""

    start_us: int = 0
    keys: dict[str, str] = {}  # key id -> owner
    before: list[str] = []  # keys of the window before
    law: Law = msgspec.field(default_factory=Law)
    first_id: str = ""
    told: bool = False
    last_us: int = 0


class Outbreak:
    """Judges breaks."""

    def __init__(self, episodes: Episodes, partition: int) -> None:
        self.causes: Register[Cause] = Register("causes", Cause, MOST_CAUSES)
        self._episodes = episodes
        self._partition = partition

    def see(self, told: Break, offset: int, out: list[Incident]) -> None:
        """One key's incident."""
        names = _causes(told)
        grown = [name for name in names if self._enter(name, told)]
        odd = {name: cause for name in grown if _is_odd(cause := self._cause(name, told))}
        if odd:
            most = max(len(cause.keys) for cause in odd.values())
            # the narrowest one that explains nearly as much
            name = next(name for name, cause in odd.items() if len(cause.keys) >= TELLING * most)
            for each in names:
                self._cause(each, told).told = True
            self._tell(name, odd[name], told, offset, out)

    def _cause(self, name: str, told: Break) -> Cause:
        return self.causes.get(name) or self.causes.add(name, Cause(told.ts_us, first_id=told.key_id))

    def _enter(self, name: str, told: Break) -> bool:
        cause = self._cause(name, told)
        self.causes.touch(name)
        goes_on = cause.told and told.ts_us < cause.last_us + SPAN_US
        if told.ts_us >= cause.start_us + SPAN_US and not goes_on:
            if cause.keys and not cause.told:
                cause.law.learn(float(len(cause.keys) - 1), _mean(cause), told.ts_us)
            cause.before, cause.start_us, cause.keys = sorted(cause.keys), told.ts_us, {}
            cause.first_id, cause.told = told.key_id, False
        again = told.ts_us < cause.start_us and told.key_id in cause.before
        if again or told.key_id in cause.keys or len(cause.keys) >= MOST_RECENT:
            return False
        cause.keys[told.key_id] = told.owner
        cause.last_us = max(cause.last_us, told.ts_us)
        return True

    def _tell(self, name: str, cause: Cause, told: Break, offset: int, out: list[Incident]) -> None:
        keys, owners = list(cause.keys), len({owner for owner in cause.keys.values() if owner})
        mean = _mean(cause)
        advice = REFUSED_ADVICE if told.stranger else "one cause; look there before you look at the keys"
        text = (
            f"fleet: {len(keys)} keys{f' of {owners} owners' if owners > 1 else ''} are odd since "
            f"{rfc3339(cause.start_us)[:16]}Z by {name}, where 1 [1-{upper(mean):.0f}] is "
            f"usual: {advice}. {', '.join(keys[:5])}"
            f"{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}."
        )
        at = rfc3339(told.ts_us)
        finding = Finding(
            detector="outbreak", family="outcome", bits=_bits(cause), at=at, observed=float(len(keys)), unit="keys",
            expected=Band(low=1.0, median=1.0, high=round(upper(mean), 2)), text=text, authenticated=False,
            sample=Sample(at=at, route=told.route, status=told.status, asn=told.asn),
        )  # fmt: skip
        self._episodes.tell(
            Evidence(
                subject=f"fleet:{_causes(told)[-1]}", rule="outbreak", first_us=cause.start_us, first_id=cause.first_id,
                ts_us=told.ts_us, severity="medium", rung="observe", text=text, findings=(finding,), keys=tuple(keys),
                keys_total=len(keys),
            ), offset, self._partition, out,
        )  # fmt: skip


def _mean(cause: Cause) -> float:
    return cause.law.mean(SHIPPED, SHIPPED_WEIGHT)


def _bits(cause: Cause) -> float:
    return surprise_bits(len(cause.keys) - 1, _mean(cause))


def _is_odd(cause: Cause) -> bool:
    return len(cause.keys) >= LEAST_KEYS and _bits(cause) >= LISTED_BITS


def _causes(told: Break) -> tuple[str, ...]:
    """What it may share with others, the narrowest first; the last is the kind, of which there is one incident."""
    main = told.detectors[0] if told.detectors else "unknown"
    status = f"{told.status // 100}xx"
    if told.stranger:  # no route: made-up ones would drive real causes out of the register
        return (f"refused requests with {status}",)
    if told.status >= 400:
        narrow = (f"{main} on {told.route} answered {status}",) if told.route else ()
        return (*narrow, f"{main} with {status}")
    network = (f"{main} from AS{told.asn}",) if told.asn else ()
    route = (f"{main} on {told.route}",) if told.route else ()
    return (*network, *route, main)
