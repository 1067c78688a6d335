"""What a check of the surroundings says, one line each."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, how it is, and what to do where it is not well."""

    state: State
    about: str
    text: str
    advice: str = ""
