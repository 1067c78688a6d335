"""An investigation in words: timeline, likely cause with what speaks for it, open questions, next steps.

The cause is chosen by evidence, in this order, and each says on what it rests: a report that the key is public; use of
a key that had ended, or of a decoy; authenticated requests from a network or client that the key never had; things it
never did, from where it always comes from; more or failing requests of its own software. Nothing is concluded from
what is not known: that becomes a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.asking.answers import count_words
from pipeline.asking.document import Block, Bullets, Heading, Paragraph, Steps, Table, shell
from pipeline.asking.investigate import BEFORE_DAYS, Act, Case, Source
from pipeline.moments import of_us, second_of_us
from pipeline.times import micros
from schemas.response import act_words

MOST_ENTRIES: Final = 100
Entry = tuple[int, str, str]
"""Time in us, what kind of thing, words."""


def document(case: Case) -> list[Block]:
    """The whole report."""
    return [
        Heading(f"Investigation of {case.key_id}", 1),
        Paragraph(f"{of_us(case.from_us)} to {of_us(case.to_us)}; {_head(case)}"),
        *_cause(case),
        Heading("What happened, in order"), *_table(("when", "what", ""), _entries(case)),
        Heading("Scope: what was touched"), *_scope(case),
        Heading("Sources"), *_sources(case),
        Heading("What was done"), *_done(case),
        Heading("What was normal before"), *_normal(case),
        Heading("Open questions"), Bullets(tuple(questions(case))),
        Heading("Next steps"), Steps(tuple(steps(case))),
        Heading("Where it may have leaked"), Steps(LEAK_SOURCES),
    ]  # fmt: skip


def _entries(case: Case) -> list[tuple[str, ...]]:
    return [(second_of_us(at), kind, text) for at, kind, text in timeline(case)]


def _head(case: Case) -> str:
    told = ", ".join(f"{each.incident_id[:12]} ({each.severity}, {each.state})" for each in case.incidents) or "none"
    owner = next((each.owner for each in reversed(case.incidents) if each.owner), "") or "not declared"
    requests = count_words(sum(source.requests for source in case.sources), "request")
    return f"owner: {owner}; incidents: {told}; {requests} in the span"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[Block]:
    return [Table(head, tuple(rows))] if rows else [Paragraph("nothing is known")]


def timeline(case: Case) -> list[Entry]:
    """Everything with a time, the earliest first; what is said again and again is one entry, at its first time.

    Where there is too much, the weakest findings are left out, and the last entry says so.
    """
    told: dict[tuple[str, str], list[int]] = {}
    for at_us, kind, text in sorted([*_told(case), *_seen(case)]):
        told.setdefault((kind, text), []).append(at_us)
    entries = [(times[0], kind, _again(text, times)) for (kind, text), times in told.items()]
    left = max(case.findings_left, 0)
    return [*entries[:MOST_ENTRIES], *_left_out(case, entries, left)]


def _again(text: str, times: list[int]) -> str:
    return f"{text}; {len(times)} times, the last at {second_of_us(times[-1])}" if len(times) > 1 else text


def _left_out(case: Case, entries: list[Entry], findings: int) -> Iterator[Entry]:
    later = len(entries) - MOST_ENTRIES
    if later > 0:
        yield entries[MOST_ENTRIES][0], "left out", f"{later:,} later ones: -o json has all"
    if findings:
        yield case.to_us, "left out", f"{count_words(findings, 'weaker finding')} of the span"


def _seen(case: Case) -> Iterator[Entry]:
    for source in case.strangers:
        new = "a network" if source.new_network else "a client"
        yield source.first_us, "first seen", f"{new} that the key never had: {_from(source)}"
        yield source.last_us, "last seen", f"{_from(source)}, {count_words(source.requests, 'request')}"
    for leak in case.leaks:
        yield leak.at_us, "reported", f"as public by {leak.feed}: {leak.url or 'no place given'}"


def _told(case: Case) -> Iterator[Entry]:
    for finding in case.findings:
        yield finding.at_us, "found", f"{finding.detector}: {finding.text} ({finding.bits:.1f} bits)"
    for incident in case.incidents:
        yield micros(incident.opened_at), "incident", f"{incident.incident_id[:12]} opened: {incident.text}"
        if incident.closed_at:
            yield micros(incident.closed_at), "incident", f"{incident.incident_id[:12]} closed"
    for act in case.acts:
        yield act.at_us, "response", f"{act.stage}: {act_words(act.rung, act.direction)} {act.verdict}, {act.reason}"
    for word in case.words:
        yield word.at_us, "feedback", f"{word.incident_id[:12]} is {word.verdict}, says {word.by}: {word.reason}"


def _from(source: Source) -> str:
    place = " ".join(part for part in (source.network, source.country) if part) or "no place"
    return f"{place}, {source.client or 'no client'}"


def _scope(case: Case) -> Iterator[Block]:
    whose = "of the sources that are new to it" if case.strangers else "of all its requests: no source is new to it"
    total = sum(route.requests for route in case.routes)
    out = sum(route.bytes_out for route in case.routes)
    into = sum(route.bytes_in for route in case.routes)
    yield Paragraph(f"{whose}: {count_words(total, 'request')}, {_bytes(out)} out, {_bytes(into)} in")
    rows = [
        (row.route or "not known", row.outcome, f"{row.requests:,}", _bytes(row.bytes_out), second_of_us(row.first_us),
         second_of_us(row.last_us))
        for row in case.routes
    ]  # fmt: skip
    yield from _table(("route", "outcome", "requests", "bytes out", "first", "last"), rows)
    if case.things:
        yield Paragraph(f"objects, as {case.things_from} have them:")
        things = [
            (f"{row.method} {row.path}", f"{row.requests:,}", f"{row.succeeded:,}", _bytes(row.bytes_out))
            for row in case.things
        ]
        yield Table(("object", "requests", "succeeded", "bytes out"), tuple(things))


def _sources(case: Case) -> Iterator[Block]:
    rows = [
        (_new(row), row.network or "not known", " ".join(row.prefixes[:3]), row.country, row.client,
         f"{row.requests:,}", f"{row.succeeded:,}", f"{row.refused:,}", second_of_us(row.first_us),
         second_of_us(row.last_us))
        for row in sorted(case.sources, key=lambda row: (not row.strange, row.first_us))
    ]  # fmt: skip
    head = ("", "network", "addresses in", "country", "client", "requests", "succeeded", "refused", "first", "last")
    yield from _table(head, rows)
    if case.addresses:
        addresses = [
            (row.client_ip, f"AS{row.asn}" if row.asn else "", row.country, row.user_agent, f"{row.requests:,}",
             second_of_us(row.first_us))
            for row in case.addresses
        ]  # fmt: skip
        yield Table(("address", "network", "country", "user agent", "requests", "first"), tuple(addresses))
    if case.others:
        yield Paragraph("other keys used from the networks that are new to this one:")
        others = [
            (row.key_id, " ".join(row.networks), f"{row.requests:,}", f"{row.succeeded:,}",
             second_of_us(row.first_us), second_of_us(row.last_us))
            for row in case.others
        ]  # fmt: skip
        yield Table(("key", "networks", "requests", "succeeded", "first", "last"), tuple(others))


def _new(source: Source) -> str:
    if not source.strange:
        return "known"
    return (
        " and ".join(name for name, new in (("network", source.new_network), ("client", source.new_client)) if new)
        + " new"
    )


def _done(case: Case) -> list[Block]:
    rows = [
        (second_of_us(act.at_us), act.stage, act_words(act.rung, act.direction), act.verdict, act.reason)
        for act in case.acts
    ]
    return [Table(("when", "stage", "rung", "verdict", "why"), tuple(rows))] if rows else [
        Paragraph("nothing: no decision on this key is in the audit log of the span and the week after it")
    ]  # fmt: skip


def _normal(case: Case) -> Iterator[Block]:
    usual = case.normal
    if not usual.active_hours:
        yield Paragraph(f"no use in the {usual.days} days before: there is nothing to compare with")
        return
    yield Paragraph(
        f"{usual.median:g} requests in an active hour [{usual.low:g}-{usual.high:g}], {usual.active_hours} active "
        f"hours in the {usual.days} days before"
    )
    names = ("country", "network", "client", "route")
    shares = {name: [f"{u.value or '-'} {u.share:.0%}" for u in usual.usual if u.dimension == name] for name in names}
    yield Bullets(tuple(f"{name}: {', '.join(values)}" for name, values in shares.items()))


def causes(case: Case) -> list[str]:
    """The likely cause first, then what else has evidence; each with what it rests on."""
    families = {finding.family for incident in case.incidents for finding in incident.findings}
    proofs = [f for incident in case.incidents for f in incident.findings if f.proof]
    by_strangers = sum(source.succeeded for source in case.strangers)
    found: list[str] = []
    if case.leaks:
        first = case.leaks[0]
        found.append(f"the key is public: {first.feed} reported it on {second_of_us(first.at_us)} {first.url}")
    found += [f"proof: {finding.text}" for finding in proofs[:3]]
    if by_strangers and case.normal.active_hours:
        others = count_words(len(case.others), "other key")
        batch = f"; they used {others} as well: perhaps a batch was stolen" if case.others else ""
        found.append(
            f"somebody else holds the secret: {count_words(by_strangers, 'request')} succeeded from sources that it "
            f"never had in {BEFORE_DAYS} days{batch}; if its owner moved or deployed, it is that instead: ask"
        )  # fmt: skip
    elif case.strangers and case.normal.active_hours:
        found.append(
            "somebody knows the key's id, and not its secret, or was refused: no request of the new sources succeeded"
        )
    if "operation" in families and not by_strangers:
        found.append(
            "its own holder does what it never did (an insider, a new feature, a host taken over): no source is new"
        )
    if families & {"volume", "outcome"} and not families - {"volume", "outcome"}:
        found.append(
            "its own software: only volume or errors changed (a deploy, a retry storm, an outage behind the API)"
        )
    return found or ["no evidence of a cause: nothing in the span is unusual for this key"]


def _cause(case: Case) -> list[Block]:
    likely, *others = causes(case)
    blocks: list[Block] = [Heading("Likely cause"), Paragraph(likely)]
    return [*blocks, Paragraph("there is evidence, too, that:"), Bullets(tuple(others))] if others else blocks


def questions(case: Case) -> list[str]:
    """What the report can't answer."""
    asked = ["How did the secret get out? Nothing here says so: go through the list below"] if case.strangers else []
    if not case.normal.active_hours:
        asked.append("What is normal for this key? It was not used in the 30 days before")
    if not case.things_from:
        asked.append("Which objects were touched? Single requests are kept for 14 days, and no evidence was copied")
    if case.things_from == "evidence":
        asked.append("Which objects beyond the evidence? The span's requests are older than 14 days")
    if any(not source.network for source in case.sources):
        asked.append("Where do the requests without an address come from? The gateway does not tell it")
    if any(_is_cut(row.client_ip) for row in case.addresses):
        asked.append("Which very addresses? Those that end in .0 or :: were cut to their network since, for privacy")
    if case.others:
        others = count_words(len(case.others), "other key")
        asked.append(f"Has the same actor the {others}, or do their owners share a provider with him?")
    if not case.acts:
        asked.append("Why was nothing done? No decision is in the audit log")
    if case.strangers and not case.words:
        asked.append("Did the owner move? Nobody has said what it was: keywatch feedback")
    return asked or ["none"]


