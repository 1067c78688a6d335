"""What the worker relies on in faust-streaming, mode and aiokafka, pinned: an upgrade that changes it fails here.

`SOURCES` holds a hash of the source of every function that `pipeline/runners` overrides, calls without it being public
API, or whose order of steps it depends on. When one changes: read it, read the reason in reference/mechanisms.md, run
`make test-cluster`, then write the new hash down (`python -m tests.contracts.test_faust_and_aiokafka` prints all).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Final

import faust
import pytest

RELIED_ON: Final = {
    "faust.transport.consumer:Consumer": (
        "__init__ getmany _wait_next_records perform_seek commit force_commit _commit_offsets _should_commit "
        "_filter_committable_offsets _drain_messages on_buffer_full on_buffer_drop on_partitions_revoked on_stop "
        "on_restart _new_offset _filter_tps_with_pending_acks _add_gap _reset_state"
    ),
    "faust.transport.consumer:ThreadDelegateConsumer": ("position assignment highwater highwaters _getmany _commit"),
    "faust.transport.drivers.aiokafka:Consumer": "_to_message _new_consumer_thread",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread": (
        "_commit _create_worker_consumer _fetch_records seek_to_committed _ensure_consumer"
    ),
    "faust.transport.drivers.aiokafka:ConsumerRebalanceListener": "on_partitions_revoked on_partitions_assigned",
    "faust.transport.conductor:ConductorCompiler": "build",
    "faust.app.base:App": "_stop_consumer _on_partitions_revoked _on_partitions_assigned on_rebalance_end on_stop",
    "faust.tables.recovery:Recovery": (
        "_add on_rebalance _restart_recovery on_recovery_completed _slurp_changelogs _build_highwaters _build_offsets "
        "_seek_offsets need_recovery active_remaining"
    ),
    "faust.tables.base:Collection": (
        "persisted_offset apply_changelog_batch on_changelog_event on_recover _changelog_topic_name "
        "_new_changelog_topic"
    ),
    "faust.tables.manager:TableManager": "on_rebalance on_partitions_revoked",
    "faust.streams:Stream": "noack events _c_aiter _py_aiter ack",
    "faust.serializers.schemas:Schema": "compile",
    "mode.utils.queues:FlowControlEvent": "resume suspend clear acquire is_active",
    "mode.services:Service": "crash _crash stop",
    "aiokafka.consumer.consumer:AIOKafkaConsumer": "seek getmany position highwater commit",
    "aiokafka.consumer.fetcher:Fetcher": "fetched_records seek_to _proc_fetch_request",
    "aiokafka.consumer.fetcher:PartitionRecords": (
        "__init__ __next__ _unpack_records _consume_aborted_up_to _contains_abort_marker"
    ),
    "aiokafka.record.memory_records:_MemoryRecordsPy": "_cache_next next_batch",
    "aiokafka.record.default_records:_DefaultRecordBatchPy": "__init__ _maybe_uncompress validate_crc",
    "aiokafka.consumer.fetcher:FetchResult": "check_assignment getall",
    "aiokafka.consumer.group_coordinator:GroupCoordinator": "_on_join_prepare _on_join_complete",
    "aiokafka.producer.producer:AIOKafkaProducer": "send send_and_wait create_batch send_batch",
    "aiokafka.producer.message_accumulator:BatchBuilder": "__init__ append",
    "aiokafka.producer.message_accumulator:MessageAccumulator": "create_builder add_batch",
    "aiokafka.admin.client:AIOKafkaAdminClient": (
        "_send_request list_consumer_group_offsets create_topics describe_topics"
    ),
    "aiokafka.client:AIOKafkaClient": "send bootstrap",
}

SOURCES: Final[dict[str, str]] = {
    "faust.transport.consumer:Consumer.__init__": "f06c71a8de",
    "faust.transport.consumer:Consumer.getmany": "ef42c70d71",
    "faust.transport.consumer:Consumer._wait_next_records": "975bd1945e",
    "faust.transport.consumer:Consumer.perform_seek": "022d0fdc85",
    "faust.transport.consumer:Consumer.commit": "b0c42889de",
    "faust.transport.consumer:Consumer.force_commit": "45fa2a779e",
    "faust.transport.consumer:Consumer._commit_offsets": "a7e2a6dd07",
    "faust.transport.consumer:Consumer._should_commit": "50e4f91b7b",
    "faust.transport.consumer:Consumer._filter_committable_offsets": "1518b49d01",
    "faust.transport.consumer:Consumer._drain_messages": "e661fcb4eb",
    "faust.transport.consumer:Consumer.on_buffer_full": "152e155570",
    "faust.transport.consumer:Consumer.on_buffer_drop": "6cb91948c8",
    "faust.transport.consumer:Consumer.on_partitions_revoked": "38d3eebdc2",
    "faust.transport.consumer:Consumer.on_stop": "463adaaa2d",
    "faust.transport.consumer:Consumer.on_restart": "ae96058309",
    "faust.transport.consumer:Consumer._new_offset": "56129156c2",
    "faust.transport.consumer:Consumer._filter_tps_with_pending_acks": "aa474ea7b3",
    "faust.transport.consumer:Consumer._add_gap": "aeeb0a25c3",
    "faust.transport.consumer:Consumer._reset_state": "d07b103302",
    "faust.transport.consumer:ThreadDelegateConsumer.position": "236d6d9185",
    "faust.transport.consumer:ThreadDelegateConsumer.assignment": "ae01aebed2",
    "faust.transport.consumer:ThreadDelegateConsumer.highwater": "4c6c622cd9",
    "faust.transport.consumer:ThreadDelegateConsumer.highwaters": "0210355743",
    "faust.transport.consumer:ThreadDelegateConsumer._getmany": "87038ad635",
    "faust.transport.consumer:ThreadDelegateConsumer._commit": "44bda1bd84",
    "faust.transport.drivers.aiokafka:Consumer._to_message": "25479e8470",
    "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread": "c320121959",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._commit": "94ce9f856d",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_worker_consumer": "9468539acb",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._fetch_records": "e4c1fd3b51",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.seek_to_committed": "99f857d800",
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._ensure_consumer": "280408bf35",
    "faust.transport.drivers.aiokafka:ConsumerRebalanceListener.on_partitions_revoked": "5e39fc362d",
    "faust.transport.drivers.aiokafka:ConsumerRebalanceListener.on_partitions_assigned": "f68837d7ae",
    "faust.transport.conductor:ConductorCompiler.build": "1c479a4096",
    "faust.app.base:App._stop_consumer": "ecd720dec4",
    "faust.app.base:App._on_partitions_revoked": "7358c7b8b0",
    "faust.app.base:App._on_partitions_assigned": "a27234654b",
    "faust.app.base:App.on_rebalance_end": "f1f46e5e4f",
    "faust.app.base:App.on_stop": "5e4c5fbc44",
    "faust.tables.recovery:Recovery._add": "b125c65069",
    "faust.tables.recovery:Recovery.on_rebalance": "4832849aa1",
    "faust.tables.recovery:Recovery._restart_recovery": "e66ec4b785",
    "faust.tables.recovery:Recovery.on_recovery_completed": "e5875c4d1f",
    "faust.tables.recovery:Recovery._slurp_changelogs": "a86b56f95a",
    "faust.tables.recovery:Recovery._build_highwaters": "1d096c3b7b",
    "faust.tables.recovery:Recovery._build_offsets": "add4edb6b3",
    "faust.tables.recovery:Recovery._seek_offsets": "289b51dd7f",
    "faust.tables.recovery:Recovery.need_recovery": "065d3385ce",
    "faust.tables.recovery:Recovery.active_remaining": "e6d2223010",
    "faust.tables.base:Collection.persisted_offset": "d98a0477bb",
    "faust.tables.base:Collection.apply_changelog_batch": "6934f72db6",
    "faust.tables.base:Collection.on_changelog_event": "3a18d5a1f5",
    "faust.tables.base:Collection.on_recover": "6a27070a6d",
    "faust.tables.base:Collection._changelog_topic_name": "ab5810407c",
    "faust.tables.base:Collection._new_changelog_topic": "161b00020b",
    "faust.tables.manager:TableManager.on_rebalance": "622febcec0",
    "faust.tables.manager:TableManager.on_partitions_revoked": "8a7fa5ab23",
    "faust.streams:Stream.noack": "717eb4a28d",
    "faust.streams:Stream.events": "d9b721a97d",
    "faust.streams:Stream._c_aiter": "08d5d33ce0",
    "faust.streams:Stream._py_aiter": "2ad971ceee",
    "faust.streams:Stream.ack": "847ffcb65e",
    "faust.serializers.schemas:Schema.compile": "3ccf6d3e92",
    "mode.utils.queues:FlowControlEvent.resume": "3bb5cc0d57",
    "mode.utils.queues:FlowControlEvent.suspend": "ca7f46a622",
    "mode.utils.queues:FlowControlEvent.clear": "bcaaf3d06e",
    "mode.utils.queues:FlowControlEvent.acquire": "ce5b0f79fc",
    "mode.utils.queues:FlowControlEvent.is_active": "3a93ba4389",
    "mode.services:Service.crash": "5cb225de93",
    "mode.services:Service._crash": "dd37ec44eb",
    "mode.services:Service.stop": "7071395aef",
    "aiokafka.consumer.consumer:AIOKafkaConsumer.seek": "23b72e4589",
    "aiokafka.consumer.consumer:AIOKafkaConsumer.getmany": "56f5e34bca",
    "aiokafka.consumer.consumer:AIOKafkaConsumer.position": "570a7595a1",
    "aiokafka.consumer.consumer:AIOKafkaConsumer.highwater": "a52ea39fb8",
    "aiokafka.consumer.consumer:AIOKafkaConsumer.commit": "c7824e3058",
    "aiokafka.consumer.fetcher:Fetcher.fetched_records": "b4c1e82475",
    "aiokafka.consumer.fetcher:Fetcher.seek_to": "2913583d0b",
    "aiokafka.consumer.fetcher:FetchResult.check_assignment": "8793eb3cc5",
    "aiokafka.consumer.fetcher:FetchResult.getall": "6c870fc159",
    "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request": "a0d0a01970",
    "aiokafka.consumer.fetcher:PartitionRecords.__init__": "8f8e834af0",
    "aiokafka.consumer.fetcher:PartitionRecords.__next__": "225c53d29b",
    "aiokafka.consumer.fetcher:PartitionRecords._unpack_records": "f0889f4c0a",
    "aiokafka.consumer.fetcher:PartitionRecords._consume_aborted_up_to": "f87d85eb38",
    "aiokafka.consumer.fetcher:PartitionRecords._contains_abort_marker": "5c3bf8d774",
    "aiokafka.record.memory_records:_MemoryRecordsPy._cache_next": "192353276f",
    "aiokafka.record.memory_records:_MemoryRecordsPy.next_batch": "52e9472595",
    "aiokafka.record.default_records:_DefaultRecordBatchPy.__init__": "487743fab0",
    "aiokafka.record.default_records:_DefaultRecordBatchPy._maybe_uncompress": "b9281d8b72",
    "aiokafka.record.default_records:_DefaultRecordBatchPy.validate_crc": "61d85942a4",
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_prepare": "ab2550e5b4",
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_complete": "03f43373ac",
    "aiokafka.producer.producer:AIOKafkaProducer.send": "2fc113eed1",
    "aiokafka.producer.producer:AIOKafkaProducer.send_and_wait": "118a2e6d6f",
    "aiokafka.producer.producer:AIOKafkaProducer.create_batch": "b7862ed5b4",
    "aiokafka.producer.producer:AIOKafkaProducer.send_batch": "37a40e8503",
    "aiokafka.producer.message_accumulator:BatchBuilder.__init__": "70a962aa6e",
    "aiokafka.producer.message_accumulator:BatchBuilder.append": "f39b5d4cbe",
    "aiokafka.producer.message_accumulator:MessageAccumulator.create_builder": "ad4cce3ec1",
    "aiokafka.producer.message_accumulator:MessageAccumulator.add_batch": "260e07e6f0",
    "aiokafka.admin.client:AIOKafkaAdminClient._send_request": "4f96411c07",
    "aiokafka.admin.client:AIOKafkaAdminClient.list_consumer_group_offsets": "8a5029121f",
    "aiokafka.admin.client:AIOKafkaAdminClient.create_topics": "9b2e23e631",
    "aiokafka.admin.client:AIOKafkaAdminClient.describe_topics": "82df235dcb",
    "aiokafka.client:AIOKafkaClient.send": "d4455114a3",
    "aiokafka.client:AIOKafkaClient.bootstrap": "aadcea4597",
}


def source_hash(place: str, name: str) -> str:
    """10 hex digits of one function's source, "absent" if there is none."""
    module, _, owner = place.partition(":")
    owned: Any = getattr(importlib.import_module(module), owner)
    if owned.__module__.startswith("pipeline."):  # put in its place by `batches.install`: what we extend is meant
        owned = owned.__mro__[1]
    found: Any = getattr(owned, name, None)
    found = getattr(found, "fun", found)  # a ServiceTask of mode holds its function
    if found is None:
        return "absent"
    return hashlib.blake2b(inspect.getsource(inspect.unwrap(found)).encode(), digest_size=5).hexdigest()


