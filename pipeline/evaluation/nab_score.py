"""NAB's scoring (Numenta Anomaly Benchmark v1.1): windows, sigmoid, probation, threshold optimiser, three profiles.

Written after the published description and NAB's `sweeper.py` and `runner.py` (MIT), vectorised. Verified by
tests/evaluation/test_nab.py: the published `null` and `windowedGaussian` results, thresholds included, come out to
1e-9; by hand also against all other published result files.

A window counts once, by its earliest detection: A/sigmoid from 1 at its left edge to 0 at its right one. A detection
outside costs `fpWeight` times up to 1, less shortly after a window. A missed window costs `fnWeight`. The first 15 %
of a file (at most 750 rows) are not scored. 0 is a detector that says nothing, 100 one that is right at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline import private

PROBATION: Final = 0.15
PROBATION_ROWS: Final = 5000
NOTHING: Final = 1.1
"""A threshold above every score."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Series:
    """One file of the corpus. `window`: per row the index of its labelled window, -1 outside; rows in file order."""

    name: str  # folder/file.csv
    at: list[str]
    values: Floats
    label: npt.NDArray[np.int64]  # 1 within a window
    window: Ints
    gain: Floats  # before weights: of a detection at this row
    scored_from: int  # first row after probation


@dataclass(frozen=True, slots=True)
class Profile:
    """Weights of one application profile."""

    name: str
    hit: float
    false_alarm: float
    miss: float


@dataclass(frozen=True, slots=True)
class Best:
    """What the optimiser found: raw score and the threshold that gives it."""

    score: float
    threshold: float


def load(folder: Path) -> list[Series]:
    """All series of a NAB checkout, sorted by name. Raises OSError where it is none."""
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [_series(folder, name, windows[name]) for name in sorted(windows)]


def profiles(folder: Path) -> list[Profile]:
    """The application profiles as shipped."""
    shipped = json.loads((folder / "config" / "profiles.json").read_text())
    costs = {name: profile["CostMatrix"] for name, profile in shipped.items()}
    return [Profile(name, c["tpWeight"], c["fpWeight"], c["fnWeight"]) for name, c in costs.items()]


def _series(folder: Path, name: str, limits: list[list[str]]) -> Series:
    with (folder / "data" / name).open() as lines:
        rows = list(csv.reader(lines))[1:]
    at = [row[0] for row in rows]
    index = {time: row for row, time in reversed(list(enumerate(at)))}  # the first of equal times, as NAB's `index`
    edges = [(index[left.split(".")[0]], index[right.split(".")[0]]) for left, right in limits]
    window, gain = _positions(len(rows), edges)
    probation = min(math.floor(PROBATION * len(rows)), PROBATION * PROBATION_ROWS)
    values = np.array([float(row[1]) for row in rows])
    return Series(name, at, values, (window >= 0).astype(np.int64), window, gain, math.ceil(probation))


def _positions(rows: int, edges: Sequence[tuple[int, int]]) -> tuple[Ints, Floats]:
    """Per row its window and what a detection there is worth: 0 .. 1 within one, -1 .. 0 outside."""
    window = np.full(rows, -1, np.int64)
    place = np.full(rows, 4.0)  # beyond 3: far from any window
    for number, (left, right) in enumerate(edges):
        width = right - left + 1
        after = np.arange(right + 1, rows)
        place[right + 1 :] = (after - right) / max(1, width - 1)
        place[left : right + 1] = -(right - np.arange(left, right + 1) + 1) / width
        window[left : right + 1] = number
    gain = np.where(place > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(place, 3.0))) - 1.0)
    full = 2.0 / (1.0 + math.exp(-5.0)) - 1.0
    return window, np.where(window >= 0, gain / full, gain)


