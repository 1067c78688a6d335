"""Hostile inputs out of good ones, the same for the same seed: broken bytes, and JSON with impossible values in it."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

SECRET: Final = "sk_live_" + "EXAMPLE0000000000000"

HOSTILE: Final[tuple[str, ...]] = (
    "null", "true", "[]", "{}", '""', '"-"', "0", "-1", "1e308", "-1e308", "1e999", "NaN", "Infinity", "-Infinity",
    "18446744073709551616", "9" * 25, "9" * 4_000, "9" * 5_001, "0." + "1" * 500, '"\\ud800"', '"\\udc00\\ud800"',
    '"\\u0000"', '"\\u2028\\u202e"', '"\x7f"', '"' + "a" * 70_000 + '"', '"' + "\U0001f600" * 300 + '"', '"٣٣٣"',
    '"²"', '"1e22"', '"0x10"', '"1_000"', '"NaN"', '"inf"', '"-0"', '"99999999999999999999999"', '"2025-01-01T00:00"',
    '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', '"31/Feb/2025:10:00:00 +0000"', '"::ffff:1.2.3.4"',
    '"fe80::1%eth0"', '"1.2.3.4:99999"', '"[::1"', '"999.1.1.1"', '"%00"', '"../../etc/passwd"', '"/a?b=c;d#e"',
    "[" * 90 + "]" * 90, '{"a":' * 90 + "1" + "}" * 90, '["a","b"]', "[[[]]]", '{"":""}', '"' + "\\\\" * 999 + '"',
    '"eyJ-eyJ-eyJ-"', '"' + "sk-a-" * 200 + '"', '"' + "bearer " * 300 + '"', '"' + "A1b2" * 300 + '"',
)  # fmt: skip
"""JSON texts, some of them none, that take a value's place."""


def mutated(good: bytes, random_: random.Random) -> bytes:
    """One hostile input; one time in twelve gzip, whole or cut."""
    step = random_.choice(_STEPS)
    out = step(good, random_)
    for _ in range(random_.choice((0, 0, 1, 3))):
        out = random_.choice(_STEPS)(out, random_)
    if random_.random() < 1 / 12:
        packed = gzip.compress(out, 1)
        out = packed if random_.random() < 0.5 else packed[: random_.randrange(len(packed))] + packed[:20]
    return out


def planted(good: bytes, random_: random.Random) -> bytes | None:
    """The JSON with the secret as the whole of one text value or as a new field; None where it is no JSON object."""
    try:
        value = json.loads(good)
    except ValueError:
        return None
    places = list(_places(value))
    if not places:
        return None
    inside, name = random_.choice(places)
    if random_.random() < 0.3 and isinstance(inside, dict):
        name = random_.choice(("authorization", "apikey", "x", "identity.apiKey"))
    inside[name] = SECRET
    return json.dumps(value).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for name, inner in pairs:
        found += _places(inner) if isinstance(inner, (dict, list)) else [(value, name)]
    return found


def _value(raw: bytes, random_: random.Random) -> bytes:
    """A JSON value replaced by a hostile text, also such as are no JSON."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return _bytes(raw, random_)
    places = _places(value)
    if not places:
        return random_.choice(HOSTILE).encode("utf-8", "surrogatepass")
    inside, name = random_.choice(places)
    inside[name] = "@@here@@"
    return json.dumps(value).replace('"@@here@@"', random_.choice(HOSTILE), 1).encode("utf-8", "surrogatepass")


def _name(raw: bytes, random_: random.Random) -> bytes:
    """A name twice, with two values."""
    at = raw.find(b"{", random_.randrange(len(raw) + 1))
    name = random_.choice((b"key_id", b"ts_us", b"v", b"status", b"Records", b"logEvents", b"detail", b"request"))
    pair = b'"' + name + b'":' + random_.choice(HOSTILE).encode("utf-8", "surrogatepass") + b","
    return raw[: at + 1] + pair + raw[at + 1 :]


def _bytes(raw: bytes, random_: random.Random) -> bytes:
    """Some bytes changed, cut out or put in."""
    out = bytearray(raw)
    for _ in range(random_.randrange(1, 9)):
        at = random_.randrange(len(out) + 1)
        some = random_.choice((b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"', b"\\", b"\n", b"{", b"]", b",",
                               random_.randbytes(4), b"\x1f\x8b", b" " * 40))  # fmt: skip
        out[at : at + random_.choice((0, 0, 1, 8))] = some
    return bytes(out)


def _cut(raw: bytes, random_: random.Random) -> bytes:
    return raw[: random_.randrange(len(raw) + 1)]


def _again(raw: bytes, random_: random.Random) -> bytes:
    """Wrapped or repeated, as envelopes and JSON lines do."""
    head, between, tail = random_.choice(
        (
            *((b"[", b",", b"]"), (b"", b"\n", b"\n"), (b'{"Records":[', b",", b"]}"), (b'{"detail":', b",", b"}")),
            *((b'{"logEvents":[{"message":', b"},{", b"}]}"), (b'{"awslogs":{"data":"', b"", b'"}}')),
        )
    )
    return head + between.join([raw] * random_.choice((1, 2, 5))) + tail


def _noise(raw: bytes, random_: random.Random) -> bytes:
    return random_.randbytes(random_.randrange(400))


_STEPS: Final[Sequence[Callable[[bytes, random.Random], bytes]]] = (
    *(_value, _value, _value, _value, _name, _bytes, _bytes, _cut, _again, _noise),
)