def all_hashes() -> dict[str, str]:
    """Of everything in RELIED_ON."""
    return {f"{place}.{name}": source_hash(place, name) for place, names in RELIED_ON.items() for name in names.split()}


@pytest.mark.parametrize("place", list(RELIED_ON))
def test_functions_relied_on_are_those_that_were_read(place: str) -> None:
    now = {f"{place}.{name}": source_hash(place, name) for name in RELIED_ON[place].split()}
    assert now == {name: SOURCES.get(name) for name in now}


def test_the_versions_are_the_pinned_ones() -> None:
    assert version("faust-streaming") == "0.15.3"
    assert version("mode-streaming") == "0.7.1"
    assert version("aiokafka").startswith("0.14.")


def test_what_the_consumer_overrides_exists_upstream() -> None:
    from faust.transport.drivers.aiokafka import Consumer

    from pipeline.runners.slices import SliceConsumer

    own = {"config", "cover", "polled", "positions", "seek_back", "still_ours", "joining"}
    own |= {"_ends", "_messages", "_slice_message", "_seeking"}
    overridden = {name for name in vars(SliceConsumer) if not name.startswith("__")} - own
    # mode adds bookkeeping of its own to every subclass of Service; it isn't ours
    assert {name for name in overridden if not hasattr(Consumer, name)} == set()


