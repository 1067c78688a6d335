"""The detectors' tables of the configuration: their knobs, and which of them are in simulate mode.

`[detectors.spike] simulate = true`: what the detector finds is kept as findings, but weighs nothing: it carries no
incident, and none shows it as evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.errors import ConfigError

SIMULATE: Final = "simulate"
Knobs = dict[str, float | int | bool]


def knobs(tables: Mapping[str, Knobs]) -> dict[str, Knobs]:
    """The tables without `simulate`."""
    return {name: {knob: value for knob, value in table.items() if knob != SIMULATE} for name, table in tables.items()}


def simulated(tables: Mapping[str, Knobs]) -> frozenset[str]:
    """Names of the detectors that only simulate. Raises ConfigError where `simulate` is neither true nor false."""
    for name, table in tables.items():
        if not isinstance(table.get(SIMULATE, False), bool):
            raise ConfigError(f"detectors.{name}.simulate: expected true or false")
    return frozenset(name for name, table in tables.items() if table.get(SIMULATE, False))
