"""`make audit` fails on what is known and has no reason to stay, and on nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.dependencies.audit import Known, Pin, audit, configured_index, json_api, known, pins

BAD: Known = {"id": "GHSA-1", "aliases": ["CVE-1"], "fixed_in": ["2.1"], "summary": "reads too far", "withdrawn": None}
PINS: list[Pin] = [("good", "1"), ("bad", "2"), ("odd", "3"), ("html", "4"), ("old", "5")]
ANSWERS = {
    "/pypi/good/1/json": {"vulnerabilities": []},
    "/pypi/bad/2/json": {"info": {}, "vulnerabilities": [BAD]},
    "/pypi/odd/3/json": {"info": {}},
    "/pypi/html/4/json": "<html>",
    "/pypi/old/5/json": {"vulnerabilities": [BAD | {"withdrawn": "2026-01-01T00:00:00Z"}]},
}


class Index(BaseHTTPRequestHandler):
    """A package index with a JSON API."""

    def do_GET(self) -> None:
        answer = ANSWERS.get(self.path)
        self.send_response(200 if answer is not None else 404)
        self.end_headers()
        self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the tests' output."""


@pytest.fixture
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield json_api(f"http://127.0.0.1:{server.server_port}/simple/")
    server.shutdown()
    server.server_close()


def test_a_known_vulnerability_fails_and_the_others_answers_are_counted(api: str) -> None:
    lines, code = audit(PINS, lambda pin: known(api, pin), {})
    assert code == 1
    assert lines == [
        "bad 2: CVE-1 GHSA-1, fixed in 2.1: reads too far",
        "3 of 5 pinned checked: 1 known vulnerabilities stand",
        "2 not checked: the index gave no list for them",
    ]


@pytest.mark.parametrize("name", ["GHSA-1", "CVE-1"])
def test_one_with_a_reason_passes_and_is_still_said(api: str, name: str) -> None:
    lines, code = audit(PINS, lambda pin: known(api, pin), {name: "we never read"})
    assert code == 0
    assert lines[0].endswith("accepted: we never read")
    assert audit(PINS, lambda pin: known(api, pin), {name: " "})[1] == 1, "a reason without words is none"


@pytest.mark.parametrize("index", ["http://127.0.0.1:9", "file:///nowhere"])
def test_an_index_that_can_not_tell_is_no_fault_and_is_asked_no_more_than_thrice(index: str) -> None:
    asked = []

    def ask(pin: Pin) -> list[Known] | None:
        asked.append(pin)
        return known(json_api(index), pin)

    lines, code = audit(PINS * 20, ask, {})
    assert code == 0 and len(asked) == 3
    assert "nothing was checked" in lines[0]


def test_an_index_without_the_json_api_is_no_fault(api: str) -> None:
    assert audit([("absent", "1")], lambda pin: known(api, pin), {})[1] == 0


def test_the_index_is_the_one_that_pip_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.invalid/root/simple")
    assert json_api(configured_index()) == "https://mirror.invalid/root/pypi"


def test_every_pin_is_asked_for() -> None:
    text = (Path(__file__).parents[2] / "constraints.txt").read_text()
    assert len(pins(text)) == text.count("==")
    assert pins("# a\nb==1 # why\nc == 2; python_version < '3.12'\n") == [("b", "1"), ("c", "2")]
