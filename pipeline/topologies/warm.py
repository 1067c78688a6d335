"""Compiling what the other topologies run per message, before a consumer joins its group."""

from __future__ import annotations

import numpy as np

from detectors.records import records
from pipeline.topologies import pulse
from pipeline.topologies.gatherings import surprise_bits


def warm_up() -> None:
    """A few seconds, then cached on disk."""
    rows = records(np.zeros(1, pulse.PULSE))
    for hour in range(1, pulse.LEAST_GAPS + 3):
        pulse.beat(rows[0], hour * pulse.HOUR_US)
    pulse.patience_h(rows[0])
    pulse.stopped_with(rows, 1, 0, pulse.HOUR_US, 0, np.zeros(1, np.int64))
    surprise_bits(3, 0.5)
