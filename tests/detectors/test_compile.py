"""detectors/compile.py: the decorator, its cache folder, and the promise that compiled and plain agree to the bit."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import pytest

from detectors import compile as compiling
from detectors.compile import compiled


@compiled
def third_of(x: float) -> float:
    return x / 3.0


@compiled
def third_of_next(x: float) -> float:
    return third_of(x + 1.0)


def test_a_compiled_function_may_call_another() -> None:
    assert third_of_next(5.0) == 2.0


def test_dividing_by_zero_raises_as_in_plain_python() -> None:
    @compiled
    def inverse(x: float) -> float:
        return 1.0 / x

    with pytest.raises(ZeroDivisionError):
        inverse(0.0)


def test_a_change_in_any_source_of_the_folder_names_another_cache(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 1\n")
    before = compiling.source_hash(tmp_path)
    assert before == compiling.source_hash(tmp_path)
    (tmp_path / "b.py").write_text("y = 2\n")
    assert compiling.source_hash(tmp_path) != before


def _tree(root: Path) -> Path:
    """A product of three files: a detector, a compiled function of the pipeline, and a file without any."""
    files = {
        "detectors/spike.py": "x = 1\n", "pipeline/below/sum.py": "from detectors.compile import compiled\n",
        "pipeline/page.py": "y = 1\n",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "matters"), [("detectors/spike.py", True), ("pipeline/below/sum.py", True), ("pipeline/page.py", False)]
)
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
    """Numba puts the value of a constant into the code: one that another file gives must be known by that file."""
    root = Path(compiling.__file__).parents[1]
    files = compiling.compiled_files(root / "pipeline")
    known = {f"pipeline.{'.'.join(path.relative_to(root / 'pipeline').with_suffix('').parts)}" for path in files}
    seen = 0
    for path in files:
        body = ast.parse(path.read_text()).body
        taken = {each.asname or each.name: node.module or "" for node in body if isinstance(node, ast.ImportFrom)
                 for each in node.names}  # fmt: skip
        for function in (node for node in body if isinstance(node, ast.FunctionDef) and _is_compiled(node)):
            names = {each.id for part in function.body for each in ast.walk(part) if isinstance(each, ast.Name)}
            sources = {taken[name] for name in names & taken.keys()}
            seen += 1
            ours = {each for each in sources if each.partition(".")[0] in ("pipeline", "schemas")}
            assert ours <= known, f"{path.name}: {function.name} takes from {ours - known}"
    assert seen > 20


def _is_compiled(node: ast.FunctionDef) -> bool:
    named = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
    return bool(named & {"compiled", "brief", "inlined"})


def test_a_cache_folder_that_cannot_be_made_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiling.use_cache() is False


def test_the_named_cache_folder_is_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiling.cache_base() == tmp_path
