"""The one decorator of everything that runs per event: `from detectors.compile import compiled`.

Compiled functions may call one another. Numba's disk cache sees a change in a function's own file, not in the files
of the functions it calls, so the cache folder's name is a hash of all that compiled code comes from (`cache_name`): an
upgrade has a folder of its own and never meets what another version left. With `NUMBA_DISABLE_JIT=1` the decorator is
the identity and the same code runs as ordinary Python.

Rules for compiled code, so that both ways give the same bits (measured, tests/detectors/test_compile.py):
 - read a record's field through `float(...)` or `int(...)`: numpy keeps `float32 * 2.0` in 32 bits, numba does not;
   two 32-bit fields in one operation through `np.float64(...)`: numba's `float` of 32 bits has 32 bits;
 - no fastmath, no `**` on floats, no `math.pow`, `lgamma`, `expm1`, `log1p`: only + - * /, sqrt, floor, exp, log;
 - divide only where the divisor cannot be 0: both raise, and a raise in the pass ends the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import llvmlite
import numba
import numpy as np
from llvmlite import binding as llvm
from numba.core.registry import cpu_target

from detectors.borrowing import Borrowing
from detectors.cache_folder import find_folder

P = ParamSpec("P")
R = TypeVar("R")
_TAKES: Final = re.compile(
    rb"^from detectors\.compile import (\([^)]*|.*)\b(compiled|brief|inlined|allocating)\b", re.MULTILINE
)
GIVES: Final = ("schemas/event.py", "pipeline/state/partition.py")
"""Sources without compiled functions that give constants to some: bounds of an event's fields, a key's book."""


def source_hash(folder: Path) -> str:
    """Hash of all Python sources of a folder (not below it), of Python's and numba's version: 16 hex digits."""
    digest = hashlib.sha256(f"{sys.version_info[:3]} {numba.__version__}".encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def cache_name(root: Path = Path(__file__).parents[1]) -> str:
    """The folder of this very code: 16 hex digits.

    Of all sources of `detectors`, those of `pipeline` that have compiled functions and `GIVES` (a test asks that these
    take constants from nowhere else, directly or not), the versions of Python and of what compiles, and the CPU.
    """
    parts = [source_hash(root / "detectors"), llvmlite.__version__, np.__version__, cpu()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in (*compiled_files(root / "pipeline"), *(root / name for name in GIVES)):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def compiled_files(folder: Path) -> list[Path]:
    """The Python sources at or below a folder that take the decorator from here."""
    return [path for path in sorted(folder.rglob("*.py")) if _TAKES.search(path.read_bytes())]


def cpu() -> str:
    """The CPU and features that numba compiles for: this machine's, if NUMBA_CPU_NAME says no other."""
    name, features = numba.config.CPU_NAME, numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    found = llvm.get_host_cpu_features().flatten() if features is None else features
    return f"{name or llvm.get_host_cpu_name()} {found}"


def use_cache() -> tuple[bool, list[str]]:
    """Point numba at this version's own folder, and say which places won't do; False: each start compiles anew."""
    folder, refused = find_folder(cache_name())
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # set from the environment at import
    return folder is not None, refused


def link_bare(*names: str) -> None:
    """Have compiled code call the C library's functions without what looks at each result for the sake of `errno`.

    glibc for x86 names them `__exp_finite` and so on, and calls them itself behind `exp`: the same bits, and 4 % of the
    pass less (measured). Another C library has no such names, and all stays as it is.
    """
    assert cpu_target.target_context is not None  # made here at the latest: numba has linked its own by now
    find = getattr(ctypes.CDLL(None), "dlvsym", None)
    if find is None:
        return
    find.restype, find.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
    for name in names:
        if address := find(None, f"__{name}_finite".encode(), b"GLIBC_2.15"):
            llvm.add_symbol(name, address)


CACHED, REFUSED = use_cache()
link_bare("exp", "log")
_BORROWS: Final = {"_nrt": False, "pipeline_class": Borrowing}


def _njit(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    """What all of them share."""
    decorated: Callable[P, R] = numba.njit(cache=CACHED, fastmath=False, **options)(function)
    return decorated


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first call, nopython, without fastmath, releasing the GIL when called from Python.

    For what makes no array, returns none and is handed none by those whom it calls (`allocating`): else it is refused
    (`borrowing.py`). Without `_nrt=False` it counts references to every array at every call and assignment, loops and
    all: the scanner of events (`pipeline/scan.py`) took 1,300 ns an event with that and takes 140 without, the
    detectors 840 and 690.
    """
    return _njit(function, nogil=True, no_cfunc_wrapper=True, **_BORROWS)


def brief(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, but the GIL is kept: for calls of some microseconds, behind which another thread might have it."""
    return _njit(function, no_cfunc_wrapper=True, **_BORROWS)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, and put into its callers: for what runs per byte, where a call costs more than its work."""
    return _njit(function, nogil=True, forceinline=True, **_BORROWS)


def allocating(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, for what makes arrays or is handed new ones."""
    return _njit(function, nogil=True, no_cfunc_wrapper=True, _nrt=True)
