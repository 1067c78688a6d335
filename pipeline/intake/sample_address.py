"""Whose word a sample's client addresses are: which hop was taken, what was not believed, and what to set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

from pipeline.finding import Finding
from pipeline.formats import Options
from pipeline.formats.client_address import client_address, is_inner, walk
from pipeline.formats.envelope import json_records, line_records
from pipeline.formats.format import Format, Hops
from pipeline.formats.registry import as_read

MOST_RECORDS: Final = 2000
PROXIES: Final = "intake.trusted_proxies"
HOW: Final = "deploy/docs/howto/behind-a-proxy.md"


def whose_word(raw: bytes, format: Format, options: Options) -> Iterator[Finding]:
    """Where the format has addresses from, each way in which they were taken with an example, and what is blind."""
    ways: Counter[str] = Counter()
    examples: dict[str, str] = {}
    inner = 0
    for hops in _hops(raw, format):
        way, example = _way(hops, options)
        ways[way] += 1
        examples.setdefault(way, example)
        taken = client_address(hops, options.trusted_proxies)
        inner += bool(taken) and is_inner(taken)
    yield Finding("ok", "address", f"read from {format.address}")
    for way, count in ways.most_common():
        yield Finding("ok", "address", f"{count} x {way}: {examples[way]}")
    if inner:
        text = f"{inner} of {ways.total()} are of inner networks, of which geography says nothing: a proxy's?"
        yield Finding("warn", "address", text, f"set {PROXIES} to what stands before the gateway ({HOW})")


def _hops(raw: bytes, format: Format) -> Iterator[Hops]:
    if format.lines:
        yield from (format.hops(line) for line in islice(line_records(raw), MOST_RECORDS) if isinstance(line, str))
        return
    for record in islice(json_records(raw), MOST_RECORDS):
        if isinstance(record, dict):
            yield format.hops(as_read(record, format))


def _way(hops: Hops, options: Options) -> tuple[str, str]:
    """How one record's address was found, and the addresses that show it."""
    seen = list(walk(hops, options.trusted_proxies))
    if not seen or not seen[0].address:
        return "none: the peer is no address", "a name, or nothing"
    peer, taken = seen[0].address, client_address(hops, options.trusted_proxies)
    if not seen[0].trusted:
        said = client_address(Hops(hops.forwarded), ())
        if said in ("", peer):
            return "the peer", peer
        return f"the peer, not in {PROXIES}: whom it names is not believed", f"{peer}, and not {said}"
    if not seen[-1].address:
        return f"the last in {PROXIES} before what is no address", taken
    if seen[-1].trusted:
        return f"the farthest: all are in {PROXIES}", taken
    return f"the first from the right that is not in {PROXIES}", f"{taken}, told by {seen[-2].address}"
