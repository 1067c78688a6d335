"""Every file that the product writes is its owner's alone, whatever the umask; nothing listens beyond loopback."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline import private
from pipeline.config.tree import Config
from pipeline.demo import settings
from pipeline.demo.children import Children
from pipeline.errors import ConfigError
from pipeline.evaluation.nab_score import Series, write_results
from pipeline.runners.replay import Outcome, write
from pipeline.sinks.clickhouse import FileSink
from tests.row_examples import rows_of

CODE = Path(private.__file__).parent


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The worst: everything allowed to everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_what_replay_writes_is_closed(tmp_path: Path) -> None:
    write(Outcome(), tmp_path / "a" / "out")
    assert modes(tmp_path / "a") == {0o700, 0o600}


def test_a_file_that_was_open_to_others_is_closed_when_it_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "incidents.jsonl"
    path.touch(mode=0o666)
    write(Outcome(), tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_benchmark_writes_is_closed(tmp_path: Path) -> None:
    none = np.zeros(1, np.int64)
    series = Series("realTweets/a.csv", ["2015-01-01"], np.zeros(1), none, none, np.zeros(1), 0)
    write_results(tmp_path / "nab", "keywatch", [series], [np.zeros(1)])
    assert modes(tmp_path / "nab") == {0o700, 0o600}


async def test_what_the_file_sink_writes_is_closed(tmp_path: Path) -> None:
    await FileSink(tmp_path / "rows").write("requests", rows_of("requests", 1))
    assert modes(tmp_path / "rows") == {0o700, 0o600}


def test_the_demos_settings_are_closed(tmp_path: Path) -> None:
    places = settings.Places("a:1", "http://a", "http://a", settings.new_webhook_secret(), 1, 2, tmp_path)
    assert stat.S_IMODE(settings.write(tmp_path, places).stat().st_mode) == 0o600


async def test_the_demos_logs_are_closed(tmp_path: Path) -> None:
    child = await Children(tmp_path, {}).start("it", [sys.executable, "-c", "print(1)"])
    await child.process.wait()
    assert stat.S_IMODE(child.log.stat().st_mode) == 0o600


def test_the_embedded_clickhouse_keeps_its_folder_closed(tmp_path: Path) -> None:
    private.folder(tmp_path / "house" / "data")
    assert modes(tmp_path / "house") == {0o700}
    assert "private.folder(folder)" in (CODE / "sinks" / "chdb_engine.py").read_text()


def test_a_folder_in_tmp_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "keywatch-faust").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="somebody else"):
        private.own_folder(tmp_path / "keywatch-faust")
    assert modes(private.own_folder(tmp_path / "other")) == {0o700}
    assert modes(private.own_folder(tmp_path / "other")) == {0o700}


OTHERS = {
    "reference/pages.py": "documents of the checkout, made by developers",
    "geo/centroids.py": "makes a file of the package, run by developers",
}
"""Modules that write without `pipeline.private`, and why they may."""


def test_nothing_else_writes_files() -> None:
    writes = re.compile(
        r'\.write_(?:text|bytes)\(|(?<!fd)open\([^)]*"[wax]b?"|\.mkdir\(|\.touch\((?:mode|\))|NamedTemporaryFile'
    )
    found = {
        str(path.relative_to(CODE)) for path in CODE.rglob("*.py")
        if path.name != "private.py" and writes.search(path.read_text())
    }  # fmt: skip
    assert found == set(OTHERS)


def test_every_host_that_something_listens_on_is_loopback_by_default() -> None:
    hosts = {
        f"{section}.{name}": getattr(getattr(Config(), section), name)
        for section in Config.__struct_fields__
        for name in getattr(getattr(Config(), section), "__struct_fields__", ())
        if name == "host" or name.endswith("_host")
    }
    processes = ("worker", "respond", "intake", "sources", "lifecycle", "console")
    assert set(hosts) == {*(f"{name}.metrics_host" for name in processes), "intake.http_host", "console.host"}
    assert set(hosts.values()) == {"127.0.0.1"}


def test_no_code_names_an_address_that_means_all_of_them() -> None:
    listens = re.compile(r"TCPSite\((.*)\)")
    sites = {str(path.relative_to(CODE)): listens.findall(path.read_text()) for path in CODE.rglob("*.py")}
    assert {name: found for name, found in sites.items() if found} == {
        "bench/elsewhere.py": ['runner, "127.0.0.1", 0'],
        "health.py": ["runner, host, port).start("],  # config: *.metrics_host
        "intake/http.py": ["runner, config.intake.http_host, config.intake.http_port"],
        "sinks/chdb_front.py": ["runner, host, port"],  # its main says 127.0.0.1
        "demo/api.py": ['runner, "127.0.0.1", port'],
    }
    named = [path for path in CODE.rglob("*.py") if re.search(r"[\"'](?:0\.0\.0\.0|::)[\"']", path.read_text())]
    assert named == []


def test_the_configuration_of_the_demo_listens_on_loopback_only(tmp_path: Path) -> None:
    from pipeline.config.file import load

    places = settings.Places("a:1", "http://a", "http://a", settings.new_webhook_secret(), 1, 2, tmp_path)
    config = load(settings.write(tmp_path, places), {})
    assert {config.worker.metrics_host, config.respond.metrics_host, config.intake.http_host} == {"127.0.0.1"}
    assert msgspec.structs.asdict(config.intake)["http_token"].reveal() == ""
