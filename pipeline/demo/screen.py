"""What the demo shows: each incident as it opens, the decision, the act, the proof, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.demo.story import Scene
from pipeline.demo.verdict import Outcome
from pipeline.demo.watch import rests_on
from schemas.incident import Incident
from schemas.response import Response

_COLOURS = {"medium": "yellow", "high": "red", "critical": "bold red"}
_DONE = {"enforced": "ENFORCED", "broken": "BROKEN  ", "unproven": "UNPROVEN"}
_WORDS = {"opened": "INCIDENT", "escalated": "ESCALATED"}


@dataclass(slots=True)
class Screen:
    """Prints; `story_us` is when the story began (0: not yet), what rests on earlier events is only counted."""

    console: Console
    story_us: int = 0
    before: set[str] = field(default_factory=set)  # incidents on the history, where nothing was injected
    refused: set[str] = field(default_factory=set)  # incidents whose first refusal was shown; later ones say the same

    def say(self, text: str) -> None:
        """A line about the demo itself."""
        self.console.print(f"[dim]{_clock()}[/] {escape(text)}")

    def tell(self, message: Incident | Response) -> None:
        """One message of the product."""
        if isinstance(message, Incident):
            self._incident(message)
        elif self.story_us:
            self._response(message)

    def _incident(self, incident: Incident) -> None:
        if not self.story_us or not rests_on(incident, self.story_us):
            self.before.add(incident.incident_id)
            return
        if incident.change not in _WORDS:
            return
        colour = _COLOURS[incident.severity]
        word = f"[{colour}]{_WORDS[incident.change]} {incident.severity}[/]"
        self.console.print(f"[dim]{_clock()}[/] {word}  {escape(in_words(incident))}")

    def _response(self, response: Response) -> None:
        if response.stage == "acting" or (response.verdict == "refused" and response.incident_id in self.refused):
            return
        if response.verdict == "refused":
            self.refused.add(response.incident_id)
        colour = {"allowed": "magenta", "refused": "dim", "simulated": "cyan", "waiting": "yellow"}[response.verdict]
        done = {"revoke": "REVOKED ", "fence": "FENCED  "}.get(response.rung, "DONE    ")
        word = done if response.stage == "done" else _DONE.get(response.stage, "DECISION")
        what = f"{response.key_id}: {response.rung} {response.verdict}"
        told = response.outcome or response.reason
        self.console.print(f"[dim]{_clock()}[/] [{colour}]{word}[/]  {escape(f'{what}: {told}')}")

    def scene(self, scene: Scene) -> None:
        """A scene begins."""
        kind = "[bold]ATTACK[/]  " if scene.attack else "[green]INNOCENT[/]"
        keys = scene.keys[0] if len(scene.keys) == 1 else f"{len(scene.keys)} keys"
        self.console.print(f"[dim]{_clock()}[/] {kind}  {escape(scene.words)} ({keys})")

    def proof(self, key_id: str, status: int, fenced: bool = False) -> None:
        """A real request of the owner with a key that was acted on, and its answer."""
        colour = "bold green" if status == (200 if fenced else 401) else "bold red"
        owner = ": its owner goes on" if fenced and status == 200 else ""
        words = f"GET /v1/orders with {key_id} is answered {status}{owner}"
        self.console.print(f"[dim]{_clock()}[/] [{colour}]PROOF[/]  {words}")

    def table(self, outcomes: Sequence[Outcome], acted_innocents: Sequence[str]) -> None:
        """What was injected against what was found."""
        table = Table(title="What was injected, and what was found", title_justify="left")
        for column in ("injected", "key", "requests", "found", "by", "done", ""):
            table.add_column(column, overflow="fold")
        for outcome in outcomes:
            table.add_row(*row(outcome))
        self.console.print(table)
        if told := in_time(outcomes):
            self.console.print(told)
        self.console.print(f"Incidents on the 14 days of history, in which nothing was injected: {len(self.before)}.")
        if acted_innocents:
            self.console.print(f"[bold red]Acted on innocent keys: {', '.join(acted_innocents)}[/]")

    def addresses(self, places: Mapping[str, str]) -> None:
        """Where everything listens, and what to type beside it."""
        table = Table(show_header=False, box=None)
        for name, place in places.items():
            table.add_row(name, place)
        self.console.print(table)


def in_time(outcomes: Sequence[Outcome]) -> str:
    """How long the acts took, end to end: "" where none ended in refusals."""
    took = sorted(each.stopped_after_s for each in outcomes if each.stopped_after_s is not None)
    if not took:
        return ""
    p50, p99 = (took[min(len(took) - 1, int(share * len(took)))] for share in (0.5, 0.99))
    return (
        f"From the first hostile request to the first refused one, as its sender sees it: p50 {p50:.2f} s, "
        f"p99 {p99:.2f} s, over {len(took)} acts."
    )


def in_words(incident: Incident) -> str:
    """The incident's text, led by its key."""
    text = incident.text or "; ".join(finding.text for finding in incident.findings)
    return text if text.startswith(incident.key_id) else f"{incident.key_id}: {text}"


def row(outcome: Outcome) -> tuple[str, ...]:
    """One line of the table, as text with colours."""
    scene = outcome.scene
    keys = scene.keys[0] if len(scene.keys) == 1 else f"{len(scene.keys)} keys"
    mark = "[green]as it should be[/]" if outcome.good else "[bold red]WRONG[/]"
    return escape(scene.words), keys, str(scene.requests), _found(outcome), _by(outcome), _done(outcome), mark


def _found(outcome: Outcome) -> str:
    if outcome.incident is None or outcome.found_after_s is None:
        return "not found" if outcome.scene.attack else "no incident"
    if outcome.scene.attack:
        return f"after {outcome.found_after_s:.1f} s, {outcome.incident.severity} in the end"
    return f"{outcome.listed} of {len(outcome.scene.keys)} keys listed"


def _by(outcome: Outcome) -> str:
    if outcome.incident is None:
        return ""
    return ", ".join(sorted({finding.detector for finding in outcome.incident.findings}))


def _done(outcome: Outcome) -> str:
    if outcome.revoked_after_s is None:
        return "nothing" if not outcome.acts else "in progress"
    refused = f", {outcome.scene.refused} requests refused" if outcome.scene.refused else ""
    rung = outcome.acts[0].rung if outcome.acts else "revoke"
    word = {"revoke": "revoked", "fence": "fenced"}.get(rung, rung)
    return f"{word} after {outcome.revoked_after_s:.1f} s{refused}"


def _clock() -> str:
    return time.strftime("%H:%M:%S")
