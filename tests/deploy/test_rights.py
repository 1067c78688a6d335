"""ClickHouse's users: every statement is one that ClickHouse takes, and each role can do its work and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from deploy.grafana.build import DASHBOARDS
from deploy.grafana.panel import Panel
from pipeline import refreshes
from pipeline.migrate import FOLDER
from pipeline.privacy import truncate
from schemas.rows import TABLES
from tests.deploy.macros import Asked, expand
from tests.deploy.rights import ADMIN, SQL, statements

ROOT: Final = Path(__file__).parents[2]
DENIED, NO_STORAGE, NO_PROFILES, UNKNOWN_ROLE = 497, 514, 48, 511
"""What chDB says of roles and of profiles when all else of the statement is right: it has nowhere to keep them."""
USUAL: Final = {"over_age_days": "365", "dormant_days": "90", "resolution": "1m", "key": "k"}


def outcomes(folder: Path, role: str, asked: list[str]) -> list[int]:
    """Error codes of the statements under a role, in a process of its own."""
    command = [sys.executable, "-m", "tests.deploy.rights", str(folder), role]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all our tables, made by the writer's own rights."""
    folder = tmp_path_factory.mktemp("rights")
    assert outcomes(folder, ADMIN, ["CREATE DATABASE keywatch"]) == [0]
    made = [statement for path in sorted(FOLDER.glob("*.sql")) for statement in _statements(path)]
    codes = outcomes(folder, "keywatch_write", ["USE keywatch", *made])
    assert set(codes) == {0}, [statement for statement, code in zip(made, codes[1:], strict=True) if code]
    return folder


def _statements(path: Path) -> list[str]:
    text = re.sub(r"^--[^\n]*", "", path.read_text(), flags=re.MULTILINE)
    return [part.strip() for part in text.split(";") if part.strip()]


def test_clickhouse_knows_every_right_setting_and_quota_that_the_file_names(tmp_path: Path) -> None:
    text = [re.sub(r"{\w+:String}", "'x'", each) for each in statements()]
    codes = outcomes(tmp_path, ADMIN, text)
    for statement, code in zip(text, codes, strict=True):
        assert code in (0, NO_STORAGE, NO_PROFILES, UNKNOWN_ROLE), (code, statement)
    assert codes.count(NO_STORAGE) >= 3, "chDB has nowhere to keep roles; it looks at everything else first"
    wrong = ["CREATE SETTINGS PROFILE p SETTINGS no_such_setting = 1", "GRANT NO SUCH RIGHT ON keywatch.* TO r"]
    assert not set(outcomes(tmp_path, ADMIN, wrong)) & {0, NO_STORAGE, NO_PROFILES, UNKNOWN_ROLE}, (
        "a mistake would be seen"
    )


def test_the_reader_reads_every_panel_and_table_and_writes_nothing(folder: Path) -> None:
    panels = [
        expand(panel.sql, Asked(1_790_000_000, 1_790_086_400, 3600, USUAL))
        for page in DASHBOARDS for row in page.rows for panel in row.panels if isinstance(panel, Panel)
    ]  # fmt: skip
    reads = ["USE keywatch", *panels, *(f"SELECT count() FROM {table}" for table in TABLES)]
    assert set(outcomes(folder, "keywatch_read", reads)) == {0}
    writes = [
        "DROP TABLE keywatch.responses", "CREATE TABLE keywatch.mine (a Int8) ENGINE = Log",
        "ALTER TABLE keywatch.requests DELETE WHERE 1", "TRUNCATE TABLE keywatch.incidents",
        "SELECT * FROM system.users",
        "INSERT INTO keywatch.console_log (person) VALUES ('x')",
    ]  # fmt: skip
    assert not set(outcomes(folder, "keywatch_read", writes)) & {0}


def test_the_console_reads_and_adds_to_its_own_log_alone(folder: Path) -> None:
    log = "INSERT INTO keywatch.console_log (person) VALUES ('x')"
    reads = [f"SELECT count() FROM keywatch.{table}" for table in TABLES]
    assert set(outcomes(folder, "keywatch_watch", [log, *reads])) == {0}
    others = [
        "INSERT INTO keywatch.responses (response_id) VALUES ('x')", "INSERT INTO keywatch.keys (key_id) VALUES ('x')",
        "ALTER TABLE keywatch.console_log DELETE WHERE 1", "DROP TABLE keywatch.console_log",
    ]  # fmt: skip
    assert set(outcomes(folder, "keywatch_watch", others)) == {DENIED}


def test_the_writer_fills_every_table_and_cannot_change_or_drop_the_audit(folder: Path) -> None:
    inserts = [
        f"INSERT INTO keywatch.{table} ({columns[0][0]}) SELECT {columns[0][0]} FROM keywatch.{table}"
        for table, columns in TABLES.items()
    ]
    assert set(outcomes(folder, "keywatch_write", inserts)) == {0}
    sums = refreshes._REFRESHES.replace("{views:Array(String)}", "['to_days']")
    assert outcomes(folder, "keywatch_write", ["USE keywatch", sums]) == [0, 0]
    denied = [
        "ALTER TABLE keywatch.responses DELETE WHERE 1", "ALTER TABLE keywatch.console_log DELETE WHERE 1",
        "DROP TABLE keywatch.responses", "TRUNCATE TABLE keywatch.responses", "DROP DATABASE keywatch",
        "CREATE USER mallory", "SELECT * FROM system.query_log",
    ]  # fmt: skip
    assert not set(outcomes(folder, "keywatch_write", denied)) & {0}


def test_who_cuts_addresses_can_do_that_and_nothing_else(folder: Path) -> None:
    texts = {"v4": "x", "v4_cut": "x", "v6": "x", "v6_cut": "x", "short": "x", "short_cut": "x", "days": "30"}

    def filled(sql: str) -> str:
        return re.sub(r"{(\w+):(\w+)}", lambda found: f"CAST('{texts[found[1]]}', '{found[2]}')", sql)

    old = {table: truncate._where(table) for table in truncate.CUT}
    counts = [f"SELECT count() FROM keywatch.{table} WHERE {old[table]}" for table in old]
    cuts = [
        f"ALTER TABLE keywatch.{table} UPDATE {column} = {cut} WHERE {old[table]} SETTINGS mutations_sync = 2"
        for table, (column, cut, _) in truncate.CUT.items()
    ]
    assert set(outcomes(folder, "keywatch_truncate", [*map(filled, counts), *map(filled, cuts)])) == {0}
    others = [
        "SELECT key_id FROM keywatch.requests", "SELECT count() FROM keywatch.responses",
        "ALTER TABLE keywatch.requests UPDATE key_id = '' WHERE 1", "ALTER TABLE keywatch.requests DELETE WHERE 1",
        "ALTER TABLE keywatch.responses UPDATE body = '' WHERE 1",
        "INSERT INTO keywatch.requests (key_id) VALUES ('x')",
    ]  # fmt: skip
    assert set(outcomes(folder, "keywatch_truncate", others)) == {DENIED}


def test_the_script_gives_a_password_to_every_user_that_the_file_makes() -> None:
    wanted = set(re.findall(r"{(\w+):String}", " ".join(statements())))
    script = (SQL.parent / "10-users.sh").read_text()
    assert wanted == set(re.findall(r"--param_(\w+)=", script))
    secrets = (SQL.parents[1] / "secrets.sh").read_text()
    assert set(re.findall(r"secret (\w+)", script)) <= set(re.findall(r"clickhouse_\w+", secrets))
