"""What counts as a secret and what must not; what becomes of an event that carries one."""

from __future__ import annotations

import base64
import random
import re
import string
import uuid
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import secrets
from pipeline.fields import fields_of
from pipeline.secrets import clean_path, is_clean, keyed_hash, looks_secret, scrub, strip_query, unclean
from schemas.event import Event

BASE62 = string.ascii_letters + string.digits
RANDOM = st.randoms(use_true_random=False)
T = 1_764_000_000_000_000

# Shapes from the vendors' documents, with bodies that are plainly examples; joined so that no scanner trips over them.
WELL_KNOWN = [
    "sk_live_" + "EXAMPLE0000000000000", "rk_test_" + "EXAMPLE0000000000000", "sk_live_" + "abcdefgh",
    "pk_live_" + "EXAMPLE1111111111111", "pk_test_" + "abcdefghijklmnopqrstuvwx", "sk-" + "proj-" + "a" * 24,
    "sk-ant-api03-" + "b" * 30, "ghp_" + "c" * 36, "github_pat_" + "d" * 30, "glpat-" + "e" * 20,
    "xoxb-" + "1234567890-abcdef", "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0." + "sig", "AIza" + "f" * 35,
    "whsec_" + "g" * 32, "npm_" + "h" * 36, "SG." + "i" * 22 + "." + "j" * 43, "hvs." + "k" * 24,
    "zpka_" + "l" * 24, "key-" + "0123456789abcdef" * 2, "dop_v1_" + "0123456789abcdef" * 4,
    "Bearer " + "m" * 20,
]  # fmt: skip
IDS = [
    "pk_live_x", "pk_live_7f3a9c21", "AKIAIOSFODNN7EXAMPLE", "ASIATFQR7NSCTM3XVF6B", "AROAEXAMPLEID:session-name",
    "key_7f3a9c21", "9f1c1d1e-7b7e-4d51-9a63-0c2a3f5f1a10", "key_550e8400e29b41d4a716446655440000",
    "d41d8cd98f00b204e9800998ecf8427e", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "0ujtsYcgvSTl8PAuAdqWYSMnLOv", "cjld2cjxh0000qzrmn831i7rn", "a1b2c3d4e5",
    "arn:aws:iam::111122223333:user/build-server-frankfurt-1", "billing-service@project-1234.iam.example",
    "hmac_65da27d7a12aede81c783ba88f8646ce", "customer-onboarding-service-eu-central-1-blue-2", "203.0.113.7",
    "2001:db8:85a3::8a2e:370:7334", "pi_3MtwBwLkdIwHu7ix28a3tqPa",
]  # fmt: skip
NAMES = [
    "lambda:UpdateFunctionConfiguration20150331v2", "s3:GetBucketOwnershipControls", "/v1/users/{id}/orders/{id}",
    "lambda:GetFunctionCodeSigningConfig20200630", "cloudfront:CreateDistributionWithTags2020_05_31",
    "/v2/projects/customer-onboarding/environments/production-eu-central-1/deployments",
    "rds:DescribeReservedDBInstancesOfferings", "/static/app.3f2a1b9c8d7e6f5a4b3c.js", "$connect",
]  # fmt: skip
AGENTS = [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.77",
    "aws-sdk-go-v2/1.32.3 os/linux lang/go#1.23.1 md/GOARCH#amd64 exec-env/grimoire_095724e3-1fa0-4e3e-b68a api/sts#1",
    "stratus-red-team_39f95f43-cd2f-4beb-b69e-be60b6fe1f57", "Boto3/1.26.165 md/Botocore#1.29.165 exec/AWS_Lambda_py",
    "APN/1.0 HashiCorp/1.0 Terraform/1.1.2 (+https://www.terraform.io) terraform-provider-aws/4.67.0",
]  # fmt: skip


