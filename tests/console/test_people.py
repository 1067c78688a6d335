"""Who may come in: tokens, sessions, forms, proxies, guessers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Console, Person, Secret
from pipeline.console.people import MOST_FAILURES, Door
from pipeline.errors import ConfigError

TOKEN = "a-token-of-20-letters"
PEOPLE = (Person(name="ann", role="responder", token=Secret(TOKEN)),)


class Time:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def door(**settings: object) -> tuple[Door, Time]:
    time = Time()
    return Door(Console(people=PEOPLE, **settings), time), time  # type: ignore[arg-type]


def test_a_token_opens_a_session_until_its_time_is_over() -> None:
    ours, time = door(session_s=60.0)
    visitor = ours.sign_in(TOKEN)
    assert visitor is not None
    assert (visitor.name, visitor.may("viewer"), visitor.may("responder"), visitor.may("admin")) == (
        "ann", True, True, False,
    )  # fmt: skip
    cookie = ours.cookie(visitor)
    assert ours.recognise(cookie, {}) == visitor
    time.now_s += 61
    assert ours.recognise(cookie, {}) is None


@given(st.text(max_size=200))
def test_nothing_else_is_a_token_or_a_session(text: str) -> None:
    ours, _ = door()
    assert text == TOKEN or ours.sign_in(text) is None
    assert ours.recognise(text, {}) is None


@given(at=st.integers(0, 400), to=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_session_with_one_letter_changed_is_none(at: int, to: str) -> None:
    ours, _ = door()
    visitor = ours.sign_in(TOKEN)
    assert visitor is not None
    cookie = ours.cookie(visitor)
    at %= len(cookie)
    forged = cookie[:at] + to + cookie[at + 1 :]
    assert ours.recognise(forged, {}) is None or forged == cookie


def test_another_process_knows_nothing_of_the_session() -> None:
    visitor = door()[0].sign_in(TOKEN)
    assert visitor is not None
    assert door()[0].recognise(door()[0].cookie(visitor), {}) is None


def test_guessing_is_slowed_down_and_keeps_nobody_out() -> None:
    ours, time = door()
    for number in range(MOST_FAILURES):
        assert ours.sign_in(f"guess {number}") is None
    assert ours.flooded
    assert ours.sign_in(TOKEN) is not None
    time.now_s += 61
    assert ours.sign_in("guess") is None
    assert not ours.flooded


def test_a_form_of_one_session_does_not_serve_another() -> None:
    ours, _ = door()
    one, other = ours.sign_in(TOKEN), ours.sign_in(TOKEN)
    assert one is not None
    assert other is not None
    assert ours.is_own_form(one, ours.form_token(one))
    assert not ours.is_own_form(other, ours.form_token(one))
    assert not ours.is_own_form(one, "")


def test_a_proxy_is_believed_only_with_its_secret() -> None:
    ours, _ = door(proxy_secret=Secret("shared-with-the-proxy"), proxy_role_header="X-Forwarded-Role")
    said = {"x-forwarded-user": "bea", "x-forwarded-role": "admin"}
    assert ours.recognise("", said) is None
    assert ours.recognise("", said | {"x-keywatch-proxy": "guess"}) is None
    visitor = ours.recognise("", said | {"x-keywatch-proxy": "shared-with-the-proxy"})
    assert visitor is not None
    assert (visitor.name, visitor.role) == ("bea", "admin")
    plain = {"x-forwarded-user": "bea", "x-forwarded-role": "root", "x-keywatch-proxy": "shared-with-the-proxy"}
    assert ours.recognise("", plain) is not None
    assert ours.recognise("", plain).role == "viewer"  # type: ignore[union-attr]
    assert ours.recognise("", {"x-keywatch-proxy": "shared-with-the-proxy"}) is None


def test_without_a_proxy_secret_an_empty_one_is_no_proxy() -> None:
    ours, _ = door()
    assert ours.recognise("", {"x-forwarded-user": "bea", "x-keywatch-proxy": ""}) is None


@pytest.mark.parametrize(
    ("people", "words"),
    [
        ((), "nobody may use"),
        ((Person(name="a", token=Secret("short")),), "fewer than 20"),
        ((*PEOPLE, *PEOPLE), "a name of its own"),
    ],
)
def test_people_that_are_none_are_told_at_the_start(people: tuple[Person, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Door(Console(people=people), Time())
