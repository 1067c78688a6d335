"""The console over HTTP on a real database: what each role sees and may do, and that nothing gets out as markup."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import httpx2
import msgspec
import pytest
from starlette.testclient import TestClient

from pipeline.asking.queries import Applied, ResponseLine
from pipeline.config.tree import Config, Console, Secret
from pipeline.console import acts, app
from pipeline.console.headers import FOR_GOOD
from pipeline.console.pages import declared, in_order
from pipeline.console.side import Side
from pipeline.errors import ConfigError
from pipeline.respond.ladder import ladder_of
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from pipeline.times import micros
from schemas.control import Control, Feedback, Mute
from schemas.key import Key
from tests.console.filled import EVIL, FLEET, INCIDENT, KEY, NOON_S, TOKENS, config, fill
from tests.console.known import DECLARED, known
from tests.row_examples import rows_of

PAGES = ["/", "/?state=all&severity=critical&about=key_", f"/incidents/{INCIDENT.incident_id}",
         f"/incidents/{FLEET.incident_id}", "/keys", "/keys?q=key_0", f"/keys/{KEY}", f"/manifest/{KEY}",
         "/policy"]  # fmt: skip


@pytest.fixture(scope="module")
def settings(front: str) -> Iterator[Config]:
    made = config(front)
    fill(made.clickhouse)
    yield made
    client = connect(made.clickhouse, None)
    client.command(f"DROP DATABASE {made.clickhouse.database}")
    client.close()


def visitor(settings: Config, name: str, of_keys: Side | None = None) -> TestClient:
    client = TestClient(app.make_app(settings, of_keys=of_keys), base_url="http://127.0.0.1")
    assert client.post("/sign-in", data={"token": TOKENS[name]}, follow_redirects=False).status_code == 303
    return client


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Control]:
    """What would have gone to the control topic."""
    heard: list[Control] = []

    async def say(_: Config, controls: list[Control]) -> list[int]:
        heard.extend(controls)
        return list(range(len(controls)))

    monkeypatch.setattr(acts, "say", say)
    return heard


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_shown_to_a_viewer_without_markup_of_others_and_without_inline_code(
    settings: Config, page: str
) -> None:
    answer = visitor(settings, "viewer").get(page)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert " style=" not in answer.text
    assert " onclick=" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("page", PAGES)
def test_nobody_sees_anything_without_signing_in(settings: Config, page: str) -> None:
    answer = TestClient(app.make_app(settings)).get(page, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/sign-in?{urlencode({'to': page.partition('?')[0]})}",
    )


def test_an_incident_explains_itself(settings: Config) -> None:
    text = visitor(settings, "viewer").get(f"/incidents/{INCIDENT.incident_id}").text
    told = ("412 requests in 60 s", "revoke allowed", "all guards passed", "AS64500", "observed 412, usual 3 to 21")
    for words in (*told, "Requests an hour from", "Hours of the week in UTC", "r-1"):
        assert words in text, words
    assert "Say what it is" not in text, "a viewer judges nothing"


def test_a_key_shows_its_use_and_its_incidents(settings: Config) -> None:
    text = visitor(settings, "viewer").get(f"/keys/{KEY}").text
    for words in ("Last used", "in 30 days", "AS3320", "critical", 'class="mark"'):
        assert words in text, words
    assert visitor(settings, "viewer").get(f"/keys/{quote(EVIL, safe='')}").status_code == 200


def test_keys_come_page_by_page_and_by_their_beginning(settings: Config) -> None:
    client = visitor(settings, "viewer")
    first = client.get("/keys").text
    assert "key_047" in first
    assert "key_055" not in first
    assert "key_055" in client.get("/keys?after=key_047").text
    assert "key_055" in client.get("/keys?q=key_05").text
    assert "key_011" not in client.get("/keys?q=key_05").text


def test_the_live_part_of_an_incident_is_a_fragment(settings: Config) -> None:
    text = visitor(settings, "viewer").get(f"/incidents/{INCIDENT.incident_id}/now").text
    assert "<html" not in text
    assert "all guards passed" in text


def test_whose_session_ended_is_led_to_the_sign_in_by_a_live_part_and_back_to_its_page(settings: Config) -> None:
    asks = {"HX-Request": "true", "HX-Current-URL": "http://127.0.0.1/incidents/x?said=1"}
    answer = TestClient(app.make_app(settings)).get("/incidents/x/now", headers=asks, follow_redirects=False)
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/sign-in?to=%2Fincidents%2Fx")


def test_a_page_that_no_browser_names_is_no_fault(settings: Config) -> None:
    asks = {"HX-Request": "true", "HX-Current-URL": "http://["}
    answer = TestClient(app.make_app(settings)).get("/incidents/x/now", headers=asks, follow_redirects=False)
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/sign-in?to=%2F")


def test_files_of_one_version_are_kept_by_browsers_and_pages_never(settings: Config) -> None:
    client = TestClient(app.make_app(settings))
    sheet = client.get("/sign-in").text.split('rel="stylesheet" href="')[1].split('"')[0]
    others = ("/static/console.css", "/static/console.css?v=of-a-later-one", "/static/none?v=1")
    kept, *passing = (client.get(path).headers["cache-control"] for path in (sheet, *others))
    wanted = (FOR_GOOD, ["no-store"] * 3)
    assert (kept, passing) == wanted, "what has another content must not stay under this name"


@pytest.mark.parametrize("path", ["/incidents/none", "/incidents/'", "/keys/none", "/incidents/%00"])
def test_what_is_not_there_is_told(settings: Config, path: str) -> None:
    answer = visitor(settings, "viewer").get(path)
    assert answer.status_code == 404
    assert "There is nothing of this name" in answer.text


def form_token(client: TestClient) -> str:
    text = client.get(f"/incidents/{INCIDENT.incident_id}").text
    return text.split('name="form_token" value="')[1].split('"')[0]


def test_a_responder_judges_and_the_word_carries_his_name_and_the_evidence(
    settings: Config, said: list[Control]
) -> None:
    client = visitor(settings, "responder")
    body = {"form_token": form_token(client), "verdict": "expected", "reason": "our new region", "until": "14d",
            "back": f"/incidents/{INCIDENT.incident_id}"}  # fmt: skip
    answer = client.post(f"/incidents/{INCIDENT.incident_id}/judge", data=body)
    assert "said: expected" in answer.text
    [word] = said
    assert isinstance(word, Feedback)
    assert (word.verdict, word.owner, word.reason, word.key_id) == ("expected", "responder", "our new region", KEY)
    assert word.until
    assert len(word.events) == 1


def test_a_responder_mutes_a_key(settings: Config, said: list[Control]) -> None:
    client = visitor(settings, "responder")
    body = {"form_token": form_token(client), "key": KEY, "until": "12h", "reason": "load test", "back": "/"}
    assert client.post("/mute", data=body).status_code == 200
    [word] = said
    assert isinstance(word, Mute)
    assert (word.key_id, word.owner_of_mute, word.reason) == (KEY, "responder", "load test")
    other = visitor(settings, "responder", known(Key(key_id="declared_only")))
    mine = body | {"key": "declared_only", "form_token": form_token(other)}
    assert other.post("/mute", data=mine).status_code == 200, "it need not have been used"
    assert other.post("/mute", data=mine | {"key": KEY}).status_code == 200, "nor declared"
    slip = other.post("/mute", data=mine | {"key": KEY + "l"})
    assert (slip.status_code, len(said)) == (400, 3)
    assert "none was ever used: nothing is muted; `keywatch mute --force` mutes it all the same" in slip.text


@pytest.mark.parametrize("page", ["/?state=all", f"/incidents/{INCIDENT.incident_id}", f"/keys/{KEY}"])
def test_what_is_muted_is_shown_with_its_end_and_who_said_it_and_nothing_of_other_keys(
    settings: Config, page: str
) -> None:
    text = visitor(settings, "viewer", known(DECLARED)).get(page).text
    assert "until 2099-01-01 00:00:00 by bea" in text
    assert "until 2098-01-01 00:00:00 by cy" in text
    assert not [words for words in ("by dan", "by eve", "End this mute") if words in text]
    assert "<script>alert" not in text


def test_a_responder_ends_a_mute_and_the_log_has_who_did(settings: Config, said: list[Control]) -> None:
    client = visitor(settings, "responder", known())
    assert client.get(f"/keys/{KEY}").text.count("End this mute") == 1  # whose key it is nobody declares here
    body = {"form_token": form_token(client), "key": KEY, "detector": "", "owner": "", "back": "/"}
    assert "unmuted: key" in client.post("/unmute", data=body).text
    [word] = said
    assert isinstance(word, Mute)
    assert (word.key_id, word.owner_of_mute, word.ended_by) == (KEY, "bea", "responder")
    assert micros(word.until) <= time.time() * 1e6
    over = client.post("/unmute", data=body | {"detector": "spike"})
    assert (over.status_code, "not muted any more" in over.text) == (400, True)
    assert client.post("/unmute", data=body | {"form_token": "x"}).status_code == 403
    assert visitor(settings, "viewer", known()).post("/unmute", data=body).status_code == 403
    rows = noted(settings, "path = '/unmute' AND detail LIKE 'unmuted: key%'")
    assert rows == [("responder", "/unmute", 303)]


def noted(settings: Config, what: str) -> list[tuple[object, ...]]:
    """Rows of the console's log."""
    asking = connect(settings.clickhouse, settings.clickhouse.database)
    rows = asking.query(f"SELECT person, path, status FROM console_log WHERE {what} ORDER BY at").result_rows
    asking.close()
    return [tuple(row) for row in rows]


