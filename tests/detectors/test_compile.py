"""detectors/compile.py: the decorator, its cache folder, and the promise that compiled and plain agree to the bit."""

from __future__ import annotations

import ast
import math
import re
import sys
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import pytest

from detectors import compile as compiling
from detectors.compile import allocating, brief, compiled, inlined


@compiled
def third_of(x: float) -> float:
    return x / 3.0


@compiled
def third_of_next(x: float) -> float:
    return third_of(x + 1.0)


def test_a_compiled_function_may_call_another() -> None:
    assert third_of_next(5.0) == 2.0


@allocating
def first_of_new(x: float) -> float:
    made = np.zeros(3)
    made[0] = x
    return made[0]


def test_a_compiled_function_may_call_one_that_makes_arrays_but_makes_none() -> None:
    @compiled
    def first(x: float) -> float:
        return first_of_new(x)

    @compiled
    def sized(n: int) -> int:
        return len(np.zeros(n))

    assert first(2.0) == 2.0
    with pytest.raises(numba.TypingError):
        sized(3)


@allocating
def new(n: int) -> Any:
    return np.zeros(n)


@pytest.mark.parametrize("decorator", [compiled, brief, inlined])
def test_what_counts_no_references_is_refused_an_array_of_its_own(decorator: Any) -> None:
    """Numba would compile the first, which loses the array, and the second, which breaks its caller's heap."""

    def first_of_new(n: int) -> Any:
        return new(n)[0]

    def handed_back(numbers: Any) -> Any:
        return numbers, 1

    for function, argument in ((first_of_new, 3), (handed_back, np.zeros(3))):
        with pytest.raises(numba.TypingError, match="take `allocating`"):
            decorator(function)(argument)


def test_a_compiled_function_counts_no_references() -> None:
    @compiled
    def last(numbers: Any) -> Any:
        return len(numbers)

    @compiled
    def total(numbers: Any) -> Any:
        out = 0
        for i in range(len(numbers)):
            out += last(numbers) + numbers[i]
        return out

    assert total(np.arange(3)) == 12
    [text] = total.inspect_llvm().values()  # type: ignore[attr-defined]
    assert "NRT_" not in text


def test_dividing_by_zero_raises_as_in_plain_python() -> None:
    @compiled
    def inverse(x: float) -> float:
        return 1.0 / x

    with pytest.raises(ZeroDivisionError):
        inverse(0.0)


def test_exp_and_log_are_python_s_to_the_bit() -> None:
    """Whichever of the C library's names compiled code calls them by (`link_bare`), and where they overflow, too."""

    @compiled
    def both(x: float, y: float) -> tuple[float, float]:
        return math.exp(x), math.log(y)

    rng = np.random.default_rng(1)
    for x in (0.0, -0.0, -745.2, -800.0, -math.inf, 709.7, *rng.uniform(-740.0, 709.0, 20_000)):
        y = math.exp(x) or 1.0
        assert both(x, y) == (math.exp(x), math.log(y)), x
    assert both(800.0, math.inf) == (math.inf, math.inf)


def test_a_change_in_any_source_of_the_folder_names_another_cache(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 1\n")
    before = compiling.source_hash(tmp_path)
    assert before == compiling.source_hash(tmp_path)
    (tmp_path / "b.py").write_text("y = 2\n")
    assert compiling.source_hash(tmp_path) != before


def _tree(root: Path) -> Path:
    """A small product: a detector, compiled functions of the pipeline, what gives them constants, and another file."""
    files = {
        "detectors/spike.py": "x = 1\n", "pipeline/below/sum.py": "from detectors.compile import compiled\n",
        "pipeline/long.py": "from detectors.compile import (\n    brief,\n    use_cache,\n)\n",
        "schemas/event.py": "b = 1\n", "pipeline/state/partition.py": "c = 1\n", "pipeline/page.py": "y = 1\n",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "matters"),
    [("detectors/spike.py", True), ("pipeline/below/sum.py", True), ("pipeline/long.py", True),
     ("schemas/event.py", True), ("pipeline/state/partition.py", True), ("pipeline/page.py", False)],
)  # fmt: skip
def test_a_change_in_what_is_compiled_names_another_cache_and_one_elsewhere_does_not(
    tmp_path: Path, name: str, matters: bool
) -> None:
    before = compiling.cache_name(_tree(tmp_path))
    assert re.fullmatch("[0-9a-f]{16}", before), "deploy/start knows old ones by that"
    with (tmp_path / name).open("a") as file:
        file.write("z = 2\n")
    assert (compiling.cache_name(tmp_path) != before) is matters


