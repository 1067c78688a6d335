"""Every Kafka topic: who writes, who reads, its shape; from `[topics]`, `sinks/topics.py` and the rights script."""

from __future__ import annotations

from typing import Final

import msgspec

from pipeline.config.tree import Config, Topics
from pipeline.reference.words import field_words, table
from pipeline.sinks.topics import PAGES_CONFIG, TopicSpec, topic_specs

HEAD: Final = """# Topics

Names are those of `[topics]`; `kafka.partitions` stands for as many partitions as the requests topic has. What is not
named is the broker's default. `deploy/kafka/topics.sh` makes them, `deploy/kafka/acls.sh` gives the rights, and
[SECURITY.md](../../SECURITY.md) says who needs which. The messages are [here](messages.md).

"""
PAGES: Final = ("pages", "sources_pages", "lifecycle_pages")
MANY: Final = 4_096
"""Partitions that no topic has by itself: whoever has these has as many as the requests."""


def page() -> str:
    """Markdown."""
    config = Config(kafka=msgspec.structs.replace(Config().kafka, partitions=MANY))
    specs = {spec.name: spec for spec in topic_specs(config)}
    specs |= {name: TopicSpec(name, MANY, PAGES_CONFIG) for name in (getattr(Topics(), each) for each in PAGES)}
    said = field_words(Topics)
    rows = []
    for name in Topics.__struct_fields__:
        spec = specs[getattr(Topics(), name)]
        count = "`kafka.partitions`" if spec.partitions == MANY else str(spec.partitions)
        shape = ", ".join(f"`{key}={value}`" for key, value in spec.config.items())
        rows.append((f"`{spec.name}`", f"`{name}`", count, shape, said[name]))
    return HEAD + table(("topic", "setting", "partitions", "configuration", "what lies on it"), rows)
