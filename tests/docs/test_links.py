"""Links between documents lead somewhere, and every document can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.reading import LINKED, ROOT, anchors, links

INDEX = ROOT / "deploy" / "docs" / "README.md"


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(path: Path) -> None:
    for target in links(path):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_document_is_reached_from_the_index() -> None:
    listed = {(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)}
    assert {path for path in LINKED if path != INDEX} <= listed


def test_what_stands_in_code_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("# A b, c!\n`[x](y)` [z](w#a)\n```\n[q](r)\n```\n")
    assert links(tmp_path / "x.md") == ["w#a"]
    assert anchors(tmp_path / "x.md") == {"a-b-c"}
