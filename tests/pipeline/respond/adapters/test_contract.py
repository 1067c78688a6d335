"""What every adapter promises, against a fake with its vendor's semantics: rung by rung of its own matrix."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable

import pytest

from pipeline.respond.act import act_id, response_id
from pipeline.respond.adapters import aws_apigateway, aws_iam, kong, tyk, unkey
from pipeline.respond.adapters.adapter import Adapter, Intent, NoteFirst, Outcome, TryAgain
from pipeline.respond.adapters.settings import AwsApiGateway, AwsIam, Kong, Tyk, Unkey
from pipeline.respond.audit import rfc3339
from schemas.incident import Rung
from tests.pipeline.respond.adapters.fake_aws import FakeApiGateway, FakeIam
from tests.pipeline.respond.adapters.fake_kong import FakeKong
from tests.pipeline.respond.adapters.fake_tyk import FakeTyk
from tests.pipeline.respond.adapters.fake_unkey import FakeUnkey
from tests.pipeline.respond.adapters.peers import Fake, running, snapshot
from tests.pipeline.respond.incidents import NOW_S

HANDOVER = tempfile.mkdtemp(prefix="keywatch-handover-")
FAKES: dict[str, Callable[[], Fake]] = {
    "kong": FakeKong, "tyk": FakeTyk, "unkey": lambda: FakeUnkey(HANDOVER), "aws_apigateway": FakeApiGateway,
    "aws_iam": FakeIam,
}  # fmt: skip
MATRICES = {
    "kong": kong.matrix(Kong()), "tyk": tyk.matrix(Tyk()), "unkey": unkey.matrix(Unkey(handover_dir=HANDOVER)),
    "aws_apigateway": aws_apigateway.matrix(AwsApiGateway()), "aws_iam": aws_iam.matrix(AwsIam()),
}  # fmt: skip
ROWS = [(name, rung) for name, matrix in MATRICES.items() for rung in matrix]
UNDONE = [(name, rung) for name, rung in ROWS if MATRICES[name][rung].undo]
NOTED = [("aws_apigateway", "suspend"), ("aws_apigateway", "throttle"), ("aws_iam", "suspend"), ("kong", "rotate")]
"""Rungs for which the peer has no place for a mark: what was is noted before anything is changed."""
MARKED = [row for row in UNDONE if row not in NOTED and row != ("unkey", "rotate")]


def intent(fake: Fake, rung: Rung, incident_id: str = "i1") -> Intent:
    """A granted act on the fake's key."""
    return Intent(
        act_id=act_id(fake.key_id, 1, rung + incident_id), response_id=response_id(incident_id, rung, 1),
        incident_id=incident_id, key_id=fake.key_id, key_version=1, granted_at=rfc3339(NOW_S), granted_at_s=NOW_S,
        reason="odd", rung=rung, networks=("192.0.2.0/24", "2001:db8::/32"), limit_per_s=0.5,
    )  # fmt: skip


def undo(applied: Intent, outcome: Outcome) -> Intent:
    """Its undo."""
    return dataclasses.replace(applied, direction="undo", before=outcome.before)


async def noting(adapter: Adapter, wanted: Intent) -> Outcome | TryAgain | NoteFirst:
    """An attempt, after what it wants noted is."""
    answer = await adapter.attempt(wanted)
    if isinstance(answer, NoteFirst):
        return await adapter.attempt(dataclasses.replace(wanted, before=answer.before))
    return answer


async def done(adapter: Adapter, wanted: Intent) -> Outcome:
    outcome = await noting(adapter, wanted)
    assert isinstance(outcome, Outcome), outcome
    assert outcome.result == "done", outcome.words
    return outcome


@pytest.mark.parametrize(("name", "rung"), ROWS)
async def test_a_rung_takes_effect_and_a_second_attempt_from_another_process_changes_nothing(
    name: str, rung: Rung
) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        assert not fake.works(rung)
        first = await done(fake.adapter(server.url), intent(fake, rung))
        assert fake.works(rung)
        after = snapshot(fake)
        again = await done(fake.adapter(server.url), intent(fake, rung))
    assert snapshot(fake) == after
    assert again.new_key_id == first.new_key_id
    if (name, rung) in MARKED:
        assert again.before == first.before


@pytest.mark.parametrize(("name", "rung"), UNDONE)
async def test_the_undo_restores_exactly_what_was_and_may_be_repeated(name: str, rung: Rung) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        before = snapshot(fake)
        applied = await done(fake.adapter(server.url), intent(fake, rung))
        assert snapshot(fake) != before
        await done(fake.adapter(server.url), undo(intent(fake, rung), applied))
        assert snapshot(fake) == before
        await done(fake.adapter(server.url), undo(intent(fake, rung), applied))
    assert snapshot(fake) == before


