"""What is told of a case, of Keywatch's own blindness, of a disabled endpoint, of a failed drill: pure."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Final

import msgspec

from pipeline.respond.brief import Brief
from pipeline.respond.delivery.notice import Action, CaseView, Grade, Notice, one_line
from pipeline.respond.delivery.outbox import Disabled
from pipeline.respond.night.cases import Case, words
from pipeline.respond.night.drills import Drill
from pipeline.respond.night.records import Protection, RotationOver, RotationSeen
from pipeline.respond.promotion.earned import Step
from pipeline.respond.rotation.book import Over
from pipeline.respond.rotation.leftovers import Left
from pipeline.times import rfc3339
from schemas.incident import Incident

SHOWN_KEYS: Final = 20
MOST_FINDINGS: Final = 5
PROTECTION: Final = "protection"
PROMOTION: Final = "promotion"
EVENTS: Final[dict[str, tuple[str, Action]]] = {
    "page": ("case.opened", "trigger"),
    "grown": ("case.escalated", "trigger"),
    "late": ("case.escalated", "trigger"),
    "again": ("case.escalated", "trigger"),
    "broken": ("case.escalated", "trigger"),
    "acknowledged": ("case.acknowledged", "acknowledge"),
    "closed": ("case.closed", "resolve"),
}


def lead_of(incident: Incident) -> str:
    """As a case keeps it: the strongest findings only, so that it is small on the topic."""
    strongest = sorted(incident.findings, key=lambda finding: -finding.bits)[:MOST_FINDINGS]
    return msgspec.json.encode(msgspec.structs.replace(incident, findings=tuple(strongest))).decode()


def of_case(case: Case, step: str, now_us: int, incident: Incident, told: Brief, link: str = "") -> Notice:
    """One step of a case. `incident` is its gravest one, `told` the brief of that."""
    event, action = EVENTS[step.partition(":")[0]]
    others = f" (and {len(case.incidents) - 1} more incidents)" if len(case.incidents) > 1 else ""
    why = words(step) + (f" by {case.by}" if action != "trigger" and case.by else "")
    text = "; ".join((*case.broken.values(), incident.text))
    return Notice(
        message_id=message_id(case.case_id, step), event=event, subject=case.case_id, action=action,
        severity=case.severity, at=rfc3339(now_us), opened_at=rfc3339(case.opened_us),
        title=one_line(f"{case.severity}, {why}: {text}{others}"), text=text, brief=told,
        incident=incident, link=link,
        case=CaseView(
            case_id=case.case_id, state=case.state, incidents=len(case.incidents), keys=tuple(case.keys[:SHOWN_KEYS]),
            owners=_named(case, "owner:"), sources=_named(case, "net:"), assignee=case.assignee, step=why,
        ),
    )  # fmt: skip


def of_protection(last: Protection, now_us: int) -> Notice:
    """ "UNPROTECTED since hh:mm", and that it is over."""
    since = datetime.fromtimestamp(last.since_us / 1e6, UTC)
    clock = f"{since:%H:%M} UTC"
    if last.lost:
        title = f"UNPROTECTED since {clock}: {last.why}"
        text = (
            f"Requests are not judged: {last.why}. A leaked key would go on being used unseen. Runbook: KeywatchBehind."
        )
    else:
        minutes = (now_us - last.since_us) / 60e6
        title = f"protected again: nothing was judged from {clock} for {minutes:.0f} min"
        text = "What came meanwhile is being judged now; its incidents come late, and no act rests on stale evidence."
    return _system(
        "protection.lost" if last.lost else "protection.restored", PROTECTION, f"{last.lost}:{last.since_us}", now_us,
        title, text, severity="critical", action="trigger" if last.lost else "resolve", opened_us=last.since_us,
    )  # fmt: skip


def of_endpoint(name: str, disabled: Disabled, now_us: int) -> Notice:
    """Told through the others."""
    title = f"the endpoint {name} gets no messages any more: {disabled.why}"
    text = (
        f"{title}. What it misses is kept for 7 days: mend it, then `keywatch respond enable {name}` and "
        f"`keywatch respond dead-letters --endpoint {name} --resend`."
    )
    subject = f"endpoint:{name}"
    return _system("endpoint.disabled", subject, str(disabled.since_us), now_us, title, text, severity="high")


def of_drill(drill: Drill, now_us: int) -> Notice:
    """A drill that failed."""
    ended = drill.ended.words if drill.ended else ""
    title = f"the drill failed: {ended}"
    text = (
        f"A decoy key was abused through the gateway on purpose and {ended}. Somewhere between gateway log, broker, "
        "worker and responder the way is broken: a real leak would go unseen. Runbook: KeywatchDrillFailed."
    )
    return _system("drill.failed", drill.started.drill_id, "failed", now_us, title, text, severity="critical")


def of_promotion(back: Step, now_us: int) -> Notice:
    """That a wrong act has taken a stage back."""
    title = f"what acts by itself goes back to {back.record.to}: {back.record.reason}"
    text = (
        f"{title}. What would have been done above that waits in `keywatch respond queue`; what the next stage still "
        "needs says `keywatch respond promotion`."
    )
    return _system("promotion.lost", PROMOTION, str(back.at_us), now_us, title, text, severity="high")


def of_leftover(left: Left, now_us: int) -> Notice:
    """A revoked key that is still there after 30 days."""
    of = left.record
    title = f"delete the key {of.key_id} at {of.adapter}: it was revoked, that is disabled, on {_day(of.since_us)}"
    text = (
        f"{title}. Nobody has said that it is deleted, so whoever may write at the gateway could enable it. Delete it "
        f"there, then `keywatch respond deleted {shlex.quote(of.key_id)}`; `keywatch respond leftovers` lists them."
    )
    return _system("deletion.due", left.subject, "due", now_us, title, text, severity="medium", opened_us=of.since_us)


def of_rotation(seen: RotationSeen, step: str, now_us: int) -> Notice:
    """A rotation whose old key has not drained near its deadline, or after it."""
    word = "is to end" if seen.state == "due" else "was to end"
    state = "is still valid" if seen.state == "held" else "has not drained"
    title = f"the rotation {seen.old} -> {seen.new} {word} on {_day(seen.deadline_us)}: the old key {state}"
    who = f", by {'; '.join(seen.sources)}" if seen.sources else ""
    owner = f" Its owner is {seen.owner}." if seen.owner else ""
    use = "" if seen.state == "held" else f": {seen.requests_24h:,} requests in the last 24 h{who} ({seen.reason})"
    end = f" {seen.end}." if seen.end else ""
    text = (
        f"{title}{use}.{owner}{end} Who has the old secret goes on. `keywatch keys rotations` says when it is safe to "
        "revoke."
    )
    severity: Grade = "medium" if seen.state == "due" else "high"
    return _system("rotation.due", rotation_subject(seen), step, now_us, title, text, severity=severity)


def of_rotation_over(over: Over, now_us: int) -> Notice:
    """That it is over, under the subject of what was told before."""
    of = over.record
    title = f"the rotation {of.old} -> {of.new} wants nothing of you any more: {of.why}"
    subject = rotation_subject(of)
    return _system("rotation.due", subject, over.step, now_us, title, f"{title}.", severity="info", action="resolve")


def rotation_subject(of: RotationSeen | RotationOver) -> str:
    """One deadline of one rotation is one thread."""
    return f"rotation:{of.old}:{of.deadline_us}"


def _system(
    event: str, subject: str, step: str, now_us: int, title: str, text: str, *, severity: Grade,
    action: Action = "trigger", opened_us: int = 0,
) -> Notice:  # fmt: skip
    return Notice(
        message_id=message_id(subject, step), event=event, subject=subject, action=action, severity=severity,
        at=rfc3339(now_us), opened_at=rfc3339(opened_us) if opened_us else "", title=one_line(title), text=text,
    )  # fmt: skip


def message_id(subject: str, step: str) -> str:
    """The same at every attempt and from every responder; no '.' in it (Standard Webhooks)."""
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in f"{subject}_{step}")
    return f"msg_{clean}"


def _named(case: Case, prefix: str) -> tuple[str, ...]:
    return tuple(sorted(link.removeprefix(prefix) for link in case.links if link.startswith(prefix)))[:SHOWN_KEYS]


def _day(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d}"
