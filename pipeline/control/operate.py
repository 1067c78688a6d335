"""`keywatch feedback`, `mute`, `unmute`, `mutes`, `plan`: what people tell Keywatch, and what came of it.

All of it goes to the control topic and nowhere else; every worker takes it up at a checkpoint. A feedback is looked up
in ClickHouse first, since it carries what it is about: the values of the incident's evidence.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments
from pipeline.asking import queries
from pipeline.asking.answers import Shown, connected, print_json, say_line, show_table
from pipeline.config.tree import Config
from pipeline.control import plans
from pipeline.control.controls import Controls
from pipeline.control.people import user
from pipeline.control.topic import read_controls, say
from pipeline.control.withhold import who
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.keys.catalogue import Catalogue, read_catalogue
from pipeline.respond.undoing import WRONGLY_REVOKED
from pipeline.times import micros
from schemas.control import Control, Feedback, Mute, Planned, Verdict, control_id
from schemas.incident import KEY_RULES, Incident

POLL_S: Final = 1.0
MISSING: Final = 1
PROVES: Final = ("decoy", "misuse")


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """The command line of `keywatch feedback`."""

    incident: str
    verdict: str
    reason: str
    until: str = ""
    owner: str = ""
    wait_s: float = 20.0
    as_json: bool = False


def give_feedback(config: Config, word: Word) -> int:
    """Say it, and show what it changes. Exit code 1 where there is no such incident. Raises ConfigError and others."""
    verdict = _verdict(word)
    until = moments.future(word.until, "--until", moments.now()) if word.until else ""
    with connected(config.clickhouse) as client:
        incident = queries.find_incident(client, word.incident)
        if incident is None:
            sys.stderr.write(
                f"keywatch: {word.incident!r} is not the beginning of exactly one incident's id: "
                "`keywatch incidents` lists them\n"
            )
            return MISSING
        if incident.rule not in KEY_RULES:
            raise ConfigError(
                f"{incident.rule} incidents are another topology's: feedback and mutes don't reach it; mend the cause"
            )
        events = queries.evidence_events(client, incident)
        said = feedback_on(incident, verdict, word.reason, word.owner or user(), until, events)
        (seq,) = asyncio.run(say(config, [said]))
        effect = _wait(client, said, seq, word.wait_s)
        standing = _standing(queries.responses_to(client, incident.incident_id))
    if word.as_json:
        return print_json({"feedback": said, "seq": seq, "applied": effect})
    say_line(f"{incident.incident_id[:12]} of {incident.key_id} is {verdict}: {incident.text}")
    say_line(f"  {effect.effect} (offset {effect.offset} of partition {effect.partition})" if effect else NOT_YET)
    for rung in standing if verdict == "expected" else ():
        undo = WRONGLY_REVOKED if rung == "revoke" else f"keywatch respond undo {incident.incident_id} --reason TEXT"
        say_line(f"  the {rung} that was done for it stands: {undo}")
    return 0


def _standing(lines: Sequence[queries.ResponseLine]) -> list[str]:
    """Rungs that were done and not taken back: a word on an incident undoes nothing."""
    standing = dict[str, bool]()
    for line in lines:
        if line.stage == "done" and line.verdict == "allowed":
            standing[line.rung] = line.direction != "undo"
    return [rung for rung, stands in standing.items() if stands]


NOT_YET: Final = (
    "  said, not yet in effect: workers take it up within 10 s, with the next events of the key's partition (an idle "
    "one has a tick each minute); `keywatch explain ID` shows then what it changed"
)


def _verdict(word: Word) -> Verdict:
    if word.verdict not in ("expected", "malicious"):
        raise ConfigError(f"unknown verdict '{word.verdict}'; there are expected and malicious")
    if not word.reason.strip():
        raise ConfigError("--reason is needed: the next one on call will ask why")
    if word.verdict == "malicious" and word.until:
        raise ConfigError("--until goes with expected only: what is malicious is never learned")
    return "expected" if word.verdict == "expected" else "malicious"


def feedback_on(
    incident: Incident, verdict: Verdict, reason: str, owner: str, until: str, events: Sequence[Any]
) -> Feedback:
    """The whole message: who says what, and the values of the evidence."""
    samples = [finding.sample for finding in incident.findings]
    return Feedback(
        incident_id=incident.incident_id, key_id=incident.key_id, verdict=verdict, reason=reason, owner=owner,
        at=moments.text(moments.now()), opened_at=incident.opened_at, until=until, rule=incident.rule,
        bits=incident.bits, detectors=tuple(sorted({finding.detector for finding in incident.findings})),
        networks=tuple(sorted({sample.asn for sample in samples if sample.asn})),
        countries=tuple(sorted({sample.country for sample in samples if sample.country})),
        clients=tuple(sorted({sample.client for sample in samples if sample.client})),
        operations=tuple(sorted({f"{each.method} {each.route}".strip() for each in samples if each.route})),
        events=tuple(events),
    )  # fmt: skip


def _wait(client: Client, said: Feedback, seq: int, wait_s: float) -> queries.Applied | None:
    until = time.monotonic() + wait_s
    while True:
        for each in queries.applied_to(client, said.incident_id):
            if (each.control_id, each.seq) == (control_id(said), seq):
                return each
        if time.monotonic() >= until:
            return None
        time.sleep(POLL_S)


# -- mutes ---------------------------------------------------------------------------------------------------------


def mute(config: Config, scope: tuple[str, str, str], until: str, reason: str, force: bool = False) -> int:
    """Say that incidents of this (key, detector, owner) are not to be told. Raises ConfigError and others.

    Exit code 1, and nothing is said, where nobody knows the key or owner; unless by `force`.
    """
    said = mute_of(scope, moments.future(until, "--until", moments.now()), reason)
    refuse_too_wide(said)
    if not force and (unknown := _unknown(config, said)):
        sys.stderr.write(f"keywatch: {unknown}: nothing is muted; --force mutes it all the same\n")
        return MISSING
    asyncio.run(say(config, [said]))
    say_line(
        f"muted {scope_words(said)} until {said.until}: in effect within 10 s and with the partition's next events"
    )
    return say_line("  what is withheld is judged and kept all the same: keywatch mutes, keywatch report")


def mute_of(scope: tuple[str, str, str], until: str, reason: str) -> Mute:
    """Raises ConfigError for a scope of everything, or of a detector that is none."""
    key, detector, owner = scope
    if not any(scope):
        raise ConfigError("name a KEY, --detector or --owner: everything at once is never muted")
    if not reason.strip():
        raise ConfigError("--reason is needed: whoever finds the mute will ask why")
    _known_detector(detector)
    return Mute(
        key_id=key, detector=detector, owner=owner, until=until, reason=reason, owner_of_mute=user(),
        at=moments.text(moments.now()),
    )  # fmt: skip


def _unknown(config: Config, said: Mute) -> str:
    catalogue = asyncio.run(read_catalogue(config))

    def used() -> bool:
        with connected(config.clickhouse) as client:
            return bool(queries.last_used(client, [said.key_id]))

    return none_of(catalogue, "owner", said.owner) or unknown_key(catalogue, said.key_id, used)


def none_of(catalogue: Catalogue, field: str, value: str) -> str:
    """Why nothing can be of this owner, role or environment; "" where a key declares it, or nothing is asked for."""
    known = not value or any(getattr(key, field) == value for _, key in catalogue.items())
    return "" if known else f"no key of {field} {value!r} is declared"


def unknown_key(catalogue: Catalogue, key_id: str, used: Callable[[], bool]) -> str:
    """Why nothing can be of this key; "" where it is declared, or was `used` (which may raise Retry or Fatal)."""
    if not key_id or catalogue.get(key_id) is not None:
        return ""
    try:
        return "" if used() else f"no key {key_id!r} is declared, and none was ever used"
    except (Retry, Fatal) as error:
        return f"no key {key_id!r} is declared, and whether one was used nobody can say ({error})"


def refuse_too_wide(said: Mute) -> None:
    """What may not begin, though it may be lifted. Raises ConfigError."""
    key, detector = said.key_id, said.detector
    if key == "fleet" or key.startswith(("source:", "fleet:")):
        raise ConfigError(f"{key} is another topology's: mutes are for keys, their owners and the keys' detectors")
    if detector in PROVES and not (key or said.owner):
        raise ConfigError(f"what {detector} finds may be a proof: mute it for a KEY or --owner only")


def _known_detector(name: str) -> None:
    from detectors import DETECTORS

    names = [detector.name for detector in DETECTORS]
    if name and name not in names:
        raise ConfigError(f"there is no detector '{name}'; there are {', '.join(names)}")


def unmute(config: Config, scope: tuple[str, str, str]) -> int:
    """Let a mute end now. Exit code 1 where there is none of this very scope."""
    wanted = mute_of(scope, moments.text(moments.now()), "lifted")
    if not _end(config, control_id(wanted), "until"):
        sys.stderr.write(f"keywatch: {scope_words(wanted)} is not muted: `keywatch mutes` lists what is\n")
        return MISSING
    return say_line(f"unmuted {scope_words(wanted)}: in effect within 10 s")


def _end(config: Config, ident: str, field: str) -> bool:
    """Say the control of this id again with its end (`field`) now; False where there is none that has not ended."""
    known, now = asyncio.run(read_controls(config)).get(ident), moments.now()
    if known is None or micros(getattr(known, field)) <= now.timestamp() * 1e6:
        return False
    ended = {field: moments.text(now), "at": moments.text(now), "ended_by": user()}
    asyncio.run(say(config, [msgspec.structs.replace(known, **ended)]))
    return True


def scope_words(said: Mute) -> str:
    """In words: "key pk_1, what rests on spike alone"."""
    parts = [f"key {said.key_id}" if said.key_id else "", f"keys of {said.owner}" if said.owner else ""]
    parts.append(f"what rests on {said.detector} alone" if said.detector else "")
    return ", ".join(part for part in parts if part)


# -- planned events ------------------------------------------------------------------------------------------------


def plan(config: Config, planned: Sequence[Planned], force: bool = False) -> int:
    """Say what is planned, checked by `plans`. Raises Fatal and others.

    Exit code 1, and nothing is said, where no key declares what one of them names; unless by `force`.
    """
    if not force and (unknown := _undeclared(config, planned)):
        sys.stderr.write(f"keywatch: {unknown}: nothing is planned; --force plans it all the same\n")
        return MISSING
    asyncio.run(say(config, list(planned)))
    for each in planned:
        say_line(f"planned {each.name}: {each.from_} to {each.to}, {plans.scope_words(each)}")
    return say_line("  listed incidents of volume alone are withheld meanwhile; all else is told")


def _undeclared(config: Config, planned: Sequence[Planned]) -> str:
    """Why one of them can be of no key; "" where each name is declared of one."""
    named = [
        (each.name, field, value)
        for each in planned
        for field, values in (("owner", each.owners), ("role", each.roles), ("environment", each.environments))
        for value in values
    ]
    catalogue = asyncio.run(read_catalogue(config)) if named else Catalogue.of([])
    faults = (f"{name}: {why}" for name, field, value in named if (why := none_of(catalogue, field, value)))
    return next(faults, "")


def cancel(config: Config, name: str) -> int:
    """Let a planned event end now. Exit code 1 where none of this name is to come or going on."""
    if not _end(config, f"planned/{name}", "to"):
        sys.stderr.write(f"keywatch: nothing of the name {name!r} is planned: `keywatch mutes` lists what is\n")
        return MISSING
    return say_line(f"cancelled {name}")


# -- what holds ----------------------------------------------------------------------------------------------------


def print_mutes(config: Config, everything: bool, output: str) -> int:
    """Mutes, exceptions and planned events that hold or are to come; `everything`: those that are over, too."""
    rows = holding(asyncio.run(read_controls(config)), None if everything else moments.now().timestamp())
    if output == "json":
        return print_json(rows)
    if not rows:
        return say_line("nothing is muted, excepted or planned")
    return show_table("not told", rows, HOLDS, WORDS)


def holding(controls: Controls, now_s: float | None) -> list[dict[str, Any]]:
    """One row each, by their end."""
    rows = [row for _, control in controls.holding.values() if (row := _row(control)) is not None]
    kept = [row for row in rows if now_s is None or micros(row["until"]) > now_s * 1e6]
    return sorted(kept, key=lambda row: micros(row["until"]))


def _row(control: Control) -> dict[str, Any] | None:
    match control:
        case Mute():
            about, from_, until = scope_words(control), control.at, control.until
        case Planned():
            about, from_, until = f"{control.name}: {plans.scope_words(control)}", control.from_, control.to
        case Feedback() if control.until and control.verdict == "expected":
            about = (
                f"key {control.key_id}, what rests on {', '.join(control.detectors)} as in {control.incident_id[:12]}"
            )
            from_, until = control.at, control.until
        case _:
            return None
    kind = "exception" if isinstance(control, Feedback) else type(control).__name__.lower()
    return {
        "kind": kind, "about": about, "from": from_, "until": until, "by": who(control), "reason": control.reason,
        "ended_by": getattr(control, "ended_by", ""),
    }  # fmt: skip


HOLDS: Final[tuple[Shown, ...]] = (
    ("kind", lambda row: str(row["kind"]), "left"),
    ("until", lambda row: moments.of_us(micros(row["until"])), "left"),
    ("by", lambda row: f"{row['by']}, ended by {row['ended_by']}" if row["ended_by"] else str(row["by"]), "left"),
    ("what, and why", lambda row: f"{row['about']}: {row['reason']}", "left"),
)
WORDS: Final = 3
"""The column of `HOLDS` that folds."""
