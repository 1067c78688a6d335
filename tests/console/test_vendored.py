"""What the console serves of others is what they published, with its licence, and nothing else is there."""

from __future__ import annotations

import hashlib

import pytest

from tests.console.vendored import CONSOLE, FOLDER, Part, vendored

PARTS = vendored()


def test_every_file_is_named_once_and_is_byte_for_byte_what_was_published() -> None:
    named = [(each.name, each.sha256) for part in PARTS for each in part.files]
    there = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in FOLDER.iterdir()]
    assert sorted(named) == sorted(there)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_says_its_version_itself_and_has_its_licence_beside_it(part: Part) -> None:
    texts = {each.name: (FOLDER / each.name).read_text() for each in part.files}
    assert any(f'version:"{part.version}"' in text or f"(v{part.version})" in text for text in texts.values())
    [licence] = [text for name, text in texts.items() if name.endswith(".LICENSE")]
    assert {"0BSD": "Zero-Clause BSD", "MIT": "The MIT License"}[part.licence] in licence


def test_pages_load_scripts_and_styles_from_here_only_and_each_of_them_is_used() -> None:
    pages = "".join(path.read_text() for path in (CONSOLE / "templates").iterdir())
    assert pages.count("<script") == pages.count('<script src="{{ static(')
    assert pages.count('rel="stylesheet"') == pages.count('rel="stylesheet" href="{{ static(')
    for name in (each.name for part in PARTS for each in part.files if not each.name.endswith(".LICENSE")):
        assert f'static("vendor/{name}")' in pages, name
