"""The page on installing names Secrets, users, workloads and values that the chart has; its test incident is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from pipeline.config.tree import Config
from pipeline.core import Sides, Slice
from pipeline.flow import open_core
from pipeline.formats import Options
from pipeline.formats.native import event
from pipeline.geo.provider import open_geo
from pipeline.keys.catalogue import Catalogue
from pipeline.keys.key_import import read_csv
from schemas.event import Event
from tests.deploy.chart import rendered
from tests.docs.reading import ROOT, blocks
from tests.docs.world import FILES

PAGE: Final = ROOT / "deploy" / "docs" / "howto" / "install-on-kubernetes.md"
TEXT: Final = PAGE.read_text()
VALUES, GEO = (yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml")
"""Of step 6, and what step 11 adds."""


def projected(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(Secret, key) of all that pods mount."""
    found = set()
    for each in objects:
        job = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each.get("spec", {})
        volumes = job.get("template", {}).get("spec", {}).get("volumes", [])
        for source in (source for volume in volumes for source in volume.get("projected", {}).get("sources", [])):
            found |= {(source["secret"]["name"], item["key"]) for item in source["secret"]["items"]}
    return found


def test_the_secrets_that_it_makes_are_those_that_the_chart_mounts_under_its_values() -> None:
    made = {
        (name, key)
        for name, rest in re.findall(r"create secret generic (\S+) (.*)", TEXT)
        for key in re.findall(r"--from-file=([\w.]+)=", rest)
    }
    drill = {"drill": {"enabled": True, "url": "https://api.example.com/", "keyId": "key_decoy_01"}}
    assert projected(rendered(VALUES)) == made - {("keywatch-kafka", "oncall")}
    assert projected(rendered({**VALUES, **drill})) == made | {("keywatch-drill", "decoy")}


def test_each_user_of_the_brokers_that_acls_sh_gives_rights_gets_a_password() -> None:
    users = set(re.findall(r":=keywatch-(\w+)\}", (ROOT / "deploy" / "kafka" / "acls.sh").read_text()))
    [loop] = re.findall(r"^for user in (.*); do$", TEXT, re.MULTILINE)
    [files] = re.findall(r"kafka/\{([\w,]+)\}", TEXT)
    assert set(loop.split()) == set(files.split(",")) == users


def test_what_it_looks_at_is_there() -> None:
    names = {each["metadata"]["name"] for each in rendered({**VALUES, **GEO})}
    told = set(re.findall(r"(?:exec (?:deploy/)?|svc/)(keywatch-[\w-]+)", TEXT))
    assert {name.removesuffix("-0") for name in told} <= names
    assert told
    ports = {each["metadata"]["name"]: {port["port"] for port in each["spec"]["ports"]}
             for each in rendered(VALUES) if each["kind"] == "Service"}  # fmt: skip
    for service, port in re.findall(r"port-forward svc/(\S+) (\d+)", TEXT):
        assert int(port) in ports[service]


def test_its_test_incident_is_a_proof(tmp_path: Path) -> None:
    [typed] = re.findall(r'-d "(\{.*\})"', TEXT)
    sent = msgspec.json.decode(re.sub(r"\$\(.*?\)", "1764000000", typed.replace('\\"', '"')))
    asked = event(sent, Options())
    assert isinstance(asked, Event)
    decoys = tmp_path / "decoy.csv"
    decoys.write_text(FILES["decoy.csv"])
    assert all(line in TEXT for line in FILES["decoy.csv"].split())
    catalogue = Catalogue.of(read_csv(decoys))
    core = open_core(0, Config(), Sides(catalogue, open_geo(Config().geo), "t"), "t")
    done = core.process(
        Slice("t", 0, [0], [asked.key_id.encode()], [msgspec.json.encode(asked)], [asked.ts_us // 1000])
    )
    assert [incident.rule for incident in done.incidents] == ["proof"]