def test_a_key_shows_what_is_declared_of_it_and_what_its_audit_says(settings: Config) -> None:
    text = visitor(settings, "viewer", known(DECLARED)).get(f"/keys/{KEY}").text
    for words in ("active, protected", "<dd>live</dd>", "read_only", "2024-01-01", "open to all networks",
                  "leaked: public since 2026-09-20", "over_age: "):  # fmt: skip
        assert words in text, words
    assert "undeclared: used, and nobody declares it" in visitor(settings, "viewer", known()).get(f"/keys/{KEY}").text
    idle = msgspec.structs.replace(DECLARED, key_id="idle", leaked_at="")
    text = visitor(settings, "viewer", known(idle)).get("/keys/idle").text
    assert "never_used: " in text
    assert "Declared, and never used" in text
    assert "can&#39;t be read now" in visitor(settings, "viewer").get(f"/keys/{KEY}").text.replace("'", "&#39;")


def applied(verdict: str, at_us: int, effect: str) -> Applied:
    return Applied(
        control_id="c", seq=1, key_id=KEY, verdict=verdict, at_us=at_us, effect=effect, partition=0, offset=1
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [("2026-09-21T12:30:00.459816Z", "2026-09-21 12:30:00"), ("2026-09-21T14:30:00+02:00", "2026-09-21 12:30:00"),
     ("", ""), ("once", "once")],
)  # fmt: skip
def test_a_declared_time_is_shown_as_all_others_and_what_is_none_as_it_stands(said: str, shown: str) -> None:
    assert declared(said) == shown


