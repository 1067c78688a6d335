"""`keywatch evaluate nab` and `keywatch evaluate keybench`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_guard import guarded

app = typer.Typer(help="How good the detection is, measured on public data.", no_args_is_help=True)

DATA = Path(os.environ.get("KEYWATCH_DATA", "../shared/data"))


@app.command("nab")
@guarded
def nab(
    data: Annotated[Path, typer.Option(help="A NAB checkout: data/, labels/, config/.")] = DATA / "nab",
    out: Annotated[Path, typer.Option(help="Folder for the result files and scores.json.")] = Path("nab-results"),
) -> int:
    """The spike detector's forecast over NAB's 58 series, scored by NAB's formulas."""
    from pipeline.evaluation.nab import main

    return main(data, out)
