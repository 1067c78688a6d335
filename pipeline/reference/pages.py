"""All pages, and writing them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.reference import commands, detectors, formats, messages, metrics, settings, tables, topics

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "docs" / "reference"
MADE: Final = "<!-- Made by `python -m pipeline.reference`: change the source, not this file. -->\n\n"

PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings.page,
    "commands": commands.page,
    "metrics": metrics.page,
    "detectors": detectors.page,
    "formats": formats.page,
    "messages": messages.page,
    "topics": topics.page,
    "tables": tables.page,
}


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    return {f"{name}.md": MADE + page().rstrip() + "\n" for name, page in PAGES.items()}


def write(folder: Path = FOLDER) -> None:
    """Write all pages; one whose subject is gone is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")