def event(**fields: object) -> Event:
    return Event(**{"key_id": "key_1", "ts_us": T, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", WELL_KNOWN)
def test_the_known_shapes_are_secrets_alone_and_inside_a_text(text: str) -> None:
    assert looks_secret(text)
    assert looks_secret(f"curl/8 key={text}")


@pytest.mark.parametrize("text", [*IDS, *NAMES, *AGENTS])
def test_ids_operation_names_and_clients_are_no_secrets(text: str) -> None:
    assert not looks_secret(text)


@given(st.uuids(), st.binary(min_size=16, max_size=32))
def test_uuids_and_digests_are_never_secrets(ident: uuid.UUID, digest: bytes) -> None:
    for text in (str(ident), ident.hex, f"req_{ident}", digest.hex(), digest.hex().upper(), f"sha256:{digest.hex()}"):
        assert not looks_secret(text)


@given(RANDOM, st.integers(min_value=36, max_value=80))
def test_long_random_text_of_letters_and_digits_is_found(source: random.Random, size: int) -> None:
    text = "".join(source.choices(BASE62, k=size))
    mixed = re.search("[0-9].*[0-9]", text) and len(set(text)) > 15
    changes = len(secrets._CHANGE.findall(text)) / (size - 1)
    assert looks_secret(text) or not mixed or changes < 0.45  # at 36 characters less than 2 % have so few changes


def test_of_random_keys_as_gateways_make_them_at_most_three_in_a_hundred_are_missed() -> None:
    source = random.Random(7)
    makers: tuple[Callable[[], str], ...] = (
        lambda: "".join(source.choices(BASE62, k=32)),  # Kong's key-auth, API Gateway at 40
        lambda: "".join(source.choices(BASE62, k=40)),
        lambda: base64.urlsafe_b64encode(source.randbytes(32)).decode(),
        lambda: base64.b64encode(source.randbytes(30)).decode(),  # AWS secret access keys
    )
    for make in makers:
        missed = sum(not looks_secret(make()) for _ in range(2000))
        assert missed <= 60


@given(st.text("ab1Z", max_size=16))
def test_camel_case_is_what_it_was_when_it_could_be_shared_out_in_many_ways(text: str) -> None:
    before = re.compile(r"[a-z]*(?:[A-Z]{1,5}[a-z]{2,}|[0-9]{1,8})*[A-Z]?")
    assert bool(secrets._CAMEL.fullmatch(text)) == bool(before.fullmatch(text))


@pytest.mark.parametrize("end", ["l", "L", "_", "-x", "Zz"])
def test_a_long_run_of_digits_is_judged_at_once(end: str) -> None:
    """`1` * 32 + `l` took for ever: whoever calls an API chooses its path."""
    assert not secrets.looks_secret("1" * 90 + end)


@given(st.lists(st.text(string.ascii_lowercase, min_size=3, max_size=12), min_size=1, max_size=8), st.booleans())
def test_words_joined_in_any_usual_way_are_no_secrets(words: list[str], numbered: bool) -> None:
    tail = "42" if numbered else ""
    for joined in ("-".join(words), "_".join(words), "/".join(words), "".join(w.capitalize() for w in words)):
        text = "x" + joined + tail  # the x keeps "sk-..." and the like from arising
        assert not looks_secret(text)


@given(st.text(max_size=300))
def test_any_text_gets_an_answer_and_the_same_one_again(text: str) -> None:
    assert looks_secret(text) == looks_secret(text)
    assert clean_path(clean_path(text)) == clean_path(text)


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        ("/a/b?c=d", "/a/b"), ("/a#f", "/a"), ("/a;jsessionid=1?x", "/a"), ("/a%3Fkey=1", "/a"), ("/a", "/a"), ("", ""),
        ("https://h.example/a/b?c", "/a/b"), ("?x=1", ""),
    ],
)  # fmt: skip
def test_a_path_loses_query_fragment_parameters_and_host(path: str, bare: str) -> None:
    assert strip_query(path) == bare


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_after_a_question_mark_survives(path: str, query: str) -> None:
    assert "?" not in clean_path(f"{path}?{query}")


@pytest.mark.parametrize("secret", WELL_KNOWN[:-1])
def test_a_secret_is_taken_out_of_every_field(secret: str) -> None:
    dirty = event(path=f"/v1/{secret}/x", route=f"/v1/{secret}", user_agent=f"curl {secret}", scope=secret[:64],
                  request_id=secret, client_ip=secret[:45])  # fmt: skip
    cleaned = scrub(dirty)
    assert isinstance(cleaned, Event)
    assert secret[:20] not in str(msgspec.to_builtins(cleaned))
    assert (cleaned.path, cleaned.route) == ("/v1/{secret}/x", "/v1/{secret}")
    assert scrub(event(key_id=secret)) == "secret"


