"""Charts as SVG, drawn on the server: they are there without JavaScript and print well.

Nothing in them is styled inline, as the content security policy wants it; the style sheet has their classes. Each has a
title in words for those who can't see it. `static/charts.js` puts uPlot in the place of `hours`, by the figure's data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from markupsafe import Markup, escape

HOUR_US: Final = 3_600_000_000
WIDTH: Final = 720
HEIGHT: Final = 150
LEFT: Final = 44
BOTTOM: Final = 18
CELL: Final = 22
EDGE: Final = 30
TOP: Final = 14
LABEL: Final = 42
WEEKDAYS: Final = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour: when it begins (microseconds UTC), how many requests, how many of them refused or failed."""

    at_us: int
    requests: float
    errors: float = 0.0


@dataclass(frozen=True, slots=True)
class Band:
    """What is usual in an active hour."""

    low: float
    median: float
    high: float


def hours(bars: Sequence[Bar], band: Band, marks_us: Sequence[int] = ()) -> Markup:
    """Requests an hour with the usual band behind them; red marks where incidents opened. With data for uPlot."""
    if not bars:
        return Markup('<p class="muted">no use in this time</p>')
    first, last = bars[0].at_us, bars[-1].at_us + HOUR_US
    top = max(1.0, band.high, *(bar.requests for bar in bars)) * 1.05
    plot = _Plot(first, last, top)
    words = f"Requests an hour from {_day(first)} to {_day(last)}, most {max(b.requests for b in bars):,.0f}"
    parts = [plot.rect(first, last, band.low, band.high, "band"), plot.level(band.median, "median")]
    for bar in bars:
        parts.append(plot.rect(bar.at_us, bar.at_us + HOUR_US, 0, bar.requests, "bar", f"{_hour(bar)}"))
        if bar.errors:
            parts.append(plot.rect(bar.at_us, bar.at_us + HOUR_US, 0, bar.errors, "bar bad"))
    parts += [plot.mark(at_us) for at_us in marks_us if first <= at_us < last]
    return _FIGURE.format(_data(bars, band, marks_us), plot.svg(parts, words))


_FIGURE: Final = Markup("""<figure class="plot" data-plot="{}">
<div class="wide" tabindex="0" role="region" aria-label="requests an hour">{}</div>
<p class="readout muted" hidden>Point at an hour to read it, drag to zoom, double click to see all; by keyboard the
arrows, Enter and Escape.</p></figure>""")


