"""What is told of acts: done, failed, taken back, waiting for people. Pure: what is due follows from the ledger alone.

Nothing is queued where an act is carried out: each round `night.py` asks what the ledger says that was not told, tells
it, and writes `Told` once it is delivered or durably handed over. So kill -9 anywhere leaves it due at the next start.
What happened more than a day ago is not told any more: `Told` is forgotten after seven days, and a longer
act would be news again. Acts of a drill's decoy are the drill's to tell.

Bulk is one thread under its own name, with one ticket; each other act is one under its response id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.respond.caps import DAY_US
from pipeline.respond.delivery.notice import Action, Grade, Notice, link_to, one_line
from pipeline.respond.ledger.acts import TIME, Act
from pipeline.respond.ledger.standing import APPROVE, clock, undo_of, who
from pipeline.times import rfc3339

Event = Literal["response.done", "response.failed", "response.undone", "response.waiting"]
SETTLES_US: Final = 10_000_000  # what a person does by hand is signed at once: nobody need be called for that
FAILED: Final = frozenset({"failed", "expired", "lapsed"})
DONE: Final = frozenset({"done", "undone", "superseded"})
MOST_KEYS: Final = 20
RECENT_US: Final = (
    DAY_US - 60_000_000
)  # of a grant: after a day the ledger forgets members one by one, and a bulk is another


@dataclass(frozen=True, slots=True)
class Said:
    """One thing to tell: of which acts, under which subject and step."""

    subject: str
    step: str
    event: Event
    acts: tuple[Act, ...]
    action: Action = "trigger"

    @property
    def partition(self) -> int:
        """Whose owner tells it."""
        return max(self.acts[0].proposal.partition, 0)


def due(
    acts: Iterable[Act], now_us: int, told: Callable[[str], frozenset[str]], sizes: Mapping[str, int],
    replaced: Iterable[Act] = (),
) -> Iterator[Said]:  # fmt: skip
    """At most one step of each thread, in the order of telling. `sizes`: of how many acts each bulk consists.

    `replaced`: acts after which others came under the same id, perhaps before anything of them was told.
    """
    for act in replaced:
        if not act.proposal.group:
            yield from _first(_waiting([act], now_us, told), told)
            yield from _first(_thread(f"response:{act.proposal.response_id}", [act], now_us), told)
    threads: dict[str, list[Act]] = {}
    for act in acts:
        if not act.proposal.simulated:
            bulk = act.proposal.group if sizes.get(act.proposal.group, 1) > 1 else ""
            threads.setdefault(bulk or act.proposal.response_id, []).append(act)
    for name, members in threads.items():
        yield from _first(_waiting(members, now_us, told), told)
        yield from _first(_thread(f"response:{name}", members, now_us), told)
        if len(members) > 1 and any(act.stands for act in members):
            for act in members:
                yield from _first(_undone(f"response:{act.proposal.response_id}", [act], now_us), told)


def _first(steps: Iterator[Said], told: Callable[[str], frozenset[str]]) -> Iterator[Said]:
    for said in steps:
        if said.step not in told(said.subject):
            yield said
            return


def _waiting(acts: list[Act], now_us: int, told: Callable[[str], frozenset[str]]) -> Iterator[Said]:
    """That it waits, and that it does no longer where that was told."""
    ticketed = [act for act in acts if act.ticket]
    if not ticketed:
        return
    subject = f"waiting:{ticketed[0].proposal.group or ticketed[0].ticket}"
    pending = tuple(act for act in ticketed if act.stage == "pending")
    if pending:
        if not pending[0].proposal.group or now_us - pending[0].at_us >= SETTLES_US:
            yield Said(subject, "waiting", "response.waiting", pending)
    elif told(subject):
        yield Said(subject, "answered", "response.waiting", tuple(ticketed), "resolve")


def _thread(subject: str, acts: list[Act], now_us: int) -> Iterator[Said]:
    """Done and failed are told once all that was granted together has ended; what could not be granted is left out."""
    acts = [act for act in acts if act.stage != "pending"]
    if not acts or any(act.stage == "open" for act in acts):
        return
    last, recent = max(act.offset for act in acts), now_us - max(act.at_us for act in acts) < RECENT_US
    done = tuple(act for act in acts if recent and act.stage in DONE and act.confirmed_us)
    failed = tuple(act for act in acts if recent and act.stage in FAILED)
    if done:
        yield Said(subject, f"done:{last}", "response.done", done)
    if failed:
        yield Said(subject, f"failed:{last}", "response.failed", failed)
    for act in acts:
        if act.overlaps and act.extended and _is_fresh(act.extended_us, now_us):
            yield Said(subject, f"extended:{act.until_us}", "response.done", (act,))
    stuck = tuple(act for act in acts if act.stands and act.undo and act.undo.stage == "failed")
    if stuck and _is_fresh(max(act.undo.at_us for act in stuck if act.undo), now_us):
        yield Said(subject, f"undo_failed:{min(act.offset for act in stuck)}", "response.failed", stuck)
    if not any(act.stands for act in acts):
        yield from _undone(subject, acts, now_us)


def _undone(subject: str, acts: list[Act], now_us: int) -> Iterator[Said]:
    ended = tuple(act for act in acts if act.stage == "undone")
    if ended and _is_fresh(max(act.ended_us for act in ended), now_us):
        yield Said(subject, f"undone:{max(act.offset for act in ended)}", "response.undone", ended, "resolve")


def _is_fresh(at_us: int, now_us: int) -> bool:
    return now_us - at_us <= DAY_US and at_us > 0


def notice(said: Said, now_us: int, console_url: str = "", case_id: str = "") -> Notice:
    """The message: what was done to which key, by whom, until when, and the command that comes next.

    `case_id`: the open case that somebody was called for.
    """
    act, keys = said.acts[0], [each.proposal.key_id for each in said.acts]
    of = act.proposal
    what = f"{of.rung} of {keys[0] if len(keys) == 1 else f'{len(keys)} keys'}"
    title, text = _words(said, what)
    about = {
        "response_id": of.response_id, "incident_id": of.incident_id, "key_id": of.key_id,
        "key_version": str(of.key_version), "rung": of.rung, "by": who(act), "outcome": act.outcome,
        "until": rfc3339(act.until_us) if act.until_us else "",
        "undo": undo_of(act) if act.stands and not act.used_us else "",
        "approve": _approve(act) if act.stage == "pending" else "",
        "keys": " ".join(keys[:MOST_KEYS]) if len(keys) > 1 else "",
    }  # fmt: skip
    return Notice(
        message_id=_message_id(said), event=said.event, subject=said.subject, action=said.action, severity=_grade(said),
        at=rfc3339(now_us), opened_at=rfc3339(act.at_us), title=one_line(title), text=text, case_id=case_id,
        link=link_to(console_url, of.incident_id, of.key_id),
        about={name: told for name, told in about.items() if told},
    )  # fmt: skip


def _grade(said: Said) -> Grade:
    if said.action == "resolve":
        return "info"
    return "medium" if said.event == "response.done" else "high"


def _words(said: Said, what: str) -> tuple[str, str]:
    """(title, text)."""
    act = said.acts[0]
    why = f"For incident {act.proposal.incident_id}: {act.proposal.reason}."
    match said.step.partition(":")[0]:
        case "waiting":
            title = f"{what} waits for approval until {clock(rfc3339(act.lapses_us))}"
            signed = f"{len(act.approved_by)} of {act.proposal.approvals} have signed"
            return title, f"{title}: {signed}. {why}{_would_end(act)} `{_approve(act)}` (`respond refuse` declines it)."
        case "answered":
            title = f"{what} waits no longer: {_answer(act)}"
            return title, f"{title}. {why}"
        case "done":
            ends = f"until {clock(rfc3339(act.until_us))}" if act.until_us else "without an end of its own"
            ends = "for good" if act.proposal.rung == "revoke" else _overlap(act) or ends
            title = f"done: {what} {ends}, by {who(act)}"
            undos = [f"`{undo_of(each)}`" for each in said.acts if each.stands]
            undo = f" Undo: {undos[0]}" if undos else " There is nothing to undo."
            if undos and act.proposal.rung == "rotate":
                undo += " (deletes the new key: refused once that is in use)"
            more = f" (and {len(undos) - 1} more: `keywatch respond holds`)." if len(undos) > 1 else "."
            doubt = f" The target {act.outcome}." if "unproven" in act.outcome else ""
            return title, f"{title}.{doubt} {why}{undo}{more if undos else ''}"
        case "extended":
            by = act.extended.by if act.extended else ""
            title = f"put off: the old key {act.proposal.key_id} ends {clock(rfc3339(act.until_us))}, by {by}"
            return title, f"{title}: {act.extended.reason if act.extended else ''}. It was rotated to {act.new_key_id}."
        case "failed":
            perhaps = " (it may have taken place all the same)" if act.stage == "expired" else ": nothing was done"
            reason = "nobody approved in time" if act.stage == "lapsed" else act.outcome
            title = f"FAILED: {what}{perhaps}: {reason}"
            return title, f"{title}. The key goes on working, as far as is known. {why}"
        case "undo_failed":
            title = f"FAILED: the undo of {what}: it still stands"
            again = "it is tried again. Undo it at the gateway if its owner waits"
            if act.used_us and act.undo and not act.undo.words:
                again = f"{act.new_key_id} is in use by now, so it is not tried again, and the old key lives on"
            return title, f"{title}; {again}. {why}"
        case _:
            by = "its time was over" if act.ended_by == TIME else f"{act.ended_by} undid it: {act.outcome}"
            title = f"undone: {what}: {by}"
            return title, f"{title}. The key works as before. {why}"


def _overlap(act: Act) -> str:
    """rotate: when the old key ends, and by whom; "" of another rung."""
    if act.proposal.rung != "rotate":
        return ""
    at = f"at {clock(rfc3339(act.until_us))}" if act.until_us else ""
    if not act.ends_old:
        return f"(its gateway ends the old key {at})" if at else "(its gateway ends the old key)"
    when = f"{at}, or before that when its traffic has moved" if at else "when its traffic has moved"
    return f"(the old key is revoked {when})"


def _would_end(act: Act) -> str:
    """rotate: what whoever signs should know of the old key."""
    of = act.proposal
    if of.rung != "rotate":
        return ""
    at = f" {of.duration_s / 3600:g} h later, in use or not" if of.duration_s else " when its traffic has moved"
    return f" The old key ends{at}."


def _answer(act: Act) -> str:
    if act.stage == "declined":
        return f"{act.ended_by} declined it"
    if act.stage == "lapsed":
        return "nobody approved in time, nothing was done"
    return f"approved by {' and '.join(act.approved_by) or 'people'}"


def _approve(act: Act) -> str:
    return APPROVE.format(ticket=act.proposal.group or act.ticket)


def _message_id(said: Said) -> str:
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in f"{said.subject}_{said.step}")
    return f"msg_{clean}"
