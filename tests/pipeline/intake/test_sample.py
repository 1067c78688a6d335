"""A sample of a log: its format, how its records read, what is missing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.config.tree import Secret
from pipeline.errors import ConfigError
from pipeline.formats import FORMATS, Options
from pipeline.intake.sample import SAMPLE_BYTES, blind_spots, check_sample, read_as
from tests.schemas import examples

COMBINED = b'192.0.2.1 - anna [17/May/2015:10:05:03 +0000] "GET /x HTTP/1.1" 200 203 "-" "curl/7"\n'


def test_a_sample_names_its_format_and_what_it_leaves_blind(tmp_path: Path) -> None:
    plain, packed = tmp_path / "access.log", tmp_path / "access.log.gz"
    plain.write_bytes(COMBINED * 3)
    packed.write_bytes(gzip.compress(COMBINED * 3))
    for path in (plain, packed):
        first, *blind = check_sample(path)
        assert (first.state, "combined" in first.text) == ("ok", True)
        told = {finding.about: finding for finding in blind}
        assert told["records"].text == "3 events, 0 refused"
        assert told["key_id"].text == "1 keys, e.g. anna"
        assert "2015-05-17T10:05:03.000+00:00 to 2015" in told["ts"].text
        assert "in 100%, e.g. 192.0.2.1" in told["client_ip"].text
        assert told["environment"].state == told["blind"].state == "warn"


def test_an_unknown_sample_names_the_known_formats(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello")
    (finding,) = check_sample(path)
    assert finding.state == "fail"
    assert "cloudtrail" in finding.advice
    with pytest.raises(ConfigError, match="absent"):
        check_sample(tmp_path / "absent")
    (tmp_path / "y").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(ConfigError, match="damaged gzip"):
        check_sample(tmp_path / "y")


def test_blind_spots_follow_from_the_capabilities() -> None:
    assert [finding.state for finding in blind_spots(127)] == ["ok"]
    assert len(blind_spots(0)) == 7


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_how_its_fields_map(name: str) -> None:
    stems = ("object", "nested", "record", "users")
    path = next(p for p in examples.inputs(examples.ROOT / "formats" / name) if p.name.partition(".")[0] in stems)
    told = {finding.about: finding for finding in read_as(path.read_bytes(), name)}
    assert told["records"].state == "ok"
    assert told["client_ip"].state == told["method"].state == told["route"].state == "ok"


@pytest.mark.parametrize(
    ("name", "field", "source"),
    [
        ("kong", "client_ip", "client_ip"), ("kong", "method", "request.method"),
        ("otel", "client_ip", "attributes.client.address"), ("otel", "key_id", "attributes.api_key.id"),
        ("nginx", "key_id", "api_key_id"), ("envoy", "status", "response_code"),
        ("envoy", "ts", "start_time: is that when it was?"), ("traefik", "ts", "StartUTC: is that when it was?"),
    ],
)  # fmt: skip
def test_it_is_said_from_which_field_of_the_log_each_came(name: str, field: str, source: str) -> None:
    raw = (examples.ROOT / "formats" / name / "object.json").read_bytes()
    told = {finding.about: finding.text for finding in read_as(raw, name)}
    assert told[field].endswith(f", from {source}")


def test_a_fingerprint_is_shown_where_there_is_one_and_missed_by_nobody(tmp_path: Path) -> None:
    raw = (examples.ROOT / "formats/envoy/object.json").read_bytes()
    told = {finding.about: finding for finding in read_as(raw, "envoy")}
    assert told["fingerprint"].text.endswith("b186095e22b6, from tls_ja4_fingerprint")
    path = tmp_path / "access.log"
    path.write_bytes(COMBINED)
    assert "fingerprint" not in {each.about for each in check_sample(path)}


def test_a_path_is_not_called_a_route(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(COMBINED.replace(b"/x", b"/v1/users/4711"))
    told = {finding.about: finding.text for finding in check_sample(path)}
    assert told["route"] == "in none of them: made of the path, e.g. /v1/users/{id}"
    assert told["path"] == "in 100%, e.g. /v1/users/4711"


def test_records_without_a_key_say_so_and_another_field_can_be_named(tmp_path: Path) -> None:
    record = json.loads((examples.ROOT / "formats/nginx/object.json").read_bytes())
    record["who"] = record.pop("api_key_id")
    path = tmp_path / "nginx.json"
    path.write_text(json.dumps(record))
    assert "no_key: the record carries no key id" in str(check_sample(path))
    assert "1 keys, e.g. key-7" in str(check_sample(path, Options(key_field="who")))


@pytest.mark.parametrize("name", FORMATS)
def test_who_finds_no_key_is_told_where_it_was_looked_for(name: str) -> None:
    folder = examples.ROOT / "formats" / name
    start = "without_access_key" if name == "cloudtrail" else "short_circuited_401"
    raw = next(path for path in examples.inputs(folder) if path.name.startswith(start)).read_bytes()
    [refused] = [finding for finding in read_as(raw, name) if "no_key" in finding.text]
    assert refused.advice == f"looked for: {FORMATS[name].key}"


def test_a_line_of_envoys_that_a_collector_carries_shows_its_own_fields() -> None:
    path = examples.ROOT / "formats/envoy/carried_by_otel.json"
    told = {finding.about: finding.text for finding in check_sample(path)}
    assert ": envoy (" in told["format"]
    assert told["key_id"] == "2 keys, e.g. key-7, from key_id"


def test_a_record_that_the_sample_cuts_is_not_held_against_it(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    line = json.dumps(json.loads((examples.ROOT / "formats/nginx/object.json").read_bytes())).encode() + b"\n"
    path.write_bytes(line * (SAMPLE_BYTES // len(line) + 10))
    told = {finding.about: finding for finding in check_sample(path)}
    assert told["records"].text.endswith(" events, 0 refused")


def told_of(path: Path, options: Options = Options()) -> dict[str, list[str]]:  # noqa: B008  (frozen)
    """What is said about what, all of it."""
    found: dict[str, list[str]] = {}
    for finding in read_as(path.read_bytes(), path.parent.name, options):
        found.setdefault(finding.about, []).append(f"{finding.state} {finding.text} {finding.advice}")
    return found


@pytest.mark.parametrize(
    ("case", "key_field", "words"),
    [
        ("tyk/raw_key_with_pepper", "", "by the raw key alone"),
        ("nginx/raw_key_with_pepper", "http_x_api_key", "by the raw key alone"),
        ("nginx/raw_key_without_pepper", "", 'intake.key_field = "http_x_api_key"'),
    ],
)
def test_where_only_raw_keys_stand_a_missing_pepper_is_told_with_how_to_make_one(
    case: str, key_field: str, words: str
) -> None:
    path = examples.ROOT / "formats" / f"{case}.json"
    [said] = told_of(path, Options(key_field=key_field))["pepper"]
    assert said.startswith("fail intake.pepper is missing: ")
    assert words in said
    assert "openssl rand -hex 32 > pepper" in said
    assert "pepper" not in told_of(path, Options(key_field=key_field, pepper=Secret("one")))


def test_so_is_a_raw_key_in_an_attribute_of_otlp() -> None:
    raw = (examples.ROOT / "formats/otel/object.json").read_bytes()
    told = str(read_as(raw.replace(b'"api_key.id"', b'"http.request.header.x-api-key"'), "otel"))
    assert 'intake.key_field = "http.request.header.x-api-key"' in told


@pytest.mark.parametrize("case", ["kong/route_without_auth", "kong/object", "nginx/short_circuited_401", "tyk/object"])
def test_where_a_pepper_would_change_nothing_none_is_asked_for(case: str) -> None:
    """Kong names the credential wherever it has authenticated one: a raw key beside it proves nothing."""
    assert "pepper" not in told_of(examples.ROOT / "formats" / f"{case}.json")


def test_it_is_said_which_address_was_taken_and_why() -> None:
    path = examples.ROOT / "formats/kong/behind_proxies.json"
    said = " ".join(told_of(path)["address"])
    assert "whom it names is not believed: 10.0.0.2, and not 10.0.0.3" in said
    assert "warn 1 of 1 are of inner networks" in said
    said = " ".join(told_of(path, Options(trusted_proxies=("10.0.0.0/8",)))["address"])
    assert "the first from the right that is not in intake.trusted_proxies: 198.51.100.9, told by 10.0.0.3" in said
    assert "warn" not in said
    said = " ".join(told_of(path, Options(trusted_proxies=("0.0.0.0/1", "128.0.0.0/1")))["address"])
    assert "the farthest: all are in intake.trusted_proxies: 192.0.2.66" in said


def test_whose_word_an_address_is_is_said_of_formats_that_have_no_header_too() -> None:
    tyk, *_ = told_of(examples.ROOT / "formats/tyk/object.json")["address"]
    assert "ok read from `ip_address`, which Tyk takes from" in tyk
    assert "1 x the peer: 192.0.2.1" in str(read_as(COMBINED, "combined"))
    assert "none: the peer is no address" in str(told_of(examples.ROOT / "formats/cloudtrail/called_by_a_service.json"))
