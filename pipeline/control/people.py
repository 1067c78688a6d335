"""Who speaks, where nobody is named."""

from __future__ import annotations

import getpass


def user() -> str:
    """The system's name of who runs the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without that user
        return "unknown"
