"""The dashboards are what their builder makes, and every query of them finds what it declares in a filled database."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from clickhouse_connect.driver.client import Client

from deploy.grafana.build import CHART_FOLDER, DASHBOARDS, FOLDER, dashboard, render
from deploy.grafana.panel import Chart, Dashboard, Panel, Variable
from pipeline.config.tree import ClickHouse
from pipeline.metrics import METRICS, REGISTRY, process_started
from pipeline.migrate import migrate
from pipeline.sinks.connect import connect
from schemas.rows import LATENCY_BOUNDS_MS
from tests.deploy.filled import ODD, Fill, count_days, fill
from tests.deploy.macros import Asked, expand

NOW_S: Final = 1_790_000_400
SIZE: Final = Fill(keys=30, days=40, now_s=NOW_S, minutes=120)
USUAL: Final = {"over_age_days": "365", "dormant_days": "90", "resolution": "1m", "key": "key_00000"}
DAY: Final = Asked(NOW_S - 86_400, NOW_S, 3600)

PANELS: Final = [
    (page, panel) for page in DASHBOARDS for row in page.rows for panel in row.panels if isinstance(panel, Panel)
]
MARKS: Final = [mark for page in DASHBOARDS for mark in page.marks]
CHARTS: Final = [panel for page in DASHBOARDS for row in page.rows for panel in row.panels if isinstance(panel, Chart)]
PAGES: Final = pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.uid)
EACH: Final = pytest.mark.parametrize(("page", "panel"), PANELS, ids=lambda each: getattr(each, "title", ""))


def choices(page: Dashboard, **chosen: str) -> dict[str, str]:
    """What a page has chosen when it is opened: single values as they begin, of several ones All."""
    single = {each.name for each in page.variables if not each.many or each.text}
    return {name: value for name, value in USUAL.items() if name in single} | chosen


@pytest.fixture(scope="module")
def client(front: str) -> Iterator[Client]:
    config = ClickHouse(url=front, database="keywatch_grafana", expire=False)
    migrate(config)
    client = connect(config, config.database)
    fill(client, SIZE)
    count_days(client)
    yield client
    client.command(f"DROP DATABASE {config.database}")
    client.close()


def _ask(client: Client, sql: str, asked: Asked, **chosen: str) -> Any:
    return client.query(expand(sql, Asked(asked.from_s, asked.to_s, asked.step_s, {**asked.chosen, **chosen})))


def _kind(type_name: str) -> str:
    bare = type_name
    while found := re.fullmatch(r"(?:Nullable|LowCardinality)\((.*)\)", bare):
        bare = found[1]
    if bare.startswith("DateTime"):
        return "time"
    return "text" if bare == "String" else "number" if re.match(r"U?Int|Float", bare) else bare


@EACH
def test_a_panels_query_returns_the_columns_it_declares_and_is_not_empty(
    page: Dashboard, panel: Panel, client: Client
) -> None:
    found = _ask(client, panel.sql, DAY, **choices(page))
    shape = [(name, _kind(kind.name)) for name, kind in zip(found.column_names, found.column_types, strict=True)]
    assert shape == list(panel.columns)
    assert found.result_rows, "shows nothing"
    assert any(value not in (None, 0, "") for row in found.result_rows for value in row[1:] or row), "all 0"


@EACH
def test_a_panel_obeys_what_is_chosen_of_environment_owner_role_and_key(
    page: Dashboard, panel: Panel, client: Client
) -> None:
    many = {each.name for each in page.variables if each.many and each.sql}
    chosen = {"environment": "live", "owner": "team-7", "role": "read_only", "key": "key_00007"}
    wanted = {name: value for name, value in chosen.items() if name in many}
    if page.uid == "keywatch-key":
        wanted = {"key": ODD, "resolution": "1h"}
    found = _ask(client, panel.sql, DAY, **(choices(page) | wanted))
    for name in ("owner", "key_id", "environment"):
        if name in found.column_names and (name if name != "key_id" else "key") in wanted:
            at = found.column_names.index(name)
            assert {row[at] for row in found.result_rows} <= {wanted["key" if name == "key_id" else name]}


SERIES: Final = [each for each in PANELS if each[1].kind == "timeseries"]


@pytest.mark.parametrize(("page", "panel"), SERIES, ids=lambda each: getattr(each, "title", ""))
def test_a_time_series_begins_with_time_and_is_in_its_order(page: Dashboard, panel: Panel, client: Client) -> None:
    assert panel.columns[0] == ("time", "time")
    times = [row[0] for row in _ask(client, panel.sql, DAY, **choices(page)).result_rows]
    assert times == sorted(times)


def _panel(title: str, uid: str) -> tuple[Dashboard, Panel]:
    (found,) = [(page, panel) for page, panel in PANELS if panel.title == title and page.uid == uid]
    return found


def _rows(client: Client, title: str, uid: str, **chosen: str) -> list[Any]:
    page, panel = _panel(title, uid)
    return list(_ask(client, panel.sql, DAY, **choices(page, **chosen)).result_rows)


def test_the_fleets_numbers_are_those_of_the_tables(client: Client) -> None:
    within = f"FROM v_requests_1h WHERE window_start BETWEEN {DAY.from_s} AND {DAY.to_s}"
    (requests, keys), *_ = client.query(f"SELECT sum(requests), uniqExact(key_id) {within}").result_rows
    assert _rows(client, "Requests", "keywatch-fleet") == [(requests,)]
    assert _rows(client, "Keys in use", "keywatch-fleet") == [(keys,)] == [(SIZE.keys,)]
    live = client.query(
        f"SELECT sum(requests) {within} AND key_id IN (SELECT key_id FROM keys WHERE environment = 'live')"
    )
    by_hour = _rows(client, "Requests by environment", "keywatch-fleet")
    assert sum(row[1] for row in by_hour) == live.result_rows[0][0] < requests
    chosen = _rows(client, "Requests", "keywatch-fleet", environment="live")
    assert chosen == live.result_rows


WHOLE: Final = (
    ("Requests", "sum(requests)"), ("Keys in use", "uniqExact(key_id)"),
    ("Refused or failed", "sum(errors_401+errors_403+errors_404+errors_429+errors_4xx+errors_5xx) / sum(requests)"),
)  # fmt: skip


@pytest.mark.parametrize("owner", [None, "team-7"])
def test_a_long_range_is_read_by_the_day_and_says_the_same(owner: str | None, client: Client) -> None:
    asked = Asked(NOW_S - 20 * 86_400 + 5_000, NOW_S, 7200)
    within = f"FROM v_requests_1h WHERE window_start BETWEEN {asked.from_s} AND {asked.to_s}"
    if owner:
        within += f" AND key_id IN (SELECT key_id FROM keys WHERE owner = '{owner}')"
    for title, measure in WHOLE:
        page, panel = _panel(title, "keywatch-fleet")
        sql = expand(
            panel.sql, Asked(asked.from_s, asked.to_s, 7200, choices(page) | ({"owner": owner} if owner else {}))
        )
        assert client.query(sql).result_rows == client.query(f"SELECT {measure} {within}").result_rows, title
    sources = within.replace("v_requests_1h", "v_key_source_1h")
    page, panel = _panel("Requests by country", "keywatch-fleet")
    chosen = choices(page) | ({"owner": owner} if owner else {})
    found = _ask(client, panel.sql, asked, **chosen).result_rows
    by_country = client.query(f"SELECT country, sum(requests) {sources} AND country != '' GROUP BY country").result_rows
    assert dict(map(tuple, found)) == dict(map(tuple, by_country))


def test_days_of_a_long_range_are_read_from_what_is_counted_and_the_rest_by_the_hour(client: Client) -> None:
    asked = Asked(NOW_S - 20 * 86_400, NOW_S, 7200)
    page, panel = _panel("Requests", "keywatch-fleet")
    (whole,) = _ask(client, panel.sql, asked, **choices(page)).result_rows
    midnight_s = NOW_S // 86_400 * 86_400
    client.command(f"ALTER TABLE days DELETE WHERE day >= toDate({midnight_s} - 3 * 86400) SETTINGS mutations_sync = 2")
    assert _ask(client, panel.sql, asked, **choices(page)).result_rows == [whole], (
        "as the last days were not counted yet"
    )
    client.command(
        f"INSERT INTO days (day, key_id, requests, made_at) SELECT toDate({midnight_s} - 5 * 86400),"
        " 'more', 1000, now64(3)"
    )
    assert _ask(client, panel.sql, asked, **choices(page)).result_rows == [(whole[0] + 1000,)]
    client.command("ALTER TABLE days DELETE WHERE key_id = 'more' SETTINGS mutations_sync = 2")
    count_days(client)


def test_movers_over_a_long_range_are_compared_with_the_same_time_before(client: Client) -> None:
    asked = Asked(NOW_S - 10 * 86_400 + 5_000, NOW_S - 7_000, 7200)
    page, panel = _panel("Top movers", "keywatch-fleet")
    rows = {row[0]: row[1:] for row in _ask(client, panel.sql, asked, **choices(page)).result_rows}
    from_s, to_s = (each // 86_400 * 86_400 for each in (asked.from_s, asked.to_s))
    expected = client.query(
        f"SELECT key_id, sumIf(requests, window_start >= {from_s}), sumIf(requests, window_start < {from_s})"
        f" FROM v_requests_1h WHERE window_start >= {2 * from_s - to_s} AND window_start < {to_s} GROUP BY key_id"
    ).result_rows
    assert len(rows) == 25
    for key, now, before in expected:
        if key in rows:
            assert rows[key] == (now, before, now - before)


def test_keys_over_age_and_dormant_ones_are_listed_and_young_ones_are_not(client: Client) -> None:
    over_age = {row[0]: row[4] for row in _rows(client, "Keys to rotate", "keywatch-fleet")}
    assert _rows(client, "Keys over age", "keywatch-fleet") == [(len(over_age),)]
    assert all(days > 365 for days in over_age.values())
    assert "key_00009" in over_age
    assert "key_00000" not in over_age
    dormant = {row[0]: row[2] for row in _rows(client, "Dormant keys", "keywatch-fleet")}
    assert dormant["key_00005"] is None, "never used"
    assert dormant["key_00003"] is not None, "used 100 days before now"


def test_the_band_lies_around_what_the_key_usually_does(client: Client) -> None:
    rows = _rows(client, "Requests an hour, and what is usual", "keywatch-key")
    assert len(rows) == 25
    assert all(low <= median <= high for _, _, low, median, high in rows)
    inside = sum(low <= requests <= high for _, requests, low, _, high in rows[:-1])
    assert inside >= 18, "a key that does as always is mostly within"


def test_the_band_of_a_young_key_does_not_count_the_time_before_it(client: Client) -> None:
    client.command(
        "INSERT INTO requests_1h (key_id, window_start, part, version, requests)\n"
        f"SELECT 'young', toDateTime({SIZE.hour_s} - 86400 * 2 - 3600 * number, 'UTC'), 'e', 1, 50 FROM numbers(48)"
    )
    rows = _rows(client, "Requests an hour, and what is usual", "keywatch-key", key="young")
    client.command("ALTER TABLE requests_1h DELETE WHERE key_id = 'young' SETTINGS mutations_sync = 2")
    client.command("ALTER TABLE hours DELETE WHERE key_id = 'young' SETTINGS mutations_sync = 2")
    assert max(high for *_, high in rows) == 50


def test_every_hour_of_the_week_has_its_cell(client: Client) -> None:
    rows = _rows(client, "Requests by hour of the week (UTC)", "keywatch-key")
    assert [row[0] for row in rows] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert all(count > 0 for row in rows for count in row[1:])


def test_latency_shows_the_bound_that_the_share_falls_under(client: Client) -> None:
    p50, _, p99 = _rows(client, "Latency", "keywatch-key")[0][1:]
    assert (p50, p99) == (LATENCY_BOUNDS_MS[4], LATENCY_BOUNDS_MS[4])


def test_the_funnel_only_narrows_among_decisions_and_names_every_step(client: Client) -> None:
    rows = dict(_rows(client, "Funnel", "keywatch-responses"))
    assert len(rows) == 7
    counts = [rows[step] for step in sorted(rows)]
    assert counts[0] > counts[1] > 0
    assert counts[3] > counts[4] >= counts[5] >= counts[6] > 0


def test_a_refusal_is_counted_under_the_guard_that_said_no_alone(client: Client) -> None:
    guards = {row[0] for row in _rows(client, "Refusals, by guard", "keywatch-responses")}
    assert guards <= {"cap", "protected", "age"}
    assert guards


def test_precision_is_of_reviewed_incidents_alone(client: Client) -> None:
    page, panel = _panel("What people said of incidents", "keywatch-responses")
    rows = _ask(client, panel.sql, Asked(NOW_S - 40 * 86_400, NOW_S, 3600), **choices(page)).result_rows
    assert {row[0] for row in rows} == {"visit", "slow", "proof"}
    for _, _, opened, malicious, expected, precision in rows:
        assert malicious + expected <= opened
        assert precision == pytest.approx(malicious / (malicious + expected))


VARIABLES: Final = [(page, each) for page in DASHBOARDS for each in page.variables if each.sql]


@pytest.mark.parametrize(
    ("page", "variable"), VARIABLES, ids=lambda each: getattr(each, "uid", getattr(each, "name", ""))
)
def test_a_variable_finds_something_to_choose(page: Dashboard, variable: Variable, client: Client) -> None:
    found = _ask(client, variable.sql, DAY, **choices(page))
    assert len(found.column_names) == 1
    assert found.result_rows


@pytest.mark.parametrize("page", [page for page in DASHBOARDS if page.incidents], ids=lambda page: page.uid)
def test_incidents_are_marked_on_the_time_axis(page: Dashboard, client: Client) -> None:
    found = _ask(client, page.incidents, Asked(NOW_S - 40 * 86_400, NOW_S), **choices(page))
    assert set(found.column_names) >= {"time", "text", "title", "tags"}
    assert found.result_rows


# metrics


def _expressions() -> list[str]:
    return [expr for chart in CHARTS for expr, _ in chart.lines] + [mark.expr for mark in MARKS]


def test_promtool_takes_every_expression(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{i}", "expr": expr.replace("$__rate_interval", "5m")}
        for i, expr in enumerate(_expressions())
    ]
    assert rules
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_expressions_ask_only_for_metrics_and_labels_that_we_have() -> None:
    from dataclasses import fields

    samples = {
        sample
        for family in REGISTRY.collect()
        for sample in (family.name, f"{family.name}_total", f"{family.name}_bucket")
    }
    labels = {each._name: set(each._labelnames) for each in (getattr(METRICS, field.name) for field in fields(METRICS))}
    for chart in CHARTS:
        for expr, legend in chart.lines:
            asked = set(re.findall(r"\bkeywatch_\w+", expr))
            assert asked <= samples, (chart.title, asked - samples)
            known = {"job", "le"}.union(*(labels[re.sub(r"_(bucket|total)$", "", name)] for name in asked))
            grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(",")}
            chosen = set(re.findall(r"(\w+)=~?\"", expr)) - {"alertname", "alertstate"}
            assert grouped | chosen <= known, (chart.title, (grouped | chosen) - known)
            assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped, (chart.title, legend)


def test_marks_are_of_our_alerts_and_of_processes_that_start() -> None:
    """As the text says them, which Prometheus reads: version and job of what started, name and instance of an alert."""
    process_started()
    told = {sample.name: set(sample.labels) for family in REGISTRY.collect() for sample in family.samples}
    for mark in MARKS:
        [name] = set(re.findall(r"\b(?:ALERTS|keywatch_\w+)\b", mark.expr))
        known = {"job", "instance"} | ({"alertname"} if name == "ALERTS" else told[name])
        assert set(re.findall(r"{{(\w+)}}", mark.title)) <= known
    for page in DASHBOARDS:
        marked = dashboard(page)["annotations"]["list"]
        assert len(marked) == bool(page.incidents) + len(page.marks), page.uid
        assert all(each["target"]["refId"] and each["datasource"]["uid"] for each in marked)


# the files


@PAGES
@pytest.mark.parametrize("folder", [FOLDER, CHART_FOLDER], ids=["compose", "chart"])
def test_the_file_is_what_the_builder_makes(page: Dashboard, folder: Path) -> None:
    file = folder / f"{page.uid}.json"
    assert file.read_text(encoding="utf-8") == render(page), "run: python -m deploy.grafana.build"


def test_no_file_is_left_over() -> None:
    for folder in (FOLDER, CHART_FOLDER):
        assert {path.stem for path in folder.iterdir()} == {page.uid for page in DASHBOARDS}


@PAGES
def test_it_is_a_dashboard_as_grafana_reads_them(page: Dashboard) -> None:
    made = json.loads(render(page))
    assert made["uid"] == page.uid
    assert len(made["uid"]) <= 40
    assert 39 <= made["schemaVersion"] <= 41
    names = {each["name"] for each in made["templating"]["list"]}
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] in ("${datasource}", "${metrics}")
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert panel["datasource"]["uid"].strip("${}") in names, "no variable for its data source"
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


@PAGES
def test_every_variable_that_a_query_uses_is_declared_on_its_page(page: Dashboard) -> None:
    declared = {each["name"] for each in dashboard(page)["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", render(page))) - {"datasource", "metrics"}
    assert used <= declared


@PAGES
def test_panels_lie_on_the_grid_and_none_covers_another(page: Dashboard) -> None:
    places = [panel["gridPos"] for panel in dashboard(page)["panels"]]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in itertools.combinations(places, 2):
        apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_x or apart_y, (a, b)


EVERY: Final = [(page, panel) for page in DASHBOARDS for row in page.rows for panel in row.panels]


@pytest.mark.parametrize(("page", "panel"), EVERY, ids=lambda each: getattr(each, "title", ""))
def test_a_panel_says_what_it_shows(page: Dashboard, panel: Panel | Chart) -> None:
    assert panel.description.endswith(".")


TABLES: Final = [each for each in PANELS if each[1].kind == "table"]


@pytest.mark.parametrize(("page", "panel"), TABLES, ids=lambda each: getattr(each, "title", ""))
def test_an_incident_and_a_key_in_a_table_lead_to_their_pages_in_the_console(page: Dashboard, panel: Panel) -> None:
    (drawn,) = [each for each in dashboard(page)["panels"] if each["title"] == panel.title]
    links = {
        each["matcher"]["options"]: [link["url"] for link in each["properties"][0]["value"]]
        for each in drawn["fieldConfig"]["overrides"]
        if each["properties"][0]["id"] == "links"
    }
    assert set(links) == {name for name, _ in panel.columns} & {"incident_id", "key_id"}
    for name, urls in links.items():
        assert urls[-1].startswith({"incident_id": "${console}/incidents/", "key_id": "${console}/keys/"}[name])


def test_who_sends_a_link_to_a_dashboard_does_not_choose_where_its_console_is() -> None:
    variables = [each for page in DASHBOARDS for each in dashboard(page)["templating"]["list"]]
    consoles = [each for each in variables if each["name"] == "console"]
    assert consoles
    assert all(each.get("skipUrlSync") for each in consoles)


def test_links_lead_to_pages_that_exist() -> None:
    uids = {page.uid for page in DASHBOARDS}
    for page in DASHBOARDS:
        assert set(re.findall(r"/d/([\w-]+)", render(page))) <= uids


def test_provisioning_names_the_reader_the_metrics_the_alerts_and_the_folder() -> None:
    folder = FOLDER.parent / "provisioning"
    sources = {
        source["type"]: source
        for path in sorted((folder / "datasources").iterdir())
        for source in yaml.safe_load(path.read_text())["datasources"]
    }
    assert set(sources) == {"grafana-clickhouse-datasource", "prometheus", "alertmanager"}
    data = sources["grafana-clickhouse-datasource"]["jsonData"]
    assert (data["username"], data["host"]) == ("keywatch_reader", "clickhouse")
    assert sources["prometheus"]["jsonData"]["alertmanagerUid"] == sources["alertmanager"]["uid"]
    assert sources["alertmanager"]["jsonData"]["handleGrafanaManagedAlerts"] is False
    provider = yaml.safe_load((folder / "dashboards" / "keywatch.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