def test_what_happened_is_told_in_the_order_of_time() -> None:
    done = [ResponseLine(at_us=at, stage=stage, verdict="allowed", rung="fence", reason="r", direction=way, by=by)
            for at, stage, way, by in ((1, "decided", "apply", ""), (3, "done", "apply", ""),
                                       (8, "decided", "undo", "ada"), (9, "done", "undo", "ada"))]  # fmt: skip
    said = [applied("malicious", 2, "forgotten"), applied("expected", 5, "e")]
    told = in_order(done, said)
    assert [each.at_us for each in told] == [1, 2, 3, 5, 8, 9]
    assert [each.what for each in told[4:]] == ["decided: undo of fence allowed by ada", "done: undo of fence allowed"]
    assert (told[1].what, told[2].what) == ("malicious: forgotten", "done: fence allowed")


def test_a_page_that_renews_itself_is_noted_once_an_hour_and_what_a_person_asks_for_always(settings: Config) -> None:
    at_s = [1_800_000_000.0]
    client = TestClient(app.make_app(settings, lambda: at_s[0]), base_url="http://127.0.0.1")
    client.post("/sign-in", data={"token": TOKENS["admin"]})
    page, renewed = f"/incidents/{FLEET.incident_id}", {"hx-request": "true"}
    of_it = f"startsWith(path, '{page}') AND person = 'admin'"

    def ask(*said: dict[str, str]) -> int:
        for headers in said:
            client.get(page if headers is not renewed else f"{page}/now", headers=headers)
        return len(noted(settings, of_it))

    before = len(noted(settings, of_it))
    assert ask({}, renewed, renewed, renewed) == before + 1
    assert ask({}, renewed | {"hx-boosted": "true"}) == before + 3
    at_s[0] += 3_601
    assert ask(renewed, renewed) == before + 4


