"""Sources' rows with numbers for texts say what rows with the texts said, also where the state is of before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.column import coded, plain
from pipeline.flow import KeyCore
from pipeline.geo.provider import NOWHERE, Place, pack, prefix_of
from pipeline.source_texts import IN_WORDS, SourceTexts, network_texts, networks
from pipeline.state.recover import fill, load, writer_of
from schemas.event import Event
from tests.pipeline.log_of_requests import HOUR_US, START_US, Outcome, Record, core, record, slices
from tests.pipeline.test_flow import restored

STATES = Path(__file__).parent / "states"
ADDRESSES = ("8.8.8.8", "185.220.101.4", "2001:4860:4860::8888", "2a00:1450::1", "::1", "no address", "")
AGENTS = ("curl/8.1", "python-requests/2.31", "Ünï/1", "")
ROUTES = ("/v1/things/{id}", "/v1/" + "ä" * 120, "/ends/with/nul\0", "")
HOUR = START_US - START_US % HOUR_US + HOUR_US


def hour(number: int, events: int = 90) -> list[Record]:
    """Requests of five keys within one hour, from everywhere, by everything."""
    return [
        record(Event(
            key_id=f"pk_{n % 5}", ts_us=HOUR + number * HOUR_US + n * 20_000_000, outcome="success", status=200,
            client_ip=ADDRESSES[n * 5 % 7], user_agent=AGENTS[n * 3 % 4], route=ROUTES[n // 4 % 4],
            path=f"/v2/p{number}/{n % 6}x", method=("GET", "POST")[n % 2], request_id=f"{number}/{n}", bytes_out=n,
        ))
        for n in range(events)
    ]  # fmt: skip


LOG = [*hour(0), *hour(1), *hour(3)]
CUT = 60


def judged(judge: KeyCore, records: list[Record], first: int = 0) -> Outcome:
    outcome = Outcome()
    for part in slices(records, range(0, len(records), 17), first):
        outcome.take(judge.process(part))
    outcome.finish(judge.due_rows())
    return outcome


def live(judge: KeyCore) -> Any:
    rows = judge.state.sources.rows
    return rows[rows["live"] == 1]


def in_words(judge: KeyCore) -> list[str]:
    return sorted(map(str, judge.state.source_texts.in_words(live(judge)).tolist()))


def test_a_state_with_texts_in_its_rows_is_taken_over_and_written_anew() -> None:
    """`states/sources_in_words.msgpack`: after `LOG[:CUT]`, by the version that had the texts in every row."""
    old = dict(
        msgspec.msgpack.decode((STATES / "sources_in_words.msgpack").read_bytes(), type=list[tuple[bytes, bytes]])
    )
    judge, straight = core(), core()
    state = load(0, old, CUT)
    fill(judge, state)
    first = judged(straight, LOG[:CUT])
    assert in_words(judge) == in_words(straight) != []
    writer = writer_of(state, "epoch", "me")
    written = old | dict(writer.draft(writer.plan(judge, 1)).records())
    again = core()
    loaded = load(0, written, CUT)
    assert loaded.manifest is not None
    assert loaded.manifest.format > 2, "else a version before would count these sources again, under no name"
    fill(again, loaded)
    assert in_words(again) == in_words(judge)
    rest = [judged(each, LOG[CUT:], CUT).rows["key_source_1h"] for each in (judge, again, straight)]
    assert rest[0] == rest[1] == rest[2]
    assert {row[2] for row in rest[0].values()} >= {"8.8.8.0/24", "2001:4860:4860::/48", "::/48", ""}
    assert {row[6] for row in first.rows["key_source_1h"].values()} >= {"/v1/" + "ä" * 78, "/ends/with/nul"}


def test_a_text_that_no_open_source_has_is_forgotten_and_its_number_given_anew() -> None:
    judge = core()
    judged(judge, LOG[:90])
    routes = set(judge.state.source_texts.rows.values())
    assert {b"/v2/p0/{id}", b"/v2/p0/1x"} & routes
    judged(judge, LOG[90:], 90)
    texts = judge.state.source_texts
    named = set(live(judge)["client_text"].tolist()) | set(live(judge)["route_text"].tolist())
    assert set(texts.rows) == named - {0}, "no text is kept for nobody"
    assert not [text for text in texts.rows.values() if text.startswith((b"/v2/p0", b"/v2/p1"))]


@given(st.lists(st.integers(1, len(LOG) - 1), max_size=4))
@settings(max_examples=20)
def test_restarts_change_no_row(cuts: list[int]) -> None:
    straight, outcome, judge, at = judged(core(), LOG), Outcome(), core(), 0
    for part in slices(LOG, cuts):
        outcome.take(judge.process(part))
        at += len(part.offsets)
        outcome.finish(judge.due_rows())
        judge = restored(judge)
    assert outcome.rows["key_source_1h"] == straight.rows["key_source_1h"]


@given(st.lists(st.ip_addresses() | st.just(None)))
def test_a_network_is_told_as_its_prefix(addresses: list[Any]) -> None:
    packed = [b"" if address is None else pack(str(address)) for address in addresses]
    places = [Place(address=each, prefix=prefix_of(each)) if each else NOWHERE for each in packed]
    assert plain(network_texts(networks(coded(places)))) == [place.prefix for place in places]


@given(st.lists(st.text(max_size=70)), st.integers(1, 60))
def test_texts_come_back_as_numpy_would_cut_them(texts: list[str], most: int) -> None:
    kept = SourceTexts()
    numbers = kept.numbers(coded(texts), most)
    cut = np.array([text.encode()[:most] for text in texts], f"S{most}")
    assert plain(kept.texts(numbers)) == [raw.decode("utf-8", "ignore") for raw in cut.tolist()]
    assert len(kept.rows) == len(set(cut.tolist()) - {b""})


def test_a_file_says_in_words_what_a_row_says_in_numbers() -> None:
    judge = core()
    judged(judge, LOG[:CUT])
    told, other = judge.state.source_texts.in_words(live(judge)), core()
    assert told.dtype == IN_WORDS
    back = np.zeros(len(told), judge.state.sources.array.dtype)
    other.state.source_texts.take_over(told, back)
    assert str(other.state.source_texts.in_words(back).tolist()) == str(told.tolist())
