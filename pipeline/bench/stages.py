"""Where a worker's time went between two looks at its /metrics: upper bounds of what 99 of 100 took, by stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

STAGES: Final = {
    "slice": "keywatch_slice_processing_seconds",
    "event_loop_stall": "keywatch_event_loop_stall_seconds",
    "checkpoint": "keywatch_checkpoint_seconds",
}
"""Its name here, and its histogram. A slice holds up what is behind it, a checkpoint only while it copies."""
_BUCKET: Final = re.compile(r'^(keywatch_\w+)_bucket\{(?:[^}]*,)?le="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
Buckets = Mapping[str, Mapping[float, float]]


def buckets(metrics: str) -> dict[str, dict[float, float]]:
    """{histogram: {upper bound in s: observations up to it}}, series of other labels added up."""
    found: dict[str, dict[float, float]] = {}
    for name, bound, count in _BUCKET.findall(metrics):
        each = found.setdefault(name, {})
        each[float(bound)] = each.get(float(bound), 0.0) + float(count)
    return found


def between(before: Buckets, after: Buckets, share: float = 0.99) -> dict[str, float | None]:
    """Milliseconds by stage, the upper bound of the bucket that holds that share; None where nothing was observed."""
    return {stage: _quantile(before.get(name, {}), after.get(name, {}), share) for stage, name in STAGES.items()}


def _quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float | None:
    counts = [(bound, count - before.get(bound, 0.0)) for bound, count in sorted(after.items())]
    total = counts[-1][1] if counts else 0.0
    if not total:
        return None
    reached = [bound for bound, count in counts if count >= share * total]
    return round(1000 * min(reached[0], counts[-2][0]), 1)  # beyond the last finite bound nothing is known
