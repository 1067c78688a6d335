"""Errors named by their consequence. Anything else that escapes ends the process."""

from __future__ import annotations


class Retry(Exception):
    """The outside (ClickHouse, broker, endpoint) failed for now: the same call with the same bytes may be repeated."""


class Fatal(Exception):
    """Going on would lose or double effects. Ends the process with this one line; the orchestrator restarts it."""


class ConfigError(Exception):
    """What the user gave is wrong; the text says what to do. Exit code 2."""
