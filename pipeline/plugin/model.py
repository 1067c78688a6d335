"""The River model by its name, and its scores as bits: by their rank among the last ones, as each has its own scale."""

from __future__ import annotations

import importlib
import importlib.util
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from detectors.surprise import quantise
from pipeline.errors import ConfigError
from pipeline.plugin.features import NAMES

SHIPPED: Final = "river.anomaly.HalfSpaceTrees"
SHIPPED_OPTIONS: Final[Mapping[str, Any]] = {"n_trees": 15, "height": 8, "window_size": 500, "seed": 1}
REMEMBERED: Final = 20_000
LEAST: Final = 2_000


class Model(Protocol):
    """What every anomaly detector of River can do."""

    def score_one(self, x: dict[str, float]) -> float:
        """The larger the odder."""

    def learn_one(self, x: dict[str, float]) -> object:
        """Take it in."""


def build(name: str, options: Mapping[str, Any]) -> Model:
    """The model `river.<module>.<Class>` with these arguments. Raises ConfigError."""
    module, _, kind = name.rpartition(".")
    if not module.startswith("river."):
        raise ConfigError(f"plugin.model {name!r}: give a class of River, e.g. {SHIPPED}")
    try:
        make: Any = getattr(importlib.import_module(module), kind)
        made = make(**(options or _shipped(name)))
        tried = make(**(options or _shipped(name)))
        tried.learn_one(dict.fromkeys(NAMES, 0.5))  # some ask for a target as well
        tried.score_one(dict.fromkeys(NAMES, 0.5))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "river" and importlib.util.find_spec("river") is None:
            raise ConfigError("the plug-in needs River: pip install river") from None
        raise ConfigError(f"plugin.model: there is no {name}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"plugin.model {name} can't be used: {error}") from error
    return made  # type: ignore[no-any-return]


def _shipped(name: str) -> Mapping[str, Any]:
    return SHIPPED_OPTIONS if name == SHIPPED else {}


class Ranks:
    """The last REMEMBERED scores in order. Bits end at log2 of how many there are: none says more than it has seen."""

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def bits(self, score: float) -> float:
        """-log2 of the share of scores that are as large, before this one is remembered; 0 while they are few."""
        n = len(self._sorted)
        as_large = n - bisect_left(self._sorted, score)
        self._remember(score)
        return quantise(math.log2((n + 1) / (as_large + 1))) if n >= LEAST else 0.0

    def _remember(self, score: float) -> None:
        self._order.append(score)
        insort(self._sorted, score)
        if len(self._order) > REMEMBERED:
            oldest = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
