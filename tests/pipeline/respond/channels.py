"""Endpoints and time limits for tests of channels."""

from __future__ import annotations

from pipeline.config.tree import Respond


def respond(total_s: float = 5.0) -> Respond:
    """Short limits."""
    return Respond(connect_timeout_s=1.0, total_timeout_s=total_s)
