"""The River plug-in: any model by name, scores by rank, findings that carry no incident unless they may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tree import ClickHouse, Config, Plugin
from pipeline.errors import ConfigError
from pipeline.plugin.features import CLIP, LEAST_DEVIATION, NAMES, Minute, Standards, Usual, vector
from pipeline.plugin.follow import DAY_S, SETTLE_S, Follower, Table, write
from pipeline.plugin.judge import PluginJudge
from pipeline.plugin.model import LEAST, REMEMBERED, Ranks, build
from pipeline.sinks.clickhouse import ClickHouseSink
from pipeline.sinks.connect import connect
from tests.row_examples import rows_of

START_S = 1_780_000_020


def minutes(count: int, keys: int = 8, seed: int = 1) -> Iterator[Minute]:
    """Quiet keys, a minute each."""
    random = np.random.default_rng(seed)
    for at in range(count):
        for key in range(keys):
            n = int(random.poisson(6)) + 1
            yield Minute(f"key_{key}", START_S + at * 60, n, int(random.random() < 0.05), 0, n * 900, 1, 1, 2, n * 20.0)


def odd(at: int, key: int = 3) -> Minute:
    """Scanning, from many addresses."""
    return Minute(f"key_{key}", START_S + at * 60, 900, 700, 650, 90, 40, 9, 60, 900 * 3.0)


def test_the_shipped_model_finds_the_odd_minute_and_says_what_was_odd() -> None:
    judge = PluginJudge(Plugin(finding_bits=11.0))
    assert len(judge.take(list(minutes(400)), 0).findings) <= 3
    said = judge.take([odd(400)], 0)
    assert said.keys == ["key_3"]
    assert said.findings[0].family == "plugin"
    assert "above its usual" in said.findings[0].text
    assert said.incidents == []


def test_it_opens_incidents_only_where_it_may() -> None:
    judge = PluginJudge(Plugin(finding_bits=11.0, incidents=True))
    judge.take(list(minutes(400)), START_S + 400 * 60)
    said = judge.take([odd(400), odd(401)], START_S + 400 * 60)
    assert [(incident.rule, incident.rung, incident.severity) for incident in said.incidents] == [
        ("plugin", "observe", "medium")
    ]


def test_what_was_only_to_be_learned_from_says_nothing() -> None:
    judge = PluginJudge(Plugin(finding_bits=11.0))
    assert judge.take([*minutes(400), odd(400)], START_S + 500 * 60).findings == []


@pytest.mark.parametrize("model", ["river.anomaly.OneClassSVM", "river.anomaly.LODA"])
def test_other_models_of_river_can_be_named(model: str) -> None:
    judge = PluginJudge(Plugin(model=model, finding_bits=0.1))
    judge.take(list(minutes(400)), START_S + 400 * 60)
    found = judge.take([*minutes(20, seed=5), odd(400)], 0).findings
    assert found
    assert all(model.rpartition(".")[2] in finding.text for finding in found)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("os.path.Join", {}, "give a class of River"),
        ("river.anomaly.Nothing", {}, "Nothing"),
        ("river.nowhere.Trees", {}, "there is no"),
        ("river.stats.Mean", {}, "can't be used"),
        ("river.anomaly.GaussianScorer", {}, "can't be used"),
        ("river.anomaly.HalfSpaceTrees", {"trees": 3}, "trees"),
    ],
)
def test_a_model_that_there_is_not_is_a_clear_line(name: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(name, options)


@given(seed=st.integers(0, 1000), more=st.integers(1, 200), levels=st.sampled_from([2, 10, 10**9]))
@settings(max_examples=20)
def test_bits_are_the_rank_and_never_more_than_was_seen(seed: int, more: int, levels: int) -> None:
    scores = np.random.default_rng(seed).integers(0, levels, LEAST + more).astype(float).tolist()
    ranks = Ranks()
    for score in scores[:-1]:
        ranks.bits(score)
    as_large = sum(score >= scores[-1] for score in scores[:-1])
    assert ranks.bits(scores[-1]) == pytest.approx(np.log2(len(scores) / (as_large + 1)), abs=1 / 64)


def test_old_scores_are_forgotten() -> None:
    ranks = Ranks()
    for n in range(REMEMBERED + 500):
        ranks.bits(float(n < 500))
    assert ranks.bits(1.0) > 14.0


@given(st.lists(st.tuples(*[st.floats(0, 1e6) for _ in NAMES]), min_size=1, max_size=50))
def test_standardised_values_stay_within_bounds(rows: list[tuple[float, ...]]) -> None:
    usual = Usual()
    for row in rows:
        assert all(0.0 <= value <= 1.0 for value in usual.standard(row).values())
        usual.learn(row)


def test_a_constant_key_is_judged_by_a_least_deviation() -> None:
    standards = Standards()
    same = Minute("key", START_S, 5, 0, 0, 5_000, 1, 1, 1, 100.0)
    for _ in range(100):
        values = standards.take(same)
    assert set(values.values()) == {0.5}
    more = Minute("key", START_S, 6, 0, 0, 5_000, 1, 1, 1, 120.0)
    off = vector(more)[0] - vector(same)[0]
    assert standards.take(more)["requests"] == pytest.approx(0.5 + off / LEAST_DEVIATION / (2 * CLIP))


class Rows:
    """A table that grows."""

    def __init__(self, known: list[Minute]) -> None:
        self.known = known

    def newest_s(self) -> int:
        return max((minute.start_s for minute in self.known), default=0)

    def minutes(self, first_s: int, end_s: int) -> list[Minute]:
        return [minute for minute in self.known if first_s <= minute.start_s < end_s]


def follow(table: Rows, config: Config) -> list[str]:
    """Ids of all findings, from a start to what is final."""
    follower = Follower(config, table, PluginJudge(config.plugin))
    ids: list[str] = []
    while (said := follower.step()) is not None:
        ids += said.ids
    return ids


def test_a_restart_says_the_same_under_the_same_ids_and_nothing_that_is_not_final() -> None:
    config = Config(plugin=Plugin(finding_bits=10.0))
    log = [*minutes(420), odd(420), *minutes(10, seed=2)]
    log = [*log, odd(439)]
    shifted = [*log[:-1], Minute("key_0", START_S + 440 * 60, 1, 0, 0, 1, 1, 1, 1, 1.0)]
    first, again = follow(Rows(shifted), config), follow(Rows(shifted), config)
    assert first
    assert first == again
    settled = START_S + 440 * 60 - round(config.worker.lateness_s) - SETTLE_S
    follower = Follower(config, Rows(shifted), PluginJudge(config.plugin))
    while follower.step() is not None:
        assert follower._next_s <= settled


def test_minutes_come_out_of_clickhouse_added_up_over_their_parts(clickhouse: ClickHouse) -> None:
    async def fill() -> None:
        sink = ClickHouseSink(clickhouse)
        base = START_S // 60 * 60
        rows = rows_of(
            "requests_1m", 3, key_id=["a", "a", "b"], window_start=[base, base, base], part=["p1", "p2", "p1"],
            requests=[3, 4, 5], errors_401=[1, 0, 0], errors_403=[1, 0, 0], errors_404=[0, 0, 2], errors_429=[0] * 3,
            errors_4xx=[0] * 3, errors_5xx=[0] * 3, bytes_out=[10, 20, 30], addresses=[1, 2, 1], countries=[1, 1, 1],
            routes=[2, 3, 1], latency_sum_ms=[1.0, 2.0, 3.0],
        )  # fmt: skip
        await sink.write("requests_1m", rows)
        await sink.write("requests_1m", rows)
        await sink.close()

    asyncio.run(fill())
    client = connect(clickhouse, clickhouse.database)
    table = Table(client, "here")
    base = START_S // 60 * 60
    assert table.newest_s() == base
    assert table.minutes(base, base + 60) == [
        Minute("a", base, 7, 2, 2, 30, 2, 1, 3, 3.0), Minute("b", base, 5, 2, 0, 30, 1, 1, 1, 3.0),
    ]  # fmt: skip
    assert table.minutes(base + 60, base + DAY_S) == []
    client.close()


def test_findings_are_rows_like_any_others(clickhouse: ClickHouse) -> None:
    judge = PluginJudge(Plugin(finding_bits=11.0))
    judge.take(list(minutes(400)), START_S + 400 * 60)
    said = judge.take([odd(400)], 0)

    async def put() -> None:
        sink = ClickHouseSink(clickhouse)
        await write(said, sink, None, "api.incidents")
        await write(said, sink, None, "api.incidents")
        await sink.close()

    asyncio.run(put())
    client = connect(clickhouse, clickhouse.database)
    found = client.query("SELECT key_id, family, detector FROM findings FINAL").result_rows
    assert [tuple(row) for row in found] == [("key_3", "plugin", "plugin")]
    client.close()
