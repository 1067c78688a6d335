"""`keywatch evaluate nab`: result files in NAB's format, and their scores by NAB's formulas."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from pipeline import private
from pipeline.errors import ConfigError
from pipeline.evaluation import nab_forecast, nab_score
from pipeline.progress import counted

NAME: Final = "keywatch"
RIVER_TREES: Final = 15.0
"""Standard score, as issue 5 gives it; nothing here runs them."""
ANCHORS: Final = ("ARTime", "numenta", "randomCutForest", "windowedGaussian", "random", "null")


def main(data: Path, out: Path) -> int:
    """Run, write `<out>/<folder>/keywatch_<file>.csv` and `<out>/scores.json`, print the scores."""
    try:
        series = nab_score.load(data)
    except OSError as error:
        raise ConfigError(f"{data} is no NAB checkout: {error.strerror}: {error.filename}") from error
    scores = [nab_forecast.as_score(nab_forecast.series_bits(each)) for each in counted(series, "series", len(series))]
    nab_score.write_results(out, NAME, series, scores)
    found = judge(series, scores, nab_score.profiles(data))
    private.write(out / "scores.json", (json.dumps(found, indent=2) + "\n").encode())
    sys.stdout.write(table(found, nab_score.published(data)))
    return 0


def judge(series: list[nab_score.Series], scores: list[Any], profiles: list[nab_score.Profile]) -> dict[str, Any]:
    """profile -> score at the optimiser's threshold, at the label-free one, leave-one-folder-out; by folder."""
    free = float(nab_forecast.as_score(nab_forecast.LABEL_FREE_BITS))
    found: dict[str, Any] = {}
    for profile in profiles:
        best = nab_score.optimise(series, scores, profile)
        raw = nab_score.score_at(series, scores, profile, free)
        found[profile.name] = {
            "score": nab_score.normalised(best.score, series, profile), "threshold": best.threshold,
            "label_free_score": nab_score.normalised(raw, series, profile), "label_free_threshold": free,
            "leave_one_folder_out": nab_score.leave_one_folder_out(series, scores, profile),
            "folders": _folders(series, scores, profile, best.threshold),
        }  # fmt: skip
    return found


def _folders(
    series: list[nab_score.Series], scores: list[Any], profile: nab_score.Profile, threshold: float
) -> dict[str, dict[str, float]]:
    """Raw score and windows of each folder at the common threshold."""
    found = {}
    for folder in sorted({each.name.split("/")[0] for each in series}):
        own = [i for i, each in enumerate(series) if each.name.startswith(folder + "/")]
        mine, their = [series[i] for i in own], [scores[i] for i in own]
        windows = sum(int(each.window.max(initial=-1)) + 1 for each in mine)
        found[folder] = {"raw": nab_score.score_at(mine, their, profile, threshold), "windows": windows}
    return found


def table(found: dict[str, Any], published: Any) -> str:
    """The scores in words, beside published ones."""
    lines = [f"{'':24}{'optimised':>10}{'label-free':>12}{'folder out':>12}"]
    for name, values in found.items():
        shown = (values["score"], values["label_free_score"], values["leave_one_folder_out"])
        lines.append(f"{name:24}{shown[0]:10.1f}{shown[1]:12.1f}{shown[2]:12.1f}")
    lines.append("published, standard: " + ", ".join(f"{a} {published[a]['standard']:.1f}" for a in ANCHORS))
    lines.append(f"River's half-space trees, not published: about {RIVER_TREES:.0f}")
    return "\n".join(lines) + "\n"
