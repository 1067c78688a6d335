"""Keys import: what each export becomes, where secrets are refused, and the difference that is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.keys.key_import import Kind, diff, read_keys
from schemas.key import BusinessHours, Key
from tests.schemas.examples import PLANTED

SECRET = PLANTED[2].decode()


def csv_file(folder: Path, *lines: str) -> Path:
    path = folder / "keys.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def json_file(folder: Path, document: Any) -> Path:
    path = folder / "keys.json"
    path.write_bytes(msgspec.json.encode(document))
    return path


def test_a_csv_line_becomes_a_key_with_all_that_it_declares(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "key_id,environment,role,scopes,owner,time_zone,business_hours,allowed_networks,protected,version,criticality",
        'k2,live,limited,"read write",billing,Europe/Berlin,08:30-19:00 01234,203.0.113.0/24;2001:db8::/48,yes,3,high',
        "k1,,,,,,,,,,",
    )
    one, two = read_keys(path, "csv")
    assert one == Key(key_id="k1", protected=True)
    assert two == Key(
        key_id="k2", environment="live", role="limited", scopes=("read", "write"), owner="billing",
        time_zone="Europe/Berlin", business_hours=BusinessHours(start_min=510, end_min=1140),
        allowed_networks=("203.0.113.0/24", "2001:db8::/48"), protected=True, version=3, criticality="high",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["key_id,secret", "a,b"], "column 'secret' is named like a secret"),
        (["key_id,api_key", "a,b"], "column 'api_key' is named like a secret"),
        (["key_id,key", "a,b"], "column 'key' is named like a secret"),
        (["key_id,colour", "a,b"], "unknown columns colour; known are key_id"),
        (["owner", "a"], "column key_id is missing"),
        (["key_id,owner", SECRET + ",x"], "line 2: key_id looks like a secret"),
        (["key_id,owner", f"a,{SECRET}"], "line 2: owner looks like a secret"),
        (["key_id,role", "a,root"], "line 2: .*role"),
        (["key_id,protected", "a,maybe"], "line 2: protected must be true or false"),
        (["key_id,business_hours", "a,nine to five"], "line 2: business_hours must look like"),
        (["key_id,business_hours", "a,19:00-08:00"], "line 2: business_hours must begin before they end"),
        (["key_id,version", "a,-1"], "line 2: .*version"),
        (["key_id,owner", "a"], "line 2: more or fewer fields"),
        (["key_id,owner", "a,b,c"], "line 2: more or fewer fields"),
        (["key_id", "a", "b", "a"], "the key a stands there twice"),
        (["key_id", "with blank"], "line 2: .*key_id"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_with_its_place_and_without_its_value(
    tmp_path: Path, lines: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_keys(csv_file(tmp_path, *lines), "csv")
    assert SECRET not in str(caught.value)


CREDENTIAL = {
    "id": "3f1e0c7a-57f1-4c8e-9a44-0d9b1c2d3e4f",
    "key": SECRET,
    "created_at": 1_700_000_000,
    "tags": ["prod"],
}
CONSUMER = {"id": "c1", "username": "billing"}


@pytest.mark.parametrize(
    "document",
    [
        {"consumers": [CONSUMER | {"keyauth_credentials": [CREDENTIAL]}]},  # decK, nested
        {"consumers": [CONSUMER], "keyauth_credentials": [CREDENTIAL | {"consumer": "c1"}]},  # decK, flat
        [{"data": [CREDENTIAL | {"consumer": {"id": "c1"}}]}, {"consumers": [CONSUMER]}],  # Admin API, both lists
    ],
)
def test_kongs_credentials_come_without_their_keys(tmp_path: Path, document: Any) -> None:
    [key] = read_keys(json_file(tmp_path, document), "kong")
    assert key == Key(
        key_id=str(CREDENTIAL["id"]),
        owner="billing",
        environment="live",
        created_at="2023-11-14T22:13:20Z",
        protected=True,
    )
    assert SECRET not in str(msgspec.to_builtins(key))


def test_a_kong_credential_without_an_id_says_how_to_export_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="credential 1: has no id; dump with"):
        read_keys(json_file(tmp_path, {"keyauth_credentials": [{"key": SECRET}]}), "kong")


def test_api_gateway_keys_come_with_owner_stage_and_status(tmp_path: Path) -> None:
    items = [
        {"id": "a1b2c3d4e5", "name": "billing", "enabled": True, "createdDate": "2025-02-01T10:00:00+01:00",
         "stageKeys": ["abc123/prod"], "tags": {"owner": "team-billing"}},
        {"id": "f6g7h8i9j0", "name": "old", "enabled": False, "createdDate": 1_700_000_000, "stageKeys": []},
    ]  # fmt: skip
    one, two = read_keys(json_file(tmp_path, {"items": items}), "aws")
    assert (one.owner, one.environment, one.status) == ("team-billing", "live", "active")
    assert (one.created_at, one.protected) == ("2025-02-01T09:00:00Z", True)
    assert (two.owner, two.environment, two.status) == ("old", "", "suspended")


def test_an_export_with_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="item 1: holds the key itself") as caught:
        read_keys(json_file(tmp_path, {"items": [{"id": "a", "value": SECRET}]}), "aws")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "kong", "aws"])
def test_a_missing_or_foreign_file_is_one_clear_line(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "missing", kind)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"not JSON|not CSV"):
        read_keys(tmp_path / "binary", kind)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known are csv, kong, aws"):
        read_keys(tmp_path / "x", "vault")  # type: ignore[arg-type]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["items", "data", "consumers", "keyauth_credentials", "id", "key", "tags", "consumer", "ttl"]
            )
            | st.sampled_from(["stageKeys", "createdDate", "created_at", "username", "enabled", "value"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(document=JSON, kind=st.sampled_from(["kong", "aws"]))
def test_any_json_becomes_keys_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, document: Any, kind: Kind
) -> None:
    path = json_file(tmp_path_factory.mktemp("any"), document)
    try:
        keys = read_keys(path, kind)
    except ConfigError:
        return
    assert [msgspec.json.decode(msgspec.json.encode(key), type=Key) for key in keys] == keys


def test_the_difference_shows_what_is_new_what_changes_and_what_is_left() -> None:
    current = [Key(key_id="a", owner="x"), Key(key_id="b"), Key(key_id="c")]
    changes = diff(current, [Key(key_id="a", owner="y", version=2), Key(key_id="b"), Key(key_id="d")])
    assert (changes.added, changes.missing, changes.unchanged) == ((Key(key_id="d"),), (Key(key_id="c"),), 1)
    assert list(changes.lines()) == [
        "+ d",
        "~ a  owner: 'x' -> 'y'; version: 0 -> 2",
        "? c  is declared but not in the import: left as it is",
    ]


KEYS = st.lists(
    st.builds(Key, key_id=st.sampled_from("abcd"), owner=st.sampled_from(["", "x"])), unique_by=lambda k: k.key_id
)


@given(KEYS, KEYS)
def test_writing_the_difference_leaves_nothing_to_write(current: list[Key], wanted: list[Key]) -> None:
    changes = diff(current, wanted)
    table = {key.key_id: key for key in current}
    table |= {key.key_id: key for key in (*changes.added, *(after for _, after in changes.changed))}
    again = diff(table.values(), wanted)
    assert (again.added, again.changed, again.unchanged) == ((), (), len(wanted))


def test_a_key_of_which_a_csv_does_not_say_otherwise_is_protected(tmp_path: Path) -> None:
    path = tmp_path / "keys.csv"
    path.write_text("key_id,owner,protected\na,x,\nb,x,false\nc,x,true\n")
    assert {key.key_id: key.protected for key in read_keys(path, "csv")} == {"a": True, "b": False, "c": True}
    path.write_text("key_id\na\n")
    assert [key.protected for key in read_keys(path, "csv")] == [True]
