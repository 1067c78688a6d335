"""Compiling everything that runs per event, before a consumer joins its group: inside a slice it would hold it up."""

from __future__ import annotations

from typing import Final

import msgspec
import numba
import numpy as np

from detectors import fuse
from detectors.detector import config_record
from detectors.fusion import Settings
from pipeline.config.tree import Config, Geo
from pipeline.core import Sides, Slice
from pipeline.flow import open_core
from pipeline.geo.provider import open_geo
from schemas.event import Event
from schemas.key import Key

WARM_UP_US: Final = 1_700_000_000_000_000


class Undeclared:
    """A catalogue that declares nothing."""

    version = ""

    def get(self, key_id: str) -> Key | None:
        """Nothing is known of any key."""
        return None


def warm_up() -> None:
    """Compile all that runs per event, before a consumer joins its group (half a minute, then cached on disk).

    With NUMBA_DISABLE_JIT=1 there is nothing to compile; hashes overflow in silence as they do compiled.
    """
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        np.seterr(over="ignore")
        return
    sides = Sides(Undeclared(), open_geo(Geo()), "")
    core = open_core(0, Config(), sides, "")
    hour_ms = 3_600_000
    for number in range(3):
        event = Event(key_id="warm-up", ts_us=WARM_UP_US + number * hour_ms * 1000, outcome="success")
        key, value = event.key_id.encode(), msgspec.json.encode(event)
        core.process(Slice("", 0, [number], [key], [value], [event.ts_us // 1000]))
    core.due_rows()
    nobody, settings = core.state.keys.data[:1], config_record(Settings(listed_days=1.0, page_days=1.0))
    fuse.close_due(nobody, 0, WARM_UP_US, settings, np.zeros(1, fuse.CHANGED))  # or the first incident waits for it
