"""Where a configured URL can't take us, in any spelling, and with any name server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.respond.delivery.address import (
    AddressError,
    CheckedResolver,
    check_url,
    is_public,
    literal,
    system_look_up,
)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "https://hooks.example.com:8443/x",
        "https://user:pw@hooks.example.com/x",
        "https://user@hooks.example.com/",
        "https://10.0.0.1/",
        "https://8.8.8.8/",
        "https://[::1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://127.1/",
        "https:///x",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://hooks.example.com:99999/",
        "https://a b/",
        "https://hooks%2eexample.com/",
        "https://hooks.example.com/" + "x" * 2048,
    ],
)
def test_only_plain_https_names_may_be_called(url: str) -> None:
    with pytest.raises(AddressError):
        check_url(url, allow_private=False)


def test_a_private_target_must_be_allowed_and_still_carries_no_password() -> None:
    assert check_url("http://127.0.0.1:8080/x", allow_private=True).port == 8080
    assert check_url("https://hooks.example.com/x", allow_private=False).hostname == "hooks.example.com"
    for url in ("ftp://127.0.0.1/", "http://user:pw@127.0.0.1/"):
        with pytest.raises(AddressError):
            check_url(url, allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::1", "2002:a00:1::", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2001:0:0a00:1::1", "2001:db8::1", "no address",
    ],
)  # fmt: skip
def test_no_address_inside_is_public_in_any_wrapping(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_bare_mapped_and_translated(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    wrapped = [f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}"]
    assert {is_public(each) for each in [str(address), *wrapped]} == {is_public(str(address))}


async def test_one_private_answer_among_public_ones_refuses_them_all() -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(AddressError):
        await CheckedResolver(allow_private=False, look_up=mixed).resolve("hooks.example.com", 443)


async def test_a_name_that_turns_private_after_the_first_look_up_is_refused_at_the_second() -> None:
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    resolver = CheckedResolver(allow_private=False, look_up=rebinding)
    found = await resolver.resolve("hooks.example.com", 443)
    assert [each["host"] for each in found] == ["8.8.8.8"]
    with pytest.raises(AddressError):
        await resolver.resolve("hooks.example.com", 443)


async def test_a_name_without_an_address_is_an_error_of_the_network() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        return []

    with pytest.raises(OSError, match="no address"):
        await CheckedResolver(allow_private=True, look_up=nothing).resolve("hooks.example.com", 443)


async def test_the_system_resolves_loopback() -> None:
    assert "127.0.0.1" in await system_look_up("127.0.0.1", 80)


def test_literals_are_seen_in_every_spelling() -> None:
    assert [str(literal(host)) for host in ("127.1", "0x7f000001", "2130706433", "::1")] == ["127.0.0.1"] * 3 + ["::1"]
    assert literal("hooks.example.com") is None
    assert literal("1password.example.com") is None
