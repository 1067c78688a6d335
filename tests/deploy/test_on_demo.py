"""No panel is empty on the demo's data: a demo of its own, stopped as soon as every panel has shown something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from pipeline.config import ClickHouse
from pipeline.config_file import load
from pipeline.sinks.connect import connect
from tests.deploy.on_demo import CHARTS, PANELS, metrics_of, name, still_empty, without_sample

ROOT: Final = Path(__file__).parents[2]
LONGEST_S: Final = 420.0
"""A demo whose panels are not all filled by then has failed; it takes 40 s on a machine of its own. It is kept: on a
busy one its story could be over, and its database gone, while the panels are being asked."""
LOOK_S: Final = 2.0


@dataclass(slots=True)
class Demo:
    """A running `keywatch demo` and what it has printed so far."""

    process: subprocess.Popen[bytes]
    printed: Path

    def goes_on(self, until_s: float) -> bool:
        """Waits `LOOK_S`; False once the demo has ended or its time is up."""
        try:
            self.process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            return time.monotonic() < until_s
        return False

    def found(self, pattern: str) -> str:
        """The first group of a line that was printed; "" as long as there is none."""
        match = re.search(pattern, self.printed.read_text())
        return match[1] if match else ""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    printed = tmp_path / "printed"
    with printed.open("wb") as out:
        command = [sys.executable, "-u", "-m", "pipeline.cli", "demo", "--keep"]
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}
        )
    yield Demo(process, printed)
    process.terminate()
    try:
        process.wait(60)
    finally:
        process.kill()  # its children are ended with it


@pytest.mark.timeout(LONGEST_S + 60)
def test_every_panel_shows_something_on_the_demo(demo: Demo) -> None:
    until_s = time.monotonic() + LONGEST_S
    while not demo.found("(REVOKED)") and demo.goes_on(until_s):
        pass
    assert demo.found("(REVOKED)"), demo.printed.read_text()
    client = connect(ClickHouse(url=demo.found(r"ClickHouse .* on (http://[\d.:]+)")), "keywatch")
    empty = tuple(still_empty(client, PANELS))
    while empty and demo.goes_on(until_s):
        empty = tuple(still_empty(client, empty))
    client.close()
    config = load(next(demo.printed.parent.rglob("keywatch.toml")))
    ports = (config.worker.metrics_port, config.respond.metrics_port)
    while without_sample(ports) and demo.goes_on(until_s):  # a responder tells of its caps now and then
        pass
    assert without_sample(ports) == []
    assert not [name(*each) for each in empty], demo.printed.read_text()


def test_panels_ask_for_many_metrics() -> None:
    assert sum(len(metrics_of(chart)) for _, chart in CHARTS) > 30
