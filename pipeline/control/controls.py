"""What people have told Keywatch, as one immutable snapshot: which feedback is new, and what is not to be told.

A side input like the catalogue: adopted only at a checkpoint, its version named by the manifest. The version is how far
the control topic had been read (`epoch/end`), so the log, the control topic and the adoptions' rows are enough to judge
the same again. Times are compared with event times: whether something is withheld follows from the event, never from a
slice.

What is withheld is judged, found and written as ever (`findings`, and a row of `withheld` that names the control); the
incident is not told, and nothing of it is learned, but for an exception, whose way is the key's own by feedback.
 - A proof is withheld only by a mute that names its detector: a mute of a key or an owner is no licence to use a decoy.
 - A mute that names a detector withholds what rests on that detector alone; evidence of another kind is told.
 - A planned event withholds listed incidents of volume alone: what pages, or brings anything else, is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from pipeline.times import micros
from schemas.control import Control, Feedback, Forget, Mute, Planned, control_id
from schemas.incident import Finding
from schemas.key import Key

NEVER_US: Final = 1 << 62


class Said(NamedTuple):
    """One control and its place on the control topic."""

    seq: int
    control: Control


OF_PLACES: Final = ("geography", "novel_client")
"""What these find is a proof of leaked keys alone: a mute of all they find is not meant for that."""


class Rising(NamedTuple):
    """An incident that is about to be told: at which event, and on what it rests."""

    key_id: str
    ts_us: int
    route: str
    environment: str
    declared: Key | None
    severity: int  # index into SEVERITIES
    proof: bool
    fresh: Sequence[Finding]  # what it rests on: the findings of this event
    opening: bool


@dataclass(frozen=True)
class Controls:
    """All that was read of the topic, by place; `end`: the first place that was not read. Of each id the newest holds.

    What was replaced stays, so that a replay knows what held before (`until`).
    """

    epoch: str = ""
    end: int = 0
    said: tuple[Said, ...] = ()

    @staticmethod
    def of(epoch: str, said: Iterable[Said], end: int) -> Controls:
        """Whatever order they come in. What was said of a key before it was forgotten is not known any more."""
        known = sorted(said, key=lambda one: one.seq)
        gone = {one.control.key_id: one.seq for one in known if isinstance(one.control, Forget)}
        kept = (one for one in known if one.seq >= gone.get(getattr(one.control, "key_id", ""), 0))
        return Controls(epoch, end, tuple(kept))

    @cached_property
    def holding(self) -> dict[str, Said]:
        """By control id, in the order of their places."""
        newest: dict[str, Said] = {}
        for each in self.said:
            newest.pop(ident := control_id(each.control), None)
            newest[ident] = each
        return newest

    @property
    def version(self) -> str:
        """As the manifest names it; "" where nothing was ever said."""
        return f"{self.epoch}/{self.end}" if self.end else ""

    def get(self, ident: str) -> Control | None:
        """By its control id."""
        found = self.holding.get(ident)
        return None if found is None else found.control

    def more(self, said: Iterable[Said], end: int) -> Controls:
        """The next snapshot."""
        return Controls.of(self.epoch, [*self.said, *said], max(end, self.end))

    def until(self, end: int) -> Controls:
        """As far as the topic's places below `end`; exact where nothing older was compacted away."""
        return Controls.of(self.epoch, [each for each in self.said if each.seq < end], end)

    @cached_property
    def _exceptions(self) -> dict[str, list[Feedback]]:
        found: dict[str, list[Feedback]] = {}
        for _, control in self.holding.values():
            if isinstance(control, Feedback) and control.verdict == "expected" and control.until:
                found.setdefault(control.key_id, []).append(control)
        return found

    @cached_property
    def _mutes(self) -> list[Mute]:
        return [control for _, control in self.holding.values() if isinstance(control, Mute)]

    @cached_property
    def _planned(self) -> list[Planned]:
        return [control for _, control in self.holding.values() if isinstance(control, Planned)]

    def withholds(self, rising: Rising) -> Control | None:
        """What keeps this incident from being told; None where nothing does."""
        for mute in self._mutes:
            if mutes(mute, rising):
                return mute
        if rising.proof:
            return None
        for feedback in self._exceptions.get(rising.key_id, ()):
            if excepts(feedback, rising):
                return feedback
        return next((planned for planned in self._planned if covers(planned, rising)), None)


def mutes(mute: Mute, rising: Rising) -> bool:
    """Whether the mute, once adopted, still holds at this event, and is of this key, owner and detector."""
    owner = rising.declared.owner if rising.declared else ""
    if not rising.ts_us < micros(mute.until, NEVER_US):
        return False
    if (mute.key_id and mute.key_id != rising.key_id) or (mute.owner and mute.owner != owner):
        return False
    if rising.proof and mute.detector in OF_PLACES and not (mute.key_id or mute.owner):
        return False
    if mute.detector:
        return _all(rising, lambda finding: finding.detector == mute.detector)
    return not rising.proof


def excepts(feedback: Feedback, rising: Rising) -> bool:
    """Whether all of it was said to be expected: the detectors, and where these tell values, the values."""
    if not rising.ts_us < micros(feedback.until, NEVER_US):
        return False
    return _all(rising, lambda finding: finding.detector in feedback.detectors and _known(feedback, finding))


def _known(feedback: Feedback, finding: Finding) -> bool:
    sample = finding.sample
    if finding.family == "network":
        return sample.asn in feedback.networks and (not sample.country or sample.country in feedback.countries)
    if finding.family == "client":
        return sample.client in feedback.clients
    if finding.family == "operation":
        return f"{sample.method} {sample.route}".strip() in feedback.operations
    return True


def covers(planned: Planned, rising: Rising) -> bool:
    """Whether it happens during the planned event, within its scope, and is a listed one of volume alone."""
    if rising.severity > 0 or not micros(planned.from_) <= rising.ts_us < micros(planned.to):
        return False
    key = rising.declared
    role, owner = (key.role, key.owner) if key else ("", "")
    for allowed, value in ((planned.roles, role), (planned.owners, owner), (planned.environments, rising.environment)):
        if allowed and value not in allowed:
            return False
    if planned.routes and not any(_route(pattern, rising.route) for pattern in planned.routes):
        return False
    return _all(rising, lambda finding: finding.family == "volume")


def _route(pattern: str, route: str) -> bool:
    return route.startswith(pattern[:-1]) if pattern.endswith("*") else route == pattern


def _all(rising: Rising, holds: Callable[[Finding], bool]) -> bool:
    """Of what it rests on. An opening rests on something; a later message without a finding changes nothing."""
    return all(map(holds, rising.fresh)) if rising.fresh else not rising.opening


NO_CONTROLS: Final = Controls()
