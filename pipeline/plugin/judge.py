"""Minutes in, findings of family "plugin" out, and incidents only where the configuration wants them.

Pure: what it says follows from the minutes and their order. So a restart reads the last `learn_days` again and knows
what it knew, and says the same under the same ids.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pipeline.config.tree import Plugin
from pipeline.plugin.features import NAMES, Minute, Standards
from pipeline.plugin.model import SHIPPED, Ranks, build
from pipeline.times import rfc3339
from pipeline.topologies.episodes import Episodes, Evidence
from schemas.incident import Band, Finding, Incident, Sample

DETECTOR = "plugin"
CENTRE = 0.5


@dataclass(slots=True)
class Said:
    """Of some minutes: findings with whose and under which id, and incidents."""

    findings: list[Finding] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)


class PluginJudge:
    """One model for all keys. Raises ConfigError for a model that there is not."""

    def __init__(self, config: Plugin) -> None:
        self._config = config
        self._name = config.model or SHIPPED
        self._model = build(self._name, config.options)
        self._standards = Standards()
        self._ranks = Ranks()
        self._episodes = Episodes()

    def take(self, minutes: list[Minute], tell_from_s: int) -> Said:
        """Minutes in the order of time and key; what lies before `tell_from_s` is only learned from."""
        said = Said()
        for minute in minutes:
            values = self._standards.take(minute)
            bits = self._ranks.bits(float(self._model.score_one(values)))
            self._model.learn_one(values)
            if bits >= self._config.finding_bits and minute.start_s >= tell_from_s:
                self._say(minute, values, bits, said)
        return said

    def _say(self, minute: Minute, values: dict[str, float], bits: float, said: Said) -> None:
        finding = self._finding(minute, values, bits)
        text = f"{minute.key_id}\0{self._name}\0{minute.start_s}"
        said.findings.append(finding)
        said.keys.append(minute.key_id)
        said.ids.append(hashlib.blake2b(text.encode(), digest_size=16, person=b"kw-plugin").hexdigest())
        if self._config.incidents:
            at_us = minute.start_s * 1_000_000
            evidence = Evidence(
                subject=minute.key_id, rule="plugin", first_us=at_us, first_id=self._name, ts_us=at_us,
                severity="medium", rung="observe", text=f"{minute.key_id}: {finding.text}", findings=(finding,),
                keys=(minute.key_id,), keys_total=1,
            )  # fmt: skip
            self._episodes.tell(evidence, -1, -1, said.incidents)
            self._episodes.pass_time(at_us, said.incidents)

    def _finding(self, minute: Minute, values: dict[str, float], bits: float) -> Finding:
        """In words: what lies farthest from the key's usual."""
        far = sorted(NAMES, key=lambda name: (-abs(values[name] - CENTRE), name))[:3]
        sides = ", ".join(f"{name} {'above' if values[name] > CENTRE else 'below'} its usual" for name in far)
        kind = self._name.rpartition(".")[2]
        at = rfc3339(minute.start_s * 1_000_000)
        return Finding(
            detector=DETECTOR, family="plugin", bits=bits, at=at, observed=float(minute.requests), unit="requests",
            expected=Band(low=0.0, median=0.0, high=0.0), authenticated=False, sample=Sample(at=at),
            text=f"a minute that {kind} calls odder than all but one in {2**bits:,.0f}: {sides}",
        )  # fmt: skip
