"""The plots of keybench's page: SVG in line, nothing else. And how a figure is written with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Any, Final

BLUE: Final = "#2f6fb2"
GREY: Final = "#9aa7b6"
RED: Final = "#c4553b"


def bars(rows: Sequence[tuple[str, float, float, float, float | None]], marks: dict[str, float]) -> str:
    """Horizontal bars 0 .. 1 with an interval and, per row, a second value as a tick; `marks` are vertical lines."""
    left, width, height = 190, 640, 24
    out = [f"<svg width={left + width + 120} height={height * len(rows) + 30} role=img>"]
    for text, value in marks.items():
        x = left + width * value
        out.append(f"<line x1={x:.0f} x2={x:.0f} y1=0 y2={height * len(rows)} stroke={GREY} stroke-dasharray='3 3'/>")
        out.append(
            f"<text x={x:.0f} y={height * len(rows) + 18} text-anchor=middle fill='{GREY}'>{escape(text)}</text>"
        )
    for i, (name, value, low, high, tick) in enumerate(rows):
        y = i * height
        out.append(f"<text x={left - 8} y={y + 16} text-anchor=end>{escape(name)}</text>")
        out.append(f"<rect x={left} y={y + 4} width={width * value:.1f} height={height - 9} fill={BLUE} opacity=.85 />")
        out.append(
            f"<line x1={left + width * low:.1f} x2={left + width * high:.1f} y1={y + 12} y2={y + 12} stroke=#12314f />"
        )
        if tick is not None:
            x = left + width * tick
            out.append(f"<line x1={x:.1f} x2={x:.1f} y1={y + 2} y2={y + height - 3} stroke={RED} stroke-width=2 />")
        out.append(f"<text x={left + width + 8} y={y + 16}>{value:.2f} [{low:.2f}, {high:.2f}]</text>")
    return "".join(out) + "</svg>"


def scatter(rows: list[dict[str, Any]]) -> str:
    """Times as often as said (log scale .1 .. 100) by return period, with intervals; green: within a factor of two."""
    width, height, left, top = 560, 200, 50, 10
    out = [f"<svg width={left + width + 20} height={top + height + 30} role=img>"]

    def y(value: float) -> float:
        return top + height - (log10(min(100.0, max(0.1, value))) + 1) / 3 * height

    out.append(f"<rect x={left} y={y(2):.0f} width={width} height={y(0.5) - y(2):.0f} fill='#e6f2ea'/>")
    for value in (0.1, 1.0, 10.0, 100.0):
        out.append(f"<text x={left - 8} y={y(value) + 4:.0f} text-anchor=end>{value:g}</text>")
        out.append(f"<line x1={left} x2={left + width} y1={y(value):.0f} y2={y(value):.0f} stroke='#e3e8ee'/>")
    for i, row in enumerate(rows):
        x = left + (i + 0.5) * width / len(rows)
        out.append(f"<line x1={x} x2={x} y1={y(row['low']):.0f} y2={y(row['high']):.0f} stroke={BLUE} />")
        out.append(f"<circle cx={x} cy={y(row['ratio']):.0f} r=5 fill={BLUE} />")
        out.append(f"<text x={x} y={top + height + 20} text-anchor=middle>{row['nominal_days']:,.0f}</text>")
    return "".join(out) + "</svg>"


def ranged(each: dict[str, Any], digits: int = 3) -> str:
    """A figure with its interval."""
    if each["mean"] is None:
        return "n.a."
    return f"{each['mean']:.{digits}f} [{each['low']:.{digits}f}-{each['high']:.{digits}f}]"
