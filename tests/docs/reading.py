"""What the documents hold: blocks of code, commands in them and in sentences, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
MADE: Final = ROOT / "deploy" / "docs" / "reference"
WRITTEN: Final = (
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "deploy").rglob("*.md")) if MADE not in path.parents),
)
"""Documents that people write; those of the reference are made."""
LINKED: Final = (*WRITTEN, ROOT / "CHANGELOG.md", *sorted(MADE.glob("*.md")))

SHELL: Final = ("sh", "console", "bash")
FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, without its indent."""

    document: Path
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command line, split as a shell would; `whole`: it can be run as it stands, else it is named in a sentence."""

    document: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a document."""
    found = FENCE.findall(path.read_text())
    return [
        Block(path, language, "\n".join(line.removeprefix(indent) for line in text.splitlines()) + "\n")
        for indent, language, text in found
    ]


def commands(path: Path) -> list[Command]:
    """All of a document: of shell blocks, of lines that are indented as code, and of `keywatch ...` in sentences."""
    name = str(path.relative_to(ROOT))
    whole = [line for block in blocks(path) for line in _lines(block)]
    rest = FENCE.sub("", path.read_text())
    whole += [line.strip() for line in rest.splitlines() if re.match(r" {4,}(keywatch|make) ", line)]
    named = re.findall(r"`((?:keywatch|make) [^`]+)`", " ".join(rest.split()))
    split = [(part, True) for line in whole for part in _parts(line)]
    split += [(words, False) for text in named for words in _parts(_one_of(text))]
    return list(dict.fromkeys(Command(name, words, as_it_is) for words, as_it_is in split))


def _lines(block: Block) -> list[str]:
    text = block.text.replace("\\\n", " ")
    if block.language == "console":  # what follows `$ ` is typed, all else is answered
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    if block.language in SHELL or (not block.language and re.match(r"(make|keywatch) ", text)):
        return [line for line in text.splitlines() if line and not line.startswith("#")]
    return []


def _parts(line: str) -> list[tuple[str, ...]]:
    """Commands of a line; variables before a command, and where its output goes, are the shell's."""
    parts: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("&&", "|", ";"):
            parts.append([])
        elif parts[-1] or not re.match(r"[A-Z_]+=", word):
            parts[-1].append(word)
    return [tuple(part[: part.index(">")] if ">" in part else part) for part in parts if part]


def _one_of(text: str) -> str:
    """A command as sentences have it, with the first of each choice and all that may be left out."""
    text = re.sub(r"\[(-[^\]]*|[A-Z]+)\]", r"\1", text)
    text = re.sub(r"(?<=[\w*])(\|[\w-]+)+", "", text)
    text = re.sub(r"(--[\w-]+) \.\.\.", r"\1 something", text)
    return re.sub(r"(\s\.\.\.|\.\.\.$)", "", text)


def links(path: Path) -> list[str]:
    """Targets of a document's links and pictures; code left out."""
    text = re.sub(r"`[^`\n]*`", lambda found: re.sub(r"[\[\]()]", "", found[0]), FENCE.sub("", path.read_text()))
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
