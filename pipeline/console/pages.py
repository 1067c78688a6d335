"""What each page shows: from the request's address to the template and its values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request

from pipeline.asking import queries
from pipeline.asking.answers import OF_OTHERS
from pipeline.console import charts, questions
from pipeline.console.answers import Answers
from pipeline.console.charts import Band
from pipeline.console.questions import Filter
from pipeline.console.side import mutes_of
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.keys.audit import audit, look
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.manifest import Manifest, manifest
from pipeline.privacy.console_log import console_lines
from pipeline.respond.ladder import Ladder, ladder_of
from pipeline.respond.night.cases import Case
from pipeline.times import micros
from schemas.control import Mute
from schemas.incident import KEY_RULES, SEVERITIES, Finding, Incident

T = TypeVar("T")
Shown = tuple[str, dict[str, Any]]
CHART_DAYS: Final = 7
KEY_DAYS: Final = 30
LOG_DAYS: Final = 30
CASES: Final = 50
LOG_LINES: Final = 200
LATE_S: Final = 900.0
"""The newest use is older than that: what is shown may not be now. A small API may truly be idle."""


class Told(NamedTuple):
    """One line of an incident's timeline."""

    at_us: int
    what: str
    why: str = ""
    times: int = 1
    first_us: int = 0


class Decided(NamedTuple):
    """Decisions that were alike: the newest, how many, and when the first was made."""

    newest: questions.Decision
    times: int
    first_us: int


def incidents(answers: Answers, request: Request) -> Shown:
    """The list, newest first."""
    said = request.query_params
    wanted = Filter(
        state=said.get("state", "open") if said.get("state", "open") in ("open", "closed") else "",
        severity=said.get("severity", "") if said.get("severity", "") in SEVERITIES else "",
        about=said.get("about", "")[:128], before_us=_whole(said.get("before", "")),
    )  # fmt: skip
    lines = answers.ask(questions.incidents, wanted)
    counts = answers.ask(questions.counts)
    older = lines[-1].opened_us if len(lines) == questions.PAGE else 0
    late = bool(counts.newest_use_us) and time.time() - counts.newest_use_us / 1e6 > LATE_S
    mutes = [each for each in _mutes(answers) if each.key_id or each.owner]  # those of a detector alone are of any key
    muted = {line.incident_id: mutes_of(mutes, line.key_id, line.owner) for line in lines}
    return "incidents.html", {
        "lines": lines, "wanted": wanted, "counts": counts, "older": older, "late": late, "muted": muted,
    }  # fmt: skip


def incident(answers: Answers, request: Request) -> Shown | None:
    """One incident that explains itself."""
    found = answers.ask(queries.explain_incident, request.path_params["incident"])
    if found is None:
        return None
    told, normal = found.incident, found.normal
    opened_us, last_us = micros(told.opened_at), micros(told.last_at)
    opened = datetime.fromtimestamp(opened_us / 1e6, UTC)
    bars = answers.ask(questions.hours, told.key_id, CHART_DAYS, last_us)
    band = Band(normal.low, normal.median, normal.high)
    places = answers.ask(queries.places, [told.key_id], KEY_DAYS, 12)
    return "incident.html", {
        "found": found, "incident": told, "normal": normal, "places": places,
        "chart": charts.hours(bars, band, [opened_us]), "by_day": charts.days(bars, band),
        "week": charts.week(answers.ask(questions.week, told.key_id), (opened.weekday(), opened.hour)),
        "findings": [(each, _against(each), OF_OTHERS.get(each.unit, "")) for each in told.findings],
        "opened_us": opened_us, "last_us": last_us, "usual": _by_dimension(normal), "ours": told.rule in KEY_RULES,
        "incident_id": told.incident_id, "mutes": mutes_of(_mutes(answers), told.key_id, told.owner),
        "told": in_order(found.responses, found.applied),
    }  # fmt: skip


def incident_now(answers: Answers, request: Request) -> Shown:
    """The live part of an incident's page alone: two small questions, where the whole page has a dozen."""
    name = request.path_params["incident"]
    try:
        told = in_order(answers.ask(queries.responses_to, name), answers.ask(queries.applied_to, name))
    except (Retry, Fatal):  # undo and approval have to be within reach then, too
        told = None
    return "_incident_now.html", {"incident_id": name, "told": told}