def _data(bars: Sequence[Bar], band: Band, marks_us: Sequence[int]) -> str:
    """For uPlot: `from` and `marks` in seconds UTC, a number for every hour since, `usual` as low, median, high."""
    first_us = bars[0].at_us
    by_hour = {(bar.at_us - first_us) // HOUR_US: bar for bar in bars}
    every = [by_hour.get(hour, Bar(0, 0.0)) for hour in range(max(by_hour) + 1)]
    end_us = bars[-1].at_us + HOUR_US
    told = {
        "from": first_us // 10**6, "requests": [bar.requests for bar in every], "errors": [bar.errors for bar in every],
        "usual": [band.low, band.median, band.high],
        "marks": [at_us / 1e6 for at_us in marks_us if first_us <= at_us < end_us],
    }  # fmt: skip
    return msgspec.json.encode(told).decode()


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the chart, for a table: `busiest` is the hour with the most requests, `above` counts hours."""

    at_us: int
    requests: float
    errors: float
    busiest: Bar
    above: int


def days(bars: Sequence[Bar], band: Band) -> list[Day]:
    """Each day of use, UTC, the newest first; `above` counts its hours beyond the usual band."""
    by_day: dict[int, list[Bar]] = {}
    for bar in bars:
        by_day.setdefault(bar.at_us // (24 * HOUR_US), []).append(bar)
    return [
        Day(
            at_us=day * 24 * HOUR_US, requests=sum(bar.requests for bar in its), errors=sum(bar.errors for bar in its),
            busiest=max(its, key=lambda bar: bar.requests), above=sum(bar.requests > band.high for bar in its),
        )
        for day, its in sorted(by_day.items(), reverse=True)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plot:
    first_us: int
    last_us: int
    top: float

    def x(self, at_us: float) -> float:
        return LEFT + (at_us - self.first_us) / max(1, self.last_us - self.first_us) * (WIDTH - LEFT)

    def y(self, value: float) -> float:
        return (HEIGHT - BOTTOM) * (1 - math.sqrt(min(max(value, 0.0), self.top) / self.top))

    def rect(self, from_us: int, to_us: int, low: float, high: float, kind: str, title: str = "") -> Markup:
        left, top = self.x(from_us), self.y(high)
        width, height = max(0.6, self.x(to_us) - left - 0.3), max(0.0, self.y(low) - top)
        inner = Markup("<title>{}</title>").format(title) if title else Markup("")
        return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">{}</rect>').format(
            kind, left, top, width, height, inner
        )

    def level(self, value: float, kind: str) -> Markup:
        y = self.y(value)
        return Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(kind, LEFT, WIDTH, y, y)

    def mark(self, at_us: int) -> Markup:
        x = self.x(at_us)
        return Markup('<line class="mark" x1="{:.1f}" x2="{:.1f}" y1="0" y2="{}"/>').format(x, x, HEIGHT - BOTTOM)

    def svg(self, parts: Sequence[Markup], words: str) -> Markup:
        days = []
        day_us = 24 * HOUR_US
        step_us = day_us * max(1, round((self.last_us - self.first_us) / day_us / 7))
        at_us = -(-self.first_us // day_us) * day_us
        while at_us < self.last_us and self.x(at_us) < WIDTH - LABEL:
            days.append(_label(round(self.x(at_us)), HEIGHT - 4, _day(at_us)))
            at_us += step_us
        axis = [_label(0, 11, f"{self.top:,.0f}"), _label(0, HEIGHT - BOTTOM, "0")]
        axis += [_label(0, round(self.y(self.top / 4)) + 4, f"{self.top / 4:,.0f}")]
        return _svg(WIDTH, HEIGHT, [*parts, *days, *axis], words)


def week(counts: Sequence[tuple[int, int, float]], now: tuple[int, int] | None = None) -> Markup:
    """An hour-of-week map, UTC: (weekday from Monday 0, hour, requests); `now` is framed."""
    level = {(day, hour): requests for day, hour, requests in counts}
    most = max(level.values(), default=0.0)
    heads = [_label(EDGE + hour * CELL, 10, f"{hour:02}") for hour in range(0, 24, 3)]
    sides = [_label(0, TOP + day * CELL + 15, name) for day, name in enumerate(WEEKDAYS)]
    cells = [_cell(day, hour, level.get((day, hour), 0.0), most, now) for day in range(7) for hour in range(24)]
    day, hour = max(level, key=lambda each: level[each], default=(0, 0))
    words = f"Hours of the week in UTC; busiest {WEEKDAYS[day]} {hour:02}:00" if level else "no use"
    return _svg(EDGE + 24 * CELL, TOP + 7 * CELL, [*heads, *sides, *cells], words)


def _label(x: int, y: int, words: str) -> Markup:
    return Markup('<text x="{}" y="{}">{}</text>').format(x, y, words)


def _cell(day: int, hour: int, requests: float, most: float, now: tuple[int, int] | None) -> Markup:
    shade = 1 + min(4, int(5 * (requests / most) ** 0.5)) if requests else 0
    kind = f"heat heat{shade}" + (" now" if now == (day, hour) else "")
    words = f"{WEEKDAYS[day]} {hour:02}:00, {requests:,.0f} requests"
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
        kind, EDGE + hour * CELL, TOP + day * CELL, CELL - 2, CELL - 2, words
    )


def against(observed: float, band: Band) -> Markup:
    """One value against the band of what is usual."""
    most = max(observed, band.high, 1e-9)
    scale = 200 / most
    parts = [
        Markup('<rect class="band" x="{:.1f}" y="2" width="{:.1f}" height="12"/>').format(
            band.low * scale, max(1.0, (band.high - band.low) * scale)
        ),
        Markup('<rect class="bar bad" x="{:.1f}" y="0" width="3" height="16"/>').format(max(0.0, observed * scale - 3)),
    ]
    return _svg(200, 16, parts, f"observed {observed:g}, usual {band.low:g} to {band.high:g}", "small")


def _svg(width: int, height: int, parts: Sequence[Markup], words: str, kind: str = "chart") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, escape(words), Markup("").join(parts)
    )


def _day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%d %b")


def _hour(bar: Bar) -> str:
    when = datetime.fromtimestamp(bar.at_us / 1e6, UTC)
    return f"{when:%a %d %b %H:00} UTC: {bar.requests:,.0f} requests, {bar.errors:,.0f} refused or failed"
