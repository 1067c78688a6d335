"""Which adapters a configuration has, what is refused at the start, and the command that shows and checks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config.file import build as configure
from pipeline.config.setting import Secret
from pipeline.config.tree import Respond
from pipeline.errors import ConfigError
from pipeline.respond.adapters import build, report
from pipeline.respond.adapters.settings import Adapters, AwsApiGateway, Kong, Tyk, Unkey
from tests.pipeline.respond.adapters.fake_tyk import SECRET, FakeTyk
from tests.pipeline.respond.adapters.peers import running
from tests.pipeline.respond.incidents import endpoint

KONG = Kong(url="https://kong-admin.internal:8444", token=Secret("t"))


def test_an_adapter_is_in_use_once_its_address_is_set_and_endpoints_are_webhooks() -> None:
    respond = Respond(adapters=Adapters(kong=KONG), endpoints=(endpoint("http://127.0.0.1/x", "keys"),))
    assert {name: each.name for name, each in build.adapters(respond).items()} == {"kong": "kong", "keys": "webhook"}
    assert build.adapters(Respond()) == {}


def test_an_endpoint_with_an_adapters_name_is_refused() -> None:
    respond = Respond(adapters=Adapters(kong=KONG), endpoints=(endpoint("http://127.0.0.1/x", "kong"),))
    with pytest.raises(ConfigError, match="rename the endpoint"):
        build.adapters(respond)


@pytest.mark.parametrize(("given", "missing"), [
    (Adapters(tyk=Tyk(url="https://tyk.internal")), "tyk.secret"),
    (Adapters(unkey=Unkey(url="https://api.unkey.com")), "unkey.root_key"),
    (Adapters(aws_apigateway=AwsApiGateway(region="eu-central-1")), "aws_apigateway.access_key_id"),
])  # fmt: skip
def test_an_adapter_without_its_credential_is_refused_at_the_start(given: Adapters, missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        build.adapters(Respond(adapters=given))


@pytest.mark.parametrize(
    "url", ["http://kong-admin.internal:8001", "https://u:p@kong", "ftp://kong", "http://10.0.0.7"]
)
def test_a_credential_never_goes_out_in_the_clear_nor_in_a_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"respond\.adapters\.kong"):
        build.adapters(Respond(adapters=Adapters(kong=Kong(url=url))))


def test_a_public_service_is_not_looked_for_inside() -> None:
    with pytest.raises(ConfigError, match=r"respond\.adapters\.unkey"):
        build.adapters(Respond(adapters=Adapters(unkey=Unkey(url="https://10.0.0.7", root_key=Secret("k")))))


def test_settings_come_from_a_file_and_credentials_from_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("kong-token\n")
    config = configure({"respond": {"adapters": {"kong": {"url": KONG.url, "token_file": str(tmp_path / "token")}}}})
    assert config.respond.adapters.kong.token.reveal() == "kong-token"
    assert "kong-token" not in repr(config)


def test_the_matrix_has_a_row_for_each_supported_rung_and_no_undo_of_a_revocation() -> None:
    rows = report.rows(Respond())
    assert {row.adapter for row in rows} == {"webhook", "kong", "aws_apigateway", "aws_iam", "tyk", "unkey"}
    assert all(row.undo == (row.rung != "revoke") for row in rows)
    assert ("tyk", "fence") not in {(row.adapter, row.rung) for row in rows}


async def test_check_asks_the_gateways_in_use_and_says_what_is_wrong() -> None:
    fake = FakeTyk(hash_keys=False)
    async with running(fake.routes()) as server:
        tyk = Tyk(url=server.url, secret=Secret(SECRET))
        wrong = await report.check(Respond(adapters=Adapters(tyk=tyk)))
        fake.hash_keys = True
        right = await report.check(Respond(adapters=Adapters(tyk=tyk)))
    assert "hash_keys" in wrong["tyk"][0]
    assert right == {"tyk": []}


def test_the_command_prints_the_matrix_and_fails_where_a_gateway_is_not_well() -> None:
    shown = CliRunner().invoke(app, ["adapters", "matrix", "--json"])
    assert shown.exit_code == 0
    assert {"adapter": "kong", "rung": "suspend", "granularity": "key", "delay_s": 10.0, "undo": True,
            "in_use": False, "ends_old": "", "own_scopes": []} in json.loads(shown.stdout)  # fmt: skip
    table = CliRunner().invoke(app, ["adapters", "matrix"]).stdout
    assert "key, no undo" in table
    lines = {line.split()[0]: line for line in table.splitlines() if line}
    assert "we end old" in lines["kong"]
    assert "we end old" in lines["webhook"]
    assert [name for name, line in lines.items() if "own list  " in line] == ["aws_iam"]
    assert "it ends old" not in table  # unkey rotates only where the new secret has a place
    assert CliRunner().invoke(app, ["adapters", "check"]).exit_code == 0
    there = {
        "KEYWATCH_RESPOND__ADAPTERS__TYK__URL": "http://127.0.0.1:9",
        "KEYWATCH_RESPOND__ADAPTERS__TYK__SECRET": "s3",
    }
    checked = CliRunner().invoke(app, ["adapters", "check"], env=there)
    assert checked.exit_code == 1
    assert "tyk" in checked.stdout
    assert "s3" not in checked.stdout
