"""The story's schedule: which keys, when, and that no innocent key is also attacked."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from zoneinfo import ZoneInfo

import pytest

from pipeline.control.topic import check_times
from pipeline.demo import fleet, networks, story
from schemas.control import decode, encode

CLIENTS = fleet.build(7)
BY_KEY = {client.key_id: client for client in CLIENTS}
NOW = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)


def test_five_attacks_and_four_innocent_things_happen_in_order() -> None:
    scenes = story.schedule(CLIENTS, NOW, 7)
    assert [scene.name for scene in scenes if scene.attack] == ["leak", "fence", "bulk", "night", "scan"]
    assert [scene.name for scene in scenes if not scene.attack] == ["growth", "load", "deploy", "storm"]
    assert [scene.at_s for scene in scenes] == sorted(scene.at_s for scene in scenes)


@pytest.mark.parametrize("seed", range(20))
def test_no_key_is_in_two_scenes(seed: int) -> None:
    keys = [key for scene in story.schedule(CLIENTS, NOW, seed) for key in scene.keys]
    assert len(keys) == len(set(keys))


def test_only_the_leaked_key_must_be_revoked() -> None:
    assert [scene.name for scene in story.schedule(CLIENTS, NOW, 7) if scene.must_revoke] == ["leak"]


def test_the_key_that_must_be_fenced_is_critical_and_its_thief_is_outside_of_its_networks() -> None:
    (scene,) = [scene for scene in story.schedule(CLIENTS, NOW, 7) if scene.must_fence]
    client = BY_KEY[scene.keys[0]]
    assert client.key.criticality == "critical"
    own = {ip_network(f"{address}/24", strict=False) for address in client.addresses}
    assert not any(ip_address(networks.FOREIGN_HOSTING.address(7)) in network for network in own)


def test_the_load_test_is_of_a_test_key_and_muted_while_it_goes_on() -> None:
    (scene,) = [scene for scene in story.schedule(CLIENTS, NOW, 7) if scene.name == "load"]
    said = story.announced(NOW)
    assert BY_KEY[scene.keys[0]].key.environment == "test"
    assert [said.key_id] == list(scene.keys)
    assert decode(encode(said)) == said
    check_times(said)


def test_no_scene_uses_a_key_that_was_out_of_use_before_the_story() -> None:
    gone = {client.key_id for client in CLIENTS if client.last_days}
    for seed in range(20):
        assert not gone & {key for scene in story.schedule(CLIENTS, NOW, seed) for key in scene.keys}


@pytest.mark.parametrize("hour", range(24))
def test_the_office_key_is_used_at_night_whatever_the_hour_of_the_demo(hour: int) -> None:
    now = NOW.replace(hour=hour)
    (key,) = next(scene.keys for scene in story.schedule(CLIENTS, now, 7) if scene.name == "night")
    client = BY_KEY[key]
    local = now.astimezone(ZoneInfo(client.key.time_zone))
    assert local.hour < 6
    assert client.key.business_hours is not None
    assert networks.RENTED[client.country].country == client.country


def test_the_leak_comes_from_a_country_and_network_that_no_client_uses() -> None:
    used = {address for client in CLIENTS for address in client.addresses}
    assert not used & {networks.FOREIGN_HOSTING.address(host) for host in range(64)}


def test_the_storm_and_the_deploy_touch_many_keys() -> None:
    sizes = {scene.name: len(scene.keys) for scene in story.schedule(CLIENTS, NOW, 7)}
    assert sizes["deploy"] >= 10
    assert sizes["storm"] >= 40
