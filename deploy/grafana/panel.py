"""What a dashboard is made of, and the SQL that several panels share, in Grafana's macros.

Views (`v_...`, schemas/clickhouse) already take the newest version of each row; those of windows also sum over parts.
`hours` and `places` have a row for each part: `sum` over them is right. `span` reads them for short ranges; of a long
one it takes the whole days that `days` and `place_days` have, and the hours of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["stat", "timeseries", "table", "heat", "geomap", "barchart", "bargauge"]
Columns = tuple[tuple[str, str], ...]
"""(name, kind); kind is time, number or text."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its query, what the query returns and how wide and high it is drawn (in grid units of 1/24)."""

    title: str
    kind: Kind
    sql: str
    columns: Columns
    width: int = 12
    height: int = 8
    unit: str = "short"
    description: str = ""
    red_from: float | None = None  # what is too much
    bars: bool = False  # of a timeseries of counts: a stack of bars, so that a single one is seen
    between: tuple[str, str] | None = None  # of a timeseries: the area between these two columns is the band


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel over metrics: (PromQL, legend) of each line."""

    title: str
    lines: tuple[tuple[str, str], ...]
    width: int = 8
    height: int = 7
    unit: str = "short"
    description: str = ""
    kind: Kind = "timeseries"
    red_from: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A headed group of panels, laid out from left to right."""

    title: str
    panels: tuple[Panel | Chart, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the head of the page: of what a query finds, of listed words, or any number (`text`)."""

    name: str
    label: str
    sql: str = ""
    words: tuple[str, ...] = ()
    text: str = ""
    many: bool = True  # several, or all
    by_url: bool = True  # a page's address may set it


@dataclass(frozen=True, slots=True)
class Mark:
    """What is marked on the time axes of a page: where PromQL has a value; `title` in Prometheus' {{label}}."""

    name: str
    expr: str
    title: str
    colour: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page. `incidents` is the SQL of the marks on its time axes, `marks` those by metrics."""

    uid: str
    title: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    incidents: str = ""
    span: str = "now-24h"
    console: str = ""  # the path of its page in Keywatch's console; "" where there is none
    marks: tuple[Mark, ...] = ()


def of_declared(name: str) -> str:
    """Rows of keys whose declared environment, owner or role was chosen; undeclared keys show under "All" alone."""
    inner = f"key_id IN (SELECT key_id FROM v_keys WHERE {name} IN (${{{name}:singlequote}}))"  # noqa: S608
    return f"$__conditionalAll({inner}, ${name})"


ACT: Final = "if(JSONExtractString(body, 'direction') = 'undo', concat('undo of ', rung), rung) AS act"
"""Of `v_responses`: the lines of an undo have the rung that they take back."""

LONG_S: Final = 4 * 86_400
"""A range of more seconds is read by the day: 10,000 keys have 240,000 hours a day."""


def span(
    hours: str, days: str, columns: str, start: str = "$__fromTime", end: str = "$__toTime", long: str = ""
) -> str:  # fmt: skip
    """A subquery for FROM: `columns` and `at` of every hour from `start` up to `end`, or of whole days.

    `hours` and `days` are tables with these columns. Days that have not been counted yet (today; all of them before the
    first count) come by the hour, so the sums are the same. `long`: what makes it a long range, where not its length.
    """
    start, end = f"({start})", f"({end})"
    first = f"toStartOfDay(toDateTime({start}, 'UTC') + 86399)"
    counted = f"toDateTime((SELECT max(day) + 1 FROM {days}), 'UTC')"  # noqa: S608  (names of this folder)
    last = f"least(toStartOfDay(toDateTime({end}, 'UTC')), {counted})"
    last = f"if({long or f'{end} - {start} > {LONG_S}'}, {last}, toDateTime(0, 'UTC'))"
    return (
        f"(\n    SELECT window_start AS at, {columns} FROM v_{hours}\n"  # noqa: S608
        f"    WHERE window_start >= {start} AND window_start < {end}\n"
        f"        AND (window_start < {first} OR window_start >= {last})\n"
        f"    UNION ALL\n    SELECT toDateTime(day, 'UTC') AS at, {columns} FROM v_{days}\n"
        f"    WHERE day >= toDate({first}) AND day < toDate({last})\n)"
    )


AT: Final = f"if($__toTime - $__fromTime > {LONG_S}, toStartOfDay(at), $__timeInterval(at))"
"""The point of a time axis that a row of `span` belongs to."""

OF_KEYS: Final = "\n    AND ".join(of_declared(name) for name in ("environment", "owner", "role"))
OF_INCIDENTS: Final = "\n    AND ".join(
    f"$__conditionalAll({name} IN (${{{name}:singlequote}}), ${name})" for name in ("environment", "owner", "role")
)
"""An incident carries what was declared when it was opened."""

CONSOLE: Final = Variable("console", "Console", text="http://localhost:8090", by_url=False)
"""Where the console is reached by who reads the page; the chart puts its own `dashboards.consoleUrl` in. Never by a
link's `var-console`: whoever sends one would choose where people sign in."""

CHOICES: Final = tuple(
    Variable(name, name.capitalize(), f"SELECT DISTINCT {name} FROM v_keys ORDER BY {name} LIMIT 2000")  # noqa: S608
    for name in ("environment", "owner", "role")
)
