"""What a fresh clone needs: data files in the package, one source of versions, commands that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.console import browser

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_dependency_is_locked() -> None:
    locked = {line.partition("==")[0].lower().replace("_", "-") for line in lines("constraints.txt")}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["demo"], *extras["dev"], *extras["bench"]]
    names = {re.split(r"[\[<>=;~! ]", each)[0].lower().replace("_", "-") for each in wanted} - {"keywatch"}
    assert names - {"backports.zstd"} <= locked


def test_locked_versions_are_exact_and_name_no_host() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line) for line in lines("constraints.txt"))


def test_data_files_belong_to_the_package() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    assert "geo/data/*" in data["pipeline"]
    assert {"clickhouse/*.sql", "json/*.json"} <= set(data["schemas"])
    names = {path.name for path in (ROOT / "pipeline/geo/data").iterdir()}
    assert {"keywatch-geo.mmdb", "demo.mmdb", "countries.csv", "hosting.csv", "NOTICE"} <= names


def test_every_file_of_the_console_belongs_to_the_package() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["pipeline"]
    packed = {path for pattern in patterns for path in (ROOT / "pipeline").glob(pattern)}
    files = {path for path in (ROOT / "pipeline/console").rglob("*") if path.is_file()}
    assert ROOT / "pipeline/console/static/vendor/htmx.min.js" in files
    assert {path for path in files if path.suffix not in (".py", ".pyc")} <= packed


def test_make_without_a_target_explains_itself() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(target in shown for target in ("install", "test", "demo", "bench", "test-cluster", "clean"))


def test_make_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho 'Python 3.11 to 3.13 is needed' >&2\nexit 1\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(["make", "install", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert not (tmp_path / ".venv").exists()


def test_the_ci_script_is_sound_and_refuses_tests_that_did_not_run(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)
    script = (ROOT / ".ci/run").read_text()
    judge = script[script.index("ran() {") :].split("\n}\n")[0] + "\n}\n"
    for closing, code in (
        ("===== 12 passed, 1 skipped in 3.20s =====", 0),
        ("12 passed in 3.20s", 0),
        ("===== 3 failed, 12 passed in 3.20s =====", 1),
        ("===== 12 passed, 1 error in 3.20s =====", 1),
        ("===== no tests ran in 0.01s =====", 1),
        ("", 1),
    ):
        (tmp_path / "test").write_text(f"dots\n{closing}\n")
        body = f"set -euo pipefail\nlogs={tmp_path}\n{judge}\nran test\n"
        assert subprocess.run(["bash", "-c", body], capture_output=True).returncode == code, closing


def test_ci_installs_every_program_that_its_tests_would_fail_without(tmp_path: Path) -> None:
    script = (ROOT / ".ci/run").read_text()
    has = script[script.index("have() {") :].split("\n")[0]
    wanted = script[script.index("missing=()") : script.index("if ((")]
    body = f'{has}\n{wanted}\necho "${{missing[@]}}"\n'
    done = subprocess.run(["/bin/bash", "-c", body], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    needed = {"prometheus", "prometheus-alertmanager", "chromium", "default-jre-headless", "maven"}
    assert set(done.stdout.split()) == needed, done.stderr


@pytest.mark.parametrize(("ci", "skipped"), [("true", False), ("", True)])
def test_without_chromium_the_browser_tests_are_skipped_but_in_ci(
    ci: str, skipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    assert browser.may_be_skipped() is skipped


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
