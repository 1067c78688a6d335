"""What people do at night: see and take cases, list endpoints and dead letters, run a drill.

Every word is a record on `api.decisions` and is read back through the same books as the responders'; they tell it on
(`night.py`). Each function prints and returns the exit code: 0, or 1 where what was named isn't there or a drill
failed.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from pipeline import moments
from pipeline.asking.answers import Shown, print_json, say_line, show_table
from pipeline.config.night import Drill
from pipeline.config.tree import Config
from pipeline.errors import ConfigError
from pipeline.respond.delivery.address import AddressError
from pipeline.respond.delivery.caller import Answer, Caller
from pipeline.respond.delivery.outbox import DeadLetter
from pipeline.respond.ledger.decisions import Decisions
from pipeline.respond.night.cases import Case
from pipeline.respond.night.drills import Drill as Running
from pipeline.respond.night.night import Books
from pipeline.respond.night.records import CaseSaid, DrillStarted, EndpointSwitched, NightRecord, Resent, Verb
from pipeline.times import micros
from schemas.incident import Incident

MISSING: Final = 1
POLL_S: Final = 0.5


@dataclass
class Desk:
    """The books as of now, and a pen."""

    decisions: Decisions
    books: Books

    async def write(self, records: Sequence[NightRecord]) -> None:
        """Each is acknowledged and read back."""
        for record in records:
            await self.decisions.write(record)


Opened = Callable[[Config], Any]


@asynccontextmanager
async def opened(config: Config, reads: bool = False) -> AsyncIterator[Desk]:
    """A desk on the broker's topic; `reads`: nothing is written at it. Raises `Fatal`."""
    from pipeline.respond.responder import decisions_of
    from pipeline.sinks.kafka import Producer

    async with AsyncExitStack() as stack:
        producer = None if reads else Producer(config.kafka)
        if producer:
            await producer.start()
            stack.push_async_callback(producer.close)
        books = Books()
        decisions = await decisions_of(config, producer, stack, f"desk-{uuid.uuid4().hex[:8]}", books.apply)
        yield Desk(decisions, books)


def reading(config: Config) -> AbstractAsyncContextManager[Desk]:
    """A desk at which nothing is written."""
    return opened(config, reads=True)


def at_desk(config: Config, work: Callable[[Desk], Any], desk: Opened = opened) -> int:
    """Work at a desk; the exit code."""

    async def run() -> int:
        async with desk(config) as this:
            result = work(this)
            return int(await result if asyncio.iscoroutine(result) else result)

    return asyncio.run(run())


# -- cases -----------------------------------------------------------------------------------------------------------


def list_cases(config: Config, everything: bool, as_json: bool, desk: Opened = reading) -> int:
    """Those that are not closed, or all of the last days; who waits longest first, what somebody has taken last."""
    return at_desk(config, lambda this: show_cases(this.books, everything, as_json), desk)


def show_cases(books: Books, everything: bool, as_json: bool) -> int:
    """Prints them."""
    cases = [case for case in books.cases.cases.values() if everything or case.state != "closed"]
    rows = [case_row(case, int(time.time() * 1e6)) for case in sorted(cases, key=in_order)]
    if as_json:
        return print_json(rows)
    if not rows:
        return say_line("no open cases" if not everything else "no cases in the last days")
    show_table("cases", rows, _CASES, folds=len(_CASES) - 1)
    return say_line("take one: keywatch cases ack CASE; its incidents: -o json, then keywatch explain ID")


def in_order(case: Case) -> tuple[bool, int]:
    """What waits for somebody first, the longest."""
    return case.state != "open", case.waiting_since_us


