"""detectors/compile.py: the decorator, its cache folder, and the promise that compiled and plain agree to the bit."""

from __future__ import annotations

from pathlib import Path

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


def test_a_cache_folder_that_cannot_be_made_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiling.use_cache() is False


def test_the_named_cache_folder_is_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiling.cache_base() == tmp_path
