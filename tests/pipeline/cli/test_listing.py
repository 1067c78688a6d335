"""Whatever lists has a table, JSON and CSV, and CSV is the JSON's rows."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.asking import spreadsheet
from pipeline.asking.answers import export_rows, print_json
from pipeline.cli.listing import listed
from pipeline.cli.main import app
from pipeline.errors import ConfigError
from pipeline.reference.commands import commands

RUNNER = CliRunner()
LISTS = {
    "adapters matrix", "cases", "cases list", "console-log", "coverage", "doctor", "drill status", "geo info", "hunt",
    "incidents", "keys audit", "keys rotations", "keys show", "leaks list", "mutes", "policy check", "policy try",
    "respond breaker", "respond dead-letters", "respond endpoints", "respond holds", "respond leftovers",
    "respond pending", "respond queue",
}  # fmt: skip
"""Commands whose answer is rows."""
ONE = {
    "adapters check", "bench", "erase", "explain", "feedback", "investigate", "leaks show", "replay", "report",
    "respond promotion", "top",
}  # fmt: skip
"""Commands whose answer is one thing: words, or one JSON object."""
ROWS: list[dict[str, Any]] = [
    {"key": "a,b", "at_us": 1_790_000_000_000_000, "names": ["x", "y"], "of": {"z": 1}},
    {"key": "=c", "at_us": 0, "more": None},
]
FOUND = {f"{path.partition(' ')[2]}": command for path, command in commands(typer.main.get_command(app), "keywatch")}


def outputs(command: Any) -> str:
    return next((each.help for each in command.params if "--output" in each.opts), "")


def test_every_command_that_lists_has_all_outputs() -> None:
    assert {name for name, command in FOUND.items() if outputs(command) == "table, json or csv."} == LISTS


def test_every_command_that_has_json_is_known_here() -> None:
    with_json = {
        name
        for name, command in FOUND.items()
        if any({"--json", "--output"} & set(each.opts) and each.name != "json_file" for each in command.params)
    }
    assert with_json == LISTS | ONE


def test_o_json_is_understood_wherever_there_is_json() -> None:
    assert {name for name in LISTS | ONE if "json" in outputs(FOUND[name])} == LISTS | ONE


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("keywatch respond st", ["stop"]), ("keywatch replay --format ap", ["apisix"]),
        ("keywatch intake --format nat", ["native"]), ("keywatch incidents --output c", ["csv"]),
        ("keywatch explain -o ", ["text", "json"]), ("keywatch doctor --sam", ["--sample"]),
    ],
)  # fmt: skip
def test_the_shell_completes_commands_options_and_their_values(typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1), "_KEYWATCH_COMPLETE": "complete_bash"}
    said = RUNNER.invoke(app, [], prog_name="keywatch", env=words)
    assert said.stdout.split() == offered


def test_an_adapters_check_is_json_either_way() -> None:
    said = [RUNNER.invoke(app, ["adapters", "check", *args]) for args in (("--json",), ("-o", "json"))]
    assert [(each.exit_code, each.stdout) for each in said] == [(0, "{}\n")] * 2
    assert RUNNER.invoke(app, ["adapters", "check", "-o", "csv"]).exit_code == 2


def printing(value: Any, code: int = 0) -> Any:
    def run(as_json: bool) -> int:
        print_json(value) if as_json else sys.stdout.write("a table\n")
        return code

    return run


def test_csv_is_the_rows_of_the_json(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert listed("csv", False, printing(ROWS, 1)) == 1
    read = list(csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode())))
    assert read == [
        {"key": "a,b", "at_us": "2026-09-21T14:13:20Z", "names": "x y", "of": '{"z": 1}', "more": ""},
        {"key": "'=c", "at_us": "", "names": "", "of": "", "more": ""},
    ]


HOSTILE = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "-a",
    "+49 1",
    "--",
    '=HYPERLINK("x")',
]
HARMLESS = ["-1.5", "+2", "-1e-9", "-.5", "-", "", "a=b", "/v1/x", "curl/8", "'=1", 7, -7, -0.5, None, True]


def test_a_cell_that_a_spreadsheet_would_run_is_text_and_numbers_stay_numbers(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    inert = ["'" + each.replace("\r", "\n").replace("\t=", "\t'=") for each in HOSTILE]
    listed("csv", False, printing([{"user_agent": each, "n": -1} for each in HOSTILE]))
    said = io.StringIO(capsysbinary.readouterr().out.decode(), newline="")
    assert [row["user_agent"] for row in csv.DictReader(said)] == inert
    columns = (("client", str), ("change", lambda value: f"{value:.1f}"))
    export_rows([{"client": each, "change": -2.5} for each in HOSTILE], columns, "csv")
    said = io.StringIO(capsysbinary.readouterr().out.decode(), newline="")
    assert [list(row.values()) for row in csv.DictReader(said)] == [[each, "-2.5"] for each in inert]
    assert [spreadsheet.text(each) for each in HARMLESS] == HARMLESS
    assert spreadsheet.text("x; =1;+2\t@a;b") == "x; '=1;'+2\t'@a;b", "some spreadsheets begin a cell there, too"


def test_rows_may_lie_deeper_and_there_may_be_none(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    listed("csv", False, printing({"unwatched": ROWS[:1], "used": 3}), rows="unwatched")
    assert capsysbinary.readouterr().out.startswith(b"key,at_us,names,of\n")
    listed("csv", False, printing([]))
    assert capsysbinary.readouterr().out == b""


def test_json_and_the_table_are_the_commands_own(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    listed("table", False, printing(ROWS))
    assert capsysbinary.readouterr().out == b"a table\n"
    for output, as_json in (("json", False), ("table", True)):
        listed(output, as_json, printing(ROWS))
        assert json.loads(capsysbinary.readouterr().out) == ROWS
    with pytest.raises(ConfigError, match="there are table, json and csv"):
        listed("xml", False, printing(ROWS))


def test_by_the_command_itself() -> None:
    told = RUNNER.invoke(app, ["adapters", "matrix", "-o", "csv"]).stdout
    plain = json.loads(RUNNER.invoke(app, ["adapters", "matrix", "-o", "json"]).stdout)
    assert [row["adapter"] for row in csv.DictReader(io.StringIO(told))] == [row["adapter"] for row in plain]
    (base,) = csv.DictReader(io.StringIO(RUNNER.invoke(app, ["geo", "info", "-o", "csv"]).stdout))
    assert base["name"] == "keywatch-libloc"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # it is named, not looked for
    shown = RUNNER.invoke(app, ["--show-completion", shell], prog_name="keywatch")
    assert shown.exit_code == 0
    assert "_KEYWATCH_COMPLETE" in shown.stdout
    words = {"_KEYWATCH_COMPLETE": f"complete_{shell}", "COMP_WORDS": "keywatch keys au", "COMP_CWORD": "2",
             "_TYPER_COMPLETE_ARGS": "keywatch keys au", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    told = RUNNER.invoke(app, [], env=words, prog_name="keywatch").stdout
    assert "audit" in told
    assert "import" not in told