def test_a_member_that_was_thrown_out_has_no_generation_and_its_commit_is_refused() -> None:
    from aiokafka.consumer.group_coordinator import GroupCoordinator
    from aiokafka.protocol.commit import OffsetCommitRequest
    from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

    assert OffsetCommitRequest.DEFAULT_GENERATION_ID == -1
    assert "DEFAULT_GENERATION_ID" in inspect.getsource(GroupCoordinator.reset_generation)
    assert "Errors.UnknownMemberIdError" in inspect.getsource(GroupCoordinator.commit_offsets)
    assert '"already rebalanced" in str(exc)' in inspect.getsource(AIOKafkaConsumerThread._commit)


def test_the_fetcher_is_made_with_the_wait_that_is_set() -> None:
    from aiokafka import AIOKafkaConsumer

    assert "fetch_min_bytes=self._fetch_min_bytes" in inspect.getsource(AIOKafkaConsumer.start)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)
    assert "fetch_max_bytes=self._fetch_max_bytes" in inspect.getsource(AIOKafkaConsumer.start)


def test_the_worker_inserts_without_loading_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    from clickhouse_connect.datatypes.registry import get_from_name
    from clickhouse_connect.driver import insert, options

    from pipeline.sinks.connect import without_pandas

    for name in ("pd", "pd_time_test"):
        monkeypatch.setitem(vars(options), name, None)  # put back afterwards: other tests read DataFrames
    monkeypatch.delitem(vars(options), "pd")
    without_pandas()
    monkeypatch.setitem(sys.modules, "pandas", None)  # an import of it would raise
    kinds = [get_from_name("UInt32"), get_from_name("String")]
    context = insert.InsertContext("t", ["n", "s"], kinds, [[1, 2], ["a", "b"]], column_oriented=True)
    assert context.row_count == 2
    assert "options.pd" in inspect.getsource(insert), "it asks for it"


