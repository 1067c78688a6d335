"""From which offset on a partition is judged with which version of a side input: the rows that say so."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core import Rows, Sides
from pipeline.state import Meta


def versions(sides: Sides) -> dict[str, str]:
    """Side input -> its version; the names are fields of `Meta`."""
    return {"catalogue": sides.catalogue.version, "geo": sides.geo.build, "config": sides.config_version}


def rows(meta: Meta, names: Sequence[str], topic: str, epoch: str, partition: int) -> Rows:
    """`adoptions` of these inputs as the state has adopted them last; nothing where there are none."""
    n, first = len(names), [meta.adopted[name] for name in names]
    if not n:
        return {}
    return {"adoptions": {
        "topic": [topic] * n, "epoch": [epoch] * n, "partition": [partition] * n, "offset": first,
        "input": list(names), "version_id": [getattr(meta, name) for name in names], "version": list(first),
    }}  # fmt: skip
