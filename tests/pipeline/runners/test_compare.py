"""Two configurations over one log: what comes, what goes, who would have been acted on, and how the budget moves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pipeline.config.tree import Budget, Config
from pipeline.errors import ConfigError
from pipeline.keys.catalogue import Catalogue
from pipeline.runners.adopting import due_of
from pipeline.runners.compare import acted_on, compare, only
from pipeline.runners.replay import ReplayOptions, main, run
from pipeline.times import micros, rfc3339
from schemas.control import encode
from schemas.incident import Band, Finding, Incident, Sample
from schemas.key import Key
from tests.pipeline import said
from tests.pipeline.log_of_requests import log

AT = "2026-05-28T20:00:00.000000Z"


def incident(key: str = "pk_1", opened: str = AT, last: str = "", **more: object) -> Incident:
    usual = {
        "incident_id": f"{abs(hash((key, opened))):032x}", "key_id": key, "rule": "visit", "revision": 1,
        "change": "opened", "state": "open", "severity": "high", "rung": "revoke", "opened_at": opened,
        "last_at": last or opened, "environment": "live", "key_version": 1, "findings": FINDINGS,
    }  # fmt: skip
    return Incident(**usual | more)  # type: ignore[arg-type]


FINDINGS = tuple(
    Finding(
        detector=name, family=family, bits=14.0, at=AT, observed=1.0, expected=Band(low=0, median=0, high=1), unit="x",
        text=name, authenticated=True, sample=Sample(at=AT),
    )
    for name, family in (("geography", "network"), ("errors", "outcome"))
)  # fmt: skip
CATALOGUE = Catalogue.of([Key(key_id="pk_1", environment="live", version=1), Key(key_id="pk_2", protected=True)])


def test_an_episode_that_opens_at_another_event_is_the_same_one() -> None:
    early = incident(opened="2026-05-28T20:00:00.000000Z", last="2026-05-28T20:30:00.000000Z")
    late = incident(opened="2026-05-28T20:40:00.000000Z")
    another = incident(opened="2026-05-29T08:00:00.000000Z")
    other_key = incident("pk_2", opened="2026-05-28T20:10:00.000000Z")
    assert only([early], [late]) == ()
    assert only([early, another], [late]) == (another,)
    assert only([late], [early, another]) == ()
    assert only([other_key], [early]) == (other_key,)


def test_who_would_have_been_acted_on_is_what_the_responders_guards_say() -> None:
    config = Config()
    strong, weak = incident(), incident("pk_3", severity="medium")
    assert acted_on([strong, weak], config, CATALOGUE) == ("pk_1",)
    assert acted_on([incident("pk_2"), incident("unknown")], config, CATALOGUE) == (), "protected, undeclared"
    alone = msgspec.structs.replace(strong, findings=FINDINGS[:1])
    assert acted_on([alone], config, CATALOGUE) == ()


def test_rates_are_per_100000_key_days_and_proofs_stand_outside() -> None:
    both = {x.incident_id: x for x in (incident(), incident("pk_2", rule="proof", severity="critical"))}
    wide = Config(budget=Budget(listed=1000.0))
    found = compare(both, {}, (Config(), wide), CATALOGUE, 200.0)
    assert (found.ours.listed, found.ours.paged, found.ours.per_100k) == (1, 1, 500.0)
    assert (found.ours.budget, found.theirs.budget) == (100.0, 1000.0)
    assert found.theirs.incidents == 0
    assert len(found.go) == 2 and not found.come
    assert compare({}, {}, (Config(), wide), CATALOGUE, 0.0).ours.per_100k == 0.0


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("against") / "events.jsonl"
    path.write_bytes(b"\n".join(value for _, value, _ in log(1) if value))
    return path


def toml(folder: Path, text: str) -> Path:
    path = folder / "other.toml"
    path.write_text(text)
    return path


def test_replay_against_another_configuration_says_what_goes(
    native: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = toml(tmp_path, "[budget]\nlisted = 1e-30\npage = 1e-30\n")
    assert main(ReplayOptions(paths=(native,), against=other, json=True)) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["incidents"] == told["against"]["ours"]["incidents"] > 0
    assert told["against"]["theirs"]["incidents"] == 0
    assert [x["key_id"] for x in told["against"]["go"]] == ["pk_1"]
    assert told["against"]["come"] == []
    assert told["against"]["key_days"] > 10
    assert main(ReplayOptions(paths=(native,), against=other)) == 0
    words = capsys.readouterr().out
    assert "budget 100 -> 0" in words and "go: 1" in words and "come: none" in words


def test_against_itself_nothing_comes_and_nothing_goes(native: Path, tmp_path: Path) -> None:
    outcome = run(ReplayOptions(paths=(native,), against=toml(tmp_path, "")))
    assert outcome.comparison is not None
    assert not outcome.comparison.come and not outcome.comparison.go
    assert outcome.comparison.ours == outcome.comparison.theirs


def controls_file(folder: Path, *words: object) -> str:
    path = folder / "said.jsonl"
    path.write_bytes(b"\n".join(encode(word) for word in words))  # type: ignore[arg-type]
    return str(path)


def test_what_was_said_holds_in_a_replay_from_the_time_it_was_said(native: Path, tmp_path: Path) -> None:
    told = run(ReplayOptions(paths=(native,)))
    (opened,) = told.incidents.values()
    before = controls_file(tmp_path, said.mute(key_id="pk_1", at="2026-05-29T00:00:00Z"))
    muted = run(ReplayOptions(paths=(native,), controls=before))
    assert not muted.incidents and muted.withheld == 1
    after = controls_file(tmp_path, said.mute(key_id="pk_1", at="2026-12-01T00:00:00Z"))
    assert run(ReplayOptions(paths=(native,), controls=after)).incidents.keys() == {opened.incident_id}


def test_a_replay_with_controls_is_the_same_wherever_slices_end(native: Path, tmp_path: Path) -> None:
    (opened,) = run(ReplayOptions(paths=(native,), partitions=3)).incidents.values()
    word = msgspec.structs.replace(said.feedback(opened, "malicious"), at=rfc3339(micros(opened.opened_at) + 1_000_000))
    path = controls_file(tmp_path, word, said.mute(key_id="pk_2", at="2026-05-30T00:00:00Z"))
    whole = run(ReplayOptions(paths=(native,), controls=path, partitions=3))
    assert {x.label for x in whole.incidents.values()} == {"malicious"}
    for slice_events in (1, 7, 100):
        cut = run(ReplayOptions(paths=(native,), controls=path, partitions=3, slice_events=slice_events))
        assert cut.incidents == whole.incidents
        assert sorted(cut.finding_lines) == sorted(whole.finding_lines)


def test_a_file_of_controls_that_can_not_be_read_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_bytes(encode(said.mute(key_id="a")) + b"\n{}\n")
    with pytest.raises(ConfigError, match="line 2"):
        due_of(str(path))
    with pytest.raises(ConfigError, match="No such file"):
        due_of(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="goes with --topic"):
        run(ReplayOptions(paths=(tmp_path,), controls="adopted"))


def test_times_are_whole_microseconds() -> None:
    assert micros("2026-05-28T20:26:40.000001Z") == 1_780_000_000_000_001
    assert micros("2026-05-28T22:26:40+02:00") == 1_780_000_000_000_000
