"""What others made that the console serves: `pipeline/console/vendored.toml`, read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

import pipeline.console

CONSOLE: Final = Path(pipeline.console.__file__).parent
FOLDER: Final = CONSOLE / "static" / "vendor"


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of `FOLDER`; `sha256` in hexadecimal."""

    name: str
    sha256: str


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package; `name` as npm has it, `licence` as SPDX has it."""

    name: str
    version: str
    licence: str
    does: str
    files: tuple[File, ...]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    part: tuple[Part, ...]


def vendored() -> tuple[Part, ...]:
    """All of them. Raises msgspec.ValidationError for a manifest that is none."""
    return msgspec.toml.decode((CONSOLE / "vendored.toml").read_bytes(), type=_Manifest).part
