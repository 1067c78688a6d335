"""Prometheus' files: valid, of metrics and labels that we export, and every alert seen to fire and not to fire."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from pipeline.metrics import METRICS, REGISTRY

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES: Final = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
CASES: Final[list[dict[str, Any]]] = [
    case for path in sorted(FOLDER.glob("*_test.yml")) for case in yaml.safe_load(path.read_text())["tests"]
]
LABELS: Final = {
    metric._name: set(metric._labelnames) for metric in (getattr(METRICS, each.name) for each in fields(METRICS))
}
OF_SCRAPING: Final = {"job", "instance"}
EACH: Final = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed; CI installs it")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules_and_their_tests_pass() -> None:
    promtool = _tool("promtool")
    _run(promtool, "check", "config", str(FOLDER / "prometheus.yml"))
    _run(promtool, "check", "rules", str(FOLDER / "rules.yml"))
    _run(promtool, "test", "rules", *map(str, sorted(FOLDER.glob("*_test.yml"))))


def test_amtool_accepts_the_skeleton() -> None:
    _run(_tool("amtool"), "check-config", str(FOLDER / "alertmanager.yml"))


def _asked(rule: dict[str, Any]) -> set[str]:
    return set(re.findall(r"\b(?:keywatch_\w+|up)\b", rule["expr"]))


def _given(case: dict[str, Any]) -> dict[str, set[str]]:
    """Metric -> the labels with which a case gives it."""
    series = [re.fullmatch(r"(\w+)(?:\{(.*)\})?", each["series"]) for each in case["input_series"]]
    return {found[1]: set(re.findall(r'(\w+)="', found[2] or "")) for found in series if found}


@EACH
def test_every_alert_has_a_case_that_fires_it_and_one_near_it_that_does_not(rule: dict[str, Any]) -> None:
    fires, stays = (
        [
            case for case in CASES for test in case["alert_rule_test"]
            if test["alertname"] == rule["alert"] and bool(test["exp_alerts"]) is wanted
        ]
        for wanted in (True, False)
    )  # fmt: skip
    assert fires, "no case fires it"
    near = [case for case in stays if _asked(rule) & _given(case).keys()]
    assert near, "no case gives its metrics and leaves it silent"


def test_no_case_is_of_an_alert_that_is_gone() -> None:
    tested = {test["alertname"] for case in CASES for test in case["alert_rule_test"]}
    assert tested <= {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_cases_give_metrics_as_the_processes_export_them(case: dict[str, Any]) -> None:
    given = _given(case)
    assert len({each["series"] for each in case["input_series"]}) == len(case["input_series"])
    for name, labels in given.items():
        if name != "up":
            assert labels - OF_SCRAPING == LABELS.get(name.removesuffix("_total")), name


def test_rules_ask_only_for_metrics_that_we_have() -> None:
    declared = {sample for family in REGISTRY.collect() for sample in (family.name, f"{family.name}_total")}
    asked = {name for rule in RULES for name in _asked(rule)} - {"up"}
    assert asked
    assert asked <= declared, asked - declared


def test_labels_that_rules_ask_for_are_declared() -> None:
    for rule in RULES:
        for name, chosen in re.findall(r"(keywatch_\w+)\{([^}]*)\}", rule["expr"]):
            wanted = set(re.findall(r"(\w+)[=!~]+\"", chosen))
            assert wanted - OF_SCRAPING <= LABELS[name.removesuffix("_total")], (rule["alert"], name)


def test_every_alert_has_its_section_in_the_runbook_and_none_is_left_over() -> None:
    sections = set(re.findall(r"^## (Keywatch\w+)", (FOLDER.parent / "RUNBOOK.md").read_text(), re.MULTILINE))
    assert sections == {rule["alert"] for rule in RULES}
    assert {rule["labels"]["severity"] for rule in RULES} == {"page", "ticket"}
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"RUNBOOK.md#{rule['alert'].lower()}"
