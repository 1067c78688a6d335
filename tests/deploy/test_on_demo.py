"""On one demo: no panel is empty, its worker and responder do what the documents' commands say, it listens on loopback
alone, and nobody else can read its files.

The demo is started once, and ended after the last of them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from pipeline.config.file import load
from pipeline.config.tree import ClickHouse
from pipeline.demo.broker import free_port
from pipeline.sinks.connect import connect
from tests.deploy.on_demo import CHARTS, PANELS, metrics_of, name, still_empty, without_sample
from tests.deploy.spoken import SERVED, SPOKEN, Terminal, lines

ROOT: Final = Path(__file__).parents[2]
LONGEST_S: Final = 420.0
"""A demo whose panels are not all filled by then has failed; it takes 40 s on a machine of its own. It is kept: on a
busy one its story could be over, and its database gone, while the panels are being asked."""
LOOK_S: Final = 2.0
LISTENERS: Final = ("tansu", "chdb_front", "worker", "respond", "console")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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

    def until_found(self, pattern: str) -> str:
        """Waits for such a line."""
        until_s = time.monotonic() + LONGEST_S
        while not self.found(pattern) and self.goes_on(until_s):
            pass
        assert self.found(pattern), self.printed.read_text()
        return self.found(pattern)

    @property
    def config(self) -> Path:
        """Its configuration, as it prints it for commands beside it."""
        return next(self.printed.parent.rglob("keywatch.toml"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    tmp_path = tmp_path_factory.mktemp("demo")
    printed = tmp_path / "printed"
    with printed.open("wb") as out:
        command = [sys.executable, "-u", "-m", "pipeline.cli.main", "demo", "--keep"]
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
    demo.until_found("(REVOKED)")
    client = connect(ClickHouse(url=demo.found(r"ClickHouse .* on (http://[\d.:]+)")), "keywatch")
    empty = tuple(still_empty(client, PANELS))
    while empty and demo.goes_on(until_s):
        empty = tuple(still_empty(client, empty))
    client.close()
    config = load(demo.config)
    ports = (config.worker.metrics_port, config.respond.metrics_port)
    while without_sample(ports) and demo.goes_on(until_s):  # a responder tells of its caps now and then
        pass
    assert without_sample(ports) == []
    assert not [name(*each) for each in empty], demo.printed.read_text()


@pytest.mark.timeout(LONGEST_S + 60)
def test_all_that_the_demo_starts_listens_on_loopback_alone(demo: Demo) -> None:
    """As the kernel has it, whatever the code and the broker's own defaults say."""
    demo.until_found("(REVOKED)")
    until_s, heard = time.monotonic() + LONGEST_S, listening(demo.process.pid)
    while not heard.keys() >= set(LISTENERS) and demo.goes_on(until_s):  # the console is the last to be there
        heard = listening(demo.process.pid)
    assert heard.keys() >= set(LISTENERS)
    assert [(name, found) for name, found in heard.items() if not all(each.is_loopback for each in found)] == []


@pytest.mark.timeout(LONGEST_S + 60)
def test_nobody_else_can_read_what_the_demo_writes(demo: Demo) -> None:
    demo.until_found("(REVOKED)")
    written = dict(modes(demo.config.parent))
    assert len(written) > 100
    assert {path: oct(mode) for path, mode in written.items() if mode & 0o077} == {}


def modes(folder: Path) -> Iterator[tuple[str, int]]:
    """Of a folder and all in it but links, while ClickHouse renames and removes there."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place), *(Path(place) / each for each in folders + files)):
            with suppress(FileNotFoundError):
                if not stat.S_ISLNK(mode := path.lstat().st_mode):
                    yield str(path), stat.S_IMODE(mode)


def listening(pid: int) -> dict[str, set[Address]]:
    """Addresses on which a process and those that it has started listen, by what these are."""
    found: dict[str, set[Address]] = {}
    for process in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        name = next((name for name in LISTENERS if any(name in word for word in words)), " ".join(words))
        if heard := listened(process):
            found.setdefault(name, set()).update(heard)
    return found


def listened(pid: int) -> set[Address]:
    """Addresses on which a process listens; those of IPv4 in IPv6 as such."""
    mine = set[str]()
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it is closed just now
            mine.add(str(opened.readlink()))
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    heard = {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine}
    return {address_of(each) for each in heard}


def address_of(words: str) -> Address:
    """Of the kernel's hexadecimal, four bytes at a time in the machine's own order."""
    raw = bytes.fromhex(words)
    address = ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4)))
    return getattr(address, "ipv4_mapped", None) or address


def test_the_kernels_addresses_are_read_right() -> None:
    read = {"0100007F": "127.0.0.1", "00000000": "0.0.0.0", "0" * 24 + "01000000": "::1"}
    read |= {"0000000000000000FFFF00000100007F": "127.0.0.1", "0" * 32: "::"}
    assert {words: str(address_of(words)) for words in read} == read


@pytest.fixture
def terminal(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Once the story is over: two approvers, with the responder started anew, as the first policy's page says."""
    monkeypatch.chdir(tmp_path)
    responder = int(demo.until_found(r"kill -9 \d+ \(worker\) or (\d+) \(respond\)"))
    mine = Terminal(demo.config, {})
    for person in ("anna", "ben"):
        told = mine.run("respond", "approver", person, "--key-file", f"{person}.key")
        with demo.config.open("a") as file:
            file.write(told[told.index("\n[[respond.approvers]]") :])
    os.kill(responder, signal.SIGKILL)
    demo.until_found("(respond was killed with -9)")
    until_ready(load(demo.config).respond.metrics_port)
    by_key = {row["key_id"]: row["incident_id"] for row in mine.rows("incidents")}
    (key,) = (each for each in by_key if each.startswith("key_office"))  # a stranger's network, fenced by no rule
    mine.values |= {"KEY": key, "INCIDENT": by_key[key], "ID": by_key[key], "SHOP": "search"}
    return mine