@given(
    st.builds(
        event,
        path=st.text(max_size=80), route=st.text(max_size=80), user_agent=st.text(max_size=80),
        scope=st.text(max_size=40), request_id=st.one_of(st.uuids().map(str), st.sampled_from(WELL_KNOWN), st.text()),
        client_ip=st.one_of(st.ip_addresses().map(str), st.text(max_size=45)),
        fingerprint=st.sampled_from(["", "a" * 32, "-", "x"]),
    )
)  # fmt: skip
def test_scrubbing_is_idempotent_and_gives_a_clean_event_back_as_it_is(dirty: Event) -> None:
    cleaned = scrub(dirty)
    assert isinstance(cleaned, Event)
    assert is_clean(cleaned)
    assert scrub(cleaned) is cleaned
    assert (cleaned is dirty) == is_clean(dirty)


@given(st.lists(st.sampled_from([*WELL_KNOWN[:-1], *IDS]), max_size=6), st.sampled_from(["request_id", "user_agent"]))
def test_many_events_are_judged_as_one_by_one(texts: list[str], field: str) -> None:
    events = [event(**{field: text}) for text in texts]
    assert unclean(fields_of(events)).tolist() == [i for i, each in enumerate(events) if not is_clean(each)]


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*WELL_KNOWN, *IDS, *NAMES, "/a%3Fb", "https://h/x", "/a;b", "/a#"]),
            st.text(max_size=40),
            st.text("aZ9-/?%\n", max_size=60),
        ),
        max_size=6,
    ),
    st.sampled_from(["path", "route", "key_id"]),
)
def test_a_look_at_all_paths_or_ids_together_says_what_one_by_one_says(texts: list[str], field: str) -> None:
    events = [event(**{field: text}) for text in texts]
    assert unclean(fields_of(events)).tolist() == [i for i, each in enumerate(events) if not is_clean(each)]


def test_a_verdict_does_not_depend_on_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_LIMIT", 4)
    monkeypatch.setattr(secrets, "_texts", {""})
    events = [event(key_id=f"key_{n}", path=f"/p/{n % 7}", user_agent=WELL_KNOWN[n % 5]) for n in range(50)]
    first = [scrub(each) for each in events]
    assert first == [scrub(each) for each in events]
    assert len(secrets._texts) <= 5


def test_every_known_shape_without_an_underscore_is_known_by_its_first_three_characters() -> None:
    for text in WELL_KNOWN[:-1]:
        assert "_" in text or text[:3] in secrets._START_SET
        assert not is_clean(event(request_id=text[:128]))


def test_raw_bytes_are_clean_only_if_they_are_a_clean_event() -> None:
    assert is_clean(msgspec.json.encode(event(path="/a")))
    assert not is_clean(msgspec.json.encode(event(path="/a?b")))
    assert not is_clean(b"{}")
    assert not is_clean(b"\xff")


def test_a_rejected_record_that_may_hold_a_secret_is_told() -> None:
    assert secrets.may_hold_secret(b'{"path": "/a?b=c"}')
    assert secrets.may_hold_secret(b'{"x": "' + WELL_KNOWN[0].encode() + b'"}')
    assert secrets.may_hold_secret(b"\xff\xfe")
    assert not secrets.may_hold_secret(b'{"key_id": "key_1", "ts_us": 1}')


def test_the_keyed_hash_tells_equal_from_different_and_needs_the_process() -> None:
    assert keyed_hash(b"a") == keyed_hash(b"a") != keyed_hash(b"b")
    assert len(keyed_hash(b"")) == 16


def test_an_id_made_of_a_raw_key_depends_on_key_and_pepper_and_is_no_secret() -> None:
    made = secrets.key_id_of_secret("raw", "pepper")
    assert made == secrets.key_id_of_secret("raw", "pepper")
    assert made not in (secrets.key_id_of_secret("raw", "other"), secrets.key_id_of_secret("other", "pepper"))
    assert not looks_secret(made)
