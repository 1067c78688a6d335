"""`python -m tests.fuzz.bomb FILE`: one message through intake, in a process whose memory can be measured."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from pipeline.formats import Options
from pipeline.intake.run import stream


def main() -> None:
    """Print reasons, megabytes grown beyond the file itself, seconds."""
    raw = Path(sys.argv[1]).read_bytes()
    before, began = _peak_mb(), time.process_time()
    reasons = Counter(out.reason or "event" for out in stream(raw, "native", Options(), "raw/0/1"))
    told = {"reasons": reasons, "grown_mb": _peak_mb() - before, "cpu_s": round(time.process_time() - began, 2)}
    sys.stdout.write(msgspec.json.encode(told).decode())


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
