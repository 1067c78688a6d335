"""Where a worker's time went between two looks at its /metrics: upper bounds of what 99 of 100 took, by stage.

Steps are of the records that opened incidents, one after the other (`pipeline/runners/measure.py`): from the record's
time until it is fetched, until the core takes its slice up, until that is judged, until all is acknowledged. What is
left of a latency is the consumer's that waits for the incident.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pipeline.runners.measure import STEPS as ORDER

STAGES: Final = {
    "slice": "keywatch_slice_processing_seconds",
    "event_loop_stall": "keywatch_event_loop_stall_seconds",
    "checkpoint": "keywatch_checkpoint_seconds",
}
"""Its name here, and its histogram. A slice holds up what is behind it, a checkpoint only while it copies."""
STEP: Final = "keywatch_step_seconds"
_BUCKET: Final = re.compile(r'^(keywatch_\w+)_bucket\{((?:[^}]*,)?)le="([^"]+)"([^}]*)\} (\S+)$', re.MULTILINE)
_STEP: Final = re.compile(r'(?:^|,)step="([^"]+)"')
Buckets = Mapping[str, Mapping[float, float]]


def buckets(metrics: str) -> dict[str, dict[float, float]]:
    """{histogram: {upper bound in s: observations up to it}}, series of other labels than `step` added up."""
    found: dict[str, dict[float, float]] = {}
    for name, before, bound, after, count in _BUCKET.findall(metrics):
        step = _STEP.search(before + after)
        each = found.setdefault(f"{name}.{step[1]}" if step else name, {})
        each[float(bound)] = each.get(float(bound), 0.0) + float(count)
    return found


def between(before: Buckets, after: Buckets, share: float = 0.99) -> dict[str, float | None]:
    """Milliseconds by stage, the upper bound of the bucket that holds that share; None where nothing was observed."""
    return {stage: _quantile(before.get(name, {}), after.get(name, {}), share) for stage, name in STAGES.items()}


def steps(before: Buckets, after: Buckets) -> dict[str, dict[str, float | None]]:
    """{step: {"p50": ms, "p99": ms}}, upper bounds as well."""
    names = {name.removeprefix(f"{STEP}."): name for name in after if name.startswith(f"{STEP}.")}
    return {
        step: {
            f"p{share}": _quantile(before.get(names[step], {}), after[names[step]], share / 100) for share in (50, 99)
        }
        for step in ORDER
        if step in names
    }


def _quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float | None:
    counts = [(bound, count - before.get(bound, 0.0)) for bound, count in sorted(after.items())]
    total = counts[-1][1] if counts else 0.0
    if not total:
        return None
    reached = [bound for bound, count in counts if count >= share * total]
    return round(1000 * min(reached[0], counts[-2][0]), 1)  # beyond the last finite bound nothing is known