@pytest.mark.parametrize(
    ("name", "path", "change", "status", "words"),
    [
        ("viewer", f"/incidents/{INCIDENT.incident_id}/judge", {}, 403, "needs the role responder"),
        ("responder", "/switch", {"stop": "yes"}, 403, "needs the role admin"),
        ("responder", f"/incidents/{INCIDENT.incident_id}/judge", {"form_token": "x"}, 403, "another session"),
        ("responder", f"/incidents/{INCIDENT.incident_id}/judge", {"reason": " "}, 400, "say why"),
        ("responder", f"/incidents/{INCIDENT.incident_id}/judge", {"verdict": "maybe"}, 400, "a verdict is"),
        ("responder", f"/incidents/{INCIDENT.incident_id}/judge", {"until": "soon"}, 400, "until"),
        ("responder", f"/incidents/{FLEET.incident_id}/judge", {}, 400, "another topology"),
        ("responder", "/incidents/none/judge", {}, 400, "no such incident"),
        ("responder", "/mute", {"key": "", "until": "12h"}, 400, "everything at once"),
        ("responder", "/mute", {"key": KEY, "until": ""}, 400, "until when"),
    ],
)  # fmt: skip
def test_what_may_not_be_is_refused_in_words_and_nothing_is_said(
    settings: Config, said: list[Control], name: str, path: str, change: dict[str, str], status: int, words: str
) -> None:
    client = visitor(settings, name)
    body = {"form_token": form_token(client), "verdict": "expected", "reason": "r", "until": "", "back": "/"} | change
    answer = client.post(path, data=body)
    assert (answer.status_code, said) == (status, [])
    assert words in answer.text


def test_who_signs_out_is_out_and_another_site_can_not_do_it(settings: Config) -> None:
    client = visitor(settings, "viewer")
    assert client.post("/sign-out", data={"form_token": "guess"}).status_code == 403
    assert client.get("/", follow_redirects=False).status_code == 200
    client.post("/sign-out", data={"form_token": form_token(client)})
    assert client.get("/", follow_redirects=False).status_code == 303
    assert noted(settings, "path = '/sign-out' AND detail = 'sign-out'") == [("viewer", "/sign-out", 303)]


