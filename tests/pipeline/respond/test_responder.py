"""The process' start: a policy that names what does not exist stops it, and a kill switch that can't be seen is on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.tree import Config, Kafka, Respond, Revocation
from pipeline.errors import ConfigError
from pipeline.respond.act import Acting
from pipeline.respond.adapters.adapter import Intent
from pipeline.respond.ladder import LADDER
from pipeline.respond.ledger.ledger import Ledger
from pipeline.respond.policy.check import check
from pipeline.respond.responder import STOP_ENV, actors_of, adapters_of, kill_switch, main, matrices_of, undoers_of
from tests.pipeline.respond.incidents import endpoint, policy


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"revocation": policy(mode="on")}, "mode is 'on'"),
        ({"revocation": policy(min_severity="low")}, "min_severity"),
        ({"revocation": policy(endpoint="")}, "set respond.revocation.endpoint"),
        ({"revocation": policy(endpoint="other")}, "no endpoint has that name"),
        ({"endpoints": (endpoint("http://a/"), endpoint("http://b/"))}, "same name"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_at_the_start(changes: dict[str, Any], says: str) -> None:
    values: dict[str, Any] = {"endpoints": (endpoint("http://127.0.0.1/"),), "revocation": policy()}
    check(Respond(**values))
    with pytest.raises(ConfigError, match=says):
        check(Respond(**(values | changes)))


def test_what_simulates_has_nothing_that_could_act() -> None:
    endpoints = (endpoint("http://127.0.0.1/"),)
    for mode in ("off", "simulate"):
        respond = Respond(endpoints=endpoints, revocation=Revocation(mode=mode, endpoint="keys"))
        assert actors_of(respond, adapters_of(respond), Ledger()) == {}
    respond = Respond(endpoints=endpoints, revocation=policy())
    assert isinstance(actors_of(respond, adapters_of(respond), Ledger())["keys"], Acting)


def test_the_kill_switch_is_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stop"
    respond = Respond(kill_switch_file=str(file))
    assert kill_switch(respond) == ""
    file.touch()
    assert "exists" in kill_switch(respond)
    assert kill_switch(Respond()) == ""
    monkeypatch.setenv(STOP_ENV, "1")
    assert STOP_ENV in kill_switch(Respond())


def test_a_kill_switch_that_cannot_be_looked_at_is_on() -> None:
    assert "cannot be looked at" in kill_switch(Respond(kill_switch_file="/tmp/" + "x" * 300))


def test_bad_configuration_and_a_missing_broker_are_exit_codes_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert main(Config(respond=Respond(revocation=policy(endpoint="other")))) == 2
    assert main(Config(kafka=Kafka(brokers="127.0.0.1:9"))) == 1
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]
    assert len(ours) == 2
    assert "no Kafka broker answers at 127.0.0.1:9" in ours[1]


def test_without_an_adapter_a_simulation_shows_every_rung_and_an_enforcing_policy_does_nothing() -> None:
    assert set(matrices_of(Respond(), {})[""]) == {*LADDER[1:]}
    endpoints = (endpoint("http://127.0.0.1/"),)
    enforcing = Respond(endpoints=endpoints, revocation=policy())
    assert set(matrices_of(enforcing, adapters_of(enforcing))) == {"keys"}


async def test_what_undoes_can_do_nothing_else() -> None:
    respond = Respond(endpoints=(endpoint("http://127.0.0.1:9/"),), revocation=policy())
    (undoer,) = undoers_of(adapters_of(respond)).values()
    intent = Intent(
        act_id="a", response_id="r", incident_id="i", key_id="k", key_version=1, granted_at="", granted_at_s=0.0,
        reason="", rung="suspend",
    )  # fmt: skip
    assert (await undoer.act(intent)).words == "not sent: this can only undo"
