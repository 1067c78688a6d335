"""Why a record is no event: the closed set of reject reasons and the record on `api.requests.rejected`."""

from __future__ import annotations

from typing import Final

import msgspec

VERSION: Final = 1

SENTENCES: Final[dict[str, str]] = {
    "undecodable": "The record is not JSON, or not text in the format that was named.",
    "too_large": "The record is larger than an event may be.",
    "invalid": "A field is missing, of the wrong type or outside its limits.",
    "secret": "The key id looks like the secret itself; send the credential's public id.",
    "key_mismatch": "The Kafka record's key is not the event's key_id.",
    "wrong_partition": "The key does not belong on this partition: the producer uses another partitioner.",
    "unkeyed": "The Kafka record has no key: send gateway logs through `keywatch intake`, which keys them.",
    "no_key": "The request carries no key id (usually a failed authentication); kept by source network, within limits.",
    "future": "The event time lies more than 5 minutes after the time of its record.",
}
"""Reason -> a sentence for people that says what to do where something can be done."""

REASONS: Final[tuple[str, ...]] = tuple(SENTENCES)
"""All reasons, in a fixed order: metric labels and counters come from here and from nowhere else."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record on `api.requests.rejected`. What may hold a secret, or can't be decoded, is without `payload`.

    Intake says where by `position`; the worker, which reads the requests topic, by `partition` and `offset`.
    `network` to `suppressed` are set for `no_key` only: what is known of a request that named no key, by the
    source's /24 or /48. `suppressed` counts those of the same network that its rate limit held back before.
    """

    reason: str  # as listed below
    partition: int = -1  # of the record; -1: intake's
    offset: int = -1  # of the record; -1: intake's
    position: str = ""  # topic/partition/offset[/index] or file:line
    detail: str = ""  # in words, without any part of the payload
    size_bytes: int = 0  # of the record
    payload_hash: str = ""  # keyed: equal payloads of one process are seen to be equal, nothing else
    payload: bytes | None = None  # base64 in JSON, since a record need not be text
    network: str = ""  # /24 or /48 of who named no key
    ts_us: int = 0  # of that request
    status: int = 0  # of that request
    outcome: str = ""  # of that request
    route: str = ""  # of that request
    suppressed: int = 0  # held back before, of the same network
    v: int = VERSION  # version of this shape