def test_who_comes_through_the_proxy_is_in_and_the_log_has_his_own_address(settings: Config) -> None:
    said = {"x-keywatch-proxy": "s" * 20, "x-forwarded-user": "bea", "x-forwarded-for": "192.0.2.77"}
    people = msgspec.structs.replace(settings.console, proxy_secret=Secret("s" * 20))
    behind = app.make_app(msgspec.structs.replace(settings, console=people))
    near, far = (
        TestClient(behind, base_url="http://127.0.0.1", client=(peer, 9)) for peer in ("127.0.0.1", "192.0.2.1")
    )
    assert "bea (viewer)" in near.get("/keys", headers=said).text
    assert "sign out" not in near.get("/keys", headers=said).text, "that is the proxy's business"
    assert far.get("/keys", headers=said, follow_redirects=False).status_code == 303
    assert near.get("/keys", follow_redirects=False).status_code == 303
    asking = connect(settings.clickhouse, settings.clickhouse.database)
    rows = asking.query("SELECT DISTINCT person, address FROM console_log WHERE person = 'bea'").result_rows
    asking.close()
    assert rows == [("bea", "192.0.2.77")]


def test_a_link_can_not_put_words_into_the_consoles_mouth(settings: Config) -> None:
    client = visitor(settings, "viewer")
    assert "acts are stopped" not in client.get("/?said=all+automatic+acts+are+stopped&mark=0").text
    assert "acts are stopped" not in client.get("/?said=all+automatic+acts+are+stopped").text


ELSEWHERE = ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example", "javascript:1"]


@pytest.mark.parametrize("to", ELSEWHERE)
def test_signing_in_leads_to_a_page_of_this_console_only(settings: Config, to: str) -> None:
    client = TestClient(app.make_app(settings))
    assert 'name="to" value="/"' in client.get("/sign-in", params={"to": to}).text
    answer = client.post("/sign-in", data={"token": TOKENS["viewer"], "to": to}, follow_redirects=False)
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("back", ELSEWHERE)
def test_a_form_leads_back_to_this_console_only(settings: Config, said: list[Control], back: str) -> None:
    client = visitor(settings, "responder")
    body = {"form_token": form_token(client), "key": KEY, "until": "1h", "reason": "r", "back": back}
    answer = client.post("/mute", data=body, follow_redirects=False)
    assert answer.headers["location"].startswith("/?said=")
    assert said


def test_every_request_is_in_the_log_of_the_console(settings: Config) -> None:
    client = visitor(settings, "viewer")
    client.get(f"/keys/{KEY}?unique=1")
    client.get("/incidents/none")
    asking = connect(settings.clickhouse, settings.clickhouse.database)
    rows = asking.query("SELECT person, role, path, status FROM console_log").result_rows
    asking.close()
    assert ("viewer", "viewer", f"/keys/{KEY}", 200) in rows
    assert ("viewer", "viewer", "/incidents/none", 404) in rows
    assert ("viewer", "viewer", "/sign-in", 303) in rows


def test_the_log_is_a_page_for_admins_and_finds_who_looked_at_a_key(settings: Config) -> None:
    visitor(settings, "responder").get(f"/keys/{KEY}")
    refused = visitor(settings, "responder").get("/log")
    assert (refused.status_code, "for the role admin" in refused.text) == (403, True)
    admin = visitor(settings, "admin")
    page = admin.get("/log", params={"person": "responder", "about": f"/keys/{KEY}"}).text
    assert f"GET /keys/{KEY}" in page
    assert "/sign-in" not in page
    assert "Nothing to show" in admin.get("/log", params={"about": "nowhere"}).text


def test_a_key_shows_what_was_done_to_it_and_what_a_policy_could_allow(settings: Config) -> None:
    client = visitor(settings, "viewer")
    assert "done: revoke allowed" in client.get(f"/keys/{KEY}").text
    page = client.get(f"/manifest/{KEY}").text
    for words in ("Countries", "/v1/orders", "a minute", f"keywatch keys manifest {KEY}"):
        assert words in page, words
    assert client.get("/manifest/none").status_code == 404


