"""Whether `keywatch respond act` would work for a key here: what a message may name as the one command to give."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.policy import Approver
from pipeline.respond.ladder import Ladder, Matrix
from schemas.incident import Incident, Rung
from schemas.key import Key

WhyNot = Callable[[Incident, Key | None, Rung], str]
"""Why this rung can't be taken by hand on the incident's key; "" if it can."""


def always(incident: Incident, key: Key | None, rung: Rung) -> str:
    """All is set up."""
    return ""


def why_not(ladder: Ladder, approvers: tuple[Approver, ...], matrices: Mapping[str, Matrix]) -> WhyNot:
    """By the policy, the people who may sign, and what each adapter in use can do."""

    def asked(incident: Incident, key: Key | None, rung: Rung) -> str:
        policy = ladder.policy
        rule, _ = ladder.rule_of(incident, key)
        adapter = ladder.adapter_of(rule) if rule else policy.adapter
        support = matrices.get(adapter, {}).get(rung)
        of_protected = policy.protected_approvals if key is None or key.protected else 0
        needed = max(1, policy.bulk_approvals, of_protected, rule.approvals if rule else 0)
        if policy.mode != "enforce":
            return f"respond.policy.mode is {policy.mode}"
        if support is None:
            return f"{adapter} cannot {rung}" if adapter else "respond.policy.adapter names nothing that could act"
        if support.granularity != "key":
            return f"{adapter} would hit the whole {support.granularity}"
        if len(approvers) < needed:
            return f"{needed} must sign, and respond.approvers names {len(approvers)}"
        return ""

    return asked
