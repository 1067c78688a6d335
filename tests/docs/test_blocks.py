"""Configurations in the documents pass `keywatch config check`; other blocks are of languages that are tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config.file import load
from pipeline.respond.adapters import build
from tests.docs.reading import ROOT, SHELL, WRITTEN, Block, blocks

BLOCKS = [block for path in WRITTEN for block in blocks(path)]
TOML = [block for block in BLOCKS if block.language == "toml"]


def named(block: Block) -> str:
    return f"{block.document.relative_to(ROOT)}: {block.text.splitlines()[0]}"


@pytest.mark.parametrize("block", TOML, ids=named)
def test_every_configuration_is_right(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYWATCH_CONFIG", raising=False)
    path = tmp_path / "keywatch.toml"
    path.write_text(block.text)
    monkeypatch.chdir(tmp_path)
    for secret in re.findall(r'^password_file = "(.*)"', block.text, re.MULTILINE):
        (tmp_path / secret).parent.mkdir(exist_ok=True)
        (tmp_path / secret).write_text("a-password")
    result = CliRunner().invoke(app, ["config", "check", "--config", str(path)])
    assert (result.exit_code, result.stdout) == (0, "the configuration is right\n"), result.stderr
    assert ("adapters.kong" in block.text) == ("kong" in build.adapters(load(path).respond))  # the responder takes it


def test_blocks_are_of_languages_that_some_test_reads() -> None:
    assert len(TOML) > 6
    assert {block.language for block in BLOCKS} <= {"", "toml", "yaml", "python", *SHELL}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=named)
def test_python_parses(block: Block) -> None:
    ast.parse(f"async def of_the_document():\n{''.join(f'    {line}' for line in block.text.splitlines(True))}")