def until_ready(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until /readyz answers 200, while the process runs."""
    until_s = time.monotonic() + LONGEST_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).close()
        except OSError:  # nobody listens yet, or it says 503
            assert time.monotonic() < until_s and (process is None or process.poll() is None)
            time.sleep(0.5)
        else:
            return


ANNA: Final = ("--as", "anna", "--key-file", "anna.key")
BEN: Final = ("--as", "ben", "--key-file", "ben.key")
STAGES: Final = ("simulate", "suspend", "fence")
"""In this order each documented step is one: down from what the rules say, up by --override, down."""


@pytest.mark.timeout(2 * LONGEST_S)
def test_the_documents_commands_reach_the_worker_and_the_responder(demo: Demo, terminal: Terminal) -> None:
    incident, key = terminal.values["INCIDENT"], terminal.values["KEY"]
    says_to_worker(terminal, key)
    takes_cases(terminal)
    for undo in lines("respond undo"):
        for _ in terminal.each("respond act"):
            terminal.until_held(incident)
        terminal.say(undo)
        assert not terminal.holds(incident)
    signs(demo, terminal)
    for line in sorted(lines("respond promote"), key=lambda words: STAGES.index(words[words.index("--to") + 1])):
        terminal.say(line)
        assert terminal.rows("respond", "promotion")["stage"] == line[line.index("--to") + 1]
    assert terminal.ran == set(SPOKEN)
    assert {path.stem for path in demo.config.parent.glob("*.log")} >= set(SERVED)


def says_to_worker(terminal: Terminal, key: str) -> None:
    """A feedback is in effect once the worker has written where it took it up."""
    for said in terminal.each("feedback", "--wait", "120"):
        assert re.search(r"\(offset \d+ of partition \d+\)", said), said
    for _ in (*terminal.each("mute"), *terminal.each("plan")):
        pass
    held = [(row["kind"], row["about"]) for row in terminal.rows("mutes")]
    assert ("mute", f"key {key}") in held and ("planned", "NAME: owners search") in held
    assert [about for kind, about in held if kind == "exception" and key in about]
    terminal.run("unmute", key)
    assert ("mute", f"key {key}") not in [(row["kind"], row["about"]) for row in terminal.rows("mutes")]


def takes_cases(terminal: Terminal) -> None:
    def now() -> dict[str, tuple[str, str]]:
        return {row["case_id"]: (row["state"], row["by"]) for row in terminal.rows("cases")}

    case = next(iter(now()))
    for _ in terminal.each("cases ack", "--as", "anna", ID=case):
        assert now()[case] == ("acknowledged", "anna")
    terminal.run("cases", "assign", case, "--to", "ben")
    assert now()[case] == ("acknowledged", "ben")
    terminal.run("cases", "snooze", case, "--until", "2h")
    assert now()[case][0] == "snoozed"
    terminal.run("cases", "close", case)
    assert case not in now()


def signs(demo: Demo, terminal: Terminal) -> None:
    """Caps are raised by two; what the second one says reaches the responder, whose decision the demo prints."""

    def asked() -> str:
        (said,) = terminal.each("respond raise", *ANNA)
        ticket = said.split()[-1]
        assert ticket in [row["ticket"] for row in terminal.rows("respond", "pending")]
        return ticket

    (said,) = terminal.each("respond approve", *BEN, TICKET=asked())
    assert said.startswith("signed")
    demo.until_found("(ben signs a raise of caps)")
    terminal.run("respond", "refuse", asked(), "--reason", "once is enough", *BEN)
    demo.until_found("(ben declines a raise of caps)")


@pytest.mark.timeout(2 * LONGEST_S)
@pytest.mark.parametrize("line", lines("intake"), ids=" ".join)
def test_intake_runs_as_the_documents_start_it_until_it_is_stopped(
    demo: Demo, tmp_path: Path, line: tuple[str, ...]
) -> None:
    demo.until_found("(REVOKED)")
    config, port = tmp_path / "keywatch.toml", free_port()
    config.write_text(f"{demo.config.read_text()}\n[intake]\nhttp_port = {free_port()}\nmetrics_port = {port}\n")
    command = [sys.executable, "-m", "pipeline.cli.main", *line]
    process = subprocess.Popen(command, env=os.environ | {"KEYWATCH_CONFIG": str(config)})
    try:
        until_ready(port, process)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_panels_ask_for_many_metrics() -> None:
    assert sum(len(metrics_of(chart)) for _, chart in CHARTS) > 30
