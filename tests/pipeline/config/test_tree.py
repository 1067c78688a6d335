"""The configuration: from file, variables and secret files; every fault names its setting."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from pipeline.config.file import build, load, schema, show
from pipeline.config.tree import ClickHouse, Config, Endpoint, Respond, Secret
from pipeline.errors import ConfigError

FULL = """
[kafka]
brokers = "a:9092,b:9092"
partitions = 3
[clickhouse]
password = "hidden-one"
[respond.revocation]
mode = "enforce"
endpoint = "keys"
environments = ["test"]
[[respond.endpoints]]
name = "keys"
url = "https://keys.example.com/hook"
secret = "whsec_hidden-two"
[detectors.spike]
floor = 3
"""


def file(folder: Path, text: str) -> Path:
    path = folder / "keywatch.toml"
    path.write_text(text)
    return path


def test_without_file_and_variables_the_defaults_count() -> None:
    assert load(None, {}) == Config()


def test_a_file_and_variables_and_variables_win(tmp_path: Path) -> None:
    config = load(
        file(tmp_path, FULL),
        {
            "KEYWATCH_KAFKA__PARTITIONS": "7",
            "KEYWATCH_WORKER__TICKS": "false",
            "KEYWATCH_RESPOND__REVOCATION__ENVIRONMENTS": "live, test",
            "KEYWATCH_CLICKHOUSE__INSERT_S": "0.5",
            "KEYWATCH_FAULT": "no setting: one underscore",
        },
    )
    assert (config.kafka.brokers, config.kafka.partitions, config.worker.ticks) == ("a:9092,b:9092", 7, False)
    assert config.respond.revocation.environments == ("live", "test")
    assert config.clickhouse.insert_s == 0.5
    assert config.respond.endpoints[0].secret.reveal() == "whsec_hidden-two"
    assert config.detectors == {"spike": {"floor": 3}}


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    assert load(None, {"KEYWATCH_CONFIG": str(file(tmp_path, "[kafka]\npartitions = 3"))}).kafka.partitions == 3


def test_secrets_come_from_files_by_variable_and_by_setting(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("from-a-file\n")
    by_variable = load(None, {"KEYWATCH_CLICKHOUSE__PASSWORD_FILE": str(tmp_path / "s")})
    by_setting = load(file(tmp_path, f'[clickhouse]\npassword_file = "{tmp_path / "s"}"'), {})
    endpoint = f'[[respond.endpoints]]\nname="x"\nurl="https://x"\nsecret_file="{tmp_path / "s"}"'
    in_list = load(file(tmp_path, endpoint), {})
    assert by_variable.clickhouse.password.reveal() == by_setting.clickhouse.password.reveal() == "from-a-file"
    assert in_list.respond.endpoints[0].secret.reveal() == "from-a-file"


def test_a_variable_beats_a_secret_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("newer")
    config = load(file(tmp_path, FULL), {"KEYWATCH_CLICKHOUSE__PASSWORD_FILE": str(tmp_path / "s")})
    assert config.clickhouse.password.reveal() == "newer"


def test_settings_that_end_in_file_are_no_secret_files() -> None:
    assert load(None, {"KEYWATCH_KAFKA__CA_FILE": "/etc/ca.pem"}).kafka.ca_file == "/etc/ca.pem"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[kafka]\nbroker = 'a'", "unknown setting kafka.broker; did you mean brokers"),
        ("[kafak]\n", "unknown setting kafak; did you mean kafka"),
        ("[kafka]\npartitions = 'many'", "kafka.partitions: expected int, got str"),
        ("[kafka]\npartitions = 0", "kafka.partitions: expected int >= 1"),
        ("[worker]\nlateness_s = -1", "worker.lateness_s: expected float > 0"),
        ("[worker]\npartitioner = 'md5'", r"worker.partitioner: .*murmur2\|crc32"),
        ("[respond]\nkill_switch = 1", "unknown setting respond.kill_switch; did you mean kill_switch_file"),
        ("[[respond.endpoints]]\nname = 'x'\nurl = 'https://x'", "secret is needed"),
        (
            "[[respond.endpoints]]\nname = 'x'\nurl = 'https://x'\nsecret = 's'\nport = 1",
            r"respond.endpoints\[0\].port",
        ),
        ("[respond.revocation]\nmode = 'enforce'", "must name one of respond.endpoints"),
        ("[kafka]\nsession_timeout_s = 5.0", "heartbeat_s must be less than half"),
        ("[kafka]\nsecurity = 'SASL_SSL'", "kafka.username and kafka.password are needed"),
        ("[budget]\npage = 1000", "budget.page must not be above budget.listed"),
        ("[topics]\npages = 'api.requests'", "topics.requests and topics.pages are both 'api.requests'"),
        ("[topics]\nraw = 'api.requests'", "topics.raw and topics.requests are both 'api.requests'"),
        ("[respond]\ngroup = 'keywatch'", "kafka.group and respond.group are both 'keywatch'"),
        ("[intake]\ngroup = 'keywatch-sources'", "topology sources and intake.group are both"),
        ("[clickhouse]\npassword_file = '/nowhere'", "clickhouse.password_file: /nowhere No such file"),
        ("[kafka]\nbrokers = 'a:9092, b:99999'", "kafka.brokers: 'b:99999' is not HOST:PORT"),
        ("[kafka]\nbrokers = 'http://a:9092'", "is not HOST:PORT"),
        ("[clickhouse]\nurl = 'localhost:8123'", "expected http://, https:// or chdb:///folder"),
        ("kafka = 3", "kafka: expected object, got int"),
        ("[kafka", "config file"),
    ],
)
def test_a_fault_names_the_setting_and_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(file(tmp_path, text), {})


@pytest.mark.parametrize("brokers", ["kafka", "a:1,b.example:65535", "10.0.0.1:9092", "[2001:db8::1]:9093, [::1]"])
def test_brokers_are_hosts_with_or_without_a_port(brokers: str) -> None:
    assert load(None, {"KEYWATCH_KAFKA__BROKERS": brokers}).kafka.brokers == brokers


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("KEYWATCH_KAFKA__PARTITONS", "1", "KEYWATCH_KAFKA__PARTITONS is no setting; did you mean partitions"),
        ("KEYWATCH_NOTHING__X", "1", "KEYWATCH_NOTHING__X is no setting"),
        ("KEYWATCH_KAFKA__PARTITIONS", "many", "KEYWATCH_KAFKA__PARTITIONS: Expected int"),
        ("KEYWATCH_RESPOND__ENDPOINTS", "[1", "KEYWATCH_RESPOND__ENDPOINTS: "),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(None, {variable: value})


def test_an_absent_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml", {})


def test_a_shown_configuration_loads_again_and_hides_its_secrets(tmp_path: Path) -> None:
    config = load(file(tmp_path, FULL), {})
    assert "hidden" not in show(config)
    assert "********" in show(config)
    assert build(tomllib.loads(show(config, redacted=False))) == config


def test_a_secret_never_shows_itself() -> None:
    config = Config(
        clickhouse=ClickHouse(password=Secret("hidden")),
        respond=Respond(endpoints=(Endpoint(name="x", url="https://x", secret=Secret("hidden")),)),
    )
    assert "hidden" not in f"{config!r} {config} {config.clickhouse.password:s}"


def test_the_schema_names_every_section_and_bound() -> None:
    described = schema()["$defs"]
    assert set(described["Config"]["properties"]) == set(Config.__struct_fields__)
    assert described["Kafka"]["properties"]["partitions"]["minimum"] == 1
    assert described["ClickHouse"]["properties"]["password"]["type"] == "string"
    msgspec.json.encode(described)


@pytest.mark.parametrize("name", ["KAFKA_BROKERS", "CLICKHOUSE_PASSWORD_FILE"])
def test_a_variable_with_one_underscore_is_not_ignored_in_silence(name: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean KEYWATCH_{name.replace('_', '__', 1)}"):
        load(environ={f"KEYWATCH_{name}": "x"})


def test_variables_that_are_no_settings_are_left_alone() -> None:
    assert load(environ={"KEYWATCH_DATA": "/x", "KEYWATCH_LOG_LEVEL": "info", "KEYWATCH_FAULT": ""}) == Config()
