"""Who may come in: tokens, sessions, forms, proxies, guessers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from pipeline.config.tree import Console, Person, Secret
from pipeline.console.people import LEAST_KEY, MOST_FAILURES, MOST_HELD, Door
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
    assert ours.recognise(cookie, Headers(), "") == visitor
    time.now_s += 61
    assert ours.recognise(cookie, Headers(), "") is None


@given(st.text(max_size=200))
def test_nothing_else_is_a_token_or_a_session(text: str) -> None:
    ours, _ = door()
    assert text == TOKEN or ours.sign_in(text) is None
    assert ours.recognise(text, Headers(), "") is None


@given(at=st.integers(0, 400), to=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_session_with_one_letter_changed_is_none(at: int, to: str) -> None:
    ours, _ = door()
    visitor = ours.sign_in(TOKEN)
    assert visitor is not None
    cookie = ours.cookie(visitor)
    at %= len(cookie)
    forged = cookie[:at] + to + cookie[at + 1 :]
    assert ours.recognise(forged, Headers(), "") is None or forged == cookie


@pytest.mark.parametrize(
    "later",
    [
        (),
        (Person(name="ann", role="viewer", token=Secret(TOKEN)),),
        (Person(name="ann", role="responder", token=Secret("another-token-of-letters")),),
        (Person(name="ann", role="responder", token=Secret(TOKEN), machine=True),),
    ],
    ids=["gone", "another role", "another token", "a program now"],
)
def test_a_session_that_outlives_a_restart_does_not_outlive_its_person_role_or_token(later: tuple[Person, ...]) -> None:
    key, bob = Secret("k" * LEAST_KEY), Person(name="bob", role="viewer", token=Secret("bobs-token-of-20-letters"))
    before = Door(Console(people=(*PEOPLE, bob), session_key=key), Time())
    visitor = before.sign_in(TOKEN)
    assert visitor is not None
    cookie = before.cookie(visitor)
    again = Door(Console(people=(bob, *PEOPLE), session_key=key), Time())
    assert again.recognise(cookie, Headers(), "") == visitor
    assert Door(Console(people=(*later, bob), session_key=key), Time()).recognise(cookie, Headers(), "") is None


def test_another_process_knows_nothing_of_the_session() -> None:
    visitor = door()[0].sign_in(TOKEN)
    assert visitor is not None
    assert door()[0].recognise(door()[0].cookie(visitor), Headers(), "") is None


def test_guessing_is_slowed_down_and_keeps_nobody_out() -> None:
    ours, time = door()
    for number in range(MOST_FAILURES):
        assert ours.sign_in(f"guess {number}") is None
    assert ours.flooded
    assert ours.sign_in(TOKEN) is not None
    time.now_s += 61
    assert ours.sign_in("guess") is None
    assert not ours.flooded


def test_a_flood_of_guesses_is_not_kept() -> None:
    ours, _ = door()
    for number in range(1_000):
        ours.sign_in(f"guess {number}")
    assert len(ours._failed_at_s) == MOST_FAILURES


def test_a_form_of_one_session_does_not_serve_another() -> None:
    ours, _ = door()
    one, other = ours.sign_in(TOKEN), ours.sign_in(TOKEN)
    assert one is not None
    assert other is not None
    assert ours.is_own_form(one, ours.form_token(one))
    assert not ours.is_own_form(other, ours.form_token(one))
    assert not ours.is_own_form(one, "")


SECRET = "shared-with-the-proxy"
NEAR = "10.1.2.3"


def proxied(**settings: object) -> Door:
    known = {"proxy_secret": Secret(SECRET), "proxy_addresses": ("10.1.0.0/16",)}
    return door(**(known | settings))[0]


def by_proxy(ours: Door, peer: str = NEAR, *more: tuple[str, str], secret: str = SECRET) -> tuple[str, str] | None:
    """(name, role) of bea, who the proxy says is in the groups `night` and `sre`."""
    said = [("x-forwarded-user", "bea"), ("x-forwarded-groups", "night, sre"), ("x-keywatch-proxy", secret), *more]
    visitor = ours.recognise("", Headers(raw=[(a.encode(), b.encode()) for a, b in said]), peer)
    return (visitor.name, visitor.role) if visitor else None


def test_a_proxy_is_believed_only_with_its_secret_and_from_its_address() -> None:
    ours = proxied()
    assert by_proxy(ours) == ("bea", "viewer")
    assert by_proxy(ours, secret="guess") is None
    assert by_proxy(ours, secret="") is None
    for elsewhere in ("10.2.0.1", "127.0.0.1", "2001:db8::1", "testclient", ""):
        assert by_proxy(ours, elsewhere) is None
    assert by_proxy(ours, "::ffff:10.1.2.3") == ("bea", "viewer"), "the same address on a socket of both families"


def test_unless_told_otherwise_the_proxy_is_on_this_machine() -> None:
    ours = door(proxy_secret=Secret(SECRET))[0]
    assert by_proxy(ours, "127.0.0.1") == ("bea", "viewer")
    assert by_proxy(ours, "10.1.2.3") is None


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ({"sre": "admin", "night": "responder"}, "admin"),
        ({"night": "responder", "all": "viewer"}, "responder"),
        ({"Night": "admin"}, None),
        ({"sr": "admin", "night, sre": "admin", "": "admin"}, None),
    ],
)
def test_the_highest_role_of_ones_groups_counts_and_who_is_in_none_stays_outside(
    groups: dict[str, str], role: str | None
) -> None:
    assert by_proxy(proxied(proxy_groups=groups)) == (("bea", role) if role else None)


@pytest.mark.parametrize(
    "spoofed", [("X-Forwarded-User", "root"), ("X-Forwarded-Groups", "sre"), ("X-Keywatch-Proxy", SECRET)]
)
def test_a_header_that_stands_twice_is_nobodys_word(spoofed: tuple[str, str]) -> None:
    ours = proxied(proxy_groups={"sre": "admin"})
    assert by_proxy(ours) == ("bea", "admin")
    assert by_proxy(ours, NEAR, (spoofed[0].lower(), spoofed[1])) is None


def test_a_role_header_may_say_a_role_that_there_is() -> None:
    ours = proxied(proxy_role_header="X-Role")
    assert by_proxy(ours, NEAR, ("x-role", "admin")) == ("bea", "admin")
    assert by_proxy(ours, NEAR, ("x-role", "root")) == ("bea", "viewer")


def test_the_address_before_the_proxy_is_taken_from_the_proxy_alone() -> None:
    ours = proxied()
    said = {"x-forwarded-for": "198.51.100.9, 192.0.2.7"}
    assert ours.address_of(Headers(said | {"x-keywatch-proxy": SECRET}), NEAR) == "192.0.2.7"
    assert ours.address_of(Headers(said), NEAR) == NEAR


def test_without_a_proxy_secret_an_empty_one_is_no_proxy() -> None:
    assert by_proxy(proxied(proxy_secret=Secret("")), secret="") is None


def test_an_address_of_a_proxy_that_is_none_is_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match="proxy_addresses"):
        proxied(proxy_addresses=("10.1.2.3/16",))


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


async def test_a_flood_of_wrong_tokens_holds_so_many_connections_and_leaves_the_others_to_the_night_shift() -> None:
    (ours, _), over, held = door(), asyncio.Event(), 0

    async def sleep(_: float) -> None:
        nonlocal held
        held += 1
        await over.wait()

    async def guess() -> None:
        ours.sign_in("guess")
        await ours.hold_up(sleep)

    async with asyncio.TaskGroup() as guesses:
        for _ in range(MOST_HELD * 3):
            guesses.create_task(guess())
        await asyncio.sleep(0)
        assert held == MOST_HELD
        over.set()
    await ours.hold_up(sleep)
    assert held == MOST_HELD + 1, "they are let go"


def test_replicas_with_one_session_key_take_one_anothers_sign_ins_and_forms_and_others_do_not() -> None:
    shared = Secret("k" * LEAST_KEY)
    (one, _), (other, _), (alone, _) = door(session_key=shared), door(session_key=shared), door()
    visitor = one.sign_in(TOKEN)
    assert visitor is not None
    assert other.recognise(one.cookie(visitor), Headers(), "") == visitor
    assert other.is_own_form(visitor, one.form_token(visitor))
    assert alone.recognise(one.cookie(visitor), Headers(), "") is None
    with pytest.raises(ConfigError, match="session_key"):
        door(session_key=Secret("k" * (LEAST_KEY - 1)))
