"""The checked-in JSON Schemas are what the types generate."""

from __future__ import annotations

import msgspec
import pytest

from schemas import generate
from schemas.reasons import REASONS, SENTENCES


def test_the_checked_in_files_are_exactly_what_the_types_generate() -> None:
    on_disk = {path.name: path.read_bytes() for path in generate.FOLDER.glob("*.json")}
    assert on_disk == generate.schemas(), "run `python -m schemas.generate`"


@pytest.mark.parametrize("name", generate.TYPES)
def test_every_field_after_the_identity_has_a_default_so_that_old_messages_stay_readable(name: str) -> None:
    field = next(field for field in msgspec.structs.fields(generate.TYPES[name]) if field.name == "v")
    assert field.default == 1


def test_every_reason_is_explained_by_one_sentence() -> None:
    assert len(REASONS) == len(set(REASONS))
    assert all(SENTENCES[reason].endswith(".") for reason in REASONS)
