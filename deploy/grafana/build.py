"""The Grafana dashboards as code: `python -m deploy.grafana.build` writes `dashboards/*.json` and the chart's copies.

The files are checked in (Grafana reads them from the folder; Helm packs only what lies in the chart) and a test
compares them with what this module makes. Every panel declares the columns its SQL returns; the tests expand the
macros and run each query on a filled chDB against them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from deploy.grafana.fleet import FLEET
from deploy.grafana.key import KEY
from deploy.grafana.panel import Chart, Dashboard, Mark, Panel, Row, Variable
from deploy.grafana.pipeline import PIPELINE
from deploy.grafana.responses import RESPONSES

DASHBOARDS: Final = (FLEET, KEY, RESPONSES, PIPELINE)
FOLDER: Final = Path(__file__).parent / "dashboards"
CHART_FOLDER: Final = Path(__file__).parents[1] / "helm" / "keywatch" / "dashboards"
SCHEMA_VERSION: Final = 40  # Grafana 11.5 and later
PLUGIN: Final = "grafana-clickhouse-datasource"
SOURCE: Final = {"type": PLUGIN, "uid": "${datasource}"}
METRICS: Final = {"type": "prometheus", "uid": "${metrics}"}
WIDTH: Final = 24  # columns of Grafana's grid


def dashboard(page: Dashboard) -> dict[str, Any]:
    """The whole dashboard as Grafana's JSON model."""
    return {
        "uid": page.uid,
        "title": page.title,
        "tags": ["keywatch"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": page.span, "to": "now"},
        "links": [*(_link(other) for other in DASHBOARDS if other is not page), *_to_console(page)],
        "templating": {"list": [*_sources(page), *map(_variable, page.variables)]},
        "annotations": {"list": [*([_annotation(page.incidents)] if page.incidents else []), *map(_mark, page.marks)]},
        "panels": _panels(page.rows),
    }


def _panels(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "gridPos": place, "panels": []})
        top = _lay_out(row, top + 1, panels)
    return panels


def _lay_out(row: Row, top: int, panels: list[dict[str, Any]]) -> int:
    """Place panels from left to right, a new line when one doesn't fit; returns the first free line below."""
    left = line_height = 0
    for panel in row.panels:
        if left + panel.width > WIDTH:
            left, top, line_height = 0, top + line_height, 0
        place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
        panels.append(_panel(panel, len(panels) + 1, place))
        left, line_height = left + panel.width, max(line_height, panel.height)
    return top + line_height


def _panel(panel: Panel | Chart, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "table" if panel.kind == "heat" else panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": METRICS if isinstance(panel, Chart) else SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _OPTIONS.get(panel.kind, {}),
        "targets": _targets(panel),
    }


def _targets(panel: Panel | Chart) -> list[dict[str, Any]]:
    if isinstance(panel, Panel):
        return [_target(panel.sql, panel.kind)]
    return [
        {"refId": chr(65 + i), "datasource": METRICS, "expr": expr, "legendFormat": legend, "range": True}
        for i, (expr, legend) in enumerate(panel.lines)
    ]


def _target(sql: str, kind: str) -> dict[str, Any]:
    series = kind == "timeseries"
    return {
        "refId": "A",
        "datasource": SOURCE,
        "editorType": "sql",
        "queryType": "timeseries" if series else "table",
        "format": 0 if series else 1,  # the plugin's numbers
        "rawSql": sql,
    }


def _defaults(panel: Panel | Chart) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": _drawn(panel)}
    if panel.kind == "heat":
        defaults |= {
            "color": {"mode": "continuous-BlPu"},
            "custom": {"cellOptions": {"type": "color-background", "mode": "basic"}, "align": "center"},
        }
    if panel.red_from is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red_from}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return defaults


def _drawn(panel: Panel | Chart) -> dict[str, Any]:
    """How a time series is drawn: lines, or bars on one another; and a line where it is too much."""
    drawn: dict[str, Any] = {}
    if isinstance(panel, Panel) and panel.bars:
        drawn |= {"drawStyle": "bars", "fillOpacity": 70, "stacking": {"mode": "normal", "group": "A"}}
    if panel.red_from is not None:
        drawn["thresholdsStyle"] = {"mode": "line"}
    return drawn


def _overrides(panel: Panel | Chart) -> list[dict[str, Any]]:
    if isinstance(panel, Chart):
        return []
    names = {name for name, _ in panel.columns}
    found = [_override(name, what, value) for name, what, value in _OF_COLUMNS[panel.kind] if name in names]
    if panel.between:
        low, high = panel.between
        found += [
            _override(high, "custom.fillBelowTo", low),
            *(_override(name, "custom.lineWidth", 0) for name in (low, high)),
            _override("median", "custom.lineStyle", {"fill": "dash", "dash": [6, 6]}),
        ]
    return found


