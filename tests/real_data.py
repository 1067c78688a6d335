"""The real logs beside the checkout. Absent: a clear skip, but a failure in CI, where they must be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("KEYWATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real(name: str) -> Path:
    """Path of one set of logs; see the README beside them."""
    path = FOLDER / name
    if not path.exists():
        reason = f"the real logs are not at {FOLDER}; set KEYWATCH_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
