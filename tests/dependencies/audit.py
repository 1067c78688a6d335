"""`make audit`: known vulnerabilities of what `constraints.txt` pins, by the package index that pip is set to.

An index that speaks PyPI's JSON API answers INDEX/pypi/NAME/VERSION/json with a list `vulnerabilities`; many mirrors
don't. The first few are asked alone: where none has such a list, nothing was checked and that is said. Exit code 1 for
a vulnerability that `accepted.toml` gives no reason for, else 0: an index that is away is no fault of a change.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

ROOT: Final = Path(__file__).parents[2]
ACCEPTED: Final = Path(__file__).with_name("accepted.toml")
PROBES: Final = 3
AT_ONCE: Final = 8
TIMEOUT_S: Final = 10.0
MOST_S: Final = 120.0  # of all; what is not asked by then is counted as not checked
MOST_BYTES: Final = 16 << 20  # the files of a release with hundreds of wheels are in the answer, too

Pin = tuple[str, str]  # name, version
Known = dict[str, Any]
"""One entry of PyPI's list: id, aliases, fixed_in, summary, withdrawn."""


def pins(text: str) -> list[Pin]:
    """Of a constraints file."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in text.splitlines())
    return [(name.strip(), version.strip()) for name, found, version in (x.partition("==") for x in lines) if found]


def json_api(index: str) -> str:
    """Where the JSON API is beside an index: .../simple -> .../pypi."""
    return index.rstrip("/").removesuffix("/simple") + "/pypi"


def configured_index() -> str:
    """`index-url` as pip takes it from its files and PIP_INDEX_URL, or pip's own."""
    from pip._internal.commands import create_command

    return str(create_command("download").parser.get_default_values().index_url)


def known(api: str, pin: Pin) -> list[Known] | None:
    """What is known against it, nothing withdrawn; None: the index can't tell."""
    url = f"{api}/{pin[0]}/{pin[1]}/json"
    if urlsplit(url).scheme not in ("http", "https"):
        return None
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            told = json.loads(answer.read(MOST_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    found = told.get("vulnerabilities") if isinstance(told, dict) else None
    if not isinstance(found, list):
        return None
    return [each for each in found if isinstance(each, dict) and not each.get("withdrawn")]


def audit(
    wanted: list[Pin], ask: Callable[[Pin], list[Known] | None], accepted: dict[str, str]
) -> tuple[list[str], int]:
    """(lines to print, exit code)."""
    if bare := [name for name, reason in accepted.items() if not str(reason).strip()]:
        return [f"{ACCEPTED.name}: no reason is given for {', '.join(bare)}"], 1
    until = time.monotonic() + MOST_S

    def in_time(pin: Pin) -> list[Known] | None:
        return ask(pin) if time.monotonic() < until else None

    answers = [in_time(pin) for pin in wanted[:PROBES]]
    if all(answer is None for answer in answers):
        return ["skipped: the package index gives no list of vulnerabilities here; nothing was checked"], 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers += pool.map(in_time, wanted[PROBES:])
    found = [(pin, each) for pin, answer in zip(wanted, answers, strict=True) for each in answer or ()]
    lines, bad = [], 0
    for (name, version), each in found:
        names = {str(each.get("id", "")), *map(str, each.get("aliases") or ())}
        reason = next((accepted[one] for one in sorted(names) if one in accepted), "")
        bad += not reason
        fixed = ", ".join(map(str, each.get("fixed_in") or ())) or "no release yet"
        words = f"accepted: {reason}" if reason else str(each.get("summary") or "")
        lines.append(f"{name} {version}: {' '.join(sorted(names))}, fixed in {fixed}: {words}")
    silent = sum(answer is None for answer in answers)
    lines.append(f"{len(wanted) - silent} of {len(wanted)} pinned checked: {bad} known vulnerabilities stand")
    if silent:
        lines.append(f"{silent} not checked: the index gave no list for them")
    return lines, 1 if bad else 0


def main() -> int:
    api = json_api(configured_index())
    accepted = tomllib.loads(ACCEPTED.read_text())
    lines, code = audit(pins((ROOT / "constraints.txt").read_text()), lambda pin: known(api, pin), accepted)
    print("\n".join(lines))  # noqa: T201 (a tool's output)
    return code


if __name__ == "__main__":
    sys.exit(main())
