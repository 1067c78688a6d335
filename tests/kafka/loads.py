"""What comes in while faults follow each other: days of history, then what happens now, without end."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import chain, cycle
from typing import Final

import msgspec

from pipeline.formats import Options, read_file
from schemas.event import Event
from tests.pipeline.log_of_requests import START_US, Record, log, record
from tests.real_data import real

DAYS: Final = 4
PAUSE_DAYS: Final = 2
"""Between history and now: nothing lies where evidence ceases to be fresh."""
HISTORY: Final = 1_600
"""Records of `traffic` that are of these days, but for some."""
DECOYS: Final = 6


def traffic(seed: int, rng: random.Random) -> Iterator[Record]:
    """Days of history, with an attack in it; then decoys are touched and keys are used, for ever."""
    shift_us = time.time_ns() // 1_000 - (DAYS + PAUSE_DAYS) * 86_400_000_000 - START_US
    yield from (_moved(each, shift_us) for each in log(seed, events=1_500, days=DAYS))
    number = 0
    while True:
        number += 1
        key_id = f"decoy_{rng.randrange(DECOYS)}" if number % 97 == 0 else f"pk_{rng.randrange(12)}"
        yield record(
            Event(
                key_id=key_id, ts_us=time.time_ns() // 1_000, client_ip=rng.choice(("8.8.8.8", "185.220.101.4")),
                method="GET", path=f"/v1/things/{rng.randrange(30)}", status=rng.choice((200, 200, 200, 404)),
                outcome="success", user_agent="curl/8.1", request_id=f"now{number}",
            )
        )  # fmt: skip


def _moved(sent: Record, by_us: int) -> Record:
    key, value, timestamp_ms = sent
    try:
        event = msgspec.json.decode(value or b"", type=Event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return key, value, timestamp_ms + by_us // 1_000
    return record(msgspec.structs.replace(event, ts_us=event.ts_us + by_us))


def real_traffic(rng: random.Random) -> Iterator[Record]:
    """Real logs: some of a web server's days and CloudTrail's hour as history, then all as of now, again and again."""
    replace = msgspec.structs.replace
    web = _real("weblog-elastic-apache/apache_logs", "combined", "address")
    trail = _real("cloudtrail-invictus", "cloudtrail")
    begin_us = time.time_ns() // 1_000 - (DAYS + PAUSE_DAYS) * 86_400_000_000
    chosen = [(web[0].ts_us, web[:: len(web) * 2 // HISTORY]), (trail[0].ts_us, trail[: HISTORY // 2])]
    past = [replace(each, ts_us=each.ts_us - first_us + begin_us) for first_us, some in chosen for each in some]
    yield from map(record, sorted(past, key=lambda each: each.ts_us))
    for number, each in enumerate(cycle(chain.from_iterable(zip(cycle(web), trail)))):
        key_id = f"decoy_{rng.randrange(DECOYS)}" if number % 97 == 0 else each.key_id
        request_id, ts_us = f"{each.request_id[-96:]} {number}", time.time_ns() // 1_000
        yield record(replace(each, key_id=key_id, ts_us=ts_us, request_id=request_id))


def _real(name: str, format: str, key_field: str = "") -> list[Event]:
    """In order of time."""
    path, options = real(name), Options(key_field=key_field)
    files = [path] if path.is_file() else sorted(path.rglob("*.json*"))
    found = [each for file in files for each in read_file(file, format, options) if isinstance(each, Event)]
    return sorted(found, key=lambda each: each.ts_us)
