"""Every command in the documents works: what can be run is run, all else passes the parser of `keywatch` itself."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.main import app
from tests.deploy import spoken
from tests.docs import lists
from tests.docs.lists import FAULTS_WANTED, NOT_OURS, PARSED, PREVIEWED, RUN, RUN_BESIDES
from tests.docs.parsing import filled, parse
from tests.docs.reading import ROOT, WRITTEN, Command, commands
from tests.docs.world import world  # noqa: F401

ALL = [command for path in WRITTEN for command in commands(path)]
OURS = [command for command in ALL if command.words[0] == "keywatch"]
WHOLE = [command for command in OURS if command.whole]


def name_of(command: Command) -> str:
    return parse(command.words[1:], command.whole)


def is_run(command: Command) -> bool:
    name = name_of(command)
    return name in RUN or (name in PREVIEWED and "--preview" in command.words)


SIGNED = ("respond act", "respond approve", "respond bulk", "respond raise", "respond refuse")
BESIDES = [Command("tests/docs/lists.py", ("keywatch", *line.split()), whole=True) for line in RUN_BESIDES]
TO_RUN = [*filter(is_run, {command.words: command for command in WHOLE}.values()), *BESIDES]


def test_the_documents_have_commands_to_test() -> None:
    assert len(WHOLE) > 60
    assert len(TO_RUN) > 35


@pytest.mark.parametrize("command", OURS, ids=str)
def test_every_command_is_known_with_its_options(command: Command) -> None:
    parse(command.words[1:], command.whole)


@pytest.mark.parametrize("line", ["keywatch nothing", "keywatch keys audit --nothing", "keywatch worker now",
                                  "keywatch incidents --limit many", "keywatch respond undo ab"])  # fmt: skip
def test_a_wrong_one_would_be_seen(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|unexpected|should be a|missing"):
        parse(line.split()[1:], whole=True)


def test_every_command_is_run_or_it_is_said_why_not() -> None:
    names = {name_of(command) for command in WHOLE} - {""}
    assert names <= {*RUN, *PARSED}
    assert not set(RUN) & PARSED.keys()
    assert set(PREVIEWED) <= PARSED.keys()


@pytest.mark.parametrize("name", PARSED)
def test_what_is_only_parsed_is_run_by_the_test_that_is_named(name: str) -> None:
    _, test, words = PARSED[name]
    assert words in (ROOT / test).read_text()
    assert (PARSED[name] == lists.SPOKEN) == (name in spoken.SPOKEN)
    assert (PARSED[name] == lists.SERVED) == (name in spoken.SERVED)


def test_whoever_signs_says_who_he_is_and_with_which_key() -> None:
    """The system's user is nobody's name in `respond.approvers`, and no key is taken for granted."""
    signed = [each for each in WHOLE if name_of(each) in SIGNED and "--preview" not in each.words]
    assert signed
    assert not [str(each) for each in signed if not {"--as", "--key-file"} <= set(each.words)]


@pytest.mark.parametrize("command", TO_RUN, ids=str)
def test_what_can_be_run_runs(
    command: Command,
    world: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYWATCH_CONFIG", str(tmp_path / "keywatch.toml"))
    asked = ["--yes"] if name_of(command) == "keys import" and "--yes" not in command.words else []
    result = CliRunner().invoke(app, [*filled(command.words[1:]), *asked])
    faults = [1] if name_of(command) in FAULTS_WANTED else []
    assert result.exit_code in [0, *faults], result.stderr or result.stdout
    assert result.stdout or result.exit_code == 0
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, typer.Exit)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [each for each in ALL if each.words[0] != "keywatch"], ids=str)
def test_other_programs_are_make_python_or_left_out_by_name(command: Command) -> None:
    program, *rest = command.words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]) is not None
    elif program == "python":
        assert rest == ["try_upload.py"]  # tests/docs/test_write_a_detector.py runs it
    else:
        assert program in NOT_OURS