def _is_cut(address: str) -> bool:
    return address.endswith((".0", 2 * ":")) and len(address) > 2  # of nobody is no address


def steps(case: Case) -> Iterator[tuple[str, str]]:
    """In this order: each with a command that exists, where there is one."""
    key, incident = case.key_id, case.incident_id or (case.incidents[-1].incident_id if case.incidents else "")
    yield from _stop(case, incident)
    yield (
        "Make a new key, and declare rotated_to and rotated_from in the catalogue",
        shell("keywatch", "keys", "import", "keys.csv"),
    )
    yield "Update every service that uses it; who they are stands above as known sources", ""
    yield "Watch the old key drain before it is deleted", shell("keywatch", "keys", "rotations")
    for source in [each for each in case.strangers if each.asn][:3]:
        yield (f"Look for other keys from {source.network}",
               shell("keywatch", "hunt", "--asn", str(source.asn), "--from", of_us(case.from_us).replace(" ", "T"))
               )  # fmt: skip
    yield "Review the logs of what was touched, above, with those who own the data: is a notice to customers due?", ""
    if incident:
        yield (
            "Say what it was, so that it is never learned",
            shell("keywatch", "feedback", incident, "malicious", "--reason", "..."),
        )
    yield (
        "Bind the new key to what the old one really did",
        shell("keywatch", "keys", "manifest", "--for", "kong", "--", key),
    )
    yield "Find the keys with the same weakness", shell("keywatch", "keys", "audit")
    yield "Prevent: push protection on repositories, a secrets manager, short lives, an owner for each key", ""


