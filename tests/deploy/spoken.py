"""The documents' commands that a worker or responder answers, run by the parser of `keywatch` on a running demo."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner

from pipeline.cli.main import app
from tests.docs.parsing import parse
from tests.docs.reading import WRITTEN, commands

SPOKEN: Final = (
    "feedback", "mute", "plan", "cases ack", "respond act", "respond undo", "respond raise", "respond approve",
    "respond promote",
)  # fmt: skip
"""Every line of these that the documents have is run."""
SERVED: Final = ("worker", "respond", "console")
"""Processes of the demo itself."""
EFFECT_S: Final = 60.0


def lines(name: str) -> list[tuple[str, ...]]:
    """What is typed for this command, without `keywatch`: from blocks; where there is none, whole ones of sentences."""
    found = [each for path in WRITTEN for each in commands(path) if each.words[0] == "keywatch"]
    typed = [each for each in found if "--preview" not in each.words and parse(each.words[1:], each.whole) == name]
    blocks = [each.words[1:] for each in typed if each.whole]
    named = [each.words[1:] for each in typed if len(each.words) - 1 > len(name.split())]
    return list(dict.fromkeys(blocks or named))


@dataclass
class Terminal:
    """Where the commands are typed: `keywatch.toml` of a demo, and the approvers' keys beside."""

    config: Path
    values: dict[str, str]
    ran: set[str] = field(default_factory=set)

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """What a command prints."""
        result = CliRunner().invoke(app, list(words), env={"KEYWATCH_CONFIG": str(self.config)})
        assert result.exit_code in codes, f"{words}: {result.stderr or result.stdout or result.exception!r}"
        return result.stdout

    def rows(self, *words: str) -> Any:
        """Its answer as JSON; a check may find something."""
        return json.loads(self.run(*words, "-o", "json", codes=(0, 1)))

    def say(self, line: tuple[str, ...], *more: str, **values: str) -> str:
        """A line of the documents, with what the demo has in the place of the reader's; T is a later hour each time."""
        hours = itertools.count(1)
        words = [f"{next(hours)}h" if word == "T" else (self.values | values).get(word, word) for word in line]
        self.ran.add(parse(words, whole=True))
        return self.run(*words, *more)

    def each(self, name: str, *more: str, **values: str) -> Iterator[str]:
        """All documented lines of a command, one after the other."""
        found = lines(name)
        assert found, name
        for line in found:
            yield self.say(line, *more, **values)

    def holds(self, incident: str) -> bool:
        """Whether something done for this incident stands."""
        return any(row["incident_id"] == incident for row in self.rows("respond", "holds"))

    def until_held(self, incident: str) -> None:
        """The responder carries out what was approved, in its own time."""
        until_s = time.monotonic() + EFFECT_S
        while not self.holds(incident):
            assert time.monotonic() < until_s, incident
            time.sleep(0.5)
