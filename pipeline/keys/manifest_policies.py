"""A key's manifest in the words of two gateways: what each can hold a key to, and what it can't.

Kong: `ip-restriction` and `rate-limiting` bound to the consumer, as decK's declarative file (`deck gateway apply`). A
consumer may have several keys, which then share the limits: Kong has no finer grain. AWS API Gateway: a usage plan for
the key (`aws apigateway create-usage-plan --cli-input-json`), which knows rates and quotas only; networks stand in a
resource policy, which is the API's, not the key's.
Sources: Kong's plugin schemas ip-restriction and rate-limiting; AWS API Gateway's CreateUsagePlan.
"""

from __future__ import annotations

import math
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.keys.manifest import Manifest, neutral

FORMATS: Final = ("json", "kong", "aws")
AWS_MOST_BURST: Final = 5_000
"""The account's default burst: a plan above it is refused."""


def rendered(found: Manifest, form: str) -> dict[str, Any]:
    """The policy for a gateway. Raises ConfigError for one that is unknown, or that names no consumer."""
    if form == "json":
        return neutral(found)
    if form == "kong":
        return kong(found)
    if form == "aws":
        return aws(found)
    raise ConfigError(f"unknown gateway '{form}'; there are {', '.join(FORMATS)}")


def kong(found: Manifest) -> dict[str, Any]:
    """decK's file; the consumer is the key's declared owner, as `keywatch keys import --from kong` takes it."""
    if not found.owner:
        raise ConfigError(f"Kong binds limits to a consumer, and {found.key_id} has no declared owner")
    rate = {"minute": found.rates.per_minute, "hour": found.rates.per_hour, "day": found.rates.per_day}
    plugins: list[dict[str, Any]] = [
        {
            "name": "rate-limiting",
            "consumer": found.owner,
            "config": {**rate, "limit_by": "consumer", "policy": "local"},
        }
    ]
    if found.networks:
        config = {"allow": found.networks}
        plugins.insert(0, {"name": "ip-restriction", "consumer": found.owner, "config": config})
    return {"_format_version": "3.0", "plugins": plugins}


def aws(found: Manifest) -> dict[str, Any]:
    """A usage plan; what is within a minute is not known, so that a burst may be all of the busiest minute."""
    per_second = math.ceil(found.rates.per_minute / 60 * 10) / 10
    return {
        "name": f"keywatch-{found.key_id}",
        "description": f"proposed by Keywatch from {found.used_days} days of use",
        "throttle": {"burstLimit": min(AWS_MOST_BURST, found.rates.per_minute), "rateLimit": per_second},
        "quota": {"limit": found.rates.per_day, "offset": 0, "period": "DAY"},
    }


def shortcomings(found: Manifest, form: str, siblings: int) -> list[str]:
    """What the gateway's policy leaves open, in sentences. `siblings`: other keys of the same owner."""
    if form == "kong":
        words = ["Kong's rate-limiting and ip-restriction know no routes, clients or hours"]
        if siblings:
            words.append(f"{siblings} other keys of consumer {found.owner} would share these limits")
        return words
    if form == "aws":
        networks = ", ".join(found.networks[:5]) or "none seen"
        return [
            f"a usage plan binds no networks: put these into the API's resource policy, for all its keys: {networks}"
        ]
    return []
