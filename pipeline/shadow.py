"""A shadow: a second configuration beside production, over the same events, whose incidents nobody acts on.

It is a worker of its own group that writes to topics and a database of its own (`api.incidents.shadow-NAME`,
`keywatch_shadow_NAME`): the responder reads none of these, so nothing can be acted on, not even by mistake. It writes
no ticks: production's are in the log it reads.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from pipeline.config.tree import Config
from pipeline.errors import ConfigError

OWN_TOPICS: Final = ("rejected", "incidents", "pages")
"""What a worker writes, but for ticks; it reads requests, keys and control as production does."""


def shadowed(config: Config, name: str) -> Config:
    """The configuration of the shadow of this name; "" is production itself. Raises ConfigError."""
    if not name:
        return config
    if not re.fullmatch(r"[a-z0-9_]{1,32}", name):
        raise ConfigError(f"--shadow {name!r}: a name of small letters, digits and _")
    topics, suffix = config.topics, f".shadow-{name}"
    own = {each: getattr(topics, each) + suffix for each in OWN_TOPICS}
    return msgspec.structs.replace(
        config,
        topics=msgspec.structs.replace(topics, **own),
        kafka=msgspec.structs.replace(config.kafka, group=config.kafka.group + suffix),
        clickhouse=msgspec.structs.replace(config.clickhouse, database=f"{config.clickhouse.database}_shadow_{name}"),
        worker=msgspec.structs.replace(config.worker, ticks=False),
    )
