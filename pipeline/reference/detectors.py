"""Every detector: what it detects, misses, takes for an attack, and its knobs; from their docstrings and comments."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import msgspec

from detectors import DETECTORS
from detectors.detector import Detector
from pipeline.reference.words import default_words, field_words, table, unit
from pipeline.topologies import lifecycle, outbreak, silence, spray

HEAD: Final = """# Detectors

Each scores its surprise in bits: -log2 of how likely what it saw was for this key. What it finds is a finding; findings
of one visit are weighed together and open incidents ([architecture](../architecture.md)). `simulate = true` in
`[detectors.<name>]` keeps a detector's findings and lets them weigh nothing.

"""
OTHERS: Final = """## Across keys

Of the topologies `sources` and `lifecycle`: their incidents name a source, a key or the fleet, and are never acted on
by themselves. They have no settings.

"""
TOPOLOGIES: Final = (spray, outbreak, silence, lifecycle)
PARTS: Final = ("Detects", "Misses", "False alarms", "Source")
KNOBS: Final = {
    "errors.cap_bits": "the most that one class is worth",
    "errors.outage_share": "where the median of a route's other keys fails this often, it is the API's own failure",
    "geography.travel_km_per_h": "faster than this between two places is no journey",
    "off_hours.cap_bits": "of a finding, the most",
    "off_hours.declared_prior_inside": "visits: declared hours are kept 19 times in 20 [judged]",
    "off_hours.odd_at_new_place": "the same where the visit comes from a new place",
    "off_hours.odd_in_run": "the same where the key had an odd hour within three days",
    "spike.cap_bits": "of evidence, the most that volume is worth",
    "spike.drift_listed": "times the anchor, over a week of use: from here on it is listed; 9 innocent episodes",
}
"""What a knob does that has no comment, or half of one: a comment in `detectors/` recompiles all of them."""


def page() -> str:
    """Markdown."""
    own = "\n".join(_detector(detector) for detector in DETECTORS)
    return HEAD + own + "\n" + OTHERS + "\n".join(_topology(module) for module in TOPOLOGIES)


def parts_of(module: ModuleType) -> tuple[str, dict[str, str]]:
    """The docstring's first sentence, and its paragraphs Detects, Misses, False alarms, Source."""
    text = inspect.getdoc(module) or ""
    first, _, rest = text.partition("\n\n")
    found = re.findall(
        rf"^({'|'.join(PARTS)}): (.*?)(?=^(?:{'|'.join(PARTS)}): |\n\n|\Z)", rest, re.DOTALL | re.MULTILINE
    )
    return " ".join(first.split()), {name: " ".join(words.split()) for name, words in found}


def knobs_of(detector: Detector) -> Iterator[tuple[Any, str]]:
    """(field, what it does) of each knob."""
    kind: Any = type(detector.config)
    said = field_words(kind)
    for field in msgspec.structs.fields(detector.config):
        yield field, KNOBS.get(f"{detector.name}.{field.name}", "") or said[field.name]


def _detector(detector: Detector) -> str:
    module = importlib.import_module(detector.score.__module__)
    rows = [(f"`{field.name}`", default_words(field), unit(field), words) for field, words in knobs_of(detector)]
    knobs = table((f"`[detectors.{detector.name}]`", "default", "unit", "what it does"), rows) if rows else ""
    return _text(detector.name, module, f"Family {detector.family}, counted in {detector.unit}. ") + knobs


def _topology(module: ModuleType) -> str:
    return _text(module.__name__.rpartition(".")[2], module, "", "###")


def _text(name: str, module: ModuleType, about: str, level: str = "##") -> str:
    first, parts = parts_of(module)
    listed = "".join(f"- **{part}**: {words}\n" for part, words in parts.items())
    return f"{level} {name}\n\n{first} {about}\n\n{listed}\n".replace(" \n", "\n")
