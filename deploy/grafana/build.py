"""The Grafana dashboard as code: `python -m deploy.grafana.build` writes `dashboards/keywatch.json`.

The file is checked in (Grafana reads it from the folder) and a test compares it with what this module makes. Every
panel declares the columns its SQL returns; the tests expand the macros and run each query on seeded chDB against them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from deploy.grafana.panels import ANNOTATION, KEY_VARIABLE, ROWS, Panel

FILE: Final = Path(__file__).parent / "dashboards" / "keywatch.json"
SCHEMA_VERSION: Final = 40  # Grafana 11.5 and later
PLUGIN: Final = "grafana-clickhouse-datasource"
SOURCE: Final = {"type": PLUGIN, "uid": "${datasource}"}
WIDTH: Final = 24  # columns of Grafana's grid


def dashboard() -> dict[str, Any]:
    """The whole dashboard as Grafana's JSON model."""
    return {
        "uid": "keywatch",
        "title": "Keywatch",
        "tags": ["keywatch"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": [_annotation()]},
        "panels": _panels(),
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "gridPos": place, "panels": []})
        top = _lay_out(row.panels, top + 1, panels)
    return panels


def _lay_out(row: tuple[Panel, ...], top: int, panels: list[dict[str, Any]]) -> int:
    """Place panels from left to right, a new line when one doesn't fit; returns the first free line below."""
    left = line_height = 0
    for panel in row:
        if left + panel.width > WIDTH:
            left, top, line_height = 0, top + line_height, 0
        place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
        panels.append(_panel(panel, len(panels) + 1, place))
        left, line_height = left + panel.width, max(line_height, panel.height)
    return top + line_height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": _OPTIONS.get(panel.kind, {}),
        "targets": [_target(panel.sql, panel.kind)],
    }


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


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "none"},
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    "barchart": {"xField": "hour", "xTickLabelSpacing": 100, "legend": {"showLegend": False}},
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


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": PLUGIN},
        {
            "name": "resolution",
            "label": "Resolution",
            "type": "custom",
            "query": "1m,1h",
            "current": {"text": "1m", "value": "1m"},
            "options": [{"text": value, "value": value, "selected": value == "1m"} for value in ("1m", "1h")],
        },
        {
            "name": "key",
            "label": "Key",
            "type": "query",
            "datasource": SOURCE,
            "query": {"rawSql": KEY_VARIABLE, "refId": "key"},
            "definition": KEY_VARIABLE,
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _annotation() -> dict[str, Any]:
    return {
        "name": "Incidents",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "target": {**_target(ANNOTATION, "table"), "refId": "incidents"},
    }


def render() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