def incident_without(answers: Answers, request: Request, case: Case | None, acted_on: Sequence[str]) -> dict[str, Any]:
    """What the topics tell of an incident while ClickHouse is away: its case, and what is declared of its key.

    A case keeps the whole text of its gravest incident alone. `acted_on`: keys of what is done about this one.
    """
    name = request.path_params["incident"]
    lead = msgspec.json.decode(case.lead, type=Incident) if case else None
    known = lead if lead and lead.incident_id == name else None
    keys = [known.key_id] if known else [*acted_on, *(case.keys if case and len(case.keys) == 1 else ())]
    catalogue, key = answers.side.catalogue, keys[0] if keys else ""
    declared = catalogue.get(key) if catalogue is not None and key else None
    owner = declared.owner if declared else known.owner if known else ""
    return {
        "incident_id": name, "case": case, "known": known, "lead": lead, "key_id": key, "declared": declared,
        "ours": known is None or known.rule in KEY_RULES, "mutes": mutes_of(_mutes(answers), key, owner) if key else [],
    }  # fmt: skip


def key_without(answers: Answers, request: Request, cases: Sequence[Case]) -> dict[str, Any]:
    """What the topics tell of a key while ClickHouse is away: what is declared, its mutes, its open cases."""
    name = request.path_params["key"]
    catalogue = answers.side.catalogue
    declared = catalogue.get(name) if catalogue is not None else None
    theirs = [case for case in cases if name in case.keys]
    return {
        "key_id": name, "declared": declared, "read": catalogue is not None, "faults": None, "cases": case_rows(theirs),
        "life": answers.config.key_life, "mutes": mutes_of(_mutes(answers), name, declared.owner if declared else ""),
    }  # fmt: skip


def case_rows(cases: Sequence[Case]) -> list[tuple[Case, Incident]]:
    """Open cases with their gravest incident."""
    return [(case, msgspec.json.decode(case.lead, type=Incident)) for case in cases[:CASES]]


def in_order(responses: Sequence[queries.ResponseLine], effects: Sequence[queries.Applied]) -> list[Told]:
    """What was done and what people said, as it happened; what came several times in a row stands once."""
    lines = [Told(each.at_us, each.words, each.reason) for each in responses]
    lines += [Told(each.at_us, f"{each.verdict}: {each.effect}") for each in effects]
    lines.sort(key=lambda each: each.at_us)
    return [run[-1]._replace(times=len(run), first_us=run[0].at_us) for run in runs(lines, lambda each: each.what)]


def runs(lines: Sequence[T], alike: Callable[[T], object]) -> list[list[T]]:
    """The lines in their order, those that are alike and follow one another together."""
    return [list(run) for _, run in groupby(lines, alike)]


def decided(answers: Answers, key: str = "") -> list[Decided]:
    """The newest first; what was decided several times in a row of one incident stands once."""
    lines = answers.ask(questions.decisions, key)
    found = runs(lines, lambda each: (each.incident_id, each.stage, each.verdict, each.act, each.policy_version))
    return [Decided(run[0], len(run), run[-1].at_us) for run in found]


def _mutes(answers: Answers) -> list[Mute]:
    return answers.side.mutes(int(time.time() * 1e6))


def _against(finding: Finding) -> Any:
    band = finding.expected
    if finding.family in ("time", "network") or finding.unit in OF_OTHERS or band.high <= 0:
        return ""
    return charts.against(finding.observed, Band(band.low, band.median, band.high))


def _by_dimension(normal: queries.Normal) -> dict[str, list[queries.Usual]]:
    names = ("country", "network", "client", "route")
    return {name: [each for each in normal.usual if each.dimension == name] for name in names}


def keys(answers: Answers, request: Request) -> Shown:
    """Keys by the beginning of their id."""
    beginning, after = (request.query_params.get(name, "")[:128] for name in ("q", "after"))
    lines = answers.ask(questions.keys, beginning, after)
    more = lines[-1].key_id if len(lines) == questions.PAGE else ""
    return "keys.html", {"lines": lines, "beginning": beginning, "more": more}


