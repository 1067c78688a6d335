"""No sequence of incidents, crashes, restarts, clock jumps and people does what must not be, with two responders, too.

It exceeds no cap, acts on nothing twice and on no protected key without approval, forgets no timed end, loses no act.

The machine drives whole responders (`lives.py`) over one log and looks at what the gateway really did.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.config.policy import Rule
from pipeline.respond.caps import ROTATION
from pipeline.respond.ladder import Ladder
from pipeline.respond.ledger.entries import Finished, Proposed, Raised, Reset, Simulating, Switched, Undo, decode
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.propose import ids
from tests.pipeline.respond.incidents import finding, key
from tests.pipeline.respond.lives import POLICY, RULES, WAS, Effect, Lives, live
from tests.pipeline.respond.memory_log import Fuse
from tests.pipeline.respond.people import ANN, BOB, EVE
from tests.pipeline.respond.test_handle import DECISIONS, Catalogue

T = TypeVar("T")
KEYS = [f"k{i}" for i in range(8)]
LEAKY = Rule(name="leaky", rung="rotate", min_severity="critical", detectors=("operation",), overlap_s=3600.0)
ENDLESS_S = 10 * 86_400.0
_kinds = st.sampled_from(["suspend", "fence", "flag", "revoke", "volume", "rotate"])
_several = st.lists(st.sampled_from(KEYS), min_size=3, max_size=8, unique=True)
_fuses = st.one_of(st.none(), st.tuples(st.integers(0, 25), st.booleans()))


class Responders(RuleBasedStateMachine):
    """The world and what may happen in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = Lives(
            catalogue=Catalogue({name: key(name, owner=f"owner-{name}") for name in KEYS}),
            ladder=Ladder(POLICY, (LEAKY, *RULES)),
        )
        self.revisions = dict.fromkeys(KEYS, 0)
        self.names = (f"r{n}" for n in itertools.count())

    def teardown(self) -> None:
        """In the end everything heals: whatever was allowed has an end, whatever has a time is over."""
        try:
            self.heal()
        finally:
            self.loop.close()

    def wait(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(protected=st.sets(st.sampled_from(KEYS), max_size=3))
    def declare(self, protected: set[str]) -> None:
        assert self.world.catalogue.keys is not None
        self.world.catalogue.keys |= {name: key(name, owner=f"owner-{name}", protected=True) for name in protected}

    @initialize(names=_several, kind=_kinds, fuse=_fuses)
    def incidents_of_the_first_hour(self, names: list[str], kind: str, fuse: tuple[int, bool] | None) -> None:
        self.incidents(names, kind, False, fuse)

    @rule(names=_several, kind=_kinds, old=st.booleans(), fuse=_fuses)
    def incidents(self, names: list[str], kind: str, old: bool, fuse: tuple[int, bool] | None) -> None:
        """Some keys at once, and a responder that may not live through it."""
        for name in names:
            self.incident(name, kind, old)
        self.one_responder(fuse)

    @rule(first=_several, then=_several, kinds=st.tuples(_kinds, _kinds))
    def one_hour_after_the_other(self, first: list[str], then: list[str], kinds: tuple[str, str]) -> None:
        for names, kind in zip((first, then), kinds, strict=True):
            self.incidents(names, kind, False, None)
            self.time_passes(1700.0)

    def incident(self, name: str, kind: str, old: bool) -> None:
        """One more revision; graver or lighter ones as they come."""
        self.revisions[name] += 1
        ago_s = 1_795_000_000.0 - self.world.log.now_us / 1e6 + 5
        changes: dict[str, Any] = {"seen_days": 30.0 if old else 1.0}
        changes |= {"severity": {"fence": "high", "flag": "medium"}.get(kind, "critical")}
        if kind == "revoke":
            changes |= {
                "rule": "proof",
                "findings": (finding("declared", ago_s=ago_s),),
                "incident_id": f"proof-{name}",
            }
        if kind == "rotate":
            changes |= {"findings": (finding("network", ago_s=ago_s), finding("operation", ago_s=ago_s))}
        if kind == "volume":
            changes |= {"findings": (finding("volume", 99.0, ago_s),)}
        self.world.open(name, self.revisions[name], **changes)

    @rule(fuse=_fuses)
    def one_responder(self, fuse: tuple[int, bool] | None) -> None:
        self.wait(live(self.world, next(self.names), fuse=Fuse(*fuse) if fuse else None))

    @rule(fuses=st.tuples(_fuses, _fuses), skew_s=st.sampled_from([0.0, -7200.0, 7200.0, 300.0]), zombie=st.booleans())
    def two_at_once(self, fuses: Any, skew_s: float, zombie: bool) -> None:
        """Each with a partition of its own; or a zombie that still believes it has both."""
        made = [Fuse(*fuse) if fuse else None for fuse in fuses]
        first = live(self.world, next(self.names), (0, 1) if zombie else (0,), made[0])
        second = live(self.world, next(self.names), (1,), made[1], skew_s)

        async def both() -> None:
            await asyncio.gather(first, second)

        self.wait(both())

    @rule(seconds=st.sampled_from([1.0, 60.0, 400.0, 1700.0, 1900.0, 3700.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from([30.0, 600.0]))
    def the_brokers_clock_jumps_back(self, seconds: float) -> None:
        self.world.log.now_us -= int(seconds * 1e6)

    @rule(people=st.sampled_from([(ANN,), (BOB,), (EVE,), (ANN, BOB), (BOB, ANN)]), yes=st.booleans(), names=_several)
    def somebody_signs_all_that_waits(self, people: tuple[Any, ...], yes: bool, names: list[str]) -> None:
        self.signed(people, yes, names)
        self.one_responder(None)

    @rule(yes=st.booleans(), names=_several, fuses=st.tuples(_fuses, _fuses), zombie=st.booleans())
    def both_sign_at_once_and_two_responders_read_it(
        self, yes: bool, names: list[str], fuses: Any, zombie: bool
    ) -> None:
        self.signed((ANN, BOB), yes, names)
        self.two_at_once(fuses, 0.0, zombie)

    def signed(self, people: tuple[Any, ...], yes: bool, names: list[str]) -> None:
        """Each of these people's word on all that waits; Ann and Eve always say yes."""
        self.incidents(names, "flag", False, None)
        for act in [act for act in self.read().acts.values() if act.stage == "pending"]:
            for person in people:
                self.world.say(person.says(act.ticket, yes or person is not BOB))

    @rule(pick=st.integers(0, 20))
    def somebody_undoes(self, pick: int) -> None:
        standing = [act for act in self.read().acts.values() if act.stands]
        if standing:
            act_id = standing[pick % len(standing)].proposal.act_id
            self.world.say(Undo(act_id=act_id, by="ann", reason="wrong", responder=""))

    @rule(stop=st.booleans())
    def the_kill_switch(self, stop: bool) -> None:
        self.world.say(Switched(stop=stop, by="ann"))

    @rule(on=st.booleans())
    def the_simulate_switch(self, on: bool) -> None:
        self.world.say(Simulating(on=on, by="ann"))

    @rule(mood=st.sampled_from(["ok", "ok", "fails", "deaf"]))
    def the_gateway(self, mood: str) -> None:
        self.world.gateway.mood = mood

    @rule(name=st.sampled_from(KEYS), protected=st.booleans())
    def somebody_declares(self, name: str, protected: bool) -> None:
        assert self.world.catalogue.keys is not None
        self.world.catalogue.keys[name] = key(name, owner=f"owner-{name}", protected=protected)

    @rule()
    def one_person_alone_raises_a_cap(self) -> None:
        until_us = self.world.log.now_us + int(3600e6)
        wider = Raised(
            cap="usual", max_per_hour=99, max_per_day=99, max_share_of_active=1.0, until_us=until_us, by="ann",
            reason="",
        )  # fmt: skip
        for record in (wider, ANN.says(wider.ticket), EVE.says(wider.ticket)):
            self.world.say(record)

    @rule()
    def the_breaker_is_closed(self) -> None:
        self.world.say(Reset(by="ann", reason=""))

    def read(self) -> Ledger:
        ledger = Ledger()
        for record in self.world.log.topics[DECISIONS]:
            ledger.apply(record.offset, record.timestamp_us, decode(record.value))
        return ledger

    @property
    def applied(self) -> list[Effect]:
        return [each for each in self.world.gateway.effects if each.intent.direction == "apply"]

    def approvals(self) -> dict[str, tuple[str, ...]]:
        return {
            x.response_id: x.approvals for x in self.world.lines() if x.stage == "acting" and x.direction == "apply"
        }

    @invariant()
    def no_cap_is_exceeded(self) -> None:
        approved = self.approvals()
        kinds = self.kinds()
        own = [each for each in self.applied if not approved[each.intent.response_id]]
        of_kinds = {"usual": POLICY.caps, "fence": POLICY.fence_caps, "proof": POLICY.proof_caps, ROTATION: POLICY.caps}
        for kind, caps in of_kinds.items():
            grants = [(e.intent.granted_at_s, e.intent.key_id) for e in own if kinds[e.intent.response_id] == kind]
            for at_s, _ in grants:
                for span_s, cap in ((3600, caps.max_per_hour), (86_400, caps.max_per_day)):
                    assert len({name for t, name in grants if at_s - span_s < t <= at_s}) <= min(cap, 50)

    def kinds(self) -> dict[str, str]:
        records = (decode(record.value) for record in self.world.log.topics[DECISIONS])
        return {record.response_id: record.cap for record in records if isinstance(record, Proposed)}

    @invariant()
    def nothing_is_done_twice(self) -> None:
        on: dict[tuple[str, str], str] = {}
        for effect in self.world.gateway.effects:
            intent, spot = effect.intent, (effect.intent.key_id, effect.intent.rung)
            if intent.direction == "undo":
                on.pop(spot, None)
            else:
                assert on.setdefault(spot, intent.act_id) == intent.act_id or self.gave_up(on[spot])
                on[spot] = intent.act_id

    def gave_up(self, act_id: str) -> bool:
        """It expired or failed as far as the responder knows: then it may be tried again under another id."""
        said = {x.act_id: x.result for x in self.records() if getattr(x, "direction", "") == "apply"}
        return said.get(act_id) in ("expired", "failed")

    def records(self) -> list[Any]:
        return [decode(record.value) for record in self.world.log.topics[DECISIONS]]

    @invariant()
    def protected_keys_are_acted_on_by_approval_only(self) -> None:
        approved = self.approvals()
        for effect in self.applied:
            if effect.protected:
                assert approved[effect.intent.response_id]

    @invariant()
    def flags_take_two_people_and_a_stranger_is_none(self) -> None:
        for response, people in self.approvals().items():
            assert "eve" not in people
            if response in {each.intent.response_id for each in self.applied if each.intent.rung == "flag"}:
                assert people == ("ann", "bob")

    @invariant()
    def nothing_acts_while_it_is_stopped(self) -> None:
        assert not [each for each in self.applied if each.stopped]

    @invariant()
    def a_revoked_key_is_not_brought_back(self) -> None:
        revoked: set[str] = set()
        for effect in self.world.gateway.effects:
            if effect.intent.rung == "revoke":
                revoked.add(effect.intent.key_id)
            elif effect.intent.direction == "undo":
                assert effect.intent.key_id not in revoked or self.gave_up(
                    ids(effect.intent.key_id, 1, "revoke", "", 0)[0]
                )

    @invariant()
    def what_was_is_on_the_topic_before_anything_changes_and_every_undo_has_it(self) -> None:
        did = {each.intent.response_id for each in self.applied}  # what expired may never have taken place
        for effect in self.world.gateway.effects:
            if effect.intent.direction == "undo":
                assert effect.intent.before == WAS or effect.intent.response_id not in did
            elif effect.intent.rung != "revoke":
                assert effect.noted

    @invariant()
    def volume_alone_does_nothing(self) -> None:
        weak = {(i.key_id, i.revision) for each in self.world.incidents.values() for i in each if len(i.findings) == 1}
        proofs = {x.response_id for x in self.world.lines() if x.rung == "revoke"}
        acted = {
            (x.key_id, x.revision) for x in self.world.lines() if x.stage == "acting" and x.response_id not in proofs
        }
        assert not acted & weak

    def heal(self) -> None:
        world = self.world
        world.gateway.mood = "ok"
        world.say(Switched(stop=False, by="ann"))
        world.say(Simulating(on=False, by="ann"))
        world.say(Reset(by="ann", reason=""))
        for _ in range(8):
            assert self.wait(live(world, next(self.names)))
            world.advance(ENDLESS_S / 8)
        assert self.wait(live(world, next(self.names)))
        allowed = {
            x.response_id
            for x in world.lines()
            if (x.stage, x.verdict, x.direction, x.switch) == ("decided", "allowed", "apply", "")
        }
        ended = {x.response_id for x in world.lines() if x.stage in ("done", "failed") and x.direction == "apply"}
        assert allowed <= ended
        timed = {spot for spot in world.gateway.set_on if spot[1] in ("suspend", "fence")}
        revoked = {name for name, rung in world.gateway.set_on if rung == "revoke"}
        assert {name for name, _ in timed} <= revoked
        rotated = {act.proposal.key_id for act in self.read().acts.values() if act.overlaps}
        assert rotated <= {name for name, each in (world.catalogue.keys or {}).items() if each.protected}
        assert not [act for act in self.read().acts.values() if act.stage in ("open", "pending")]
        assert all(msgspec.json.decode(value) for value in world.log.values(DECISIONS))


Responders.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck)
)
TestResponders = Responders.TestCase


def test_what_a_wrong_clock_gave_up_and_another_did_is_not_done_again() -> None:
    story = Responders()
    story.declare(protected=set())
    story.incidents_of_the_first_hour(names=["k1", "k2"], kind="suspend", fuse=None)
    story.incidents(names=["k3"], kind="suspend", old=False, fuse=(3, False))
    story.two_at_once(fuses=(None, None), skew_s=7200.0, zombie=True)
    story.incidents(names=["k3"], kind="suspend", old=False, fuse=None)
    assert {each.result for each in story.records() if isinstance(each, Finished)} == {"expired", "done"}
    story.nothing_is_done_twice()
    story.teardown()


def test_what_was_rotated_is_revoked_at_its_deadline_by_whoever_lives_then() -> None:
    story = Responders()
    story.declare(protected=set())
    story.incidents_of_the_first_hour(names=["k1", "k2", "k3"], kind="rotate", fuse=(9, False))
    story.one_responder(None)
    assert set(story.world.gateway.set_on) == {(name, "rotate") for name in ("k1", "k2", "k3")}
    story.time_passes(3700.0)
    story.one_responder((7, True))
    story.one_responder(None)
    revoked = {name for name, rung in story.world.gateway.set_on if rung == "revoke"}
    assert revoked == {"k1", "k2", "k3"}
    story.no_cap_is_exceeded()
    story.nothing_is_done_twice()
    story.teardown()