@pytest.mark.parametrize(("name", "rung"), MARKED)
async def test_an_answer_that_got_lost_does_not_lose_what_was_before_even_to_another_process(
    name: str, rung: Rung
) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        before = snapshot(fake)
        adapter = fake.adapter(server.url)
        server.faults = ["lost"]
        attempts = 0
        while isinstance(outcome := await adapter.attempt(intent(fake, rung)), TryAgain):
            attempts += 1
            adapter = fake.adapter(server.url)
        assert attempts == 1
        assert isinstance(outcome, Outcome)
        assert fake.works(rung)
        await done(fake.adapter(server.url), undo(intent(fake, rung), outcome))
    assert snapshot(fake) == before


@pytest.mark.parametrize(("name", "rung"), NOTED)
async def test_without_a_place_for_a_mark_what_was_is_told_first_and_serves_whoever_goes_on(
    name: str, rung: Rung
) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        before = snapshot(fake)
        first = await fake.adapter(server.url).attempt(intent(fake, rung))
        assert isinstance(first, NoteFirst)
        assert snapshot(fake) == before
        going_on = dataclasses.replace(intent(fake, rung), before=first.before)
        server.faults = ["lost"]
        assert isinstance(await fake.adapter(server.url).attempt(going_on), TryAgain)
        assert fake.works(rung)
        after = snapshot(fake)
        assert (await done(fake.adapter(server.url), going_on)).before == first.before
        assert snapshot(fake) == after
        await done(fake.adapter(server.url), dataclasses.replace(going_on, direction="undo"))
    assert snapshot(fake) == before


@pytest.mark.parametrize("name", ["aws_apigateway", "aws_iam"])
async def test_an_undo_takes_no_key_out_of_use_whatever_was_noted(name: str) -> None:
    """A second act that found the work of a first one noted "disabled"; the first one's undo came before its own."""
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        before, adapter = snapshot(fake), fake.adapter(server.url)
        first = await done(adapter, intent(fake, "suspend"))
        second = await done(adapter, intent(fake, "suspend", "i2"))
        assert second.before != first.before
        await done(adapter, undo(intent(fake, "suspend"), first))
        await done(adapter, undo(intent(fake, "suspend", "i2"), second))
    assert snapshot(fake) == before


@pytest.mark.parametrize(("name", "rung"), UNDONE)
async def test_what_somebody_changed_meanwhile_is_not_undone(name: str, rung: Rung) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        applied = await done(fake.adapter(server.url), intent(fake, rung))
        if not fake.tamper(rung):
            return
        changed = snapshot(fake)
        outcome = await fake.adapter(server.url).attempt(undo(intent(fake, rung), applied))
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.label) == ("failed", "refused"), outcome.words
    assert "meanwhile" in outcome.words
    assert snapshot(fake) == changed


@pytest.mark.parametrize(("name", "rung"), [row for row in ROWS if row[1] in ("throttle", "fence", "deny", "flag")])
async def test_a_second_act_of_the_same_rung_does_not_overwrite_what_the_first_has_to_restore(
    name: str, rung: Rung
) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        before = snapshot(fake)
        first = await done(fake.adapter(server.url), intent(fake, rung))
        other = dataclasses.replace(intent(fake, rung, "i2"), limit_per_s=0.2, networks=("198.51.100.0/24",))
        other = dataclasses.replace(other, scopes=("s3:GetObject",))
        await noting(fake.adapter(server.url), other)
        await fake.adapter(server.url).attempt(undo(intent(fake, rung), first))
        held = snapshot(fake) == before
    assert held or (name, rung) == ("aws_apigateway", "throttle")  # the narrower one stays: refused, told by hand


@pytest.mark.parametrize("name", FAKES)
@pytest.mark.parametrize("status", [301, 400, 401, 403, 409, 418, 429, 500, 503, 200])
async def test_whatever_the_peer_answers_is_an_outcome_in_our_own_words(name: str, status: int) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        server.only_writes, server.faults = False, [status] * 20
        answer = await fake.adapter(server.url).attempt(intent(fake, "suspend"))
        problems = await fake.adapter(server.url).check()
    assert isinstance(answer, TryAgain) == (status in (429, 500, 503)), answer
    if isinstance(answer, TryAgain):
        assert answer.retry_after_s == (7 if status == 429 else 0)
    else:
        assert isinstance(answer, Outcome)
        assert answer.result == "failed"
    assert "no json" not in answer.words
    assert problems
    assert not any("no json" in line for line in problems)


