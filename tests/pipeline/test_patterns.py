"""No regular expression that a module keeps can take for ever over what somebody else wrote.

In a repeat without end a repeat of varying length may share one text out in ever so many ways, all of which are tried
before it is said that nothing fits. Possessive repeats (`++`) have one way. Two repeats side by side can still take the
square of a text's length: of those, only what was met is tested.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import detectors
import pipeline
import schemas
from pipeline.asking import spreadsheet
from pipeline.routes import RULES

LOOKED_AT: Final = {
    "_HOURS": "a digit, or a comma and a digit",
    "_PREFIXED": "each turn ends with its dash, and no letter is one",
    "RULES": "each turn begins with its dot, and no digit is one",
}
"""Name of the pattern: why one text can be shared out in one way only."""
ASIDE: Final = ("pipeline.bench.", "pipeline.demo.", "pipeline.evaluation.")
"""Of these only developers are hurt."""


def repeats_in_repeats(parsed: Any, inside: bool = False) -> bool:
    """Whether a repeat of varying length is in one that may be had many times."""
    for kind, value in parsed:
        if kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT):
            least, most, of = value
            if (inside and least != most) or repeats_in_repeats(of, inside or most > 10):
                return True
        elif any(repeats_in_repeats(of, inside) for of in parts(kind, value)):
            return True
    return False


def parts(kind: Any, value: Any) -> list[Any]:
    """What is parsed inside of a group, a choice or a look; a possessive repeat is none to be looked into."""
    if str(kind) == "BRANCH":
        return list(value[1])
    return [value[-1]] if str(kind) in ("SUBPATTERN", "ASSERT", "ASSERT_NOT") else []


def patterns(value: Any, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    """In a module's value, and in what that holds."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, (dict, list, tuple, set, frozenset)):
        for each in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from patterns(each, depth - 1)


def test_no_repeat_varies_within_a_repeat() -> None:
    found: dict[Any, str] = {}
    for package in (detectors, pipeline, schemas):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.startswith(ASIDE) and not module.name.endswith("__main__"):
                for name, value in vars(importlib.import_module(module.name)).items():
                    found |= {each.pattern: name for each in patterns(value) if each.pattern not in found}
    assert len(found) > 50
    nested = {name for text, name in found.items() if repeats_in_repeats(_parser.parse(text))}
    assert nested == set(LOOKED_AT)


@pytest.mark.parametrize("text", [r"(?:[0-9]{1,8})*", r"([a-z]+,?)*;", r"(?:a|b+)*", r"(?=(a+)+b)"])
def test_a_repeat_within_a_repeat_is_seen(text: str) -> None:
    assert repeats_in_repeats(_parser.parse(text))


@pytest.mark.parametrize("text", [r"(?:[0-9]++)*", r"[a-z]+-[0-9]*", r"(?:ab){0,9}c+", r"(?:a|bc)*"])
def test_other_repeats_are_let_be(text: str) -> None:
    assert not repeats_in_repeats(_parser.parse(text))


@given(st.text("a.@/ ", max_size=12))
def test_an_address_of_mail_is_told_as_by_the_plain_expression(text: str) -> None:
    """Which took two milliseconds for a path of 1,024 characters."""
    (mail,) = (pattern for pattern, name in RULES if name == "{email}")
    assert bool(mail.fullmatch(text)) == bool(re.fullmatch(r"[^@/]+@[^@/]+\.[^@/]+", text))


@given(st.text("a;= \t-", max_size=12))
def test_cells_that_a_spreadsheet_would_begin_are_those_of_the_plain_expression(text: str) -> None:
    """Which took the square of a run of tabs."""
    assert spreadsheet.text("a" + text) == "a" + re.sub("([;\t]\\s*)([=+@-])", r"\1'\2", text)