@pytest.mark.parametrize(
    ("of", "name"),
    [(numba, "__version__"), (np, "__version__"), (llvmlite, "__version__"), (numba.config, "CPU_NAME"),
     (numba.config, "CPU_FEATURES"), (sys, "version_info")],
)  # fmt: skip
def test_another_compiler_library_python_or_cpu_names_another_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any, name: str
) -> None:
    before = compiling.cache_name(_tree(tmp_path))
    monkeypatch.setattr(of, name, (3, 99, 0) if name == "version_info" else "another")
    assert compiling.cache_name(tmp_path) != before


def test_compiled_functions_of_the_pipeline_take_from_others_only_what_names_the_cache() -> None:
    """Numba puts the value of a constant into the code: all that it is made of must be known by the cache's name."""
    root = Path(compiling.__file__).parents[1]
    files = [*compiling.compiled_files(root / "pipeline"), *(root / name for name in compiling.GIVES)]
    known = {".".join(path.relative_to(root).with_suffix("").parts): _Module(path) for path in files}
    seen, todo = set[tuple[str, str]](), list[tuple[str, str]]()
    for module, found in known.items():
        todo += [(module, name) for function in found.compiled for name in _names(function)]
    while todo:
        module, name = todo.pop()
        if (module, name) in seen or module.partition(".")[0] not in ("pipeline", "schemas"):
            continue
        seen.add((module, name))
        assert module in known, f"compiled code has {name} of {module}"
        todo += known[module].made_of(module, name)
    assert len(seen) > 200
    assert ("schemas.event", "Event") in seen, "the bounds in `scan`"


class _Module:
    """What a source's names are made of."""

    def __init__(self, path: Path) -> None:
        body = ast.parse(path.read_text()).body
        self.taken = {each.asname or each.name: (node.module or "", each.name)
                      for node in body if isinstance(node, ast.ImportFrom) for each in node.names}  # fmt: skip
        self.taken |= {each.asname or each.name: (each.name, "")
                       for node in body if isinstance(node, ast.Import) for each in node.names}  # fmt: skip
        self.compiled = [node for node in body if isinstance(node, ast.FunctionDef) and _is_compiled(node)]
        self.own = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self.values: dict[str, ast.expr] = {}
        for node in body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for name in (each for target in targets if target is not None for each in _names(target)):
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                    self.values[name] = node.value

    def made_of(self, module: str, name: str) -> list[tuple[str, str]]:
        if name in self.taken:
            return [self.taken[name]]
        node = self.values.get(name) or self.own.get(name)
        return [(module, each) for each in _names(node)] if node is not None else []


def _names(node: ast.AST) -> set[str]:
    """Of all that runs there; annotations do not."""
    if isinstance(node, ast.FunctionDef):
        return {name for part in node.body for name in _names(part)}
    if isinstance(node, ast.AnnAssign):
        return _names(node.value) if node.value is not None else set()
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _is_compiled(node: ast.FunctionDef) -> bool:
    named = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
    return bool(named & {"compiled", "brief", "inlined", "allocating"})


def test_code_is_kept_in_a_folder_of_this_version_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiling.use_cache() == (True, [])
    assert str(tmp_path / compiling.cache_name()) == numba.config.CACHE_DIR  # type: ignore[attr-defined]
    monkeypatch.setattr(compiling, "find_folder", lambda name: (None, ["why not"]))
    assert compiling.use_cache() == (False, ["why not"])
