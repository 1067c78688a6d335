"""The demo's exit code: 0 only if every attack was found, the leak refused, and no innocent key acted on."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from pipeline.config.tree import Topics
from pipeline.demo import fleet, story
from pipeline.demo.screen import in_time
from pipeline.demo.story import Scene
from pipeline.demo.verdict import judge, passed, strangers
from pipeline.demo.watch import Watch, rfc3339
from schemas.incident import Incident

BEGAN_US = int(datetime(2026, 11, 24, 2, 30, tzinfo=UTC).timestamp()) * 1_000_000
TOPICS = Topics()


def scenes() -> tuple[Scene, ...]:
    """The story's scenes, all begun."""
    planned = story.schedule(fleet.build(7), datetime.fromtimestamp(BEGAN_US / 1e6, UTC), 7)
    for scene in planned:
        scene.started_us = BEGAN_US
    return planned


def incident(watch: Watch, key_id: str, at_us: int = BEGAN_US + 1_000_000) -> None:
    """The product reports an incident."""
    body = Incident(
        incident_id=f"i-{key_id}", key_id=key_id, rule="visit", revision=1, change="opened", state="open",
        severity="high", rung="revoke", opened_at=rfc3339(at_us), last_at=rfc3339(at_us),
    )  # fmt: skip
    watch.take(TOPICS.incidents, msgspec.json.encode(body), TOPICS)


def act(watch: Watch, key_id: str, verdict: str = "allowed", rung: str = "revoke") -> None:
    """The product reports that it did something (or would have)."""
    body = {
        "response_id": "r", "incident_id": f"i-{key_id}", "revision": 1, "key_id": key_id, "key_version": 1,
        "at": rfc3339(BEGAN_US), "stage": "done", "verdict": verdict, "rung": rung, "reason": "",
    }  # fmt: skip
    watch.take(TOPICS.responses, msgspec.json.encode(body), TOPICS)


def found_all(planned: tuple[Scene, ...]) -> tuple[Watch, dict[str, int]]:
    """All attacks found, the leaked key refused, the other one fenced: its owner goes on, its thief does not."""
    watch = Watch(lambda message: None)
    for scene in planned:
        if scene.attack:
            incident(watch, scene.keys[0])
    leaked = planned[0].keys[0]
    act(watch, leaked)
    fenced = next(scene for scene in planned if scene.must_fence)
    fenced.refused_us = BEGAN_US + 1_500_000
    act(watch, fenced.keys[0], rung="fence")
    return watch, {leaked: 401, fenced.keys[0]: 200}


def verdict(planned: tuple[Scene, ...], watch: Watch, proofs: dict[str, int]) -> bool:
    """What the demo would exit with."""
    return passed(judge(planned, watch, proofs), strangers(planned, watch))


def test_all_found_and_the_leak_refused_passes() -> None:
    planned = scenes()
    assert verdict(planned, *found_all(planned))


def test_a_missed_attack_fails() -> None:
    planned = scenes()
    watch, proofs = found_all(planned)
    watch.incidents.pop()
    assert not verdict(planned, watch, proofs)


def test_a_leaked_key_that_still_works_after_its_revocation_fails() -> None:
    planned = scenes()
    watch, proofs = found_all(planned)
    assert not verdict(planned, watch, proofs | {planned[0].keys[0]: 200})


def test_a_fence_that_stops_the_owner_or_lets_the_thief_in_fails_and_so_does_a_revocation_in_its_place() -> None:
    planned = scenes()
    watch, proofs = found_all(planned)
    fenced = next(scene for scene in planned if scene.must_fence)
    assert not verdict(planned, watch, proofs | {fenced.keys[0]: 403})
    fenced.refused_us = 0
    assert not verdict(planned, watch, proofs)
    fenced.refused_us = BEGAN_US + 1_500_000
    act(watch, fenced.keys[0])
    assert not verdict(planned, watch, proofs)


def test_the_time_from_the_first_hostile_request_to_the_first_refused_one_is_told() -> None:
    planned = scenes()
    outcomes = judge(planned, *found_all(planned))
    assert [each.stopped_after_s for each in outcomes if each.scene.must_fence] == [1.5]
    assert "p50 1.50 s, p99 1.50 s, over 1 acts" in in_time(outcomes)
    assert in_time(outcomes[:1]) == "", "the leaked key's thief went on to the end of the scene"


def test_an_act_on_an_innocent_key_fails_inside_a_scene_and_outside_all() -> None:
    planned = scenes()
    for key_id in (planned[1].keys[0], "key_app_00"):
        watch, proofs = found_all(planned)
        act(watch, key_id)
        assert not verdict(planned, watch, proofs)


def test_an_incident_on_an_innocent_key_is_shown_but_does_not_fail() -> None:
    planned = scenes()
    watch, proofs = found_all(planned)
    incident(watch, planned[1].keys[0])
    outcomes = judge(planned, watch, proofs)
    assert [outcome.listed for outcome in outcomes if outcome.scene.name == planned[1].name] == [1]
    assert verdict(planned, watch, proofs)


def test_what_was_refused_or_only_simulated_is_no_act() -> None:
    planned = scenes()
    watch, proofs = found_all(planned)
    act(watch, "key_app_00", "simulated")
    act(watch, "key_app_01", "refused")
    assert verdict(planned, watch, proofs)


def test_an_incident_that_rests_on_the_history_alone_finds_nothing() -> None:
    planned = scenes()
    watch, proofs = found_all(planned)
    watch.incidents.clear()
    for scene in planned:
        incident(watch, scene.keys[0], BEGAN_US - 60_000_000)
    assert not verdict(planned, watch, proofs)
