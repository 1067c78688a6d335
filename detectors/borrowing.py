"""Compiled code without reference counts (`_nrt=False`) may borrow arrays, never own one: here numba is told to look.

It refuses by itself what makes an array. Of a call that returns a new one it says nothing: nobody would give that
back (measured: 80 KB lost at each call). An array that is handed back is worse: a caller with counts gives back what it
still uses, and the heap breaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import TypingError, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.typed_passes import NopythonTypeInference


@register_pass(mutates_CFG=False, analysis_only=True)
class OwnsNothing(AnalysisPass):
    """Raises TypingError where a function calls one of ours that returns an array, or returns one."""

    _name = "owns_nothing"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Behind type inference, so types are known."""
        models = state.targetctx.data_model_manager
        for what, kind in [(state.func_id.func_name, state.return_type), *_calls(state)]:
            if models.lookup(kind).contains_nrt_meminfo():
                raise TypingError(f"{state.func_id.func_name}: {what} returns {kind}: take `allocating`")
        return False


def _calls(state: Any) -> Iterator[tuple[str, Any]]:
    """(called, type of what it returns), of calls of compiled functions."""
    for call, signature in state.calltypes.items():
        called = state.typemap.get(call.func.name) if getattr(call, "op", "") == "call" else None
        if isinstance(called, types.Dispatcher):
            yield called.dispatcher.py_func.__name__, signature.return_type


class Borrowing(CompilerBase):
    """Numba's own way, and that look."""

    def define_pipelines(self) -> list[Any]:
        """One."""
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(OwnsNothing, NopythonTypeInference)
        passes.finalize()
        return [passes]
