"""Which acts' keys are watched: what the ledger has in force for real, with the adapter's time until all nodes obey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.respond.act import INTENT_LIVES_S
from pipeline.respond.adapters.adapter import Support
from pipeline.respond.carry import intent_of
from pipeline.respond.enforcement.proof import Watch
from pipeline.respond.ledger.ledger import Ledger
from schemas.incident import Rung

Matrices = Mapping[str, Mapping[Rung, Support]]


def in_force(ledger: Ledger, matrices: Matrices, partitions: frozenset[int]) -> list[Watch]:
    """Acts of these partitions that were confirmed and not undone since; of unknown moments the latest possible.

    Of a rotation its new key, until that was seen in use.
    """
    found = []
    for act in ledger.acts.values():
        of = act.proposal
        if max(of.partition, 0) not in partitions:
            continue  # another responder watches it
        if of.simulated or act.stage != "done" or (act.undo and act.undo.stage != "failed"):
            continue  # what is being undone may work again at any moment
        intent = intent_of(act)
        if intent.rung == "rotate":
            if act.used_us or act.new_key_id in ("", of.key_id):
                continue  # known, or nothing would tell the new secret from the old one
            intent = replace(intent, key_id=act.new_key_id, until_s=0.0)
        support = matrices.get(of.adapter, {}).get(intent.rung)
        confirmed_s = act.done_us / 1e6 if act.done_us else act.at_us / 1e6 + INTENT_LIVES_S
        found.append(Watch.of(intent, confirmed_s, support, of.revision, max(of.partition, 0)))
    return found
