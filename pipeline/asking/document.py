"""A report as blocks of plain text, and its three renderings: Markdown, one HTML file, the terminal.

Texts are whatever callers of the API chose (user agents, routes, key ids): each renderer escapes every text itself, so
that none can bring markup, a link, a mention or a terminal sequence of its own. Commands are quoted for a shell by who
makes them (`shell`).
"""

from __future__ import annotations

import html
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec


class Heading(msgspec.Struct, frozen=True):
    text: str
    level: int = 2


class Paragraph(msgspec.Struct, frozen=True):
    text: str


class Bullets(msgspec.Struct, frozen=True):
    items: tuple[str, ...]


class Table(msgspec.Struct, frozen=True):
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Steps(msgspec.Struct, frozen=True):
    """A checklist: what to do, and the command that does it ("" for none)."""

    items: tuple[tuple[str, str], ...]


Block = Heading | Paragraph | Bullets | Table | Steps

_MARKS: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>])")
_STYLE: Final = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;"
    "vertical-align:top;overflow-wrap:anywhere}code{background:#f3f3f3;padding:.1em .3em}h1,h2{line-height:1.2}"
)


def shell(*words: str) -> str:
    """A command line; a value that begins with a dash can't become an option, none can become another command."""
    return " ".join(shlex.quote(word) for word in words)


def printable(text: str) -> str:
    """Without what steers a terminal or turns the reading direction; line feeds become blanks."""
    return "".join(letter if letter.isprintable() else (" " if letter in "\n\t" else "?") for letter in text)


def markdown(blocks: Sequence[Block]) -> str:
    """GitHub's Markdown."""
    return "\n".join(line for block in blocks for line in (*_markdown(block), "")).rstrip() + "\n"


def _md(text: str) -> str:
    """As text: no mark, no tag, no link that makes itself, no mention."""
    plain = _MARKS.sub(r"\\\1", printable(text).replace("&", "&amp;").replace("<", "&lt;"))
    return plain.replace("://", "&#58;//").replace("@", "&#64;").replace("www\\.", "www&#46;")


def _code(command: str) -> str:
    """A code span, with a fence longer than any within."""
    text = printable(command)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _markdown(block: Block) -> Iterator[str]:
    match block:
        case Heading():
            yield f"{'#' * block.level} {_md(block.text)}"
        case Paragraph():
            yield _md(block.text)
        case Bullets():
            yield from (f"- {_md(item)}" for item in block.items)
        case Table():
            yield f"| {' | '.join(map(_md, block.head))} |"
            yield f"|{'---|' * len(block.head)}"
            yield from (f"| {' | '.join(map(_md, row))} |" for row in block.rows)
        case Steps():
            yield from (f"- [ ] {_md(text)}{': ' + _code(command) if command else ''}" for text, command in block.items)


def page(blocks: Sequence[Block], title: str) -> str:
    """One HTML file that loads and runs nothing."""
    body = "\n".join(line for block in blocks for line in _html(block))
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_h(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _h(text: str) -> str:
    return html.escape(printable(text), quote=True)


def _html(block: Block) -> Iterator[str]:
    match block:
        case Heading():
            yield f"<h{block.level}>{_h(block.text)}</h{block.level}>"
        case Paragraph():
            yield f"<p>{_h(block.text)}</p>"
        case Bullets():
            yield f"<ul>{''.join(f'<li>{_h(item)}</li>' for item in block.items)}</ul>"
        case Table():
            head = "".join(f"<th>{_h(cell)}</th>" for cell in block.head)
            rows = "\n".join(f"<tr>{''.join(f'<td>{_h(cell)}</td>' for cell in row)}</tr>" for row in block.rows)
            yield f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
        case Steps():
            steps = (_h(text) + (f": <code>{_h(command)}</code>" if command else "") for text, command in block.items)
            yield f"<ul>{''.join(f'<li>&#9744; {step}</li>' for step in steps)}</ul>"


def terminal(blocks: Sequence[Block], width: int) -> str:
    """For a terminal: folded, each row of a table on lines of its own."""
    return "\n".join(line for block in blocks for line in _terminal(block, width)) + "\n"


def _terminal(block: Block, width: int) -> Iterator[str]:
    match block:
        case Heading():
            yield from ("", printable(block.text).upper() if block.level > 1 else printable(block.text))
        case Paragraph():
            yield from _folded(block.text, width, "")
        case Bullets():
            for item in block.items:
                yield from _folded(f"- {item}", width, "  ")
        case Table():
            for row in block.rows:
                cells = zip(block.head, row, strict=True)
                yield from _folded(
                    "  " + "  ".join(f"{head} {cell}".strip() for head, cell in cells if cell), width, "    "
                )
        case Steps():
            for text, command in block.items:
                yield from _folded(f"[ ] {text}", width, "    ")
                if command:
                    yield f"    {printable(command)}"  # never folded: it is to be copied


def _folded(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(printable(text), width, subsequent_indent=indent, break_on_hyphens=False) or [""]
