"""On keybench's page and in its summary: recall of the placements that reached the wanted strength (`reached`)."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from pipeline.evaluation.reached import LEAST
from pipeline.evaluation.report_plots import ranged

HEADLINE: Final = "40"


def line(found: dict[str, Any]) -> str:
    """The macro recall in words."""
    told = found["recall_of_reached"][HEADLINE]
    return f"of placements that reach {HEADLINE} bits {ranged(told['macro'])}{left_out(told)}"


def box(found: dict[str, Any]) -> tuple[str, str, str]:
    """The macro recall as one of the figures at the top."""
    told = found["recall_of_reached"][HEADLINE]
    return f"macro recall, placements that reach {HEADLINE} bits", ranged(told["macro"], 2), f"aim 0.85{left_out(told)}"


def left_out(told: dict[str, Any]) -> str:
    """The attacks that the macro recall leaves out, in brackets, if there are any."""
    return f" (fewer than {LEAST} of {', '.join(told['left_out'])})" if told["left_out"] else ""


def section(found: dict[str, Any]) -> str:
    """The table by strength."""
    by = found["recall_of_reached"]
    head = "".join(f"<th>of those with {bits} bits</th><th>placements</th>" for bits in by)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(_cells(told['recall'].get(name)) for told in by.values())}</tr>"
        for name in found["recall"]
    )
    macro = "".join(f"<td>{ranged(told['macro'], 2)}</td><td></td>" for told in by.values())
    said = "; ".join(f"{bits} bits: {escape(', '.join(told['left_out'])) or 'none'}" for bits, told in by.items())
    return (
        "<h2>Attacks caught, of placements that reach the wanted strength</h2><p class=note>The figures above count"
        " every placement, also those that nobody could bring to the wanted bits (the owner does not call in those"
        " days, the key is hardly used). Here only those that have them, which the oracle says and no detector; of the"
        f" others these figures say nothing. Out of the macro recall, fewer than {LEAST} such placements: {said}.</p>"
        f"<div class=wide><table><tr><th>attack</th>{head}</tr>{rows}<tr><td>macro</td>{macro}</tr></table></div>"
    )


def _cells(each: dict[str, Any] | None) -> str:
    if each is None:
        return "<td></td>" * 2
    return f"<td>{ranged(each, 2) if each['n'] else '-'}</td><td>{each['n']} of {each['of']}</td>"