def case_row(case: Case, now_us: int) -> dict[str, Any]:
    """One line; `waiting_s` is 0 once somebody took it."""
    incident = msgspec.json.decode(case.lead, type=Incident)
    waiting = case.state == "open"
    return {
        "case_id": case.case_id, "state": case.state, "severity": case.severity, "keys": len(case.keys),
        "incidents": len(case.incidents), "opened": _clock(case.opened_us), "by": case.assignee or case.by,
        "waiting_s": max(0, (now_us - case.waiting_since_us) // 1_000_000) if waiting else 0,
        "until": _clock(case.until_us) if case.state == "snoozed" else "",
        "text": "; ".join((*case.broken.values(), incident.text)),
        "broken": list(case.broken), "incident_ids": list(case.incidents), "key_ids": case.keys,
    }  # fmt: skip


def say_of_case(
    config: Config, case: str, verb: Verb, by: str, *, to: str = "", until_us: int = 0, reason: str = "",
    desk: Opened = opened,
) -> int:  # fmt: skip
    """One word on one case, by its id or a beginning that only one has."""

    async def work(this: Desk) -> int:
        found = chosen(list(this.books.cases.cases.values()), case)
        if found is None:
            return missing(f"{case!r} is not the beginning of exactly one case's id: `keywatch cases` lists them")
        said = CaseSaid(case_id=found.case_id, verb=verb, by=by, to=to, until_us=until_us, reason=reason)
        await this.write([said])
        after = this.books.cases.cases[found.case_id]
        return say_line(f"{after.case_id} is {after.state}" + (f", assigned to {to}" if to else ""))

    return at_desk(config, work, desk)


def snoozed_until_us(words: str) -> int:
    """A time to come within 3 days: a case is forgotten soon after. Raises ConfigError."""
    now = moments.now()
    until = moments.moment(words, "--until", now)
    if not now < until <= now + timedelta(days=3):
        raise ConfigError(f"--until {words}: give a time to come, at most 3 days off")
    return int(until.timestamp() * 1e6)


def chosen(cases: Sequence[Case], name: str) -> Case | None:
    """The one case whose id begins so, with or without `case_`."""
    found = [
        case for case in cases if name and case.case_id.removeprefix("case_").startswith(name.removeprefix("case_"))
    ]
    return found[0] if len(found) == 1 else None


# -- endpoints -------------------------------------------------------------------------------------------------------


def list_endpoints(config: Config, as_json: bool, desk: Opened = reading) -> int:
    """What is configured: kind, what waits, dead letters, whether it gets anything."""

    def work(this: Desk) -> int:
        outbox = this.decisions.outbox
        rows = []
        for endpoint in config.respond.endpoints:
            off = outbox.disabled.get(endpoint.name)
            rows.append({
                "name": endpoint.name, "kind": endpoint.kind, "state": "disabled" if off else "enabled",
                "since": _clock(off.since_us) if off else "", "why": off.why if off else "",
                "waiting": sum(name == endpoint.name for name, _ in outbox.pending),
                "dead": sum(name == endpoint.name for name, _ in outbox.dead),
                "events": sorted(endpoint.wanted),
            })  # fmt: skip
        return print_json(rows) if as_json else show_table("endpoints", rows, _ENDPOINTS, folds=len(_ENDPOINTS) - 1)

    return at_desk(config, work, desk)


def enable(config: Config, name: str, by: str, desk: Opened = opened) -> int:
    """Let an endpoint get messages again."""

    async def work(this: Desk) -> int:
        if name not in this.decisions.outbox.disabled:
            return missing(f"{name!r} is not disabled: `keywatch respond endpoints` lists them")
        await this.write([EndpointSwitched(endpoint=name, disabled=False, by=by)])
        dead = sum(each == name for each, _ in this.decisions.outbox.dead)
        more = f"; {dead} dead letters: `keywatch respond dead-letters --endpoint {name} --resend`" if dead else ""
        return say_line(f"{name} is enabled{more}")

    return at_desk(config, work, desk)


def dead_letters(
    config: Config, endpoint: str, message: str, resend: bool, by: str, as_json: bool, desk: Opened | None = None
) -> int:
    """List what was given up, or let it be tried again from the schedule's start."""

    async def work(this: Desk) -> int:
        letters = [
            letter
            for letter in this.decisions.outbox.dead.values()
            if endpoint in ("", letter.record.endpoint) and letter.record.message_id.startswith(message)
        ]
        if resend:
            blocked = {each.record.endpoint for each in letters} & set(this.decisions.outbox.disabled)
            if blocked:
                raise ConfigError(f"{', '.join(sorted(blocked))} is disabled: `keywatch respond enable NAME` first")
            records = [_again(letter, by) for letter in letters]
            await this.write(records)
            return say_line(f"{len(records)} will be tried again")
        rows = [_letter_row(letter) for letter in letters]
        if as_json:
            return print_json(rows)
        return show_table("dead letters", rows, _DEAD, folds=len(_DEAD) - 1) if rows else say_line("no dead letters")

    return at_desk(config, work, desk or (opened if resend else reading))


def _again(letter: DeadLetter, by: str) -> Resent:
    return Resent(message_id=letter.record.message_id, endpoint=letter.record.endpoint, by=by)


def _letter_row(letter: DeadLetter) -> dict[str, Any]:
    record = letter.record
    return {
        "at": _clock(letter.at_us), "endpoint": record.endpoint, "message_id": record.message_id,
        "attempts": record.attempts, "why": letter.why,
    }  # fmt: skip


# -- drills ----------------------------------------------------------------------------------------------------------


def run_drill(config: Config, by: str, wait: bool, desk: Opened = opened) -> int:
    """Abuse the decoy through the gateway; with `wait`, stay until the responders say what came of it."""
    drill = config.respond.drill
    check_drill(drill)
    caller = caller_of(config, drill)

    return at_desk(config, lambda this: drilled(this, drill, caller, by, wait), desk)


async def drilled(this: Desk, drill: Drill, caller: Caller, by: str, wait: bool) -> int:
    """The drill at an open desk: told before its first request, so that nothing of it can be missed."""
    started = DrillStarted(
        drill_id=f"drill_{uuid.uuid4().hex[:16]}", key_id=drill.key_id, at_us=int(time.time() * 1e6),
        limit_s=drill.limit_s, act=drill.act, by=by,
    )  # fmt: skip
    await this.write([started])
    answers = await abuse(caller, drill)
    say_line(f"{started.drill_id}: {drill.requests} requests with the decoy {drill.key_id}: {', '.join(answers)}")
    return await _outcome(this, started.drill_id, drill.limit_s) if wait else 0


def check_drill(drill: Drill) -> None:
    """Raises ConfigError for a drill that can't be meant."""
    if not (drill.url and drill.key_id and drill.key):
        raise ConfigError(
            "respond.drill needs url (through your real gateway), key_id and key (or key_file) of a decoy"
        )
    key = drill.key.reveal()
    if not key.isascii() or not key.isprintable():
        raise ConfigError("respond.drill.key: one line of ASCII, as the header carries it")


def caller_of(config: Config, drill: Drill) -> Caller:
    """Raises ConfigError for a URL that is never called."""
    try:
        return Caller(
            drill.url, config.respond.connect_timeout_s, config.respond.total_timeout_s,
            allow_private=drill.allow_private, tls_only=True,
        )  # fmt: skip
    except AddressError as error:
        raise ConfigError(f"respond.drill.url: {error}") from error


async def abuse(caller: Caller, drill: Drill) -> list[str]:
    """The decoy's requests, one after the other; what the gateway answered, without bodies."""
    answers: list[Answer] = [
        await caller.call("GET", {drill.header: drill.key.reveal()}) for _ in range(drill.requests)
    ]
    return [str(answer.status or answer.words) for answer in answers]


async def _outcome(this: Desk, drill_id: str, limit_s: float) -> int:
    until = time.monotonic() + limit_s + 30
    while time.monotonic() < until:
        await this.decisions.catch_up()
        running = this.books.drills.drills[drill_id]
        if running.ended:
            say_line(f"{'passed' if running.ended.passed else 'FAILED'}: {running.ended.words}")
            return 0 if running.ended.passed else MISSING
        await asyncio.sleep(POLL_S)
    say_line("FAILED: no responder has said what came of it: is one running?")
    return MISSING


def drill_status(config: Config, as_json: bool, desk: Opened = reading) -> int:
    """The last drills; exit code 1 where the newest one failed."""

    def work(this: Desk) -> int:
        drills = list(this.books.drills.drills.values())[-20:][::-1]
        rows = [_drill_row(each) for each in drills]
        if as_json:
            print_json(rows)
        elif rows:
            show_table("drills", rows, _DRILLS, folds=len(_DRILLS) - 1)
        else:
            say_line("no drill is known: keywatch drill run")
        ended = next((each.ended for each in drills if each.ended), None)
        return 0 if ended is None or ended.passed else MISSING

    return at_desk(config, work, desk)


def _drill_row(drill: Running) -> dict[str, Any]:
    ended = drill.ended
    return {
        "at": _clock(drill.started_us), "key_id": drill.started.key_id, "by": drill.started.by,
        "state": "running" if ended is None else "passed" if ended.passed else "failed",
        "words": ended.words if ended else f"waits for {drill.needs or 'the responder'}",
    }  # fmt: skip


def missing(text: str) -> int:
    """Says what is not there; the exit code."""
    sys.stderr.write(f"keywatch: {text}\n")
    return MISSING


def _clock(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: str(row[name])


def _columns(*names: str) -> tuple[Shown, ...]:
    return tuple((name, _text(name), "left") for name in names)


_CASES: Final[tuple[Shown, ...]] = (
    *_columns("case_id", "state", "severity", "keys"),
    ("opened", lambda row: moments.of_us(micros(row["opened"])), "left"),
    ("waits", lambda row: f"{row['waiting_s'] // 60} min" if row["state"] == "open" else "", "left"),
    *_columns("by", "text"),
)
_ENDPOINTS: Final = _columns("name", "kind", "state", "waiting", "dead", "since", "why")
_DEAD: Final = _columns("at", "endpoint", "message_id", "attempts", "why")
_DRILLS: Final = _columns("at", "state", "key_id", "by", "words")
