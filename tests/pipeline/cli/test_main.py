"""The command: help, exit codes, one line for what a user can run into."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.guard import exit_code
from pipeline.cli.main import app
from pipeline.errors import ConfigError, Fatal, Retry

RUNNER = CliRunner()
COMMANDS = [
    "worker",
    "respond",
    "intake",
    "replay",
    "demo",
    "bench",
    "migrate",
    "keys",
    "incidents",
    "explain",
    "doctor",
    "feedback",
    "mute",
    "unmute",
    "mutes",
    "plan",
    "coverage",
    "report",
    "learn",
    "policy",
    "investigate",
    "hunt",
    "leaks",
    "erase",
    "privacy",
    "console-log",
]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("KEYWATCH_"):
            monkeypatch.delenv(name)
    yield


def run(*arguments: str) -> tuple[int, str, str]:
    result = RUNNER.invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_help_names_every_command_and_is_quick_to_import() -> None:
    code, text, _ = run("--help")
    assert code == 0
    assert all(name in text for name in [*COMMANDS, "config", "geo", "--install-completion"])
    heavy = (
        "import sys, pipeline.cli.main; print([m for m in ('numba', 'faust', 'aiokafka', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    code, text, _ = run(command, "--help")
    assert code == 0
    assert "Usage" in text


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("worker", "--nothing"), ("explain",), ("--log-level", "loud", "bench")]
)
def test_wrong_use_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def raiser(error: BaseException) -> Callable[[], int]:
    def fail() -> int:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("kafka.brokers is empty"), 2, "keywatch: kafka.brokers is empty\n"),
        (Fatal("no broker"), 1, "keywatch: no broker\n"),
        (Retry("several\nlines"), 1, "keywatch: several lines\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "keywatch: the disk is full: /x/y\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "keywatch: the disk is full\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "keywatch: Permission denied /x\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_expected_trouble_is_one_line_and_a_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raiser(error)) == code
    assert capsys.readouterr().err == words


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(raiser(ZeroDivisionError()))


def test_config_show_check_and_schema(tmp_path: Path) -> None:
    path = tmp_path / "k.toml"
    path.write_text('[clickhouse]\npassword = "hidden"\n')
    code, text, _ = run("config", "show", "--config", str(path))
    assert code == 0
    assert 'password = "********"' in text
    assert run("config", "check", "--config", str(path))[0] == 0
    assert json.loads(run("config", "schema")[1])["$ref"] == "#/$defs/Config"


@pytest.mark.parametrize(
    ("text", "words"),
    [("[kafka]\nx = 1", "unknown setting kafka.x"), ("[detectors.nothing]\nx = 1", "there is no such detector"),
     ("[detectors.spike]\nnothing = 1", "detectors.spike.nothing: unknown setting"),
     ("[intake]\nformat = 'squid'", "intake.format 'squid' is unknown; known are apisix")],
)  # fmt: skip
def test_config_check_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "k.toml"
    path.write_text(text)
    code, _, err = run("config", "check", "--config", str(path))
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_geo_info_names_the_databases_and_looks_up() -> None:
    code, text, _ = run("geo", "info", "5.9.1.1")
    assert code == 0
    assert "keywatch-libloc  2022-10-29" in text
    assert "country='DE'" in text


@pytest.mark.parametrize("command", [("worker",), ("worker", "--runner", "plain"), ("respond",), ("intake",)])
def test_without_a_broker_a_service_ends_with_one_line(command: tuple[str, ...]) -> None:
    environ = {**os.environ, "KEYWATCH_KAFKA__BROKERS": f"127.0.0.1:{free_port()}", "KEYWATCH_LOG_LEVEL": "critical"}
    environ["KEYWATCH_LOG_LEVEL"] = "error"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", *command], capture_output=True, text=True, timeout=120, env=environ
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "no Kafka broker answers" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m pipeline.cli.main config schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_compiler_is_warmed_by_a_command_that_help_does_not_show() -> None:
    assert "warm-up" not in run("--help")[1]
    assert run("warm-up") == (0, "", "")


def test_a_broker_without_a_port_is_one_line() -> None:
    code, _, err = run("demo", "--broker", "localhost")
    assert (code, err) == (2, "keywatch: --broker localhost: give HOST:PORT\n")


def test_a_key_is_shown_without_the_word_show_and_one_named_like_a_command_with_it() -> None:
    for arguments in (("keys", "show", "--help"), ("keys", "pk_1", "--help"), ("keys", "-o", "json", "--help")):
        assert "Requests, errors, last use and places" in " ".join(run(*arguments)[1].split()), arguments
    for name in ("show", "import", "audit", "manifest", "rotations"):
        assert name in run("keys", "--help")[1]
        assert run("keys", name, "--help")[0] == 0


def test_keys_import_needs_its_file() -> None:
    code, _, err = run("keys", "import")
    assert code == 2
    assert "needs the FILE" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mute", "--until", "1d", "--reason", "x"), "name a KEY, --detector or --owner"),
        (("mute", "pk_1", "--until", "soon", "--reason", "x"), "give RFC 3339"),
        (("feedback", "ab", "fine", "--reason", "x"), "there are expected and malicious"),
        (("plan",), "name what is planned"),
        (("plan", "sale", "--to", "1d"), "--to and --reason are needed"),
        (("report", "--last", "week"), "give a span"),
        (("coverage", "-o", "xml"), "there are table, json and csv"),
        (("learn", "--at", "middle", "x"), "there are start and end"),
        (("worker", "--shadow", "No"), "small letters"),
        (("keys", "audit", "-o", "xml"), "there are table, json and csv"),
        (("keys", "manifest", "pk_1", "--for", "nginx"), "there are json, kong, aws"),
        (("investigate", "pk_1", "-o", "csv"), "there are text and json"),
        (("leaks", "report", "--reason", "x"), "give either --key-id or --hash"),
        (("leaks", "hash"), "intake.pepper is needed"),
        (("replay", "x", "--controls", "adopted"), "goes with --topic"),
    ],
)
def test_an_operators_wrong_use_is_one_line_that_says_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    code, _, error = run(*arguments)
    assert code == 2
    assert words in " ".join(error.split()) and "Traceback" not in error
