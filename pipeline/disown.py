"""Incidents that a crash left on their topic while the side inputs changed: nobody else would ever close them.

After a crash the events since the last checkpoint are judged again. With the same side inputs the same incidents come
out, under the same ids and revisions. With others an incident that was published may not come again, or with fewer
revisions: it would stay open for ever, and who keeps the highest revision of each would not see the later ones. So
before other side inputs are adopted, of what stands on the topic:
 - an incident that the state knows as open goes on above the highest published revision;
 - one that it does not know is closed; should an event open it once more, it goes on above its closing, which is in
   the state (`spent`) before it is published.
What a worker that was thrown out of the group publishes after that is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pipeline import columns
from pipeline.core import Effects
from pipeline.state.partition import CoreMeta, State
from schemas.incident import Incident


def disown(state: State, published: Iterable[Incident]) -> Effects:
    """Closing messages and rows; `published`: the newest revision of each incident of this partition's keys."""
    effects, at = Effects(), state.meta.next_offset
    told: list[Incident] = []
    for newest in published:
        slot = state.slots.get(newest.key_id, -1)
        known = state.open.get(slot)
        if known is not None and known.incident_id == newest.incident_id:
            if newest.revision > known.revision:
                state.set_incident(slot, msgspec.structs.replace(known, revision=newest.revision))
            continue
        if newest.state == "open":
            newest = msgspec.structs.replace(
                newest, revision=newest.revision + 1, change="closed", state="closed", closed_at=newest.last_at
            )
            effects.incidents.append(newest)
            told.append(newest)
        elif newest.offset >= at:  # who closed it may have died before its row was written
            told.append(newest)
        if newest.offset >= at:
            state.meta.spent[newest.incident_id] = (newest.revision, newest.offset)
    columns.extend(effects.rows, "incidents", columns.incidents(told))
    return effects


def forget(meta: CoreMeta) -> None:
    """An incident whose last event has been judged again is not opened by it any more."""
    meta.spent = {ident: each for ident, each in meta.spent.items() if each[1] >= meta.next_offset}
