"""This program's next release, as a rolling upgrade meets it: of another layout of state, or of another page format.

It judges as this one does, and says that its side inputs are of another version, as every release does.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from pipeline import flow
from pipeline.core import Effects, Slice
from pipeline.state import checkpoint, manifest
from pipeline.state.manifest import ENTRY, FORMAT, Manifest, manifest_bytes
from pipeline.state.pages import PagedArray

LAYOUT: Final = "layout"
PAGES: Final = "pages"
"""Releases, as KW_RELEASE names them. Both have a table more; `PAGES` writes its state in a page format of its own."""


class Core(flow.KeyCore):
    """With a table more: how many events the partition has had."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._events = PagedArray("events_had", np.dtype([("count", "<i8")]), 64)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Today's and the new one."""
        return (*super().arrays, self._events)

    def process(self, batch: Slice) -> Effects:
        """As today."""
        self._events.used = 1
        self._events.data["count"][0] += len(batch.offsets)
        self._events.touch(np.zeros(1, np.int64))
        return super().process(batch)


def install(release: str) -> None:
    """This process is of that release. Before its core is opened."""
    flow.open_core = Core  # type: ignore[assignment]
    if release == PAGES:
        manifest.ENTRY_OF_FORMAT[FORMAT + 1] = ENTRY
        checkpoint.manifest_bytes = _later  # type: ignore[assignment,attr-defined]


def _later(written: Manifest) -> bytes:
    return manifest_bytes(msgspec.structs.replace(written, format=FORMAT + 1))
