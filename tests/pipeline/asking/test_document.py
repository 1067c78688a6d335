"""Whatever a caller of the API chose to be called, a report shows it as text and nothing else."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.asking.document import Block, Bullets, Heading, Paragraph, Steps, Table, markdown, page, shell, terminal

HOSTILE = (
    "<script>alert(1)</script>", "\x1b]0;owned\x07\x1b[2J", "[click](https://evil.example/)", "| a | b |", "`rm -rf /`",
    "![x](http://evil.example/x.png)", "@everyone", "\u202egnp.exe", "a\nb\r\n# heading", '" onmouseover="alert(1)',
    "&lt;b&gt;", "<img src=x onerror=alert(1)>", "www.evil.example", "- [x] done", "***", "<!--",
)  # fmt: skip


def blocks(text: str) -> list[Block]:
    return [
        Heading(text), Paragraph(text), Bullets((text, "b")), Table(("head", text), ((text, "cell"),)),
        Steps(((text, shell("keywatch", "investigate", text)),)),
    ]  # fmt: skip


class Seen(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(text: str) -> Seen:
    parser = Seen()
    parser.feed(page(blocks(text), text))
    return parser


PLAIN = seen("plain")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_adds_no_tag_to_a_page(text: str) -> None:
    parser = seen(text)
    assert (parser.tags, parser.attributes) == (PLAIN.tags, PLAIN.attributes)


@given(st.text(max_size=60))
def test_no_text_adds_a_tag_to_a_page(text: str) -> None:
    assert seen(text).tags == PLAIN.tags


def test_a_page_loads_and_runs_nothing() -> None:
    text = page(blocks("x"), "x")
    assert "default-src 'none'" in text
    assert not {"script", "link", "img", "iframe", "a", "form"} & set(PLAIN.tags)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_no_markup_in_markdown(text: str) -> None:
    written = markdown([Paragraph(text), Table(("a", "b"), ((text, "x"),))])
    assert len(written.splitlines()) == len(markdown([Paragraph("x"), Table(("a", "b"), (("x", "x"),))]).splitlines())
    for mark in ("<script", "<img", "<!--", "](", "://", "@everyone", "www.evil"):
        assert mark not in written
    row = written.splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


@given(st.text(max_size=60))
def test_no_text_steers_a_terminal(text: str) -> None:
    written = terminal(blocks(text), 80)
    assert all(letter.isprintable() or letter == "\n" for letter in written)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=40))
def test_a_key_in_a_command_is_one_word_of_a_shell(text: str) -> None:
    assert shlex.split(shell("keywatch", "investigate", "--", text)) == ["keywatch", "investigate", "--", text]


def test_a_command_in_markdown_can_not_leave_its_code_span() -> None:
    written = markdown([Steps((("look", shell("keywatch", "hunt", "--client", "a`b``c")),))])
    assert written == "- [ ] look: ``` keywatch hunt --client 'a`b``c' ```\n"
