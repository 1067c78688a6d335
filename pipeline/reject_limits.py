"""A bad deploy must not dead-letter everything: above these limits a partition's worker stops instead.

The counters are state: a worker that is restarted again and again would else let as many rejects pass each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.config.tree import Worker
from pipeline.core import Reject
from pipeline.errors import Fatal
from pipeline.state.partition import Meta

SPAN: Final = 10_000
"""Records over which the share of rejects is taken."""


def check(meta: Meta, limits: Worker, partition: int, records: int, rejects: Sequence[Reject]) -> None:
    """Count one slice's rejects; raises Fatal where too many of the last SPAN records, or too many in a row, were."""
    meta.reject_run = meta.reject_run + len(rejects) if len(rejects) == records else 0
    meta.record_recent += records
    meta.reject_recent += len(rejects)
    share = meta.reject_recent / meta.record_recent
    many = meta.record_recent >= SPAN and share > limits.max_reject_ratio
    if many or meta.reject_run > limits.max_reject_run:
        reasons = [reject.reason for reject in rejects]
        why = max(sorted(set(reasons)) or ["?"], key=reasons.count)
        raise Fatal(
            f"partition {partition}: {share:.0%} of the last {meta.record_recent} records were rejected, mostly "
            f"'{why}': is a producer sending another format? Nothing was committed; mend it, or raise "
            "worker.max_reject_ratio or worker.max_reject_run"
        )
    if meta.record_recent >= SPAN:
        meta.record_recent = meta.reject_recent = 0
