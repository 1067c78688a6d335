"""The detector of the how-to is compiled and judges as the page says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.detector import EVENT, READING, SEES_BYTES, VISIT, Detector, config_record
from detectors.records import reading_of
from tests.detectors.streams import CONTEXT
from tests.docs.reading import ROOT, blocks

PAGE = ROOT / "deploy" / "docs" / "howto" / "write-a-detector.md"
CODE, TRY_IT = [block.text for block in blocks(PAGE) if block.language == "python"]
TYPED, *SAID = next(block.text for block in blocks(PAGE) if block.language == "console").splitlines()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """UPLOAD, as a file of its own."""
    path = tmp_path_factory.mktemp("detector") / "upload.py"
    path.write_text(CODE)
    spec = importlib.util.spec_from_file_location("upload", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Detector = module.UPLOAD
    return found


def event(size: int, sees: int = SEES_BYTES, authenticated: int = 1) -> Any:
    made = np.zeros(1, EVENT)
    made["bytes_in"], made["sees"], made["authenticated"] = size, sees, authenticated
    return made[0]


def lived(detector: Detector, sizes: list[int], weight: float = 1.0) -> Any:
    """State after one visit of these requests."""
    state, nothing, visit = np.zeros(1, detector.state), np.zeros(1, detector.shared), np.zeros(1, VISIT)
    config = config_record(detector.config)[0]
    for size in sizes:
        detector.learn(state[0], nothing[0], visit[0], event(size), 1.0, config)
    detector.settle(state[0], nothing[0], visit[0], weight, config)
    return state


def judged(detector: Detector, state: Any, of: Any) -> Any:
    reading, nothing, visit = np.zeros(1, READING), np.zeros(1, detector.shared), np.zeros(1, VISIT)
    before = state.tobytes()
    detector.score(state[0], nothing[0], visit[0], of, config_record(detector.config)[0], reading[0])
    assert state.tobytes() == before, "score never writes"
    return reading[0]


def test_compiled_it_tells_a_new_largest_and_nothing_else(detector: Detector) -> None:
    state = lived(detector, [1_000] * 100)
    reading = judged(detector, state, event(9_000_000))
    assert float(reading["bits"]) == pytest.approx(np.log2(101), abs=1 / 64)
    assert detector.explain(reading_of(reading), CONTEXT) == "9.0 MB sent, where 1.0 kB was the most before"
    assert float(judged(detector, state, event(3_900))["bits"]) == 0
    assert float(judged(detector, lived(detector, [1_000] * 49), event(9_000_000))["bits"]) == 0


def test_it_is_blind_where_the_format_is_and_learns_nothing_of_an_incident(detector: Detector) -> None:
    state = lived(detector, [1_000] * 100)
    assert int(judged(detector, state, event(9_000_000, sees=0))["covered"]) == 0
    assert int(judged(detector, state, event(10))["covered"]) == 1
    assert int(lived(detector, [1_000] * 100, weight=0.0)[0]["count"]) == 0


def test_the_page_shows_what_trying_it_prints(tmp_path: Path) -> None:
    (tmp_path / "upload.py").write_text(CODE)
    (tmp_path / "try_upload.py").write_text(TRY_IT)
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", TYPED))
    assert TYPED.endswith("python try_upload.py")
    environment = {**os.environ, **variables, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "try_upload.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == SAID, done.stderr
