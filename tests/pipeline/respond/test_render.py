"""One notice, many renderings: each as its receiver's specification asks for, whatever a caller has put into it."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from pipeline.config.tree import Secret
from pipeline.respond.delivery.channel import channel
from pipeline.respond.delivery.notice import of_incident, one_line
from pipeline.respond.render import RENDERINGS, alertmanager, cloudevents, mail, ocsf, pagerduty, slack, standard
from schemas.incident import Incident
from tests.pipeline.respond.channels import respond
from tests.pipeline.respond.incidents import endpoint, finding
from tests.pipeline.respond.notices import ALL, NASTY, full, notice

OCSF = json.loads((Path(__file__).parent / "data" / "ocsf_1.6.0_detection_finding.json").read_text())
LABELS = ("Owner", "What", "Owner still working", "Touched", "Safest act", "It would break", "Do", "Undo")

CLOUDEVENTS = {  # of cloudevents/spec v1.0.2, cloudevents/formats/cloudevents.json
    "type": "object",
    "required": ["id", "source", "specversion", "type"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "format": "uri-reference", "minLength": 1},
        "specversion": {"const": "1.0"},
        "type": {"type": "string", "minLength": 1},
        "datacontenttype": {"type": "string", "minLength": 1},
        "dataschema": {"type": "string", "format": "uri", "minLength": 1},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time", "minLength": 1},
    },
}


@pytest.mark.parametrize("kind", RENDERINGS)
@pytest.mark.parametrize("event", ALL)
def test_every_kind_can_be_told_of_every_event(kind: str, event: str) -> None:
    rendered = RENDERINGS[kind].body(notice(event, text=NASTY))  # type: ignore[index]
    assert msgspec.json.decode(rendered)
    assert len(rendered) < standard.MAX_BODY_BYTES


@pytest.mark.parametrize("kind", RENDERINGS)
def test_every_rendering_shows_the_whole_first_screen(kind: str) -> None:
    rendered = RENDERINGS[kind].body(notice()).decode()  # type: ignore[index]
    for text in ("billing", "31 requests from its usual networks", "GET /v1/users/{id}", "fence:", "220.4"):
        assert text in rendered, text
    assert "keywatch respond act incident-k1 --rung fence" in rendered
    assert "keywatch respond undo incident-k1 --reason TEXT" in rendered


@pytest.mark.parametrize("kind", RENDERINGS)
@pytest.mark.parametrize("event", ["incident.opened", "incident.closed"])
def test_every_rendering_leads_to_the_page_where_an_act_is_undone_or_approved(kind: str, event: str) -> None:
    rendered = RENDERINGS[kind].body(notice(event)).decode()  # type: ignore[index]
    assert "https://console.example/i" in rendered


def test_a_webhook_s_data_is_the_incident_with_the_brief_beside_it() -> None:
    body = msgspec.json.decode(standard.body(notice()))
    assert (body["type"], body["timestamp"]) == ("incident.opened", full().last_at)
    assert msgspec.convert(body["data"], Incident) == full()
    assert body["data"]["brief"]["act"] == "fence"
    assert body["data"]["case_id"] == "case-1"


@pytest.mark.parametrize("event", ALL)
def test_a_cloud_event_is_one(event: str) -> None:
    body = msgspec.json.decode(cloudevents.body(notice(event)))
    jsonschema.Draft202012Validator(CLOUDEVENTS).validate(body)
    assert body["type"] == f"keywatch.{event}.v1"
    assert datetime.fromisoformat(body["time"]).tzinfo is not None
    assert body["id"] == notice(event).message_id


@pytest.mark.parametrize("event", ALL)
def test_an_ocsf_finding_is_one_by_the_schema_of_1_6_0(event: str) -> None:
    told = msgspec.json.decode(ocsf.body(notice(event, text=NASTY)))
    jsonschema.Draft202012Validator(OCSF).validate(told)
    assert told["type_uid"] == told["class_uid"] * 100 + told["activity_id"]


def test_the_schema_refuses_what_is_no_finding() -> None:
    told = msgspec.json.decode(ocsf.body(notice()))
    for broken in (told | {"severity_id": 9}, told | {"unknown": 1}, {k: v for k, v in told.items() if k != "time"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(OCSF).validate(broken)


def test_an_ocsf_finding_tells_the_life_of_the_incident_and_its_evidence() -> None:
    told = [msgspec.json.decode(ocsf.body(notice(f"incident.{name}"))) for name in ("opened", "escalated", "closed")]
    assert [each["activity_id"] for each in told] == [1, 2, 3]
    assert [each["status_id"] for each in told] == [1, 1, 4]
    assert len({each["finding_info"]["uid"] for each in told}) == 1
    analysis = told[0]["anomaly_analyses"][0]
    assert analysis["anomalies"][0]["observations"][0]["value"] == "412"
    assert [each["observations"][0]["value"] for each in analysis["baselines"]] == ["3", "9", "21"]


def test_pagerduty_triggers_acknowledges_and_resolves_under_one_key() -> None:
    events = [pagerduty.event(notice(f"case.{name}")) for name in ("opened", "escalated", "acknowledged", "closed")]
    assert [each["event_action"] for each in events] == ["trigger", "trigger", "acknowledge", "resolve"]
    assert {each["dedup_key"] for each in events} == {"case-1"}
    assert all("routing_key" not in each for each in events)
    payload = events[0]["payload"]
    assert payload["severity"] == "critical"
    assert set(LABELS) <= set(payload["custom_details"])


def test_pagerduty_s_limits_hold() -> None:
    event = pagerduty.event(msgspec.structs.replace(notice("case.opened"), title="x" * 5000, subject="s" * 400))
    assert len(event["payload"]["summary"]) <= 1024
    assert len(event["dedup_key"]) <= 255


def test_nothing_in_a_slack_message_is_a_mention_a_link_or_a_second_line() -> None:
    message = slack.message(notice("case.opened", text=NASTY))
    texts = [block["text"]["text"] for block in message["blocks"]] + [message["text"]]
    assert not any("<!channel>" in text for text in texts[1:])
    assert any("&lt;!channel&gt;" in text for text in texts)
    assert not any("\n" in text or "\x1b" in text for text in texts)
    assert message["blocks"][0]["text"]["type"] == "plain_text"
    commands = [text for text in texts if text.startswith("*Do:*")]
    assert commands == ["*Do:* `keywatch respond act incident-k1 --rung fence`"]


def test_slack_s_limits_hold() -> None:
    about = notice("case.opened", text="<" * 4000)
    message = slack.message(msgspec.structs.replace(about, title="t" * 999))
    assert len(message["blocks"]) <= 50
    assert len(message["blocks"][0]["text"]["text"]) <= 150
    assert all(len(block["text"]["text"]) <= 3000 for block in message["blocks"])


@pytest.mark.parametrize("event", ALL)
def test_a_mail_has_the_headers_we_gave_it_and_no_others(event: str) -> None:
    waiting = msgspec.json.decode(mail.body(notice(event, text=NASTY)), type=mail.Mail)
    raw = mail.message(waiting, "keywatch@example.com", ("a@example.com", "b@example.com")).as_bytes()
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert "Bcc" not in read
    assert sorted(read.keys()) == sorted({
        "From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    })  # fmt: skip
    assert read["Subject"].startswith("[Keywatch] ")
    assert waiting.text in read.get_content().replace("\r\n", "\n")
    assert all(len(line) <= 998 and not line.startswith(b".") for line in raw.split(b"\r\n"))


def test_mails_of_one_case_are_one_thread_and_each_has_an_id_of_its_own() -> None:
    made = [
        mail.message(mail.mail(notice(each)), "k@example.com", ("a@example.com",))
        for each in ("case.opened", "protection.lost")
    ]
    assert len({each["Message-ID"] for each in made}) == 2
    assert made[0]["References"] == "<case-1@keywatch.invalid>"


def test_a_title_is_one_line_whatever_it_is_made_of() -> None:
    text = one_line("a\r\nb\u2028c\x00d\u202e" + "x" * 500)
    assert text.isprintable()
    assert len(text) == 200


def test_an_alert_s_labels_never_change_while_its_incident_goes_on() -> None:
    first = alertmanager.alerts(notice(severity="high"))
    later = alertmanager.alerts(notice("incident.escalated", severity="critical", bits=99.0, revision=2))
    labels = [each["labels"] for each in first]
    assert labels[0]["severity"] == "high"
    ended = [each["labels"] for each in later[1:]]
    assert labels[0] in ended  # the alert of the lower grade ends with the message that raises it
    assert later[0]["labels"] == labels[0] | {"severity": "critical"}


def test_a_closed_incident_ends_the_alerts_of_every_grade_it_may_have_had() -> None:
    told = alertmanager.alerts(notice("incident.closed", severity="high"))
    assert {each["labels"]["severity"] for each in told} == {"info", "medium", "high", "critical"}
    assert all(each["startsAt"] <= each["endsAt"] <= notice().at for each in told)


# -- against Debian's real Alertmanager ---------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _alerts(port: int) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/alerts", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


@pytest.fixture
def real_alertmanager(tmp_path: Path) -> Iterator[int]:
    """Its port."""
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Debian's package prometheus-alertmanager is not installed")
    port = _free_port()
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    process = subprocess.Popen(
        [
            program, f"--config.file={tmp_path / 'am.yml'}", f"--storage.path={tmp_path}", "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{port}",
        ], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                _alerts(port)
                break
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_a_real_alertmanager_takes_our_alerts_and_ends_them(real_alertmanager: int) -> None:
    target = endpoint(f"http://127.0.0.1:{real_alertmanager}/api/v2/alerts", kind="alertmanager", secret=Secret(""))
    now = datetime.now().astimezone()

    def told(event: str, severity: str) -> bytes:
        about = notice(event, severity=severity, findings=(finding("network"),))
        return alertmanager.body(msgspec.structs.replace(about, at=now.isoformat(), opened_at=now.isoformat()))

    async def post(body: bytes) -> None:
        assert (await channel(respond(), target).post("m", body)).ok

    asyncio.run(post(told("incident.opened", "high")))
    (firing,) = _alerts(real_alertmanager)
    assert firing["labels"]["alertname"] == "KeywatchIncident"
    assert firing["annotations"]["safest_act"].startswith("fence")
    asyncio.run(post(told("incident.escalated", "critical")))
    assert [each["labels"]["severity"] for each in _alerts(real_alertmanager)] == ["critical"]
    asyncio.run(post(told("incident.closed", "critical")))
    assert _alerts(real_alertmanager) == []


def test_a_title_names_the_key_once() -> None:
    told = full(text="k1: from AS64500", key_id="k1", severity="high")
    assert of_incident(told).title == "high: k1: from AS64500"
    assert of_incident(msgspec.structs.replace(told, text="odd")).title == "high: k1: odd"


@pytest.mark.parametrize(("rule", "kind"), [("visit", ocsf.STATISTICAL), ("proof", ocsf.RULE), ("leak", ocsf.RULE)])
def test_what_a_proof_rests_on_is_a_rule(rule: str, kind: int) -> None:
    about = ocsf.finding(of_incident(full(rule=rule)))
    assert about["finding_info"]["analytic"]["type_id"] == kind
