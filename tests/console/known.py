"""What a console knows of its topics beside the decisions: a key that is declared, and mutes of it and of others."""

from __future__ import annotations

from pipeline.console.side import Side
from pipeline.control.controls import Controls, Said
from pipeline.keys.catalogue import Catalogue
from schemas.control import Mute
from schemas.key import Key
from tests.console.filled import EVIL, KEY
from tests.console.waiting import unread

MUTES = (
    Mute(key_id=KEY, reason="load test", owner_of_mute="bea", at="2026-09-21T00:00:00Z", until="2099-01-01T00:00:00Z"),
    Mute(owner=EVIL, detector="spike", reason="launch", owner_of_mute="cy", at="2026-09-21T00:00:00Z",
         until="2098-01-01T00:00:00Z"),
    Mute(key_id="other", reason="r", owner_of_mute="dan", at="2026-09-21T00:00:00Z", until="2099-01-01T00:00:00Z"),
    Mute(key_id=KEY, detector="spike", reason="r", owner_of_mute="eve", at="2026-09-21T00:00:00Z",
         until="2026-09-22T00:00:00Z"),
)  # fmt: skip
DECLARED = Key(
    key_id=KEY, owner=EVIL, environment="live", role="read_only", created_at="2024-01-01T00:00:00Z", protected=True,
    leaked_at="2026-09-20T00:00:00Z",
)  # fmt: skip


def known(*declared: Key) -> Side:
    """As if both topics had been read."""
    made = unread()
    made.catalogue = Catalogue.of(declared)
    made.controls = Controls.of("topic", [Said(seq, mute) for seq, mute in enumerate(MUTES)], len(MUTES))
    return made