def _stop(case: Case, incident: str) -> Iterator[tuple[str, str]]:
    """What stands already by the audit, and its way back; then how to stop more."""
    standing = in_force(case)
    if revoked := next((act for act in standing if act.rung == "revoke"), None):  # what stood before ended with it
        yield f"It is revoked since {second_of_us(revoked.at_us)}: delete it at the gateway", ""
        return
    for act in standing:
        since, of = second_of_us(act.at_us), act.incident_id
        yield (
            f"In force since {since}: {act.rung} (until its time is over: keywatch respond holds). To take it back",
            shell("keywatch", "respond", "undo", of, "--reason", "..."),
        )
    rung = "fence" if any(source.new_network for source in case.strangers) and not standing else "suspend"
    command = shell("keywatch", "respond", "act", incident, "--rung", rung, "--preview") if incident else ""
    yield f"Stop it: {rung} the key at the gateway, or by the responder where it enforces", command


def in_force(case: Case) -> list[Act]:
    """Acts that were done and, as far as the audit says, not undone since; the last of each."""
    last = {(act.incident_id, act.rung): act for act in case.acts if act.stage == "done"}
    return [act for act in last.values() if act.direction != "undo"]


LEAK_SOURCES: Final = (
    (".env files and configuration in repositories, images and archives; search the whole history for the key's public "
     "prefix, never for the secret itself (it would stand in the shell's history)",
     "git log --all --oneline -S KEY_PREFIX"),
    ("All branches, forks and tags, also what was force-pushed away", "git grep -n KEY_PREFIX $(git rev-list --all)"),
    ("CI: variables shown by pull requests of forks, logs of builds, caches, artefacts", ""),
    ("Container images: layers and build arguments", "docker history --no-trunc IMAGE"),
    ("What browsers and phones get: bundles of the front end, source maps, app packages", ""),
    ("Chats, tickets, wikis, e-mail, pasted snippets, notebooks, prompts to assistants", ""),
    ("Logs and traces that keep headers or query strings; error trackers; proxies", ""),
    ("Machines: a developer's laptop, shell history, a server that was broken into; a partner who got the key", ""),
)  # fmt: skip
"""What to look through, and how."""


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return ""
