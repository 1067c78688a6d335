"""The demo's configuration file: valid, private, and apart on a broker that others use too."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

from pipeline.config import file as config_file
from pipeline.demo import settings


def places(run: str = "") -> settings.Places:
    """Places of a demo."""
    return settings.Places(
        brokers="127.0.0.1:9092", clickhouse_url="http://127.0.0.1:8123", webhook_url="http://127.0.0.1:1/hooks",
        webhook_secret=settings.new_webhook_secret(), worker_port=1, responder_port=2,
        geo_db=Path("demo.mmdb"), run=run,
    )  # fmt: skip


def test_the_file_is_readable_by_its_owner_alone_since_it_holds_the_webhooks_secret(tmp_path: Path) -> None:
    path = settings.write(tmp_path, places())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "whsec_" in path.read_text()


def test_the_caps_are_the_demos_own_and_in_sight() -> None:
    policy = tomllib.loads(settings.text(places()))["respond"]["policy"]
    assert policy["mode"] == "enforce"
    assert policy["caps"] == policy["fence_caps"] == {"max_per_hour": 5, "max_per_day": 10, "max_share_of_active": 0.05}


def test_the_whole_file_is_a_configuration_in_which_critical_keys_are_fenced_first(tmp_path: Path) -> None:
    config = config_file.load(settings.write(tmp_path, places()))
    assert [(rule.rung, rule.criticalities) for rule in config.respond.rules] == [
        ("fence", ("critical",)), ("revoke", ()),
    ]  # fmt: skip


def test_on_a_broker_of_the_users_every_topic_and_group_is_this_runs_own() -> None:
    told = tomllib.loads(settings.text(places("abc123")))
    assert all(name.startswith("demo.abc123.") for name in told["topics"].values())
    assert told["kafka"]["group"].endswith("-demo-abc123")
    assert told["respond"]["group"].endswith("-demo-abc123")
