"""Whether `keywatch respond act` would work for a key here: what a message may name as the one command to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.policy import Approver
from pipeline.respond.ladder import Ladder, Matrix, Others, reach
from schemas.incident import Incident, Rung
from schemas.key import Key


@dataclass(frozen=True, slots=True)
class SetUp:
    """The policy, the people who may sign, and what each adapter in use can do."""

    ladder: Ladder
    approvers: tuple[Approver, ...]
    matrices: Mapping[str, Matrix]

    def cannot(self, incident: Incident, key: Key | None, rung: Rung, others: Others) -> str:
        """Why the key's gateway can't do this, or would hit `others`; "" if it can."""
        rule, _ = self.ladder.rule_of(incident, key)
        adapter = self.ladder.adapter_of(rule) if rule else self.ladder.policy.adapter
        support = self.matrices.get(adapter, {}).get(rung)
        if support is None:
            return f"{adapter} cannot {rung}" if adapter else "respond.policy.adapter names nothing that could act"
        hits, words = reach(support, others)
        return f"{rung} by {adapter or 'the gateway'} {words}" if hits else ""

    def closed(self, incident: Incident, key: Key | None) -> str:
        """Why nothing is done by hand to this key, whatever its gateway can; "" if it is."""
        policy = self.ladder.policy
        if policy.mode != "enforce":
            return f"respond.policy.mode is {policy.mode}"
        rule, _ = self.ladder.rule_of(incident, key)
        of_protected = policy.protected_approvals if key is None or key.protected else 0
        needed = max(1, policy.bulk_approvals, of_protected, rule.approvals if rule else 0)
        if len(self.approvers) < needed:
            return f"{needed} must sign, and respond.approvers names {len(self.approvers)}"
        return ""
