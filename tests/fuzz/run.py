"""`make fuzz SECONDS=3600 SEED=7`: hostile inputs at every boundary, for so long; failing ones are kept as cases.

Each target gets its share of the time. The same seed makes the same inputs in the same order, so that an hour can be
had in pieces: SEED=1 SECONDS=600, SEED=2 ... A failing input goes to tests/fuzz/cases/<target>/, where `make test`
tries it for ever after.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from schemas.event import Event
from tests.fuzz import wrapped
from tests.fuzz.mutate import mutated, planted
from tests.fuzz.targets import TARGETS, Target
from tests.schemas import examples

CASES: Final = Path(__file__).parent / "cases"
SLOW_S: Final = 5.0
"""Of processor time for one input; inputs are some kilobytes, and good ones take milliseconds."""
GIVEN_UP_S: Final = 2 * SLOW_S
"""Of processor time: what has not ended by then may never end."""
MAX_BYTES: Final = 3 << 30
"""Of memory, the process as a whole: numba alone takes half a gigabyte."""


@dataclass
class Outcome:
    """What a run did."""

    tried: int = 0
    failed: list[Path] = field(default_factory=list)
    slowest_s: float = 0.0


def seeds(name: str) -> list[bytes]:
    """Good inputs of a target, to be spoiled."""
    kind, _, format = name.partition("-")
    if kind in ("intake", "leaks", "files"):
        return [path.read_bytes() for path in examples.inputs(examples.ROOT / "formats" / format)]
    if kind == "geo":
        from pipeline.geo.provider import DEMO_DB

        return [DEMO_DB.read_bytes()]
    if kind == "envelope":
        return [path.read_bytes() for path in examples.inputs(examples.ROOT / "formats" / "native")]
    if kind in ("confluent", "schema"):
        known = wrapped.BODIES if kind == "confluent" else wrapped.SCHEMAS
        return [raw for name, raw in known.items() if name == format]
    if kind in ("key_events", "control"):
        names = ("mute", "planned", "feedback") if kind == "control" else ("key_event",)
        return [path.read_bytes() for name in names for path in sorted((examples.ROOT / name).rglob("*.json"))]
    if kind in ("worker", "detect"):
        event = Event(
            key_id="pk_0", ts_us=1_780_000_000_000_000, client_ip="8.8.8.8", path="/v1/a/1", user_agent="curl/8",
            method="GET", status=200, outcome="success", scope="s", environment="live", route="/v1/a/{id}",
            source="kong", position="p", request_id="r", latency_ms=1.5,
        )  # fmt: skip
        return [msgspec.json.encode(msgspec.structs.asdict(event))]
    return _OTHERS[kind + ("-" + format if format else "")]


_KEY: Final = (
    b'{"key_id":"k","environment":"live","role":"full","scopes":["a"],"owner":"o","time_zone":"Europe/Berlin",'
    b'"business_hours":{"start_min":1,"end_min":2,"weekdays":[1]},"allowed_networks":["10.0.0.0/8"],"version":1}'
)
_OTHERS: Final[dict[str, list[bytes]]] = {
    "scrub": [b"/v1/keys/sk_live_EXAMPLE0000000000000?a=b", b"Bearer abcdefghijklmnop0123", b'"GET /a HTTP/1.1"'],
    "catalogue": [_KEY],
    "config": [
        b'[kafka]\nbrokers = "a:1"\npassword = "p"\nsession_timeout_s = 20.0\n[worker]\nticks = true\n'
        b'[[respond.endpoints]]\nname = "a"\nurl = "https://a"\nsecret = "whsec_x"\nevents = ["incident.opened"]\n'
    ],
    "feed-github": [b'[{"token":"sk_live_EXAMPLE0000000000000","type":"t","url":"https://a/b?c#d","source":"commit"}]'],
    "feed-person": [
        b'{"key_id":"k","url":"https://a/b","reason":"seen"}', b'{"hash":"hmac_' + b"0" * 32 + b'","url":""}',
    ],
    "keys-csv": [
        b"key_id,owner,scopes,business_hours,protected,created_at\nk,o,a;b,08:00-19:00 01234,true,2026-01-01\n",
        b"[" + _KEY + b"]", _KEY + b"\n" + _KEY,
    ],
    "keys-kong": [
        b'{"consumers":[{"id":"c","username":"u","keyauth_credentials":[{"id":"k","key":"x","created_at":1700000000,'
        b'"tags":["live"],"ttl":0}]}]}', b'{"data":[{"id":"k","consumer":{"id":"c"},"tags":["test"]}]}',
    ],
    "keys-aws": [
        b'{"items":[{"id":"k","name":"n","enabled":true,"createdDate":"2026-01-01T00:00:00Z","stageKeys":["a/prod"],'
        b'"tags":{"owner":"o"}}]}'
    ],
}  # fmt: skip


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """Hostile inputs without end."""
    source, good = random.Random(f"{name}/{seed}"), seeds(name)
    while True:
        one = source.choice(good)
        if name.startswith("leaks-"):
            raw = planted(one, source)
            if raw is not None:
                yield raw
        elif name.startswith("envelope-"):
            yield wrapped.enveloped(name.removeprefix("envelope-"), one, source)
        else:
            yield mutated(one, source)


class Endless(BaseException):
    """No target catches it."""


@contextmanager
def given_up() -> Iterator[None]:
    """Raises Endless in the block after so much processor time; `re` looks for signals while it searches."""

    def give_up(*_: object) -> NoReturn:
        raise Endless

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, GIVEN_UP_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(name: str, target: Target, raw: bytes, outcome: Outcome) -> None:
    """One input; keeps it where it fails, is slow, or takes too much memory."""
    began, before = time.process_time(), _peak_bytes()
    why = ""
    try:
        with given_up():
            target(raw)
    except (Exception, Endless):  # noqa: BLE001  # whatever it is, it is the finding
        why = traceback.format_exc(limit=-4)
    spent_s = time.process_time() - began
    outcome.tried += 1
    outcome.slowest_s = max(outcome.slowest_s, spent_s)
    if not why and spent_s > SLOW_S:
        why = f"{spent_s:.1f} s of processor time"
    if not why and before < MAX_BYTES < _peak_bytes():
        why = f"{_peak_bytes() >> 20} MB of memory"
    if why:
        outcome.failed.append(keep(name, raw, why))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def keep(name: str, raw: bytes, why: str) -> Path:
    """The input as a case, and what was wrong on stderr."""
    path = CASES / name / f"{hashlib.blake2b(raw, digest_size=6).hexdigest()}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    sys.stderr.write(f"{path}:\n{why}\n")
    return path


def fuzz(seconds: float, seed: int, only: str = "", most_failures: int = 5) -> dict[str, Outcome]:
    """Every target for its share of the time."""
    chosen = {name: target for name, target in TARGETS.items() if only in name}
    done = {}
    for name, target in chosen.items():
        outcome = done[name] = Outcome()
        target(seeds(name)[0])  # loads and compiles: no input's fault
        until = time.monotonic() + seconds / len(chosen)
        for raw in inputs(name, seed):
            attempt(name, target, raw, outcome)
            if time.monotonic() > until or len(outcome.failed) >= most_failures:
                break
    return done


def main() -> int:
    """Print a line per target; 1 where one failed."""
    parser = argparse.ArgumentParser(description="Fuzz every boundary.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what is refused is told, a hundred thousand times
    done = fuzz(given.seconds, given.seed, given.only)
    for name, outcome in done.items():
        sys.stdout.write(
            f"{name:24} {outcome.tried:8} tried  {len(outcome.failed)} failed  slowest {outcome.slowest_s:.3f} s\n"
        )
    return int(any(outcome.failed for outcome in done.values()))


if __name__ == "__main__":
    sys.exit(main())