def sweep(series: Sequence[Series], scores: Sequence[Floats], profile: Profile) -> tuple[Floats, Floats]:
    """Raw score of the whole at every threshold: (thresholds descending, raw scores). First: nothing is detected."""
    bits, gains, groups, windows = [], [], [], 0
    for each, score in zip(series, scores, strict=True):
        kept = slice(each.scored_from, None)
        group = np.where(each.window[kept] >= 0, each.window[kept] + windows, -1)
        bits.append(score[kept])
        gains.append(each.gain[kept])
        groups.append(group)
        windows += int(each.window.max(initial=-1)) + 1
    return _sweep(np.concatenate(bits), np.concatenate(gains), np.concatenate(groups), profile)


def _sweep(score: Floats, gain: Floats, group: Ints, profile: Profile) -> tuple[Floats, Floats]:
    """`sweep` over joined rows: a running sum of false alarms, and of each window's best detection so far."""
    order = np.argsort(-score, kind="stable")
    score, gain, group = score[order], gain[order], group[order]
    steps = np.where(group < 0, profile.false_alarm * gain, 0.0)
    count = int(group.max(initial=-1)) + 1
    present = [number for number in range(count) if (group == number).any()]
    for number in present:
        rows = np.flatnonzero(group == number)
        best = np.maximum.accumulate(np.concatenate([[-profile.miss], profile.hit * gain[rows]]))
        steps[rows] = np.diff(best)
    total = -profile.miss * len(present) + np.concatenate([[0.0], np.cumsum(steps)])
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, np.int64)
    return np.concatenate([[NOTHING], score[last]]), total[np.concatenate([[0], last + 1])]


def optimise(series: Sequence[Series], scores: Sequence[Floats], profile: Profile) -> Best:
    """The threshold with the largest raw score, the highest such; it sees the labels, as NAB's does."""
    thresholds, raw = sweep(series, scores, profile)
    best = int(np.argmax(raw))
    return Best(float(raw[best]), float(thresholds[best]))


def score_at(series: Sequence[Series], scores: Sequence[Floats], profile: Profile, threshold: float) -> float:
    """Raw score where a score at or above `threshold` is a detection."""
    thresholds, raw = sweep(series, scores, profile)
    return float(raw[np.flatnonzero(thresholds >= threshold)[-1]]) if threshold <= NOTHING else float(raw[0])


def normalised(raw: float, series: Sequence[Series], profile: Profile) -> float:
    """Raw score on NAB's scale: 0 says nothing, 100 is perfect. NaN where there is no window at all."""
    windows = sum(int(each.window.max(initial=-1)) + 1 for each in series)
    null = -profile.miss * windows
    return 100.0 * (raw - null) / (profile.hit * windows - null) if windows else math.nan


def leave_one_folder_out(series: Sequence[Series], scores: Sequence[Floats], profile: Profile) -> float:
    """Normalised score where each folder is judged at the threshold that is best for all other folders."""
    folders = [each.name.split("/")[0] for each in series]
    raw = 0.0
    for folder in sorted(set(folders)):
        rest = [i for i, name in enumerate(folders) if name != folder]
        own = [i for i, name in enumerate(folders) if name == folder]
        chosen = optimise([series[i] for i in rest], [scores[i] for i in rest], profile)
        raw += score_at([series[i] for i in own], [scores[i] for i in own], profile, chosen.threshold)
    return normalised(raw, series, profile)


def write_results(folder: Path, detector: str, series: Sequence[Series], scores: Sequence[Floats]) -> None:
    """Result files in NAB's format: `<folder>/<detector>_<file>.csv` with timestamp, value, anomaly_score, label."""
    for each, score in zip(series, scores, strict=True):
        place, name = each.name.split("/")
        out = io.StringIO(newline="")
        lines = csv.writer(out)
        lines.writerow(["timestamp", "value", "anomaly_score", "label"])
        lines.writerows(zip(each.at, each.values.tolist(), score.tolist(), each.label.tolist(), strict=True))
        private.write(private.folder(folder / place) / f"{detector}_{name}", out.getvalue().encode())


def published(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """detector -> profile -> score, as NAB publishes them."""
    found: dict[str, Any] = json.loads((folder / "final_results.published.json").read_text())
    return found
