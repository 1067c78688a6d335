"""Structured arrays as the detectors' functions take them: fields by attribute, compiled or not."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]


def reading_of(row: Any) -> Any:
    """A READING or FOUND record as `explain` takes it: fields by attribute and by name."""
    array = np.array([row], row.dtype)
    return array.view(_record_dtype(array.dtype))[0]


class Record(np.record):  # type: ignore[misc]  # final by numpy's stubs; numpy itself extends it
    """A numpy record whose fields come before numpy's own attributes (a field `clip` is no method), as compiled."""

    def __getattribute__(self, name: str) -> Any:
        fields = super().__getattribute__("dtype").fields or {}
        return self[name] if name in fields else super().__getattribute__(name)


def records(array: Array) -> Array:
    """The same memory; without the compiler, as numpy records, whose fields are attributes as in compiled code."""
    if not numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return array
    return array.view(_record_dtype(array.dtype))


def _record_dtype(dtype: np.dtype[Any]) -> Any:
    """The same layout with np.record in place of np.void, nested ones too."""
    assert dtype.names is not None and dtype.fields is not None
    formats = [_record_format(dtype.fields[name][0]) for name in dtype.names]
    offsets = [dtype.fields[name][1] for name in dtype.names]
    parts = {"names": list(dtype.names), "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
    return np.dtype((Record, np.dtype(parts)))  # type: ignore[call-overload]


def _record_format(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        return (_record_format(dtype.subdtype[0]), dtype.subdtype[1])
    return _record_dtype(dtype) if dtype.names is not None else dtype
