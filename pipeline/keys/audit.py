"""`keywatch keys audit`: keys that are a risk as they lie there, each with why and what to do, the worst first.

leaked: reported as public, still active. departed: its owner has left, as `api.key_events` tells it, and nobody else is
declared since. test_on_live: declared a test key, used in the live environment. over_age: neither made nor rotated for
`key_life.rotation_days`. over_privileged: a scope that no request needed, by the scopes that the gateway logs, else by
routes and methods (`pipeline/keys/scopes.py`); a `full` role that only reads. never_used, unused: nobody would miss it.
undeclared: used, and in no catalogue. no_allow_list: used from one network only, and nothing binds it to that.
`requests` knows scopes, methods and environments, for 14 days; all else goes back 30 days and more. The clock is the
newest use of any key: where nothing comes in, nothing grows old.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments
from pipeline.asking.hunt import as_of_us
from pipeline.asking.queries import DAY_US, ask
from pipeline.config.tree import KeyLife
from pipeline.keys import scopes
from pipeline.keys.catalogue import Catalogue
from pipeline.times import micros
from schemas.event import AUTHENTICATED
from schemas.key import CRITICALITIES, Key
from schemas.key_event import KeyEvent

GRADES: Final = ("low", "medium", "high", "critical")
CHECKS: Final = (
    "leaked", "departed", "test_on_live", "over_privileged", "over_age", "unused", "never_used", "undeclared",
    "no_allow_list",
)  # fmt: skip
PLACES_DAYS: Final = 30
REQUESTS_DAYS: Final = 14
FEWEST_REQUESTS: Final = 100
"""Before so many requests nobody knows what a key needs."""
MOST_OPERATIONS: Final = 200
"""Of a key that does more different things than that, none is said to be missing."""
AT_ONCE: Final = 500


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One key, one check."""

    key_id: str
    check: str
    grade: str
    owner: str = ""
    criticality: str = "undeclared"
    reason: str
    todo: str


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """When a key was used, whatever its age."""

    key_id: str
    first_us: int
    last_us: int


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The only network of a key in the last `PLACES_DAYS`."""

    key_id: str
    asn: int
    prefixes: list[str]
    days: int


class Deeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a key did successfully in the last 14 days."""

    key_id: str
    requests: int
    scopes: list[str]
    operations: list[tuple[str, str]]