def key(answers: Answers, request: Request) -> Shown | None:
    """One key: what is declared of it, what it does, when, from where, and what happened to it."""
    name = request.path_params["key"]
    last = answers.ask(queries.last_used, [name])
    if not last:
        said = _declared(answers, name)
        return ("unused.html", {"key_id": name, **said}) if said["declared"] else None
    normal = answers.ask(queries.normal, name, _after(last[0].last_used_us))
    found = answers.ask(questions.incidents, Filter(about=name))
    theirs = [each for each in found if each.key_id == name]
    bars = answers.ask(questions.hours, name, KEY_DAYS)
    band = Band(normal.low, normal.median, normal.high)
    return "key.html", {
        "key_id": name, "last": last[0], "normal": normal, "usual": _by_dimension(normal),
        "requests": next(iter(answers.ask(queries.requests_per_key, [name], KEY_DAYS)), None),
        "errors": next(iter(answers.ask(queries.error_rates, [name], KEY_DAYS)), None),
        "places": answers.ask(queries.places, [name], KEY_DAYS, 20), "incidents": theirs,
        "chart": charts.hours(bars, band, [each.opened_us for each in theirs]), "by_day": charts.days(bars, band),
        "decisions": decided(answers, name),
        "week": charts.week(answers.ask(questions.week, name)), "days": KEY_DAYS, **_declared(answers, name),
    }  # fmt: skip


def _declared(answers: Answers, name: str) -> dict[str, Any]:
    """What its owner says of it, what is wrong with it as it lies there, and its mutes; None: it can't be read now."""
    catalogue = answers.side.catalogue
    declared = catalogue.get(name) if catalogue is not None else None
    of_it = Catalogue.of([declared] if declared else [])
    life = answers.config.key_life
    faults = None if catalogue is None else audit(answers.ask(look, of_it, name), of_it, {}, life)
    mutes = mutes_of(_mutes(answers), name, declared.owner if declared else "")
    return {"declared": declared, "read": catalogue is not None, "faults": faults, "life": life, "mutes": mutes}


def of_key(answers: Answers, request: Request) -> Shown | None:
    """What a key does, as a policy could allow it: a page of its own, since it takes half a dozen questions."""
    name = request.path_params["key"]
    if not answers.ask(queries.last_used, [name]):
        return None
    try:
        found: Manifest | None = answers.ask(manifest, name, None, KEY_DAYS)
    except ConfigError:  # not used of late: nothing to go by
        found = None
    return "manifest.html", {"key_id": name, "manifest": found, "days": KEY_DAYS}


def _after(at_us: int) -> str:
    return (datetime.fromtimestamp(at_us / 1e6, UTC) + timedelta(hours=1)).isoformat()


def policy(answers: Answers, request: Request) -> Shown:
    """What may be done automatically, and what was decided of late."""
    ladder = ladder_of(answers.config.respond)
    try:
        decisions: list[Decided] | None = decided(answers)
    except (Retry, Fatal):  # the switches have to be within reach then, too
        decisions = None
    return "policy.html", {
        "policy": ladder.policy, "rules": ladder.rules, "version": ladder.version, "decisions": decisions,
        "other": by_another_policy(ladder, [each.newest for each in decisions or ()]),
    }  # fmt: skip


def by_another_policy(ladder: Ladder, newest_first: Sequence[questions.Decision]) -> questions.Decision | None:
    """The newest decision, where it was made by another policy than this console's own; None where it was not.

    What the simulate switch makes of the console's is no other. What follows a decision carries the version of then.
    """
    ours = {ladder.version, ladder.simulated().version}
    decided = (each for each in newest_first if each.stage == "decided" and each.policy_version)
    newest = next(decided, None)
    return newest if newest and newest.policy_version not in ours else None


def log(answers: Answers, request: Request) -> Shown:
    """Who looked at what: a page for admins."""
    person, about = (request.query_params.get(name, "")[:128] for name in ("person", "about"))
    since_us = int((time.time() - LOG_DAYS * 86_400) * 1e6)
    lines = answers.ask(console_lines, since_us, person, about)
    return "log.html", {"lines": lines[:LOG_LINES], "more": len(lines) > LOG_LINES, "person": person, "about": about,
                        "days": LOG_DAYS}  # fmt: skip


# -- filters of the templates ----------------------------------------------------------------------------------------


def when(at_us: int) -> str:
    """`2026-11-26 05:33:28`, UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S") if at_us else "never"


def day(at_us: int) -> str:
    """`Thu 2026-11-26`, UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%a %Y-%m-%d")


def moment(text: str) -> str:
    """An RFC 3339 time as `when` has it."""
    return when(micros(text))


def declared(text: str) -> str:
    """As `when` has it; as it stands where it is no time: a catalogue may say anything there."""
    try:
        return moment(text) if text else ""
    except ValueError:
        return text


def ago(at_us: int) -> str:
    """`3 min ago`."""
    return f"{span(max(0.0, time.time() - at_us / 1e6))} ago" if at_us else "never"


def span(seconds: float) -> str:
    """The largest whole unit: `3 min`."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def number(value: float) -> str:
    """With thousands apart, without a fraction where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3g}"


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 19 else 0
