"""Named moments at which a test may kill the process: KEYWATCH_FAULT=after_publish:3 dies at the third time.

`between_pages:2:freeze` stops it there instead, as SIGSTOP does, until somebody sends SIGCONT.
The moments are those between which the order of effects (`emit.py`) promises that a crash changes nothing. Unset,
`reach` is an empty function.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

MOMENTS: Final = frozenset(
    {
        "after_publish",  # incidents and rejects of a slice are acknowledged, rows are not written
        "after_rows",  # rows are acknowledged
        "between_pages",  # some pages of a checkpoint are written, the manifest is not
        "before_manifest",  # all pages are
        "after_manifest",  # the manifest is acknowledged, its offset is not committed
        "after_commit",
        "in_recovery",  # a page was read back
        "after_recovery",  # state is loaded, no slice was handled yet
        "in_revoke",  # partitions are being taken away, the checkpoint for it is not written
    }
)
KILLED: Final = 137
"""Exit code, as a shell reports SIGKILL."""


def killer(spec: str) -> Callable[[str], None]:
    """`moment:n` as a function that ends the process, without any clean-up, when it is called with it n times.

    `moment:n:freeze` is one that stops it.
    """
    moment, times, how, *_ = [*spec.split(":"), "", ""]
    if moment not in MOMENTS:
        raise ValueError(f"KEYWATCH_FAULT names no moment: {moment!r}; one of {', '.join(sorted(MOMENTS))}")
    left = int(times or 1)

    def reach_counting(name: str) -> None:
        nonlocal left
        if name == moment:
            left -= 1
            if left == 0 and how == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif left == 0:
                os._exit(KILLED)

    return reach_counting


def _nothing(name: str) -> None:
    """No fault is asked for."""


reach: Callable[[str], None] = killer(os.environ["KEYWATCH_FAULT"]) if os.environ.get("KEYWATCH_FAULT") else _nothing
"""Say that a moment is reached."""
