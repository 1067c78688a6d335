"""`keywatch evaluate nab`, `keywatch evaluate keybench`, `keywatch evaluate ramp`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.guard import guarded
from pipeline.errors import ConfigError

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


@app.command("ramp")
@guarded
def ramp(
    data: Annotated[Path, typer.Option(help="The folder of real logs.")] = DATA,
    half: Annotated[str, typer.Option(help="held-out, or development.")] = "held-out",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 1,
) -> int:
    """How many times the owner's traffic a patient attacker reaches without an incident."""
    from pipeline.evaluation.ramp import measure

    typer.echo(json.dumps(measure(data, _half(half), seed), indent=2))
    return 0


@app.command("keybench")
@guarded
def keybench(
    data: Annotated[Path, typer.Option(help="The folder of real logs.")] = DATA,
    seeds: Annotated[str, typer.Option(help="A-B, or one seed; each is a world of its own.")] = "1",
    json_file: Annotated[Path, typer.Option("--json", help="All figures.")] = Path("keybench.json"),
    page: Annotated[Path | None, typer.Option("--html", help="A page with plots.")] = None,
    keys: Annotated[int, typer.Option(min=12, help="Untouched keys.")] = 3_000,
    days: Annotated[int, typer.Option(min=36, help="Of history and trial.")] = 60,
    placements: Annotated[int, typer.Option(min=1, help="Per scenario at the headline strength.")] = 300,
    placebos: Annotated[int, typer.Option(min=0, help="Innocent visits beside the attacks.")] = 1_500,
    processes: Annotated[int, typer.Option(min=1, help="At a time.")] = 2,
    half: Annotated[str, typer.Option(help="held-out, or development.")] = "held-out",
    ablation: Annotated[bool, typer.Option("--ablation", help="Also without each detector.")] = False,
    wide: Annotated[bool, typer.Option(help="Also at 1,000 per 100,000 key-days.")] = True,
    chunks: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished pieces: the same command goes on with the rest.")
    ] = None,
    fleet: Annotated[
        list[str] | None,
        typer.Option(help="N:P, precision for N keys of which a share P is attacked in a year; may be repeated."),
    ] = None,
) -> int:
    """16 attacks and 16 innocent scenarios in traffic made of real layers; recall, false alarms, comparisons."""
    from pipeline.evaluation.figures import FLEETS
    from pipeline.evaluation.keybench import Size, main

    size = Size(
        seeds=_seeds(seeds), keys=keys, days=days, placements=placements, placebos=placebos, processes=processes,
        half=_half(half), ablation=ablation, wide=wide,
    )  # fmt: skip
    return main(data, size, json_file, page, chunks, [_fleet(each) for each in fleet] if fleet else FLEETS)


def _fleet(text: str) -> tuple[int, float]:
    keys, _, prior = text.partition(":")
    try:
        found = int(keys), float(prior)
    except ValueError:
        raise ConfigError(f"--fleet takes N:P, e.g. 5000:0.01, not '{text}'") from None
    if found[0] < 1 or not 0.0 < found[1] <= 1.0:
        raise ConfigError(f"--fleet takes a number of keys and a share above 0, not '{text}'")
    return found


def _half(name: str) -> str:
    if name not in ("held-out", "development"):
        raise ConfigError(f"unknown half '{name}'; there are held-out and development")
    return name


def _seeds(text: str) -> tuple[int, ...]:
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise ConfigError(f"--seeds takes A-B or one number, not '{text}'")
    return tuple(range(int(first), int(last or first) + 1))
