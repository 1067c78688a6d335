"""How hard aiokafka's producers pack what they publish: it has no setting for that."""

from __future__ import annotations

import sys
from functools import partial
from typing import Final

from aiokafka import codec
from aiokafka.record import default_records

LEVEL: Final = 1
"""aiokafka's own is 9, as Java's: 412 us for 200 sightings where 1 takes 30, for a fifth fewer bytes, and all of it was
in the event loop: 7 % of what a worker did whose keys were new."""


def quick_lz4() -> None:
    """From now on aiokafka's producers of this process pack with LEVEL."""
    builder = sys.modules[default_records.DefaultRecordBatchBuilder.__module__]  # compiled, or where it can't be Python
    builder.lz4_encode = partial(codec.lz4_encode, level=LEVEL)  # type: ignore[attr-defined]