class LiveUse(msgspec.Struct, frozen=True, kw_only=True):
    """A test key's requests in the live environment."""

    key_id: str
    requests: int
    routes: list[str]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All that ClickHouse knows for the audit, at one moment."""

    as_of_us: int
    uses: dict[str, Use]
    origins: dict[str, Origin]
    deeds: dict[str, Deeds]
    live: dict[str, LiveUse]
    words: frozenset[str]  # of all routes; where a privileged key did anything


def look(client: Client, catalogue: Catalogue, only: str = "") -> Seen:
    """Ask; of one key alone where `only` names it. Raises Retry or Fatal."""
    of = {"only": only}
    privileged = [key_id for key_id, key in catalogue.items() if key.scopes or key.role == "full"]
    tests = [key_id for key_id, key in catalogue.items() if key.environment == "test"]
    deeds = {row.key_id: row for some in _some(privileged) for row in ask(client, Deeds, _DEEDS, {"keys": some})}
    routes = ask(client, _Route, _ROUTES, {}) if deeds else []  # of all keys' sources: only where it is compared
    return Seen(
        as_of_us=as_of_us(client) or moments.us_of(moments.now()),
        uses={row.key_id: row for row in ask(client, Use, _USES, of)},
        origins={row.key_id: row for row in ask(client, Origin, _ORIGINS, {"good": sorted(AUTHENTICATED), **of})},
        deeds=deeds,
        live={row.key_id: row for some in _some(tests) for row in ask(client, LiveUse, _LIVE, {"keys": some})},
        words=frozenset(word for row in routes for word in scopes.words_of(row.route)),
    )


def _some(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[at : at + AT_ONCE] for at in range(0, len(keys), AT_ONCE))


def audit(seen: Seen, catalogue: Catalogue, gone: Mapping[str, KeyEvent], rules: KeyLife) -> list[Fault]:
    """Every fault, the worst first. `gone`: the newest `owner_departed` of a key. Pure."""
    owners = {event.owner: event for event in gone.values() if event.owner}
    faults = [
        fault for key_id, key in catalogue.items() if key.status == "active" and not key.decoy
        for fault in _of_key(key, seen.uses.get(key_id), seen, rules)
    ]  # fmt: skip
    for key_id, key in catalogue.items():
        event = gone.get(key_id) or owners.get(key.owner)
        if key.status == "active" and event is not None and key.owner in ("", event.owner):
            faults.append(_departed(key, event, seen.uses.get(key_id)))
    return sorted([*faults, *_undeclared(seen, catalogue, rules)], key=_rank)


def _rank(fault: Fault) -> tuple[int, int, int, str]:
    weight = ("undeclared", *CRITICALITIES).index(fault.criticality)
    return -GRADES.index(fault.grade), -weight, CHECKS.index(fault.check), fault.key_id


def _fault(key: Key, check: str, grade: str, reason: str, todo: str) -> Fault:
    return Fault(
        key_id=key.key_id, check=check, grade=grade, owner=key.owner, criticality=key.criticality, reason=reason,
        todo=todo,
    )  # fmt: skip


def _of_key(key: Key, use: Use | None, seen: Seen, rules: KeyLife) -> Iterator[Fault]:
    if key.leaked_at:
        yield _fault(key, "leaked", "critical", f"public since {key.leaked_at}", "revoke it now; keywatch leaks list")
    yield from _by_age(key, seen.as_of_us, rules)
    yield from _by_use(key, use, seen.as_of_us, rules)
    live = seen.live.get(key.key_id)
    if live is not None:
        where = ", ".join(live.routes[:3])
        yield _fault(key, "test_on_live", "high",
                     f"a test key with {live.requests:,} live requests in 14 days ({where})",
                     "find who uses it, give them a live key of their own, revoke this one")  # fmt: skip
    deeds = seen.deeds.get(key.key_id)
    if deeds is not None:
        yield from _by_deeds(key, deeds, seen.words)
    origin = seen.origins.get(key.key_id)
    if origin is not None and not key.allowed_networks and origin.days >= rules.one_network_days:
        grade = "medium" if key.criticality == "critical" else "low"
        yield _fault(key, "no_allow_list", grade,
                     f"used from {_network(origin)} only, on {origin.days} days, and bound to nothing",
                     f"bind it to its networks: keywatch keys manifest {key.key_id}")  # fmt: skip


def _network(origin: Origin) -> str:
    name = f"AS{origin.asn}" if origin.asn else "one network"
    return f"{name} ({', '.join(origin.prefixes[:3])}{', ...' if len(origin.prefixes) > 3 else ''})"


def born_us(key: Key) -> int:
    """When the secret was made or last rotated; 0 where the catalogue does not say."""
    try:
        return micros(key.last_rotated_at or key.created_at)
    except ValueError:
        return 0


def _by_age(key: Key, now_us: int, rules: KeyLife) -> Iterator[Fault]:
    born = born_us(key)
    days = (now_us - born) // DAY_US if born else 0
    if days > rules.rotation_days:
        grave = days > 2 * rules.rotation_days or key.criticality != "normal"
        yield _fault(key, "over_age", "high" if grave else "medium",
                     f"{days:,} days since it was made or rotated; {rules.rotation_days} are allowed",
                     "rotate: make a new key, declare rotated_to, watch keywatch keys rotations")  # fmt: skip


def _by_use(key: Key, use: Use | None, now_us: int, rules: KeyLife) -> Iterator[Fault]:
    if use is None:
        born = born_us(key)
        days = (now_us - born) // DAY_US
        if not born or days > rules.never_used_days:
            age = f"made {days:,} days ago" if born else "nobody knows when it was made"
            yield _fault(key, "never_used", "medium", f"never used ({age})", "ask its owner, then revoke it")
        return
    idle = (now_us - use.last_us) // DAY_US
    if idle >= rules.unused_days:
        yield _fault(key, "unused", "medium", f"not used for {idle:,} days, last {moments.of_us(use.last_us)}",
                     "suspend it for two weeks, then revoke it")  # fmt: skip


def _by_deeds(key: Key, deeds: Deeds, words: frozenset[str]) -> Iterator[Fault]:
    if deeds.requests < FEWEST_REQUESTS or len(deeds.operations) >= MOST_OPERATIONS:
        return
    logged = {scope for scope in deeds.scopes if scope}
    if logged:
        idle, how = sorted(set(key.scopes) - logged), "by the scopes that the gateway logs"
    else:
        idle = [each for each in key.scopes if scopes.needed(each, deeds.operations, words) is False]
        how = "by its routes and methods"
    if idle:
        yield _fault(key, "over_privileged", "medium",
                     f"never needed in 14 days and {deeds.requests:,} requests: {', '.join(idle)} ({how})",
                     f"take away {', '.join(idle)}")  # fmt: skip
    if key.role == "full" and all(method in scopes.READS for method, _ in deeds.operations):
        yield _fault(key, "over_privileged", "medium",
                     f"its role is full, and its {deeds.requests:,} requests only read",
                     "make its role read_only")  # fmt: skip


def _departed(key: Key, event: KeyEvent, use: Use | None) -> Fault:
    since = moments.of_us(event.ts_us)
    used = use is not None and use.last_us > event.ts_us
    told = "" if event.key_id == key.key_id else f" (told of {event.key_id})"
    words = f"its owner {event.owner or key.owner or 'unknown'} departed {since}{told}"
    return _fault(key, "departed", "critical" if used else "high", words + (", and it was used since" if used else ""),
                  "hand it over (declare the new owner and rotate) or revoke it")  # fmt: skip


def _undeclared(seen: Seen, catalogue: Catalogue, rules: KeyLife) -> Iterator[Fault]:
    """Those that were used lately: nobody answers for them, and nothing may act on them."""
    for use in seen.uses.values():
        if catalogue.get(use.key_id) is None and seen.as_of_us - use.last_us < rules.unused_days * DAY_US:
            yield Fault(key_id=use.key_id, check="undeclared", grade="medium", reason="used, and nobody declares it",
                        todo="keywatch keys import: who owns it, what may it do?")  # fmt: skip


def failing(faults: Iterable[Fault], fail_on: Sequence[str]) -> list[Fault]:
    """Those that a build shall fail on: of a named check, or at least as grave as a named grade."""
    grades = [GRADES.index(word) for word in fail_on if word in GRADES]
    least = min(grades, default=len(GRADES))
    return [fault for fault in faults if fault.check in fail_on or GRADES.index(fault.grade) >= least]


class _Route(msgspec.Struct, frozen=True):
    route: str


_AS_OF: Final = "(SELECT max(last_used) FROM keys_last_used)"
_USES: Final = """
    SELECT key_id, toUnixTimestamp64Micro(first_used) AS first_us, toUnixTimestamp64Micro(last_used) AS last_us
    FROM keys_last_used FINAL WHERE {only:String} = '' OR key_id = {only:String}"""
_ORIGINS: Final = f"""
    SELECT key_id, any(w.asn) AS asn, arraySort(groupUniqArray(20)(prefix)) AS prefixes,
        uniqExact(toDate(window_start)) AS days
    FROM key_source_1h AS w
    WHERE window_start > {_AS_OF} - INTERVAL {PLACES_DAYS} DAY AND outcome IN {{good:Array(String)}} AND prefix != ''
        AND ({{only:String}} = '' OR key_id = {{only:String}})
    GROUP BY key_id HAVING if(max(w.asn) = 0, uniqExact(prefix), uniqExact(w.asn)) = 1"""  # noqa: S608 (constants)
_DEEDS: Final = f"""
    SELECT key_id, uniqExact(epoch, partition, offset) AS requests, groupUniqArray({MOST_OPERATIONS})(scope) AS scopes,
        groupUniqArray({MOST_OPERATIONS})((method, route)) AS operations
    FROM requests WHERE key_id IN {{keys:Array(String)}} AND outcome = 'success'
        AND ts > {_AS_OF} - INTERVAL {REQUESTS_DAYS} DAY
    GROUP BY key_id"""  # noqa: S608
_LIVE: Final = f"""
    SELECT key_id, uniqExact(epoch, partition, offset) AS requests, arraySort(groupUniqArray(5)(route)) AS routes
    FROM requests WHERE key_id IN {{keys:Array(String)}} AND environment = 'live' AND outcome = 'success'
        AND ts > {_AS_OF} - INTERVAL {REQUESTS_DAYS} DAY
    GROUP BY key_id"""  # noqa: S608
_ROUTES: Final = f"""
    SELECT DISTINCT route FROM key_source_1h
    WHERE window_start > {_AS_OF} - INTERVAL {PLACES_DAYS} DAY LIMIT 10000"""  # noqa: S608
