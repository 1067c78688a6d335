"""Where what a partition has counted lies at a rail: it may be a factor of ten off what ships, and no further.

Seen from outside: `detectors.counted.at_edge` holds each edge of a row within its rails and tells nobody. At the upper
one this partition's keys reach some bits ten times as often as the shipped count promises, or more often still: the
alarm is kept on, so more incidents come than the budget allows, or somebody teaches it patiently. At the lower one they
reach them more seldom, which a quiet fleet does: fewer incidents than the budget, and none that is wrong.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.counted import BIN_BITS, BINS, NODE_BITS, NODES, RAIL, SHRINK
from detectors.shipped_counts import EGRESS, EGRESS_SUM, PEAKS, REPETITION, RETURNS

Array = np.ndarray[Any, Any]

UPPER: Final = "upper"
LOWER: Final = "lower"
BOUNDS: Final = (UPPER, LOWER)
EDGES: Final = np.arange(BINS - 1) * BIN_BITS
SHIPPED: Final = np.concatenate(
    [nodes.reshape(-1, NODES) for nodes in (RETURNS, PEAKS, REPETITION, EGRESS, EGRESS_SUM)]
)
PRIOR: Final = np.array([np.interp(EDGES, np.arange(NODES) * NODE_BITS, nodes) for nodes in SHIPPED])
"""log2 of the shipped share at each edge of each row; the rows are in the order of `_counted`."""


def railed(shared: Array) -> dict[str, int]:
    """Rows of counts (a rule and stratum, a window or body of answers and kind of key) with an edge at each rail.

    shared: SHARED array of 1. All rows at once: it is asked after every slice.
    """
    counts, visits = _counted(shared)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    off = np.log2((SHRINK + above) / (SHRINK * 2.0**-PRIOR + visits[:, None])) - PRIOR
    rail = np.log2(RAIL)
    return {UPPER: int((off >= rail).any(axis=1).sum()), LOWER: int((off <= -rail).any(axis=1).sum())}


def _counted(shared: Array) -> tuple[Array, Array]:
    """Counts by bin and visits of each row."""
    known, spike, egress = shared["calibration"][0], shared["spike"][0], shared["egress"][0]
    pairs = (
        (known["counts"], known["visits"]), (spike["peaks"], spike["visits"]),
        (spike["same_peaks"], spike["same_visits"]), (egress["peaks"], egress["visits"]),
        (egress["sum_peaks"], egress["sum_visits"]),
    )  # fmt: skip
    counts, visits = zip(*((runs.reshape(-1, BINS), of.ravel()) for runs, of in pairs), strict=True)
    return np.concatenate(counts), np.concatenate(visits)
