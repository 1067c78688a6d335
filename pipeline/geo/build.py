"""Builds the database that ships with the package: `python -m pipeline.geo.build [location.db]`.

Source: Debian's `libloc-database` (IPFire Location, CC BY-SA 4.0), a binary radix tree over IPv6 with IPv4 under
::ffff:0:0/96; layout as in libloc's `src/libloc/format.h`. Every node may carry a network, which holds for all
below it. Here the tree is pushed down to its leaves, equal neighbours are merged and equal subtrees are stored once
(an MMDB allows a node to have several parents), which is what brings 55 MB down to the size of the shipped file.
IPv6 is cut at /48: nobody announces less, and enrichment keeps no longer prefix. Which systems rent out machines is
not in the file: `provider` takes that from hosting.csv, for databases of all makers alike.

The same input gives the same bytes: the build epoch is the source's date, not today's.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mmdb_writer import SearchTreeLeaf, SearchTreeNode, TreeWriter

from detectors.detector import NET_ANYCAST, NET_PROXY, NET_SATELLITE

SOURCE: Final = Path("/usr/share/libloc-location/location.db")
DATA: Final = Path(__file__).parent / "data"
TARGET: Final = DATA / "keywatch-geo.mmdb"
DEEPEST: Final = 48
"""Longest IPv6 prefix that is kept, in bits; IPv4 keeps all 32."""
NO_NETWORK: Final = 0xFFFFFFFF
NET_HOSTILE: Final = 64
"""IPFire's flag "drop": networks that are hijacked or leased by criminals. In the file; not among the event's flags."""
FLAGS: Final = ((1, NET_PROXY), (2, NET_SATELLITE), (4, NET_ANYCAST), (8, NET_HOSTILE))

Branch = SearchTreeNode | SearchTreeLeaf | None
Value = tuple[str, int, int]
"""Country ("" is none), autonomous system (0 is none), flags."""


@dataclass(frozen=True)
class Source:
    """The parts of a location.db, version 1; all numbers big endian."""

    raw: bytes
    created_s: int
    systems_at: int
    systems: int
    networks_at: int
    nodes_at: int
    nodes: int
    pool_at: int

    def text(self, offset: int) -> str:
        """A string of the pool."""
        start = self.pool_at + offset
        return self.raw[start : self.raw.index(b"\0", start)].decode("utf-8", "replace")

    def names(self) -> dict[int, str]:
        """Autonomous system -> its name."""
        pairs = struct.iter_unpack(">II", self.raw[self.systems_at : self.systems_at + 8 * self.systems])
        return {number: self.text(name) for number, name in pairs}


def read_source(path: Path) -> Source:
    """Raises ValueError where the file is no location database of version 1."""
    raw = path.read_bytes()
    if raw[:8] != b"LOCDBXX\x01":
        raise ValueError(f"{path} is not a libloc database of version 1")
    head = struct.unpack_from(">Q13I", raw, 8)
    return Source(raw, head[0], head[4], head[5] // 8, head[6], head[8], head[9] // 12, head[12])


@dataclass
class Forest:
    """Grows the target tree; equal subtrees are one object, so that they are written once."""

    source: Source
    names: dict[int, str]
    leaves: dict[Value, SearchTreeLeaf] = field(default_factory=dict)
    nodes: dict[tuple[int, int], SearchTreeNode] = field(default_factory=dict)

    def leaf(self, value: Value) -> SearchTreeLeaf | None:
        """The leaf of this value; None where nothing is known."""
        country, asn, flags = value
        if not country and not asn and not flags:
            return None
        if value not in self.leaves:
            body: dict[str, Any] = {"country": country, "asn": asn, "flags": flags, "name": self.names.get(asn, "")}
            self.leaves[value] = SearchTreeLeaf({name: part for name, part in body.items() if part})
        return self.leaves[value]

    def join(self, left: Branch, right: Branch) -> Branch:
        """A node over two branches, or the branch itself where both are the same leaf."""
        if left is right and not isinstance(left, SearchTreeNode):
            return left
        key = (id(left), id(right))
        if key not in self.nodes:
            self.nodes[key] = SearchTreeNode(left, right)
        return self.nodes[key]

    def value(self, network: int, above: Value) -> Value:
        """What network number `network` says, or what holds above it."""
        if network == NO_NETWORK:
            return above
        letters, asn, bits = struct.unpack_from(">2s2xIH", self.source.raw, self.source.networks_at + 12 * network)
        country = letters.decode("ascii", "replace")
        known = country.isalpha() and country not in ("XX", "XD", "EU", "AP")
        return country if known else "", asn, sum(flag for bit, flag in FLAGS if bits & bit)

    def grow(self, node: int, bits_left: int, above: Value) -> Branch:
        """The branch of one node of the source."""
        zero, one, network = struct.unpack_from(">3I", self.source.raw, self.source.nodes_at + 12 * node)
        value = self.value(network, above)
        if bits_left == 0 or not (zero or one):
            return self.leaf(value)
        left = self.grow(zero, bits_left - 1, value) if zero else self.leaf(value)
        right = self.grow(one, bits_left - 1, value) if one else self.leaf(value)
        return self.join(left, right)


def v4_node(source: Source) -> int:
    """The source's node of ::ffff:0:0/96; raises ValueError where there is none."""
    node = 0
    for depth in range(96):
        children = struct.unpack_from(">2I", source.raw, source.nodes_at + 12 * node)
        node = children[0 if depth < 80 else 1]
        if not node:
            raise ValueError("the database has no IPv4 networks")
    return node


def without_v4(source: Source, forest: Forest) -> Branch:
    """The IPv6 tree. It is cut at /48, above the IPv4 part, whose prefix then says nothing."""
    return forest.grow(0, DEEPEST, ("", 0, 0))


def plant(tree: Branch, v4: Branch) -> SearchTreeNode:
    """Put IPv4 at ::/96, where MMDB readers look for it; what the source has in ::/8 else is dropped."""
    right_sides: list[Branch] = []
    node = tree
    for _ in range(8):
        right_sides.append(node.right if isinstance(node, SearchTreeNode) else None)
        node = node.left if isinstance(node, SearchTreeNode) else None
    branch = v4
    for _ in range(88):
        branch = SearchTreeNode(branch, None)
    for right in reversed(right_sides):
        branch = SearchTreeNode(branch, right)
    assert isinstance(branch, SearchTreeNode)
    return branch


def build(source_path: Path = SOURCE, target: Path = TARGET) -> None:
    """Write the database; raises ValueError or OSError."""
    source = read_source(source_path)
    forest = Forest(source, source.names())
    tree = plant(without_v4(source, forest), forest.grow(v4_node(source), 32, ("", 0, 0)))
    TreeWriter(tree, metadata("keywatch-libloc", "IPFire Location via Debian libloc-database", source.created_s)).write(
        str(target)
    )


def metadata(name: str, text: str, created_s: int) -> dict[str, Any]:
    """The fixed parts of an MMDB's metadata."""
    return {
        "ip_version": 6,
        "database_type": name,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "description": {"en": f"{text}, CC BY-SA 4.0"},
        "build_epoch": created_s,
    }


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