def _override(name: str, what: str, value: Any) -> dict[str, Any]:
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": what, "value": value}]}


_SEVERE: Final = {"medium": "yellow", "high": "orange", "critical": "red"}
_MAPPED: Final = {
    "type": "value",
    "options": {word: {"color": colour, "index": i, "text": word} for i, (word, colour) in enumerate(_SEVERE.items())},
}
_KEY_LINKS: Final = [
    {"title": "Open the key", "url": "/d/keywatch-key?var-key=${__value.raw:percentencode}&${__url_time_range}"},
    {"title": "Open it in the console", "url": "${console}/keys/${__value.raw:percentencode}", "targetBlank": True},
]
_INCIDENT_LINKS: Final = [
    {"title": "Open in the console", "url": "${console}/incidents/${__value.raw}", "targetBlank": True}
]
_OF_COLUMNS: Final[dict[str, tuple[tuple[str, str, Any], ...]]] = defaultdict(
    tuple,
    {
        "table": (
            ("key_id", "links", _KEY_LINKS),
            ("incident_id", "links", _INCIDENT_LINKS),
            ("incident_id", "custom.width", 110),  # 32 letters: the first tell enough
            ("severity", "mappings", [_MAPPED]),
            ("severity", "custom.cellOptions", {"type": "color-text"}),
            ("errors", "unit", "percentunit"),
            ("precision", "unit", "percentunit"),
            ("median_s", "unit", "s"),
            ("p95_s", "unit", "s"),
        ),
        "timeseries": tuple(
            (word, "color", {"mode": "fixed", "fixedColor": colour}) for word, colour in _SEVERE.items()
        ),
    },
)
"""By kind of panel: what is set for columns of these names."""

_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value"},
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    "barchart": {"orientation": "horizontal", "legend": {"showLegend": False}},
    "geomap": {
        "view": {"id": "zero", "zoom": 1},
        "layers": [
            {
                "type": "markers",
                "name": "requests",
                "location": {"mode": "lookup", "lookup": "country", "gazetteer": "public/gazetteer/countries.json"},
                "config": {"style": {"size": {"field": "total", "min": 3, "max": 20}}},
            }
        ],
    },
}


def _sources(page: Dashboard) -> list[dict[str, Any]]:
    """A choice of data source for each kind that the page asks."""
    panels = [panel for row in page.rows for panel in row.panels]
    kinds = [
        ("datasource", "Data source", PLUGIN, any(isinstance(panel, Panel) for panel in panels)),
        ("metrics", "Metrics", "prometheus", any(isinstance(panel, Chart) for panel in panels)),
    ]
    return [
        {"name": name, "label": label, "type": "datasource", "query": plugin}
        for name, label, plugin, wanted in kinds
        if wanted
    ]


def _variable(variable: Variable) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": variable.name, "label": variable.label}
    if variable.text:
        one = {"text": variable.text, "value": variable.text}
        return shown | {
            "type": "textbox",
            "query": variable.text,
            "current": one,
            "options": [one | {"selected": True}],
            **({} if variable.by_url else {"skipUrlSync": True}),
        }
    if variable.words:
        options = [{"text": word, "value": word, "selected": word == variable.words[0]} for word in variable.words]
        current = {"text": variable.words[0], "value": variable.words[0]}
        return shown | {"type": "custom", "query": ",".join(variable.words), "current": current, "options": options}
    shown |= {
        "type": "query",
        "datasource": SOURCE,
        "query": {"rawSql": variable.sql, "refId": variable.name},
        "definition": variable.sql,
        "refresh": 2,
        "multi": variable.many,
        "includeAll": variable.many,
    }
    return shown | ({"current": {"text": ["All"], "value": ["$__all"]}} if variable.many else {})


def _annotation(sql: str) -> dict[str, Any]:
    return {
        "name": "Incidents",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "target": {**_target(sql, "table"), "refId": "incidents"},
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "name": mark.name,
        "datasource": METRICS,
        "enable": True,
        "iconColor": mark.colour,
        "titleFormat": mark.title,
        "target": {"refId": mark.name, "expr": mark.expr, "interval": "60s"},
    }


def _link(page: Dashboard) -> dict[str, Any]:
    return {
        "type": "link",
        "title": page.title.partition(": ")[2],
        "url": f"/d/{page.uid}",
        "keepTime": True,
        "includeVars": False,
    }


def _to_console(page: Dashboard) -> list[dict[str, Any]]:
    if not page.console:
        return []
    return [{"type": "link", "title": "Console", "url": "${console}" + page.console, "targetBlank": True}]


def render(page: Dashboard) -> str:
    """The file's text."""
    return json.dumps(dashboard(page), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    for folder in (FOLDER, CHART_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
        for page in DASHBOARDS:
            (folder / f"{page.uid}.json").write_text(render(page), encoding="utf-8")


if __name__ == "__main__":
    main()
