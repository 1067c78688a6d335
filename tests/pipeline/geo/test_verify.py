"""What is no whole MMDB file is refused before the reader in C has it."""

from __future__ import annotations

from pathlib import Path

import maxminddb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Geo
from pipeline.errors import ConfigError
from pipeline.geo.provider import DEMO_DB, SHIPPED_DB, open_geo
from pipeline.geo.verify import check, record
from tests.fuzz.run import CASES

DEMO = DEMO_DB.read_bytes()
TREE = 220 * 6
DATA_END = DEMO.rfind(b"\xab\xcd\xefMaxMind.com")


@pytest.mark.parametrize("path", [DEMO_DB, SHIPPED_DB], ids=lambda path: path.stem)
def test_the_files_of_the_package_are_whole(path: Path) -> None:
    check(path)


def test_a_record_of_no_type_is_one_line_and_no_segmentation_fault() -> None:
    (path, *_) = (CASES / "geo").glob("*.bin")
    with pytest.raises(ConfigError, match="can't be read as an MMDB file"):
        open_geo(Geo(country_db=str(path)))


@given(st.lists(st.tuples(st.integers(0, DATA_END - 1), st.integers(0, 255)), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_taken_for_whole_reads_whole(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """By maxminddb's reader in Python, which is the careful one; texts may be of no charset."""
    raw, path = bytearray(DEMO), tmp_path / "changed.mmdb"
    for at, value in changes:
        raw[at] = value
    path.write_bytes(raw)
    try:
        check(path)
    except maxminddb.InvalidDatabaseError:
        return
    with maxminddb.open_database(str(path), maxminddb.MODE_MEMORY) as reader:
        for address in ("203.0.113.9", "192.0.2.1", "198.51.100.7", "2001:db8::1", "8.8.8.8"):
            try:
                reader.get(address)
            except UnicodeDecodeError:
                continue


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.mmdb"
    path.write_bytes(DEMO[: TREE // 2] + DEMO[DATA_END:])
    with pytest.raises(maxminddb.InvalidDatabaseError, match="past the end of the file"):
        check(path)


@pytest.mark.parametrize(
    ("size", "node"),
    [(24, "010203 040506"), (28, "020304 15 060708"), (32, "01020304 05060708")],
    ids=["24 bits", "28 bits", "32 bits"],
)
def test_records_of_nodes_are_read_in_each_size(size: int, node: str) -> None:
    tree = np.frombuffer(bytes(size // 4) + bytes.fromhex(node), np.uint8)
    wanted = {24: (0x010203, 0x040506), 28: (0x1020304, 0x5060708), 32: (0x01020304, 0x05060708)}[size]
    assert (record(tree, 1, 0, size), record(tree, 1, 1, size)) == wanted
    assert record(tree, 0, 0, size) == 0
