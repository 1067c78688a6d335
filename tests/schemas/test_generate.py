"""The checked-in JSON Schemas are what the types generate."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.core import Reject
from schemas import generate
from schemas.reasons import REASONS, SENTENCES, Rejected


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


def test_what_the_worker_rejects_is_read_as_what_intake_rejects() -> None:
    reject = Reject("invalid", 3, 17, "the time is missing", 2, "0123456789abcdef", b"\xff{")
    read = msgspec.json.decode(msgspec.json.encode(reject), type=Rejected)
    assert (read.partition, read.offset, read.reason, read.payload) == (3, 17, "invalid", b"\xff{")
