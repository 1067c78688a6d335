"""Credentials of every adapter, and the raw keys that gateways answer with: not one is in anything that we write."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from pipeline import log as logs
from pipeline.cli.main import app
from pipeline.config.file import show
from pipeline.config.setting import Secret
from pipeline.config.tree import Config, Respond
from pipeline.errors import ConfigError
from pipeline.metrics import render
from pipeline.respond.act import Acting
from pipeline.respond.adapters import build
from pipeline.respond.adapters.adapter import Adapter, Outcome
from pipeline.respond.adapters.settings import Adapters, AwsApiGateway, AwsIam, Kong, Tyk, Unkey
from pipeline.respond.enforcement.proof import Watch
from tests.pipeline.respond.adapters import fake_aws, fake_kong, fake_tyk, fake_unkey
from tests.pipeline.respond.adapters.peers import Fake, Running, running
from tests.pipeline.respond.adapters.test_contract import intent, noting, undo
from tests.pipeline.respond.incidents import NOW_S

CREDENTIALS = {
    "kong": (fake_kong.TOKEN,), "tyk": (fake_tyk.SECRET,), "unkey": (fake_unkey.ROOT_KEY,),
    "aws_apigateway": (fake_aws.SECRET, fake_aws.TOKEN), "aws_iam": (fake_aws.SECRET, fake_aws.TOKEN),
}  # fmt: skip
ANSWERED = {"kong": fake_kong.KEY, "unkey": fake_unkey.NEW_SECRET, "aws_apigateway": fake_aws.API_KEY}
"""Raw keys that these gateways put into their answers."""
CANARIES = frozenset({each for some in CREDENTIALS.values() for each in some} | set(ANSWERED.values()))
FAULTS: tuple[list[int | str], ...] = ([], ["lost"], [401], [500, 429], [200])

log = logging.getLogger("pipeline.respond.carry")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """All log lines of all loggers, down to DEBUG."""
    out, root = io.StringIO(), logging.getLogger()
    level, factory = root.level, logging.getLogRecordFactory()
    handler = logs.set_up("DEBUG", stream=out)
    yield out
    root.removeHandler(handler)
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


def fakes(handover: Path) -> dict[str, Fake]:
    return {
        "kong": fake_kong.FakeKong(), "tyk": fake_tyk.FakeTyk(), "unkey": fake_unkey.FakeUnkey(str(handover)),
        "aws_apigateway": fake_aws.FakeApiGateway(), "aws_iam": fake_aws.FakeIam(),
    }  # fmt: skip


async def act(adapter: Adapter, fake: Fake, server: Running, faults: list[int | str]) -> list[str]:
    """Every rung and its undo under these faults; what the responder would write of it."""
    written = []
    for rung, support in adapter.matrix.items():
        wanted = intent(fake, rung, f"i-{rung}-{faults}")
        server.faults = list(faults)
        outcome = await noting(adapter, wanted)
        watch = Watch.of(wanted, NOW_S, support)
        log.info("%s %s: %s", wanted.key_id, rung, outcome.words)  # as the responder does
        written += [repr(outcome), repr(wanted), msgspec.json.encode(watch).decode()]
        if support.undo and isinstance(outcome, Outcome):
            written.append(repr(await adapter.attempt(undo(wanted, outcome))))
    return [*written, repr(await adapter.check())]


async def test_no_credential_and_no_raw_key_is_in_outcomes_audit_metrics_logs_or_reprs(
    tmp_path: Path, lines: io.StringIO
) -> None:
    written: list[str] = []
    for name, fake in fakes(tmp_path).items():
        async with running(fake.routes()) as server:
            adapter = fake.adapter(server.url)
            for faults in FAULTS:
                written += await act(adapter, fake, server, faults)
            stopping = Acting(adapter, lambda: "drill", lambda: NOW_S)
            written += [repr(await stopping.act(intent(fake, "revoke"))), repr(adapter), repr(vars(adapter))]
            sent = repr(server.requests)
        credential = CREDENTIALS[name][-1]
        assert credential in sent, f"{name} sent no credential: the test proves nothing"
    written += [render().decode(), lines.getvalue()]
    assert len(lines.getvalue()) > 1000
    assert fake_unkey.NEW_SECRET in texts_of(tmp_path)  # where it belongs
    assert "keywatch_adapter_calls_total" in render().decode()
    found = {canary for canary in CANARIES for text in written if canary in text}
    assert found == set()


def texts_of(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.iterdir()]


def configured(url: str) -> Config:
    secret, token = Secret(fake_aws.SECRET), Secret(fake_aws.TOKEN)
    given = Adapters(
        kong=Kong(url=url, token=Secret(fake_kong.TOKEN)), tyk=Tyk(url=url, secret=Secret(fake_tyk.SECRET)),
        unkey=Unkey(url=url, root_key=Secret(fake_unkey.ROOT_KEY), allow_private=True),
        aws_apigateway=AwsApiGateway(
            region="eu-central-1", access_key_id="AKIA1", secret_access_key=secret, session_token=token, url=url,
            allow_private=True,
        ),
        aws_iam=AwsIam(
            access_key_id="AKIA1", secret_access_key=secret, session_token=token, url=url, allow_private=True
        ),
    )  # fmt: skip
    return Config(respond=Respond(adapters=given))


def test_the_shown_configuration_and_what_is_said_of_a_wrong_one_hold_no_credential() -> None:
    config = configured("http://127.0.0.1:9")
    texts = [repr(config), str(config), show(config), repr(build.gateways(config.respond))]
    for wrong in ("http://kong.internal", "https://127.0.0.1/ \x00", "ftp://x"):
        with pytest.raises(ConfigError) as error:
            build.gateways(configured(wrong).respond)
        texts.append(str(error.value) + repr(error.value.__cause__))
    assert all(canary not in text for text in texts for canary in CANARIES)
    assert show(config, redacted=False).count(fake_kong.TOKEN) == 1


def test_what_the_commands_print_holds_no_credential(tmp_path: Path) -> None:
    path = tmp_path / "keywatch.toml"
    path.write_text(show(configured("http://127.0.0.1:9"), redacted=False))
    assert fake_unkey.ROOT_KEY in path.read_text()
    printed = ""
    for command in (["adapters", "check"], ["adapters", "matrix"], ["adapters", "check", "--json"], ["config", "show"]):
        shown: Any = CliRunner().invoke(app, [*command, "--config", str(path)])
        printed += shown.output + repr(shown.exception)
    assert "could not be reached" in printed
    assert "kong*" in printed
    assert all(canary not in printed for canary in CANARIES)


@pytest.mark.parametrize("name", ["kong", "aws_apigateway"])
def test_the_raw_key_really_stands_in_what_the_gateway_holds(name: str, tmp_path: Path) -> None:
    assert ANSWERED[name] in repr(fakes(tmp_path)[name].state)
