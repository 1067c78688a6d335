"""Asks the processor for the record of the key that comes next, while the present event is judged.

A key's record is 29 lines of the cache, and of a thousand keys most lie outside of the processor's own: read one after
the other as the detectors come to them, each is waited for. Nothing is read or written here, so nothing can be
different.
"""

from __future__ import annotations

from typing import Any, Final

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from detectors.compile import compiled

LINE: Final = 64
"""Bytes of a line of the cache; where it is longer, some are asked for twice."""
READ, KEEP, DATA = (ir.IntType(32)(value) for value in (0, 3, 1))


def _ask(typingctx: Any, record: Any) -> Any:
    """LLVM's `prefetch` of each line of a record, as numba takes it: (signature, what makes the code)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, READ.type, KEEP.type, DATA.type])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        first = builder.bitcast(arguments[0], byte)
        for offset in range(0, record.size, LINE):
            builder.call(ask, [builder.gep(first, [ir.IntType(32)(offset)]), READ, KEEP, DATA])
        return context.get_dummy_value()

    return types.none(record), generate


def _nothing(record: Any) -> None:
    """Plain Python has nobody to ask."""


prefetch: Final[Any] = _nothing if numba.config.DISABLE_JIT else intrinsic(_ask)  # type: ignore[attr-defined]


@compiled
def fetch_next(keys: Any, events: Any, i: int) -> None:
    """Of the event behind `i`, if there is one and its key has state."""
    if i + 1 < len(events) and events[i + 1].slot >= 0:
        prefetch(keys[events[i + 1].slot])
