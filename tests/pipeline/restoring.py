"""What a checkpoint would hold goes over from one state to another, and nothing else."""

from __future__ import annotations

from typing import Any, TypeVar

C = TypeVar("C", bound=Any)


def carried(old: C, new: C, meta: bytes) -> C:
    """`new` after it: arrays block by block, blobs, then `meta`."""
    for source, target in zip(old.arrays, new.arrays, strict=True):
        for block in range(len(source.dirty)):
            target.load_block(block, source.block_bytes(block))
    for blobs, target_blobs in zip(old.blobs, new.blobs, strict=True):
        for row, value in blobs.rows.items():
            target_blobs.put(row, value)
    new.restore(meta)
    return new
