"""Who is believed on where a caller is: whatever he writes himself changes nothing, in any format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.file import load
from pipeline.errors import ConfigError
from pipeline.formats import FORMATS, Options, Refused
from pipeline.formats import envelope as unpacking
from pipeline.formats.client_address import MOST_HOPS, client_address, is_inner, walk
from pipeline.formats.format import Hops
from pipeline.formats.registry import as_read
from pipeline.formats.values import _address, address
from tests.pipeline.formats.test_formats import SAMPLES

Address = IPv4Address | IPv6Address
CALLER = "203.0.113.7"
PROXIES = ("10.0.0.0/8", "2001:db8:9::/48", "192.0.2.1/32")
ours = st.sampled_from(["10.0.0.1", "10.200.3.4:443", "2001:db8:9::3", "[2001:db8:9::4]:80", "192.0.2.1"])
hop = st.ip_addresses().map(str) | st.text(max_size=9) | st.sampled_from(["unknown", "_hidden", "10.0.0.9", "", "-"])
written = st.lists(hop, max_size=30)
"""What a caller sends as X-Forwarded-For."""


@pytest.mark.parametrize(
    ("peer", "canonical"),
    [
        ("203.0.113.7", "203.0.113.7"), ("203.0.113.7:443", "203.0.113.7"), ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"), ("::ffff:203.0.113.7", "203.0.113.7"), ("fe80::1%eth0", "fe80::1"),
        ("cloudformation.amazonaws.com", ""), ("AWS Internal", ""), ("-", ""), ("", ""), (None, ""), (7, ""),
        ("255.090.254.5", ""), (["203.0.113.7"], "203.0.113.7"), (["198.51.100.9", "203.0.113.7"], "203.0.113.7"),
        ("198.51.100.9, 10.0.0.1", "10.0.0.1"), (",", ""), ("a, b", ""), ("203.0.113.7, ", "203.0.113.7"),
        ("198.51.100.9, unknown", ""),
    ],
)  # fmt: skip
def test_without_trusted_proxies_the_peer_counts_and_is_canonical_or_nothing(peer: Any, canonical: str) -> None:
    assert client_address(Hops(peer), ()) == canonical
    assert client_address(Hops(peer, "198.51.100.9"), ()) == canonical


@pytest.mark.parametrize(
    ("peer", "header", "taken"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1:80", "198.51.100.9, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.9", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("203.0.113.7", "198.51.100.9, 10.0.0.2", "203.0.113.7"),  # whoever comes past the proxies is not believed
        ("10.0.0.1", "198.51.100.9, unknown, 10.0.0.2", "10.0.0.2"),  # nor what stands before a hop that is none
        ("10.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.9"),  # all are ours: the farthest
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "-", "10.0.0.1"),
        (None, "203.0.113.7", ""),  # a header without a peer is nobody's word
        ("unix:", "203.0.113.7", ""),
        ("2001:db8:9::1", "2001:db8::7, 192.0.2.1", "2001:db8::7"),
    ],
)
def test_the_first_from_the_right_that_is_no_trusted_proxy_is_taken(peer: Any, header: Any, taken: str) -> None:
    assert client_address(Hops(peer, header), PROXIES) == taken


@given(written, st.lists(ours, min_size=1, max_size=MOST_HOPS - 2))
def test_nothing_that_a_caller_writes_changes_what_is_taken(lies: list[str], proxies: list[str]) -> None:
    *between, peer = proxies
    header = ", ".join([*lies, CALLER, *between])
    assert client_address(Hops(peer, header), PROXIES) == CALLER
    assert client_address(Hops(peer, header.split(", ")), PROXIES) == CALLER
    assert client_address(Hops(CALLER, header), PROXIES) == CALLER


@given(written, st.ip_addresses().map(str))
def test_by_default_no_header_changes_anything(lies: list[str], peer: str) -> None:
    alone = client_address(Hops(peer), ())
    assert client_address(Hops(peer, ", ".join(lies)), ()) == client_address(Hops(peer, lies), ()) == alone != ""


def test_chains_that_callers_write_are_not_remembered() -> None:
    _address.cache_clear()
    for number in range(100):
        lies = ", ".join(f"x{number}-{each}" for each in range(50))
        assert client_address(Hops("10.0.0.1", f"{lies}, {CALLER}"), PROXIES) == CALLER
    assert _address.cache_info().currsize == 2


Writer = Callable[[dict[str, Any], str, str], None]
"""Puts peer and header into a record."""


def _kong(record: dict[str, Any], peer: str, header: str) -> None:
    record["client_ip"] = peer
    record["request"]["headers"]["x-forwarded-for"] = header


def _otel(record: dict[str, Any], peer: str, header: str) -> None:
    record["attributes"] |= {"network.peer.address": peer, "http.request.header.x-forwarded-for": [header]}
    record["attributes"]["client.address"] = header.partition(",")[0]  # as most instrumentation has it


def _ocsf(record: dict[str, Any], peer: str, header: str) -> None:
    record["src_endpoint"]["ip"] = peer
    record["http_request"]["x_forwarded_for"] = header.split(", ")


WITH_A_HEADER: dict[str, Writer] = {
    "kong": _kong,
    "apisix": _kong,
    "envoy": lambda record, peer, header: record.update(
        downstream_remote_address=f"{peer}:9", x_forwarded_for=f"{header}, {peer}"
    ),
    "nginx": lambda record, peer, header: record.update(remote_addr=peer, http_x_forwarded_for=header),
    "traefik": lambda record, peer, header: record.update(ClientAddr=f"{peer}:9", ClientHost=header),
    "otel": _otel,
    "ocsf": _ocsf,
    "native": lambda record, peer, header: record.update(client_ip=f"{header}, {peer}"),
}
PEER_ALONE = {
    "aws_apigateway": "AWS logs no header", "cloudtrail": "AWS's own front", "combined": "the line has one address",
    "tyk": "the pump sends one address",
}  # fmt: skip


def of_record(name: str, lies: list[str], peer: str, proxies: tuple[str, ...]) -> str:
    path = next(p for p in SAMPLES[name] if p.name == "object.json")
    record = next(unpacking.json_records(path.read_bytes()))
    WITH_A_HEADER[name](record, peer, ", ".join([*lies, CALLER]))
    event = FORMATS[name].event(as_read(record, FORMATS[name]), Options(trusted_proxies=proxies))
    assert not isinstance(event, Refused)
    return event.client_ip


@pytest.mark.parametrize("name", WITH_A_HEADER)
@settings(max_examples=50)
@given(lies=written)
def test_so_it_is_in_every_format_that_reads_a_header(name: str, lies: list[str]) -> None:
    assert of_record(name, lies, "10.0.0.1", PROXIES) == CALLER
    assert of_record(name, lies, "198.51.100.99", PROXIES) == "198.51.100.99"
    assert of_record(name, lies, "10.0.0.1", ()) == "10.0.0.1"


def test_every_format_reads_the_header_or_says_why_there_is_none() -> None:
    assert WITH_A_HEADER.keys() | PEER_ALONE.keys() == FORMATS.keys()
    assert not WITH_A_HEADER.keys() & PEER_ALONE.keys()


def test_what_an_instrumentation_makes_of_headers_counts_only_where_no_peer_is_named() -> None:
    def taken(**said: str) -> str:
        return client_address(FORMATS["otel"].hops({"attributes": said}), PROXIES)

    assert taken(**{"client.address": "198.51.100.9", "network.peer.address": CALLER}) == CALLER
    assert taken(**{"client.address": "198.51.100.9", "network.peer.address": "10.0.0.1"}) == "10.0.0.1"
    assert taken(**{"client.address": "198.51.100.9"}) == "198.51.100.9"


def test_a_header_that_traefik_kept_counts_before_its_first_line_alone() -> None:
    record = {"ClientAddr": "10.0.0.1:9", "ClientHost": "198.51.100.9"}
    assert client_address(FORMATS["traefik"].hops(record), PROXIES) == "198.51.100.9"
    kept = {**record, "request_X-Forwarded-For": f"198.51.100.9,{CALLER}"}
    assert client_address(FORMATS["traefik"].hops(kept), PROXIES) == CALLER


@pytest.mark.parametrize("wrong", ["10.0.0.0/99", "proxy.internal", "10.0.0.1/8", "0.0.0.0/0", "::/0", "::ffff:0:0/96"])
def test_what_is_no_network_or_trusts_everybody_is_no_setting(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWATCH_INTAKE__TRUSTED_PROXIES", f"192.0.2.1,{wrong}")
    with pytest.raises(ConfigError, match="intake"):
        load(None)
    monkeypatch.setenv("KEYWATCH_INTAKE__TRUSTED_PROXIES", "192.0.2.1, 2001:db8::/32")
    assert load(None).intake.trusted_proxies == ("192.0.2.1", "2001:db8::/32")


plain = st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None)


@given(st.lists(plain, max_size=8), st.lists(st.tuples(plain, st.integers(0, 32)), max_size=9))
def test_whether_a_hop_is_a_proxy_is_what_the_standard_library_says_of_each_network(
    hops: list[Address], named: list[tuple[Address, int]]
) -> None:
    networks = [ip_network(f"{ip}/{ip.max_prefixlen - host}", strict=False) for ip, host in named]
    for hop in (*hops, *(each.network_address for each in networks), *(each.broadcast_address for each in networks)):
        ip = address(str(hop))
        [found] = walk(Hops(ip), tuple(map(str, networks)))
        assert found.trusted == any(ip_address(ip) in each for each in networks)


def test_proxies_may_be_written_as_ipv4_in_ipv6() -> None:
    hops = Hops("::ffff:10.0.0.1", f"198.51.100.9, {CALLER}")
    assert client_address(hops, ("::ffff:10.0.0.0/104",)) == client_address(hops, ("10.0.0.0/8",)) == CALLER


def test_of_thousands_of_proxies_each_new_caller_is_held_against_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CDN's list is that long, and a botnet has as many addresses: at 3 ms for each 300 events a second pass."""
    proxies = tuple(f"10.{number >> 8}.{number & 255}.0/25" for number in range(5000))
    assert client_address(Hops("10.9.9.9", CALLER), proxies) == CALLER
    held, looked = IPv4Network.__contains__, Counter[str]()

    def counted(network: IPv4Network, hop: object) -> bool:
        looked["networks"] += 1
        return held(network, hop)

    monkeypatch.setattr(IPv4Network, "__contains__", counted)
    for number in range(256):
        assert client_address(Hops(f"10.9.{number}.9", f"203.0.113.{number}"), proxies) == f"203.0.113.{number}"
    assert looked["networks"] < 10 * 256


def test_inner_addresses_are_those_of_private_networks() -> None:
    assert [is_inner(each) for each in ("10.1.2.3", "fd00::1", "100.64.0.9", "203.0.113.7", "2001:db8::1")] == [
        True, True, True, False, False,
    ]  # fmt: skip
