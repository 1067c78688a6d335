"""Messages change only so that programs of the release and of today understand each other; all else is seen."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import compatible, generate
from schemas.compatible import BOTH, Change, changes
from tests.schemas import examples

Schema = dict[str, Any]
RELEASED: dict[str, Schema] = {
    path.name: json.loads(path.read_bytes()) for path in sorted(compatible.FOLDER.glob("*.json"))
}
WRITERS, READERS, NOBODY = ("writers",), ("readers",), ()


def test_no_message_has_changed_so_that_a_program_of_the_release_breaks() -> None:
    broken = [compatible.words(file, change) for file, change in compatible.report() if change.breaks]
    assert broken == [], "make a new version of the message instead"


def test_every_message_is_released_and_has_its_writers_and_readers() -> None:
    assert set(RELEASED) == set(generate.schemas()), "run `python -m schemas.compatible --release`"
    assert compatible.PARTIES.keys() == generate.TYPES.keys()


def test_every_accepted_example_is_valid_as_released() -> None:
    for name in generate.TYPES:
        validator = jsonschema.Draft202012Validator(RELEASED[f"{name}.v1.json"])
        for path in examples.inputs(examples.ROOT / name / "v1"):
            if "refused" not in path.name and not path.name.endswith("secret_as_key_id.json"):
                assert list(validator.iter_errors(json.loads(path.read_bytes()))) == [], path.name


def part(schema: Schema, name: str) -> Schema:
    found: Schema = schema["$defs"][name]
    return found


def fields(schema: Schema) -> Schema:
    found: Schema = part(schema, "Incident")["properties"]
    return found


def lacks_text(schema: Schema) -> None:
    fields(schema).pop("text")
    part(schema, "Incident")["required"] = [
        name for name in part(schema, "Incident")["required"] if name != "text"
    ]  # fmt: skip


CASES: list[tuple[str, Callable[[Schema], Any], str, tuple[str, ...]]] = [
    ("a field is gone", lambda s: fields(s).pop("owner"), "owner", BOTH),
    ("a field that others rely on is gone", lacks_text, "text", BOTH),
    ("a new field with a default", lambda s: fields(s).update(x={"type": "string", "default": ""}), "x", NOBODY),
    ("a new field is needed", lambda s: (fields(s).update(x={"type": "string"}),
                                         part(s, "Incident")["required"].append("x")), "x", WRITERS),
    ("a field is needed now", lambda s: part(s, "Incident")["required"].append("owner"), "owner", WRITERS),
    ("a field may be missing now", lambda s: part(s, "Incident")["required"].remove("severity"), "severity", READERS),
    ("a value is gone", lambda s: fields(s)["severity"]["enum"].remove("medium"), "severity", WRITERS),
    ("a value is new", lambda s: fields(s)["severity"]["enum"].append("fatal"), "severity", READERS),
    ("text becomes a choice", lambda s: fields(s)["rule"].update(enum=["visit", "slow"]), "rule", WRITERS),
    ("a choice becomes text", lambda s: fields(s).update(state={"type": "string"}), "state", READERS),
    ("a number becomes whole", lambda s: fields(s)["bits"].update(type="integer"), "bits", WRITERS),
    ("a whole number becomes any", lambda s: fields(s)["events"].update(type="number"), "events", READERS),
    ("a number becomes text", lambda s: fields(s).update(events={"type": "string"}), "events", BOTH),
    ("null is allowed", lambda s: fields(s).update(owner={"anyOf": [{"type": "string"}, {"type": "null"}]}), "owner",
     READERS),
    ("a limit is new", lambda s: fields(s)["text"].update(maxLength=100), "text", WRITERS),
    ("a number has a limit", lambda s: fields(s)["offset"].update(minimum=-1), "offset", WRITERS),
    ("a pattern is new", lambda s: fields(s)["key_id"].update(pattern="^k"), "key_id", WRITERS),
    ("what is missing means something else", lambda s: fields(s)["partition"].update(default=0), "partition", BOTH),
    ("within a part", lambda s: part(s, "Finding")["properties"].pop("bits"), "findings[].bits", BOTH),
    ("within a part of a part", lambda s: part(s, "Band")["properties"]["low"].update(type="string"),
     "findings[].expected.low", BOTH),
    ("a list holds something else", lambda s: fields(s)["keys"]["items"].update(type="integer"), "keys[]", BOTH),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change", "where", "breaks"), CASES, ids=[case[0] for case in CASES])
def test_each_kind_of_change_is_seen_and_breaks_whom_it_breaks(
    what: str, change: Callable[[Schema], Any], where: str, breaks: tuple[str, ...]
) -> None:
    today = copy.deepcopy(RELEASED["incident.v1.json"])
    change(today)
    found = changes(RELEASED["incident.v1.json"], today)
    assert {each.where for each in found} == {where}, what
    assert {side for each in found for side in each.breaks} == set(breaks)


def test_what_only_explains_is_no_change() -> None:
    today = copy.deepcopy(RELEASED["incident.v1.json"])
    part(today, "Incident")["description"] = today["title"] = "in other words"
    assert changes(RELEASED["incident.v1.json"], today) == []


def test_the_words_name_who_breaks() -> None:
    told = compatible.words("incident.v1.json", Change("owner", "is gone", BOTH))
    assert told == (
        "incident.v1.json: owner is gone: breaks workers (writers of the release) and responders, webhooks' receivers, "
        "consumers of api.incidents (readers of the release)"
    )
    assert compatible.words("event.v1.json", Change("x", "is new")) == "event.v1.json: x is new"


def test_a_message_that_is_gone_breaks_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: text for name, text in generate.schemas().items() if not name.startswith("mute")}
    monkeypatch.setattr(generate, "schemas", lambda: rest)
    assert compatible.report() == [("mute.v1.json", Change("", "is gone", BOTH))]
    assert compatible.main([]) == 1


class Before(msgspec.Struct, tag="x"):
    """As released."""

    inner: tuple[Any, ...] = ()


def test_it_reads_what_msgspec_writes() -> None:
    after = msgspec.defstruct("Before", [("inner", tuple[int, ...], ())], tag="y")
    found = changes(msgspec.json.schema(Before), msgspec.json.schema(after))
    assert {each.where for each in found} == {"type", "inner[]"}


# Schemas at random: what the check lets pass really is read by the other side.

NAMES = st.sampled_from(["a", "b", "c"])
BOUNDS = st.integers(-3, 3)


@st.composite
def leaves(draw: st.DrawFn) -> Schema:
    kind = draw(st.sampled_from(["integer", "number", "string", "boolean", "enum"]))
    if kind == "enum":
        return {"enum": draw(st.lists(st.sampled_from(["p", "q", "r"]), min_size=1, unique=True))}
    limits: Schema = {}
    if kind in ("integer", "number") and draw(st.booleans()):
        limits = {draw(st.sampled_from(["minimum", "maximum"])): draw(BOUNDS)}
    if kind == "string" and draw(st.booleans()):
        limits = {"maxLength": draw(st.integers(0, 3))}
    return {"type": kind, **limits}


def objects(parts: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def made(inner: dict[str, Schema], needed: set[str]) -> Schema:
        return {"type": "object", "properties": inner, "required": sorted(needed & inner.keys())}

    return st.builds(made, st.dictionaries(NAMES, parts, max_size=3), st.sets(NAMES))


SCHEMAS = objects(
    st.recursive(
        st.one_of(leaves(), leaves().map(lambda leaf: {"anyOf": [leaf, {"type": "null"}]})),
        lambda inner: st.one_of(objects(inner), inner.map(lambda item: {"type": "array", "items": item})),
        max_leaves=4,
    )
)


@st.composite
def instances(draw: st.DrawFn, schema: Schema) -> Any:
    """What a program writes that knows this schema."""
    if "anyOf" in schema:
        return draw(instances(draw(st.sampled_from(schema["anyOf"]))))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    low, high = schema.get("minimum", -4), schema.get("maximum", 4)
    match schema["type"]:
        case "integer":
            return draw(st.integers(low, high))
        case "number":
            return draw(st.floats(low, high) | st.integers(low, high))
        case "string":
            return draw(st.text("pqz", max_size=schema.get("maxLength", 5)))
        case "boolean":
            return draw(st.booleans())
        case "null":
            return None
        case "array":
            return draw(st.lists(instances(schema["items"]), max_size=2))
    said = {name for name in schema["properties"] if name in schema["required"] or draw(st.booleans())}
    return {name: draw(instances(part)) for name, part in schema["properties"].items() if name in said}


def accepted(schema: Schema, message: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(message))


@given(st.data(), SCHEMAS, SCHEMAS)
def test_what_breaks_no_writer_is_read_and_what_breaks_no_reader_is_understood(
    data: st.DataObject, released: Schema, today: Schema
) -> None:
    sides = {side for change in changes(released, today) for side in change.breaks}
    if "writers" not in sides:
        assert accepted(today, data.draw(instances(released)))
    if "readers" not in sides:
        assert accepted(released, data.draw(instances(today)))


@given(st.data(), SCHEMAS)
def test_so_does_a_schema_that_is_only_a_little_changed(data: st.DataObject, released: Schema) -> None:
    """Two at random differ in much, so that the check seldom lets them pass: here one field is another."""
    today = copy.deepcopy(released)
    today["properties"][data.draw(NAMES)] = data.draw(leaves())
    today["required"] = sorted({*released["required"], *data.draw(st.sets(NAMES))} & today["properties"].keys())
    sides = {side for change in changes(released, today) for side in change.breaks}
    if "writers" not in sides:
        assert accepted(today, data.draw(instances(released)))
    if "readers" not in sides:
        assert accepted(released, data.draw(instances(today)))
