"""What is withheld: by whose word, of what, until when; and that it is written down."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tree import Config
from pipeline.control.controls import NO_CONTROLS, Controls, Rising, Said
from pipeline.control.topic import ControlsReader
from pipeline.errors import ConfigError
from pipeline.flow import open_core
from pipeline.times import micros
from schemas.control import Control, Mute, control_id, decode, encode
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key
from tests.pipeline import said
from tests.pipeline.keys.test_catalogue import Log
from tests.pipeline.log_of_requests import Outcome, core, log, slices
from tests.pipeline.test_flow import assert_same

NOW_US = 1_780_000_000_000_000


def test_what_was_said_of_a_key_before_it_was_forgotten_is_not_known_any_more() -> None:
    later = said.mute(key_id="k1", detector="spike")
    spoken: list[Control] = [said.mute(key_id="k1"), said.mute(key_id="k2"), said.forget("k1"), later]
    known = Controls.of("e", [Said(seq, each) for seq, each in enumerate(spoken)], 4)
    assert [seq for seq, _ in known.said] == [1, 2, 3]
    assert known.more([Said(4, said.forget("k2"))], 5).said[-1].seq == 4
    assert [seq for seq, _ in known.more([Said(4, said.forget("k2"))], 5).said] == [2, 3, 4]


def finding(detector: str = "spike", family: str = "volume", **more: Any) -> Finding:
    return Finding(
        detector=detector, family=family, bits=9.0, at="2026-05-28T20:26:40Z", observed=1.0, unit="requests",
        expected=Band(low=0, median=1, high=2), text="", authenticated=True, sample=Sample(at="", **more),
    )  # fmt: skip


def rising(*fresh: Finding, **more: Any) -> Rising:
    usual: dict[str, Any] = {
        "key_id": "pk_1", "ts_us": NOW_US, "route": "/v1/a", "environment": "live",
        "declared": Key(key_id="pk_1", owner="acme", role="full"), "severity": 0, "proof": False, "opening": True,
    }  # fmt: skip
    return Rising(**usual | more, fresh=fresh or (finding(),))


@pytest.mark.parametrize(
    ("scope", "withheld"),
    [
        ({"key_id": "pk_1"}, True),
        ({"key_id": "pk_2"}, False),
        ({"owner": "acme"}, True),
        ({"owner": "other"}, False),
        ({"detector": "spike"}, True),
        ({"detector": "geography"}, False),
        ({"key_id": "pk_1", "detector": "spike"}, True),
        ({"key_id": "pk_2", "detector": "spike"}, False),
        ({"key_id": "pk_1", "until": "2026-05-28T20:26:40Z"}, False),
    ],
)
def test_a_mute_withholds_exactly_its_scope_until_its_end(scope: dict[str, str], withheld: bool) -> None:
    assert (said.controls(said.mute(**scope)).withholds(rising()) is not None) is withheld


def test_a_mute_of_a_detector_withholds_only_what_rests_on_it_alone() -> None:
    both = rising(finding(), finding("geography", "network"))
    assert said.controls(said.mute(detector="spike")).withholds(both) is None
    assert said.controls(said.mute(key_id="pk_1")).withholds(both) is not None


def test_a_proof_is_withheld_only_by_a_mute_that_names_its_detector() -> None:
    proof = rising(finding("decoy", "declared"), proof=True)
    assert said.controls(said.mute(key_id="pk_1"), said.mute(owner="acme")).withholds(proof) is None
    assert said.controls(said.planned(routes=("*",))).withholds(proof) is None
    assert said.controls(said.mute(detector="decoy")).withholds(proof) is not None


def test_muting_new_networks_for_all_keys_hides_no_stranger_with_a_leaked_key() -> None:
    proof, usual = rising(finding("geography", "network"), proof=True), rising(finding("geography", "network"))
    assert said.controls(said.mute(detector="geography")).withholds(proof) is None
    assert said.controls(said.mute(detector="geography")).withholds(usual) is not None
    assert said.controls(said.mute(detector="geography", key_id="pk_1")).withholds(proof) is not None


@pytest.mark.parametrize(
    ("scope", "withheld"),
    [
        ({"routes": ("*",)}, True),
        ({"routes": ("/v1/*",)}, True),
        ({"routes": ("/v2/*",)}, False),
        ({"owners": ("acme",), "environments": ("live",)}, True),
        ({"owners": ("acme",), "environments": ("test",)}, False),
        ({"roles": ("read_only",)}, False),
        ({"routes": ("*",), "from_": "2026-06-01T00:00:00Z"}, False),
        ({"routes": ("*",), "to": "2026-05-28T20:26:40Z"}, False),
    ],
)
def test_a_planned_event_covers_its_scope_and_time(scope: dict[str, Any], withheld: bool) -> None:
    assert (said.controls(said.planned(**scope)).withholds(rising()) is not None) is withheld


def test_a_planned_event_withholds_nothing_that_pages_or_is_more_than_volume() -> None:
    plan = said.controls(said.planned(routes=("*",)))
    assert plan.withholds(rising()) is not None
    assert plan.withholds(rising(severity=1)) is None
    assert plan.withholds(rising(finding(), finding("errors", "outcome"))) is None


INCIDENT = Incident(
    incident_id="ab" * 16, key_id="pk_1", rule="visit", revision=1, change="opened", state="open", severity="medium",
    rung="observe", opened_at="2026-05-28T20:00:00.000000Z", last_at="2026-05-28T20:00:00.000000Z",
    findings=(finding("geography", "network", asn=64500, country="DE"), finding()),
)  # fmt: skip


def test_an_exception_holds_for_the_values_it_was_given_for() -> None:
    excepted = said.controls(said.feedback(INCIDENT, "expected", "2026-12-01T00:00:00Z"))
    assert excepted.withholds(rising(finding("geography", "network", asn=64500, country="DE"))) is not None
    assert excepted.withholds(rising()) is not None
    assert excepted.withholds(rising(finding("geography", "network", asn=64501, country="DE"))) is None
    assert excepted.withholds(rising(finding("geography", "network", asn=64500, country="RO"))) is None
    assert excepted.withholds(rising(finding("errors", "outcome"))) is None
    assert excepted.withholds(rising(ts_us=micros("2026-12-01T00:00:00Z"))) is None
    assert excepted.withholds(rising(key_id="pk_2")) is None


def test_feedback_without_an_end_or_malicious_excepts_nothing() -> None:
    for word in (said.feedback(INCIDENT, "expected"), said.feedback(INCIDENT, "malicious")):
        assert said.controls(word).withholds(rising()) is None


def test_the_newest_word_of_one_id_counts_and_what_was_said_later_is_not_known_before() -> None:
    first, lifted = said.mute(key_id="pk_1"), said.mute(key_id="pk_1", until=said.AT)
    whole = said.controls(first, said.mute(key_id="pk_9"), lifted)
    assert whole.withholds(rising()) is None
    assert Controls.of("topic", [Said(0, first)], 3).until(1).withholds(rising()) is not None
    assert whole.until(2).withholds(rising()) is not None, "what was replaced later held until then"
    assert whole.version == "topic/3"
    assert NO_CONTROLS.version == ""


@given(key=st.sampled_from(["", "pk_1"]), detector=st.sampled_from(["", "spike"]), owner=st.sampled_from(["", "acme"]))
def test_a_message_comes_back_as_it_was_said(key: str, detector: str, owner: str) -> None:
    for control in (said.mute(key_id=key, detector=detector, owner=owner), said.feedback(INCIDENT, "expected")):
        assert decode(encode(control)) == control


def judged(*controls: Control, cuts: tuple[int, ...] = (), config: Config | None = None) -> Outcome:
    judge, outcome = core(config), Outcome()
    outcome.finish(judge.adopt(said.sides(*controls)) if controls else {})
    for batch in slices(log(1), cuts):
        outcome.take(judge.process(batch))
    outcome.finish(judge.due_rows())
    return outcome


def test_a_muted_key_has_findings_and_rows_of_what_was_withheld_but_no_incident() -> None:
    told, muted = judged(), judged(said.mute(key_id="pk_1"))
    assert {x.key_id for x in told.incidents.values()} == {"pk_1"}
    assert not muted.incidents and "incidents" not in muted.rows
    assert "evidence" not in muted.rows
    assert len(muted.rows["findings"]) == len(told.rows["findings"])
    reasons = {(row[2], row[11], row[12]) for row in muted.rows["withheld"].values()}
    assert reasons == {("pk_1", "because", "me")}


def test_a_mute_of_another_key_changes_nothing() -> None:
    told, muted = judged(), judged(said.mute(key_id="pk_2"))
    assert told.incidents == muted.incidents
    assert "withheld" not in muted.rows


def test_a_mute_of_a_detector_that_found_nothing_withholds_no_later_message() -> None:
    told, muted = judged(), judged(said.mute(detector="decoy"))
    assert told.incidents == muted.incidents
    assert "withheld" not in muted.rows


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 1690), max_size=30))
def test_what_is_withheld_does_not_depend_on_where_slices_end(cuts: list[int]) -> None:
    middle = next(iter(judged_cached().incidents.values())).opened_at[:22] + "Z"
    until = said.mute(key_id="pk_1", until=middle)
    assert_same(judged(until, cuts=tuple(cuts)), judged(until))


_TOLD: list[Outcome] = []


def judged_cached() -> Outcome:
    if not _TOLD:
        _TOLD.append(judged())
    return _TOLD[0]


def test_what_was_withheld_is_told_as_opened_when_the_mute_has_ended_and_it_goes_on() -> None:
    told = [x for _, x in sorted(judged_cached().incidents.items())]
    later = next((x for x in told if x.change in ("extended", "escalated")), None)
    assert later is not None
    until = said.mute(key_id="pk_1", until=later.last_at)
    outcome = judged(until)
    first = min(outcome.incidents.values(), key=lambda x: (x.opened_at, x.revision))
    assert first.change == "opened" and first.revision == 1
    assert first.opened_at >= later.last_at


def test_a_detector_that_simulates_finds_but_carries_no_incident() -> None:
    names = ("geography", "errors", "spike", "novel_client", "novel_operation", "off_hours", "dormant", "misuse")
    quiet = Config(detectors={name: {"simulate": True} for name in names})
    told, simulated = judged(), judged(config=quiet)
    assert told.incidents and not simulated.incidents
    assert {row[4] for row in simulated.rows["findings"].values()} >= {"geography"}
    one = judged(config=Config(detectors={"geography": {"simulate": True}}))
    shown = {f.detector for x in one.incidents.values() for f in x.findings}
    assert "geography" not in shown
    assert all(row[1] == "" for row in one.rows["findings"].values() if row[4] == "geography")


def test_simulate_must_be_true_or_false() -> None:
    with pytest.raises(ConfigError, match=r"detectors\.spike\.simulate: expected true or false"):
        core(Config(detectors={"spike": {"simulate": 1}}))


def reader(*records: tuple[str, bytes]) -> ControlsReader:
    return ControlsReader(Config(), Log([list(records)]), epoch="topic")


def entry(control: Control, key: str = "") -> tuple[str, bytes]:
    return key or control_id(control), encode(control)


def test_a_word_that_can_not_be_read_stops_nobody_and_counts_for_the_version() -> None:
    good = said.mute(key_id="pk_1")
    no_time = msgspec.structs.replace(said.mute(key_id="pk_2"), until="2026-13-45T00:00:00Z")
    with_reader = reader(entry(good), ("mute/x", b"{"), entry(no_time), entry(said.mute(key_id="pk_3"), "elsewhere"))
    controls = asyncio.run(with_reader.open())
    assert [each.control for each in controls.said] == [good]
    assert controls.version == "topic/4"


def test_the_reader_goes_on_from_where_it_was() -> None:
    source = Log([[entry(said.mute(key_id="pk_1"))]])
    with_reader = ControlsReader(Config(), source, epoch="topic")

    async def read() -> tuple[Controls, Controls, Controls]:
        first, same = await with_reader.open(), await with_reader.refresh()
        assert source.logs is not None
        source.logs[0].append(entry(said.mute(key_id="pk_2")))
        return first, same, await with_reader.refresh()

    first, same, second = asyncio.run(read())
    assert same is first
    assert [each.seq for each in second.said] == [0, 1]
    assert all(isinstance(each.control, Mute) for each in second.said)


def test_a_topic_of_two_partitions_has_no_one_order_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="must have one order"):
        asyncio.run(ControlsReader(Config(), Log([[], []]), epoch="topic").open())


def test_a_missing_topic_says_nothing() -> None:
    assert asyncio.run(ControlsReader(Config(), Log(None), epoch="topic").open()) is NO_CONTROLS


def test_what_was_said_before_a_partition_began_is_written_down_with_its_first_slice() -> None:
    judge = open_core(0, Config(), said.sides(said.mute(key_id="pk_9")), "epoch")
    rows = judge.process(slices(log(1)[:5], [])[0]).rows
    assert rows["controls"]["kind"] == ["mute"]
    assert "controls" in rows["adoptions"]["input"]
