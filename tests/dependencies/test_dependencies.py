"""What we depend on may be given on under Apache-2.0, is pinned, and stands in the bill of materials."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.dependencies.installed import needed
from tests.dependencies.sbom import bill

PERMISSIVE = re.compile(
    r"Apache|MIT|0?BSD|ISC|PSF|Python Software Foundation|Zlib|CC0|Unlicense|LLVM-exception", re.IGNORECASE
)
RESTRICTIVE = re.compile(r"A?GPL|Affero|SSPL|BUSL|Commons Clause|CC-BY-NC|Proprietary|Other/Proprietary", re.IGNORECASE)

EXCEPTIONS = {
    "certifi": "MPL-2.0: weak copyleft of its own files (the CA list), which we neither change nor ship",
    "hypothesis": "MPL-2.0: for tests only",
    "pathspec": "MPL-2.0: mypy's, for checks only",
    "venusian": "Repoze Public License: a BSD licence with another name, approved as permissive by Fedora",
}
"""Distribution -> why it may be needed though its licence is not on the list."""


def test_no_dependency_has_a_licence_that_apache_2_0_can_not_go_with() -> None:
    odd = {}
    for part in needed():
        fine = all(PERMISSIVE.search(text) and not RESTRICTIVE.search(text) for text in part.licences)
        if not fine:
            odd[part.name] = part.licences
    assert odd.keys() == EXCEPTIONS.keys() & odd.keys(), {name: odd[name] for name in odd.keys() - EXCEPTIONS.keys()}
    assert not {name for name in EXCEPTIONS if name not in odd}, "an exception that is none any more"


def test_exceptions_are_not_of_a_kind_that_binds_our_code() -> None:
    chosen = [part for part in needed() if part.name in EXCEPTIONS]
    assert not [part.name for part in chosen if any(RESTRICTIVE.search(text) for text in part.licences)]


def test_everything_that_is_needed_is_pinned() -> None:
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}
    assert {part.name for part in needed()} - pinned == set()


def test_the_bill_names_every_part_once_with_version_licence_and_place() -> None:
    components = bill()["components"]
    references = [component["bom-ref"] for component in components]
    assert len(set(references)) == len(references) > 40
    assert {"msgspec", "numba", "aiokafka", "faust-streaming"} <= {component["name"] for component in components}
    for component in components:
        assert re.fullmatch(r"pkg:(pypi|npm)/[a-z0-9.-]+@[\w.+!-]+", component["purl"])
        assert component["licenses"][0]["license"].keys() & {"name", "id"}


def test_the_bill_names_what_the_console_brings_along_with_a_licence_that_apache_2_0_can_go_with() -> None:
    brought = {each["name"]: each for each in bill()["components"] if each["purl"].startswith("pkg:npm/")}
    assert brought.keys() == {"htmx.org", "uplot"}
    for part in brought.values():
        assert PERMISSIVE.search(part["licenses"][0]["license"]["id"])
        assert all(len(each["hashes"][0]["content"]) == 64 for each in part["components"])


def test_the_bills_dependencies_point_at_parts_of_it() -> None:
    document = bill()
    known = {component["bom-ref"] for component in document["components"]}
    assert {name for entry in document["dependencies"] for name in entry["dependsOn"]} <= known
