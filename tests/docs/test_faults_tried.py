"""The runbook's table of faults names tests that exist, each by a beginning that only one has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
RUNBOOK: Final = TESTS.parent / "deploy" / "RUNBOOK.md"
SECTION: Final = RUNBOOK.read_text().partition("\n## What faults are tried\n")[2].partition("\n## ")[0]
NAMED: Final = re.compile(r"`([a-z_]+/(?:[a-z_]+\.py)?)?(?:::(test_[a-z_]+)\.\.\.)?`")


def test_the_long_way_runs_all_that_the_table_names() -> None:
    makefile = (TESTS.parent / "Makefile").read_text()
    named = set(re.findall(r"`kafka/test_([a-z_]+)\.py", SECTION))
    run = set(re.search(r"^FAULTS := (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    assert {f"{each}.py" for each in named} <= run | {"faults.py", "kills.py"}
    assert "$(KAFKA_TESTS)/test_faults.py $(KAFKA_TESTS)/test_kills.py" in makefile


def test_every_test_of_the_table_of_faults_exists() -> None:
    wrong, seen, path = [], 0, ""
    for named, start in NAMED.findall(SECTION):
        path = named or path
        found = TESTS / path
        if not (found.is_dir() or found.is_file()):
            wrong.append(path)
        elif start:
            seen += 1
            matches = re.findall(rf"^(?:async )?def ({start}\w*)", found.read_text(), re.MULTILINE)
            wrong += [f"{path}::{start}: {matches}"] * (len(matches) != 1)
    assert not wrong
    assert seen > 20
