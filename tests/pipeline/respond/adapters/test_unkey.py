"""What is Unkey's own: the new key's secret is seen once, and where it goes."""

from __future__ import annotations

import dataclasses
import logging
import stat
from pathlib import Path

import pytest

from pipeline.respond.adapters.adapter import Outcome, TryAgain
from tests.pipeline.respond.adapters.fake_unkey import KEY_ID, NEW_SECRET, NOW_MS, FakeUnkey
from tests.pipeline.respond.adapters.peers import running
from tests.pipeline.respond.adapters.test_contract import done, intent


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def test_a_new_keys_secret_goes_into_a_file_of_its_owner_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake = FakeUnkey(str(tmp_path))
    async with running(fake.routes()) as server:
        rotate = dataclasses.replace(intent(fake, "rotate"), until_s=NOW_MS / 1000 + 3600)
        outcome = await done(fake.adapter(server.url), rotate)
    file = tmp_path / outcome.new_key_id
    assert file.read_text() == NEW_SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path) == [outcome.new_key_id]
    assert NEW_SECRET not in repr(outcome) + caplog.text
    assert fake.state["keys"][KEY_ID]["expires"] == NOW_MS + 3_600_000
    assert fake.state["keys"][outcome.new_key_id]["meta"] == {"plan": "pro"}


async def test_a_reroll_whose_answer_got_lost_is_told_and_not_repeated(tmp_path: Path) -> None:
    fake = FakeUnkey(str(tmp_path))
    async with running(fake.routes()) as server:
        server.faults = [0, "lost"]  # the mark goes through, the answer of the reroll is lost
        assert isinstance(await fake.adapter(server.url).attempt(intent(fake, "rotate")), TryAgain)
        again = await fake.adapter(server.url).attempt(intent(fake, "rotate"))
    assert isinstance(again, Outcome)
    assert (again.label, "by hand" in again.words) == ("refused", True)
    assert len(fake.state["keys"]) == 2


async def test_the_undo_of_a_reroll_whose_answer_got_lost_lets_the_old_key_live_on(tmp_path: Path) -> None:
    """Its owner never got the new secret: were the undo refused, he would have no key at the end of the overlap."""
    fake = FakeUnkey(str(tmp_path))
    async with running(fake.routes()) as server:
        before = fake.state["keys"][KEY_ID].get("expires")
        server.faults = [0, "lost"]
        assert isinstance(await fake.adapter(server.url).attempt(intent(fake, "rotate")), TryAgain)
        assert fake.state["keys"][KEY_ID].get("expires") != before
        undone = await done(fake.adapter(server.url), dataclasses.replace(intent(fake, "rotate"), direction="undo"))
    assert fake.state["keys"][KEY_ID].get("expires") == before
    assert "delete it by hand" in undone.words


async def test_without_a_place_for_the_secret_there_is_no_rotate() -> None:
    fake = FakeUnkey()
    assert "rotate" not in fake.adapter("http://127.0.0.1:1").matrix


async def test_a_place_that_cannot_be_written_to_is_a_finding_of_check(tmp_path: Path) -> None:
    fake = FakeUnkey(str(tmp_path / "nowhere"))
    async with running(fake.routes()) as server:
        assert "handover_dir" in (await fake.adapter(server.url).check())[0]
