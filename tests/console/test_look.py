"""Colours of the style sheet against each other, without a browser; and what the sheet must have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pipeline.console

SHEET = (Path(pipeline.console.__file__).parent / "static" / "console.css").read_text()
WORDS = [
    (name, behind) for behind in ("back", "box") for name in ("text", "muted", "link", "critical", "high", "medium")
]
WORDS += [("text", "band"), ("on", "link")]
SHAPES = [(name, behind) for behind in ("back", "box") for name in ("bar", "bad", "link", "muted", "high")]


def colours(scheme: str) -> dict[str, tuple[float, ...]]:
    blocks = re.findall(r":root \{(.*?)\}", SHEET, re.DOTALL)
    assert len(blocks) == 2
    found = re.findall(r"--(\w+): #([0-9a-f]{6})", blocks[scheme == "dark"])
    return {name: tuple(int(hexa[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, hexa in found}


def light(colour: tuple[float, ...]) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def ratio(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    darker, lighter = sorted((light(one), light(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_have_four_and_a_half_to_one_and_shapes_three(scheme: str) -> None:
    known = colours(scheme)
    poor = {
        pair: ratio(known[pair[0]], known[pair[1]]) for pair in WORDS if ratio(known[pair[0]], known[pair[1]]) < 4.5
    }
    assert poor == {}
    poor = {pair: ratio(known[pair[0]], known[pair[1]]) for pair in SHAPES if ratio(known[pair[0]], known[pair[1]]) < 3}
    assert poor == {}


def test_the_two_schemes_name_the_same_colours_and_no_rule_names_one_of_its_own() -> None:
    assert colours("light").keys() == colours("dark").keys()
    rules = re.sub(r":root \{.*?\}", "", SHEET, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == []
    assert set(re.findall(r"var\(--(\w+)\)", rules)) <= colours("light").keys()


def test_a_known_pair_has_the_ratio_that_the_standard_gives_it() -> None:
    assert ratio((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert ratio((0x77 / 255,) * 3, (1, 1, 1)) == pytest.approx(4.48, abs=0.01)
