"""What every run of pytest tells: the seed of the random tests."""

from __future__ import annotations

from tests.seeds import SEED


def pytest_report_header() -> str:
    """One line."""
    return f"KEYWATCH_SEED={SEED}"