def test_faust_still_keeps_its_read_offsets_in_the_attribute_that_is_replaced() -> None:
    from faust.transport.consumer import Consumer

    assert "self._read_offset = defaultdict" in inspect.getsource(Consumer.__init__)
    assert "self._read_offset.__getitem__" in inspect.getsource(Consumer._drain_messages)


def test_a_table_that_has_all_there_is_goes_straight_to_on_recover_without_reading() -> None:
    """Which of the two numbers means "nothing to read" hangs on several steps of Faust that take one from another."""
    from collections import Counter

    from faust.tables.recovery import Recovery
    from faust.types import TP

    from pipeline.runners.slices import PageTable, SliceConsumer

    pages = {TP("keywatch.pages", number) for number in range(3)}
    consumer: Any = object.__new__(SliceConsumer)
    table: Any = SimpleNamespace(assigned=lambda tp: None)
    for earliest in (0, 1, 2, 50_000):  # compaction takes the log's beginning
        offsets = Counter({tp: PageTable.persisted_offset(table, tp) for tp in pages})
        ends = {tp: end - 1 for tp, end in asyncio.run(consumer.highwaters(*pages)).items()}  # as _build_highwaters
        starts = {tp: max(offset, earliest - 1) for tp, offset in offsets.items()}  # as _build_offsets
        recovery: Any = SimpleNamespace(active_highwaters=Counter(ends), active_offsets=Counter(starts))
        assert not any(left > 0 for left in Recovery.active_remaining(recovery).values())
        assert not any(starts[tp] and ends[tp] and starts[tp] > ends[tp] for tp in pages), "no ConsistencyError"


