"""The demo's configuration: an ordinary keywatch.toml in a folder of its own, so that every command reads it.

Its caps are set for 200 keys, in sight here; in production the smaller of 3 keys an hour and 0.1 % applies.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline import private
from pipeline.config.tree import Topics
from pipeline.demo.broker import PARTITIONS

CAPS: Final = "{ max_per_hour = 5, max_per_day = 10, max_share_of_active = 0.05 }"
"""200 keys: the usual 0.1 % would be none."""


@dataclass(slots=True)
class Places:
    """Where everything of one demo is; filled in as things start."""

    brokers: str
    clickhouse_url: str
    webhook_url: str
    webhook_secret: str  # whsec_..., known to the responder and the key service
    worker_port: int
    responder_port: int
    geo_db: Path
    console_port: int = 0
    console_token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    run: str = ""  # set on a broker of the user's: topics and groups of this run alone

    @property
    def topics(self) -> Topics:
        """The usual names on the embedded broker; names of its own on a broker that others use as well."""
        if not self.run:
            return Topics()
        return Topics(**{name: f"demo.{self.run}.{value}" for name, value in _topic_names().items()})

    @property
    def suffix(self) -> str:
        """What makes a group's name this run's own."""
        return f"-demo-{self.run}" if self.run else ""


def _topic_names() -> dict[str, str]:
    return {name: getattr(Topics(), name) for name in Topics.__struct_fields__}


def new_webhook_secret() -> str:
    """32 random bytes, as Standard Webhooks writes them."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def write(folder: Path, places: Places) -> Path:
    """Write `keywatch.toml`, readable by its owner alone; returns its path."""
    path = folder / "keywatch.toml"
    private.write(path, text(places).encode())
    return path


def text(places: Places) -> str:
    """The configuration as TOML."""
    topics = "\n".join(f'{name} = "{getattr(places.topics, name)}"' for name in Topics.__struct_fields__)
    return f"""\
# Written by `keywatch demo`. The same file works for worker, respond, keys, incidents, explain.
[kafka]
brokers = "{places.brokers}"
partitions = {PARTITIONS}
group = "keywatch{places.suffix}"
rebalance_timeout_s = 3.0  # the broker waits that long for others at a join
session_timeout_s = 6.0  # the embedded broker lets whoever joins wait for half of that
heartbeat_s = 1.0

[topics]
{topics}

[clickhouse]
url = "{places.clickhouse_url}"
insert_s = 0.5

[worker]
checkpoint_s = 2.0
metrics_port = {places.worker_port}

[console]
port = {places.console_port}
metrics_port = 0

[[console.people]]
name = "you"
role = "admin"
token = "{places.console_token}"

[geo]
country_db = "{places.geo_db}"  # invented networks on documentation addresses

[respond]
group = "keywatch-respond{places.suffix}"
metrics_port = {places.responder_port}

[[respond.endpoints]]
name = "key-service"
url = "{places.webhook_url}"
secret = "{places.webhook_secret}"
allow_private = true  # the key service is on loopback

[respond.night]
blind_after_s = 0 # the embedded broker answers end offsets wrongly

[respond.policy]
mode = "enforce"  # in production: simulate, until a person has read what would have been done
adapter = "key-service"
caps = {CAPS}
fence_caps = {CAPS}
proof_caps = {CAPS}
max_lag_s = 0 # the demo's history is judged as it is read, and nothing is old
settle_s = 0
min_family_bits = 9.5 # in production 10: after 14 days a network of that service's key is new with 9.9 to 10.1 bits
breaker_owners = 0 # four keys of the story are attacked within half a minute

[[respond.rules]]
name = "fence"  # what much depends on goes on working for its owner
rung = "fence"
criticalities = ["critical"]
detectors = ["geography"]

[[respond.rules]]
name = "revoke"
rung = "revoke"
detectors = ["geography"]
"""