@pytest.mark.parametrize("name", FAKES)
async def test_a_peer_that_is_not_there_is_tried_again(name: str) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        url = server.url
    assert isinstance(await fake.adapter(url).attempt(intent(fake, "suspend")), TryAgain)


@pytest.mark.parametrize("name", FAKES)
async def test_a_key_that_the_peer_does_not_know_is_out_of_use_already_and_nothing_to_throttle(name: str) -> None:
    fake = FAKES[name]()
    unknown = {"kong": "0b6d3a4e-0000-4a8b-9c3d-5e7f8a9b0c1d", "tyk": "00ff00ff", "unkey": "key_unknown",
               "aws_apigateway": "zzzzzzzzzz", "aws_iam": "AKIAIOSFODNN7UNKNOWN"}[name]  # fmt: skip
    async with running(fake.routes()) as server:
        before = snapshot(fake)
        gone = dataclasses.replace(intent(fake, "revoke"), key_id=unknown)
        assert "knows no such" in (await done(fake.adapter(server.url), gone)).words
        for rung in ("throttle", "fence", "flag", "deny"):
            if rung in MATRICES[name]:
                answer = await fake.adapter(server.url).attempt(dataclasses.replace(gone, rung=rung))
                assert isinstance(answer, Outcome)
                assert answer.result == "failed"
    assert snapshot(fake) == before


@pytest.mark.parametrize("name", FAKES)
@pytest.mark.parametrize(
    "key_id", ["../../plugins", "a?b=c", "sk_live_raw_key_4eC39HqLyjWDarjtT1zdp7dc", "x\r\nHost: a"]
)
async def test_an_id_that_is_none_of_the_peers_is_never_sent(name: str, key_id: str) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        answer = await fake.adapter(server.url).attempt(dataclasses.replace(intent(fake, "suspend"), key_id=key_id))
        paths = " ".join(f"{path} {body!r}" for _, path, _, body in server.requests)
    assert isinstance(answer, Outcome)
    if name != "unkey" or not key_id.startswith("sk_live"):  # Unkey's ids look like any word
        assert answer.label == "refused"
        assert key_id not in paths


@pytest.mark.parametrize(("name", "rung"), UNDONE)
async def test_an_undo_of_an_act_whose_answer_never_came_restores_or_says_by_hand(name: str, rung: Rung) -> None:
    """The ledger has no `before` of it: the peer's marks have, or nobody does and nothing is done."""
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        original = snapshot(fake)
        await done(fake.adapter(server.url), intent(fake, rung))
        after = snapshot(fake)
        unknown = dataclasses.replace(intent(fake, rung), direction="undo", act_id=act_id(fake.key_id, 1, "undo"))
        answer = await fake.adapter(server.url).attempt(unknown)
    assert isinstance(answer, Outcome)
    if ((name, rung) in MARKED and rung != "rotate") or (name, rung) == ("unkey", "rotate"):
        assert answer.result == "done", answer.words
        assert snapshot(fake) == original
    else:
        assert (answer.label, "by hand" in answer.words) == ("refused", True)
        assert snapshot(fake) == after


@pytest.mark.parametrize(("name", "rung"), [row for row in UNDONE if row != ("kong", "rotate")])
async def test_an_undo_of_what_never_took_place_is_done_and_does_nothing(name: str, rung: Rung) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        original = snapshot(fake)
        await done(fake.adapter(server.url), dataclasses.replace(intent(fake, rung), direction="undo"))
    assert snapshot(fake) == original


@pytest.mark.parametrize("name", ["kong", "tyk", "unkey"])
async def test_a_key_that_is_revoked_while_it_is_suspended_stays_out_when_the_suspension_ends(name: str) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        suspended = await done(fake.adapter(server.url), intent(fake, "suspend"))
        await done(fake.adapter(server.url), intent(fake, "revoke"))
        answer = await fake.adapter(server.url).attempt(undo(intent(fake, "suspend"), suspended))
        assert fake.works("revoke")
    assert isinstance(answer, Outcome)
    assert answer.label == "refused"


@pytest.mark.parametrize("name", FAKES)
async def test_check_finds_nothing_wrong_and_changes_nothing(name: str) -> None:
    fake = FAKES[name]()
    async with running(fake.routes()) as server:
        before = snapshot(fake)
        assert await fake.adapter(server.url).check() == []
        assert all(method == "GET" or b"keys.update" not in body for method, _, _, body in server.requests)
    assert snapshot(fake) == before