def test_a_plain_stream_acks_even_when_the_body_raised() -> None:
    from faust.streams import Stream

    source = inspect.getsource(Stream._py_aiter)
    assert source.index("finally:") < source.index("do_ack", source.index("finally:"))


def test_the_generation_that_plain_aiokafka_has_is_where_it_was() -> None:
    from aiokafka.consumer.group_coordinator import BaseCoordinator, GroupCoordinator

    assert issubclass(GroupCoordinator, BaseCoordinator)
    assert "self.generation =" in inspect.getsource(GroupCoordinator)


def test_a_fetch_result_from_before_a_seek_is_dropped_by_aiokafka() -> None:
    from aiokafka.consumer.fetcher import FetchResult

    assert "position" in inspect.getsource(FetchResult.check_assignment)


def test_every_commit_goes_through_the_threads_own_method() -> None:
    """`FetchThread._commit` holds commits back while the group is joined."""
    from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

    assert "self.call_thread(self._commit, offsets)" in inspect.getsource(AIOKafkaConsumerThread.commit)
    assert list(inspect.signature(AIOKafkaConsumerThread._commit).parameters) == ["self", "offsets"]


def test_an_assignment_goes_through_the_thread_before_anything_is_loaded() -> None:
    """`FetchThread.on_partitions_assigned` learns so that the group is joined."""
    from faust.transport.consumer import ConsumerThread
    from faust.transport.drivers.aiokafka import ConsumerRebalanceListener

    source = inspect.getsource(ConsumerRebalanceListener.on_partitions_assigned)
    assert "await self._thread.on_partitions_assigned(ensure_TPset(assigned), generation)" in source
    wanted = ["self", "assigned", "generation_id"]
    assert list(inspect.signature(ConsumerThread.on_partitions_assigned).parameters) == wanted


def test_faust_takes_all_that_a_fetch_brought_at_once() -> None:
    """`Batches` counts a batch as one record: with a bound per poll aiokafka would bound batches instead."""
    assert faust.App("x").conf.broker_max_poll_records is None


if __name__ == "__main__":
    for relied, digest in all_hashes().items():
        sys.stdout.write(f'    "{relied}": "{digest}",\n')
