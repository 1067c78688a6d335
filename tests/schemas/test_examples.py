"""Every example gives its golden result; every type and format has examples; nothing planted comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.formats import FORMATS
from schemas.generate import TYPES
from tests.schemas import examples

MESSAGES = [path for name in TYPES for path in examples.inputs(examples.ROOT / name / "v1")]
GATEWAY = [path for name in FORMATS for path in examples.inputs(examples.ROOT / "formats" / name)]
CASES = ("short_circuited_401", "missing_user_agent", "ipv6", "planted_")
"""What reference/gateways.md, rule 7, asks of every format; CloudTrail differs, see its own table."""


def _name(path: Path) -> str:
    return "/".join(path.parts[-2:])


@pytest.mark.parametrize("path", MESSAGES, ids=_name)
def test_a_message_gives_its_golden_result(path: Path) -> None:
    examples.check_golden(path, examples.message_result(path))


@pytest.mark.parametrize("path", GATEWAY, ids=_name)
def test_a_gateway_record_gives_its_golden_result(path: Path) -> None:
    examples.check_golden(path, examples.format_result(path))


@pytest.mark.parametrize("path", MESSAGES, ids=_name)
def test_a_message_is_refused_exactly_where_its_name_says_so(path: Path) -> None:
    refused = "refused" in examples.message_result(path)
    assert refused == (path.name.startswith("refused_") or path.name.endswith("secret_as_key_id.json"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_cases_that_trip_adapters(name: str) -> None:
    cases = " ".join(path.name for path in examples.inputs(examples.ROOT / "formats" / name))
    wanted = CASES if name != "cloudtrail" else ("without_access_key", *CASES[1:])
    assert all(case in cases for case in wanted)


def test_no_example_folder_is_without_its_type_or_format() -> None:
    folders = {p.name for p in examples.ROOT.iterdir() if p.name != "formats"}
    assert folders == set(TYPES)
    assert {p.name for p in (examples.ROOT / "formats").iterdir()} == set(FORMATS)


def test_no_golden_file_is_without_its_example() -> None:
    goldens = {path for path in examples.ROOT.rglob("*.golden.json")}
    assert goldens == {examples.beside(path, "golden") for path in (*MESSAGES, *GATEWAY)}


def test_nothing_planted_stands_in_any_golden_file() -> None:
    inputs = b"".join(path.read_bytes() for path in (*MESSAGES, *GATEWAY))
    outputs = b"".join(path.read_bytes() for path in examples.ROOT.rglob("*.golden.json"))
    assert all(secret in inputs for secret in examples.PLANTED)
    assert not any(secret in outputs for secret in examples.PLANTED)
