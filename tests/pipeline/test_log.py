"""Logs: one line each, and no planted secret in any of them, whoever's handler writes it."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.log import STARS, JsonLines, make_handler, redact, redacting_record, set_up

CANARIES = (
    "sk_live_4eC39HqLyjWDarjtT1zdp7dcAbCd",
    "pk_live_9f8e7d6c5b4a39281706f5e4d3c2b1a0",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "whsec_" + base64.b64encode(bytes(range(7, 39))).decode(),
    "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
)
HARMLESS = (
    "key_id=pk_live_x revision 3 at 2026-11-24T02:00:00.000000Z",
    "partition 3 offset 123456789012 of api.requests, 127.0.0.1:9092",
    "incident 0f8fad5bd9cb469fa16570867728950e of 0f8fad5b-d9cb-469f-a165-70867728950e",
    "soar POST /api/v1/acts/0f8fad5bd9cb469fa16570867728950e/undo 202 asked for",
    "soar POST /api/v1/cases/case_0f8fad5bd9cb469f/ack 202, ann POST /incidents/0f8fad5bd9cb469fa16570867728950e/judge",
    "/work/main/pipeline/respond/responder.py line 12, aiokafka.errors.KafkaConnectionError",
    "k1 decided refused: caps: 3 keys acted on within the hour, at most 3 (3 by number, 5 by share of 100 active keys)",
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.setLogRecordFactory(factory)
    logging.captureWarnings(False)
    for name in ("aiokafka", "faust", "mode", "kafka", "asyncio", "clickhouse_connect", "numba"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def logged(as_json: bool) -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    set_up("INFO", as_json, stream)
    return logging.getLogger("keywatch.test"), stream


def fail(text: str) -> None:
    raise ValueError(text)


def say_everywhere(log: logging.Logger, canary: str) -> None:
    log.info("the header was Authorization: Bearer %s", canary)
    log.info(f"query ?token={canary}&page=2")
    log.info("%(what)s", {"what": {"nested": [canary]}})
    log.warning("with a field", extra={"detail": f"https://host/x?key={canary}"})
    log.info("too few %s %s", canary)
    try:
        fail(f"cannot use {canary!r}")
    except ValueError:
        log.exception("it failed")


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("canary", CANARIES)
def test_no_planted_secret_is_in_any_line(canary: str, as_json: bool) -> None:
    log, stream = logged(as_json)
    say_everywhere(log, canary)
    text = stream.getvalue()
    assert canary not in text
    assert canary[8:-2] not in text
    assert text.count(STARS) >= 5


@pytest.mark.parametrize("canary", CANARIES)
def test_another_s_handler_gets_no_secret_either(canary: str) -> None:
    """Faust clears the root's handlers and puts its own there."""
    log, _ = logged(False)
    stream = io.StringIO()
    logging.getLogger().handlers[:] = [logging.StreamHandler(stream)]
    log.info("the header was %s", canary)
    try:
        fail(canary)
    except ValueError:
        log.exception("it failed")
    assert canary not in stream.getvalue()
    assert "it failed" in stream.getvalue()


@pytest.mark.parametrize("text", HARMLESS)
def test_ids_positions_and_sentences_stay_readable(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("canary", [*CANARIES, "q7/Rk2Xb9Lp/Zt4Wm8Ys1Nc6Vd3Hf5Jg0Qa2Se7Uy"])
@pytest.mark.parametrize("where", ["/incidents/{}/judge", "/api/v1/acts/{}/undo", "/keys/{}", "/api/v1/{}"])
def test_a_secret_in_an_address_of_ours_is_one_all_the_same(where: str, canary: str) -> None:
    assert canary not in redact(f"soar POST {where.format(canary)} 404")


def test_json_lines_hold_level_logger_message_extras_and_traceback() -> None:
    log, stream = logged(True)
    log.info("%d of %d", 1, 2, extra={"partition": 3})
    try:
        fail("why")
    except ValueError:
        log.exception("it failed")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {key: first[key] for key in ("level", "logger", "message", "partition")} == {
        "level": "INFO", "logger": "keywatch.test", "message": "1 of 2", "partition": 3,
    }  # fmt: skip
    assert first["at"].endswith("+00:00")
    assert "ValueError: why" in second["traceback"]


def test_human_lines_hold_the_same() -> None:
    log, stream = logged(False)
    log.warning("slow", extra={"partition": 3})
    assert stream.getvalue().endswith("WARNING keywatch.test: slow partition=3\n")


def test_setting_up_twice_writes_each_line_once() -> None:
    set_up("INFO", True, io.StringIO())
    log, stream = logged(False)
    log.info("once")
    assert stream.getvalue().count("once") == 1


def test_a_wrong_format_neither_raises_nor_shows_its_arguments() -> None:
    log, stream = logged(False)
    log.info("%d items", "hunter2")
    assert "1 arguments do not fit" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_the_level_is_kept_and_libraries_are_quiet() -> None:
    log, stream = logged(False)
    log.debug("hidden")
    logging.getLogger("aiokafka.consumer").info("every poll")
    assert stream.getvalue() == ""


def test_a_record_made_by_the_factory_formats_with_a_plain_formatter() -> None:
    arguments: tuple[Any, ...] = ("n", logging.INFO, "f.py", 1, "a %s", ("b",), None)
    assert logging.Formatter("%(message)s").format(redacting_record(*arguments)) == "a b"
    assert isinstance(make_handler(True).formatter, JsonLines)