def test_a_wrong_token_is_told_and_noted(settings: Config) -> None:
    client = TestClient(app.make_app(settings))
    answer = client.post("/sign-in", data={"token": "wrong"})
    assert answer.status_code == 403
    assert "nobody&#39;s token" in answer.text or "nobody's token" in answer.text


def without_clickhouse(settings: Config) -> Config:
    away = msgspec.structs.replace(settings.clickhouse, url="http://127.0.0.1:1")
    return msgspec.structs.replace(settings, clickhouse=away)


def test_a_page_without_clickhouse_says_so_and_asks_again_later(settings: Config) -> None:
    answer = visitor(without_clickhouse(settings), "viewer").get("/")
    assert answer.status_code == 503
    for words in ("try again soon", "keywatch respond stop", "keywatch respond undo", 'href="/policy"'):
        assert words in answer.text, words


def test_the_switches_are_within_reach_without_clickhouse(settings: Config) -> None:
    answer = visitor(without_clickhouse(settings), "admin").get("/policy")
    assert answer.status_code == 200
    assert 'action="/switch"' in answer.text
    assert 'action="/simulate"' in answer.text
    assert "what was decided can" in answer.text


def test_who_acts_without_clickhouse_is_told_what_came_of_it(settings: Config, said: list[Control]) -> None:
    client = visitor(without_clickhouse(settings), "responder")
    body = {"form_token": form_token(client), "key": KEY, "until": "12h", "reason": "load test", "back": "/"}
    answer = client.post("/mute", data=body)
    assert (answer.status_code, len(said)) == (503, 1)
    assert "muted until" in answer.text
    assert "try again soon" in answer.text


def test_it_does_not_start_for_others_by_plain_http(settings: Config) -> None:
    open_ = msgspec.structs.replace(settings, console=Console(host="0.0.0.0", people=settings.console.people))
    with pytest.raises(ConfigError, match="TLS"):
        app.main(open_)


def test_the_policy_page_warns_where_the_responder_judges_by_another_policy(settings: Config) -> None:
    def shown(version: str, offset: int) -> str:
        asyncio.run(_decided(settings, version, offset))
        return visitor(settings, "viewer").get("/policy").text

    ours = ladder_of(settings.respond)
    warning = "What the responder judges by is another policy"
    assert warning not in shown(ours.version, 11)
    assert warning in shown("0123456789ab", 12)
    assert warning not in shown(ours.simulated().version, 13), "it is the console's own, put to simulate"


async def _decided(settings: Config, version: str, offset: int) -> None:
    sink = ClickHouseSink(settings.clickhouse)
    body = msgspec.json.encode({"policy_version": version}).decode()
    line = rows_of("responses", 1, key_id=["key_000"], stage=["decided"], verdict=["allowed"], offset=[offset],
                   at=[(NOON_S + 3600 + offset) * 10**6], body=[body])  # fmt: skip
    await sink.write("responses", line)
    await sink.close()


async def test_beside_its_pages_the_console_answers_prometheus_and_probes_and_ends_with_them() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {}

    async def pages() -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for path in ("/metrics", "/livez", "/readyz"):
                answer = await client.get(path)
                told[path] = answer.status_code
                assert path != "/metrics" or "keywatch_" in answer.text

    await app._watched(pages, Console(metrics_port=port))
    assert told == {"/metrics": 200, "/livez": 200, "/readyz": 200}


def test_what_was_decided_several_times_in_a_row_stands_once_and_says_how_often() -> None:
    refused = [
        ResponseLine(at_us=at, stage="decided", verdict="refused", rung="fence", reason=f"r{at}") for at in (1, 2, 4)
    ]
    said = applied("expected", 3, "learned")
    assert [(each.at_us, each.first_us, each.times, each.why) for each in in_order(refused[::-1], [said])] == [
        (2, 1, 2, "r2"), (3, 3, 1, ""), (4, 4, 1, "r4"),
    ]  # fmt: skip
