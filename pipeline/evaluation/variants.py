"""What sensitive routes and egress add to use at odd hours from the owner's own address: reported beside keybench's 16.

Hour and volume alone can't carry an incident at the listed budget (measured), so that scenario stays a finding; these
say what would have to come with it. The same contract as `attacks`; the headline strength only, outside the macro
recall.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from pipeline.evaluation.attacks import DAYS as ATTACK_DAYS
from pipeline.evaluation.attacks import Plan, Stage, as_lines, off_hours_own
from pipeline.evaluation.sources import ADMIN, CREDENTIAL, DELETE


def off_hours_sensitive(stage: Stage) -> Plan:
    """One call of three deletes, administers or asks for credentials, and is not refused."""
    made = off_hours_own(stage)
    chosen = np.flatnonzero(stage.rng.random(len(made.planted)) < 1 / 3)
    kinds = stage.rng.choice([DELETE, ADMIN, CREDENTIAL], len(chosen))
    lines = as_lines(stage, kinds, np.zeros(len(chosen), np.bool_))
    for name in ("operation", "object", "status", "bytes_out", "outcome"):
        made.planted[name][chosen] = lines[name]
    return made


def off_hours_egress(stage: Stage) -> Plan:
    """Answers four times as large as the key's, as slow exfiltration has them."""
    made = off_hours_own(stage)
    size = made.planted["bytes_out"].astype(np.int64)
    made.planted["bytes_out"] = np.minimum(size * 4 + 4000, 2_000_000_000)
    return made


VARIANTS: Final[dict[str, Callable[[Stage], Plan]]] = {
    "off_hours_sensitive": off_hours_sensitive, "off_hours_egress": off_hours_egress,
}  # fmt: skip
"""name -> generator."""
DAYS: Final = dict.fromkeys(VARIANTS, ATTACK_DAYS["off_hours_own"])
"""As in `attacks`."""
