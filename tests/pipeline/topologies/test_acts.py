"""What the other topologies find moves nobody to take a key out of use by itself."""

from __future__ import annotations

import pytest

from pipeline.config.tree import Revocation
from pipeline.respond.guard import Question, judge, refusals
from pipeline.respond.ladder import revocation
from schemas.incident import Incident
from schemas.key import Key
from tests.pipeline.topologies import messages
from tests.pipeline.topologies.messages import DAY_US, HOUR_US, MINUTE_US, START_US, sighting
from tests.pipeline.topologies.test_lifecycle import RENTED_ABROAD, made, used
from tests.pipeline.topologies.test_spray import stolen

POLICY = Revocation(mode="enforce", min_severity="medium", min_family_bits=0.0, max_evidence_age_s=86_400.0)


def refused_by(incident: Incident) -> set[str]:
    key = Key(key_id="key_1", environment="live", version=1) if incident.key_id == "key_1" else None
    now_s = (START_US + 9 * DAY_US) / 1e6
    return {result.guard for result in refusals(judge(Question(incident, revocation(POLICY), key, "", "", now_s)))}


def test_a_source_is_no_key_and_its_keys_are_not_touched() -> None:
    worst = messages.judge("sources", stolen(40, elsewhere=True))[-1]
    assert worst.severity == "critical"
    assert {"catalogued", "protected", "evidence"} <= refused_by(worst)


@pytest.mark.parametrize("role", ["member", "key"])
def test_a_keys_life_is_one_kind_of_evidence_and_two_are_needed(role: str) -> None:
    log = [made(START_US, role=role, owner="else"), used(START_US + 10 * MINUTE_US, RENTED_ABROAD)]
    assert "evidence" in refused_by(messages.judge("lifecycle", log)[-1])


def test_guessing_rests_on_requests_that_proved_nothing() -> None:
    tried = [sighting(f"made_up_{n}", START_US + 9 * DAY_US + n, kind="refused") for n in range(30)]
    found = messages.judge("sources", [*tried, START_US + 9 * DAY_US + HOUR_US])
    assert "authenticated" in refused_by(found[0])
