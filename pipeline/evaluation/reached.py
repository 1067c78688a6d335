"""Recall of the placements that reached the wanted strength: beside that of all placements, never instead of it.

The issue asks for recall at 40 bits of an oracle. Not every placement can be brought there, however many of its calls
are kept: where the owner does not call in those days nobody takes turns with another client, and use at odd hours has
hardly any bits. Such a placement counts as one of 40 bits in `recall`, but has 7, or 0.

This selects by what the oracle says, which sees keys and calls and no detector, before any runs: nothing is left out
for being missed, nor kept for being caught. It selects all the same. What is left out is mostly of quiet keys and of
owners who are away, so that these figures say nothing of them; and to its owner a miss is one, whatever the oracle
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pipeline.evaluation import bootstrap, measures
from pipeline.evaluation.measures import LISTED
from pipeline.evaluation.run import Placement

LEAST: Final = 10
"""Placements of a scenario that reach the strength; of fewer a recall says nothing, so they are out of the macro."""
ROUNDING_BITS: Final = 1e-6
NONE: Final = {"mean": None, "low": None, "high": None}


def has(bits: float, wanted: float) -> bool:
    """Whether a placement of so many bits has what was wanted."""
    return bits >= wanted - ROUNDING_BITS


def by_strength(placements: Sequence[Placement], declared: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Wanted bits -> `recall` of each attack at the listed budget: of `n` of its `of` placements; `macro`, `left_out`.

    The macro is over attacks with LEAST such placements or more, None where none has; `left_out` names the others.
    `macro_apart` is without those that stay findings by design, too.
    """
    found = {}
    for wanted in declared["strengths_bits"]:
        every = measures.by_scenario(placements, float(wanted))
        every = {name: mine for name, mine in every.items() if name in declared["attacks"]}
        strong = {name: [each for each in mine if has(each.bits, wanted)] for name, mine in every.items()}
        enough = {name: mine for name, mine in strong.items() if len(mine) >= LEAST}
        apart = [mine for name, mine in enough.items() if name not in declared["finding_by_design"]]
        found[str(wanted)] = {
            "recall": {n: measures.recall_of(mine, LISTED) | {"of": len(every[n])} for n, mine in strong.items()},
            "macro": _macro(list(enough.values())),
            "macro_apart": _macro(apart),
            "left_out": [name for name, mine in strong.items() if len(mine) < LEAST],
        }
    return found


def _macro(groups: Sequence[Sequence[Placement]]) -> dict[str, Any]:
    return bootstrap.macro([measures.hits_of(mine, LISTED) for mine in groups]) if groups else NONE
