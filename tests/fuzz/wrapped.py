"""Records in what they travel in: cloud envelopes, and bodies under a schema registry's id; and what may be in them.

An envelope is made around a record that is spoiled already, or is spoiled itself afterwards, so that hostile values are
met at every depth: a fuzzer that only breaks base64 never gets inside.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.formats.confluent import Kind, Schema, reader
from pipeline.formats.format import BadValueError
from tests.fuzz.mutate import mutated
from tests.pipeline.formats import test_confluent as confluent

Envelope = Callable[[bytes], bytes]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _cloudwatch(raw: bytes) -> dict[str, Any]:
    return {"messageType": "DATA_MESSAGE", "logEvents": [{"id": "1", "timestamp": 1, "message": _text(raw)}]}


def _object(made: Callable[[bytes], Any]) -> Envelope:
    return lambda raw: json.dumps(made(raw)).encode()


ENVELOPES: Final[Mapping[str, Envelope]] = {
    "firehose": _object(lambda raw: {"requestId": "r", "timestamp": 1, "records": [{"data": _packed(raw)}]}),
    "kinesis": _object(lambda raw: {"Records": [{"kinesis": {"data": _packed(raw)}, "eventSource": "aws:kinesis"}]}),
    "cloudevents": _object(lambda raw: {"specversion": "1.0", "type": "t", "data_base64": _packed(raw)}),
    "cloudevents-json": lambda raw: b'{"specversion":"1.0","type":"t","id":"1","source":"/s","data":' + raw + b"}",
    "eventbridge": lambda raw: b'{"version":"0","detail-type":"t","detail":' + raw + b"}",
    "cloudwatch": _object(_cloudwatch),
    "cloudwatch-lambda": _object(
        lambda raw: {"awslogs": {"data": _packed(gzip.compress(json.dumps(_cloudwatch(raw)).encode(), 1))}}
    ),
    "firehose-cloudwatch": _object(
        lambda raw: {
            "requestId": "r",
            "records": [{"data": _packed(gzip.compress(json.dumps(_cloudwatch(raw)).encode(), 1))}] * 2,
        }
    ),
}
"""Name -> the message around one record, of whatever bytes."""


def enveloped(name: str, record: bytes, random_: random.Random) -> bytes:
    """A hostile message: spoiled inside, outside, or both."""
    inside = mutated(record, random_) if random_.random() < 0.7 else record
    whole = ENVELOPES[name](inside)
    return mutated(whole, random_) if inside is record or random_.random() < 0.3 else whole


READERS: Final = {"AVRO": confluent.avro_reader, "PROTOBUF": confluent.protobuf_reader}
BODIES: Final[Mapping[Kind, bytes]] = {
    "AVRO": confluent.avro({"key_id": "key-7", "ts_us": 1_780_000_000_000_000, "status": 200, "client": {"ip": b"\1"}}),
    "PROTOBUF": confluent.protobuf_body(),
}
SCHEMAS: Final[Mapping[Kind, bytes]] = {
    "AVRO": json.dumps(confluent.NATIVE_AVRO | {"fields": confluent.NATIVE_AVRO["fields"][:3]}).encode(),
    "PROTOBUF": confluent.protobuf_files()[0].SerializeToString(),
}


def body(kind: Kind, raw: bytes) -> bytes | None:
    """The JSON that a body is, None where it is refused."""
    try:
        return bytes(_reader(kind)(raw))
    except BadValueError:
        return None


_known: Final[dict[str, Any]] = {}


def _reader(kind: Kind) -> Any:
    if kind not in _known:
        _known[kind] = READERS[kind]()
    return _known[kind]


def schema(kind: Kind, raw: bytes) -> None:
    """A schema out of a registry that somebody else fills, and the good body read by it: told, or read, or refused."""
    text = base64.b64encode(raw).decode() if kind == "PROTOBUF" else _text(raw)
    try:
        read = reader(Schema(kind, text, "x"))
    except ConfigError:
        return
    try:
        json.loads(read(BODIES[kind]))
    except BadValueError:
        return
