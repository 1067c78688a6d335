"""Raw keys never enter: what looks like a secret, and what becomes of an event that carries one.

Two rules. *Prefix*: the published shapes of well-known credentials. *Entropy*: a long run of mixed characters that
changes class as often as random text does. Ids are not secrets and must pass: UUIDs, hex digests, ULIDs, KSUIDs,
AWS access key ids (AKIA..., ASIA...), short public ids (`pk_live_x`), route and operation names. Hence two known
gaps: a secret that is plain hex without a prefix cannot be told from a digest, nor a random one below 28 characters
from an id. Measured on random keys without a prefix, the entropy rule misses: base 62 of 32 characters 0.8 %, base
64 of 40 1.8 %, base 36 (one case) of 32 11 %; on the real logs of the tests it fires for hashed font files only.

On the hot path nothing is scanned twice: a field's verdict is remembered by its text in bounded sets that only this
module writes, so a result never depends on what is remembered. Request ids are new at every event, and random by
nature: of them only the prefix is judged.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from pipeline import spans
from pipeline.fields import Fields
from schemas.event import FINGERPRINT, Event

Array = np.ndarray[Any, Any]

PLACEHOLDER: Final = "{secret}"

_decode: Final = msgspec.json.Decoder(Event).decode

_KNOWN: Final = (
    r"(?:sk|rk)_(?:live|test|prod|sandbox)_[0-9A-Za-z]{8,}",  # Stripe and those who follow its style
    r"[a-z]{2,8}_(?:live|test|prod|sandbox)_[0-9A-Za-z]{20,}",  # the same with any letters: pk_live_ as a full value
    r"sk-(?:[a-z]+-)*[0-9A-Za-z_-]{20,}",  # OpenAI, Anthropic, OpenRouter
    r"gh[pousr]_[0-9A-Za-z]{20,}",
    r"github_pat_[0-9A-Za-z_]{20,}",
    r"gl(?:pat|ptt|dt|rt|cbt|oas|soat|agent|ft|imt)-[0-9A-Za-z_-]{16,}",
    r"xox[abeoprs]-[0-9A-Za-z-]{10,}",
    r"xapp-[0-9A-Za-z-]{10,}",
    r"eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}",  # JSON web token: '{"' in base64
    r"eyJ[0-9A-Za-z_+/=-]{40,}",
    r"AIza[0-9A-Za-z_-]{30,}",
    r"ya29\.[0-9A-Za-z_-]{20,}",
    r"GOCSPX-[0-9A-Za-z_-]{20,}",
    r"whsec_[0-9A-Za-z+/=_-]{16,}",
    r"npm_[0-9A-Za-z]{30,}",
    r"pypi-[0-9A-Za-z_-]{30,}",
    r"rubygems_[0-9a-f]{40,}",
    r"hf_[0-9A-Za-z]{30,}",
    r"do[opr]_v1_[0-9a-f]{40,}",
    r"SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}",
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}",
    r"hv[sbr]\.[0-9A-Za-z_-]{20,}",
    r"sq0(?:atp|csp)-[0-9A-Za-z_-]{20,}",
    r"zpka_[0-9A-Za-z_]{20,}",
    r"lin_api_[0-9A-Za-z]{30,}",
    r"dckr_pat_[0-9A-Za-z_-]{20,}",
    r"dapi[0-9a-f]{32,}",
    r"key-[0-9a-f]{32}",  # Mailgun
    r"PMAK-[0-9a-f]{20,}-[0-9a-f]{20,}",
    r"ATATT3[0-9A-Za-z_=-]{20,}",
    r"xkeysib-[0-9a-f]{40,}",
    r"AGE-SECRET-KEY-1[0-9A-Z]{40,}",
)
_PREFIXED: Final = re.compile(r"(?<![0-9A-Za-z])(?:" + "|".join(_KNOWN) + ")")
_AUTHORIZATION: Final = re.compile(r"(?i:bearer|basic|apikey|token)(?:\s|%20|\+|:)+[0-9A-Za-z._~+/=-]{16,}")
SHORT_CHARS: Final = 16
_LONG: Final = re.compile(rf"[0-9A-Za-z_+=~.-]{{{SHORT_CHARS}}}")


def _shape(char: str) -> int:
    return 1 if re.fullmatch(r"[0-9A-Za-z_+=~.-]", char) else 2 if char in "?#;%:" else 0


_SHAPE: Final = np.array([_shape(chr(byte)) if byte < 128 else 0 for byte in range(256)], np.uint8)
"""byte -> what it means: 1 to `_LONG` (part of a run), 2 to `strip_query` (it may cut there), else 0."""

MIXED_CHARS: Final = 28
"""Shortest random text of upper, lower and digits that counts: KSUIDs (27) and Stripe's object ids (24) are ids."""
ONE_CASE_CHARS: Final = 32
"""The same where only one case occurs: ULIDs (26) and CUIDs (25) are ids."""
MIN_ENTROPY_BITS: Final = 3.5
"""Per character, of the text's own distribution: random base 62 of 28 characters has 4.2 to 4.8, words 2.5 to 3.6."""
MIN_CHANGES: Final = {True: 0.36, False: 0.27}
"""Share of neighbours of different class (upper, lower, digit). Random base 62 changes at 0.62 of places, base 36 at
0.40, operation names as `UpdateFunctionConfiguration20150331v2` at 0.22. True: both cases occur."""

MAX_TOKEN_CHARS: Final = 96
"""As much of a token is judged: longer ones cost a sender nothing and us 0.5 us a character."""

_AFTER_PATH: Final = re.compile(r"[?#;]|%3[Ff]")
_TOKEN: Final = re.compile(r"[0-9A-Za-z_+=~-]{28,}")
_BASE64: Final = re.compile(
    r"(?<![^\s:=\"'])[0-9A-Za-z+/]{40,}={0,2}(?![^\s\"'])"
)  # whole words: AWS secret keys hold "/"
_SEPARATORS: Final = re.compile(r"[_=~-]+")
_PLAIN: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+|[A-Za-z]{0,12}")
_CAMEL: Final = re.compile(r"[a-z]*+(?:[A-Z]{1,5}+[a-z]{2,}+|[0-9]++)*+[A-Z]?")  # GetUserDataFromMainHostList42
# Possessive: a run of digits can be had in one way. In several, 32 of them before a letter took for ever.
_CHANGE: Final = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[a-z0-9])")


def looks_secret(text: str) -> bool:
    """Whether any part of `text` looks like a credential's secret value. Uncached: 0.5 us, or 10 where it is long."""
    if _LONG.search(text) is None:  # the shortest known shape is sk_live_ and eight more
        return False
    if _PREFIXED.search(text) or (_names_a_scheme(text) and _AUTHORIZATION.search(text)):
        return True
    return any(map(_random, _TOKEN.findall(text))) or any(map(_random, _BASE64.findall(text)))


def _names_a_scheme(text: str) -> bool:
    lower = text.lower()
    return "bearer" in lower or "basic" in lower or "token" in lower or "apikey" in lower


def _random(token: str) -> bool:
    """The entropy rule for one token; words, numbers and hex between separators don't count."""
    body = "".join(piece for piece in _SEPARATORS.split(token[:MAX_TOKEN_CHARS]) if not _PLAIN.fullmatch(piece))
    mixed = not (body.islower() or body.isupper())
    if len(body) < (MIXED_CHARS if mixed else ONE_CASE_CHARS) or body.isalpha() or _CAMEL.fullmatch(body):
        return False
    changes = len(_CHANGE.findall(body)) / (len(body) - 1)
    return changes >= MIN_CHANGES[mixed] and _entropy_bits(body) >= MIN_ENTROPY_BITS


def _entropy_bits(text: str) -> float:
    """Shannon entropy per character of the text's own frequencies."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values())


def strip_query(path: str) -> str:
    """The path alone: without scheme and host, query, fragment and `;parameters`."""
    if "://" in path[:12]:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    return _AFTER_PATH.split(path, 1)[0]


def clean_path(path: str) -> str:
    """`strip_query` and every segment that looks like a secret replaced by `{secret}`."""
    path = strip_query(path)
    if not looks_secret(path):
        return path
    return "/".join(PLACEHOLDER if looks_secret(part) else part for part in path.split("/"))


# Bounded memory of clean texts, one set per rule. 65,536 texts of about 100 bytes are 10 MB each.
_LIMIT: Final = 1 << 16
_keys: set[str] = set()
_paths: set[str] = {""}
_texts: set[str] = {""}


def _learn(known: set[str], text: str, clean: bool) -> bool:
    """Remember a clean text; all is forgotten when the set is full, which costs time and changes no result."""
    if clean:
        if len(known) >= _LIMIT:
            known.clear()
            known.add("")
        known.add(text)
    return clean


def _clean_key(text: str) -> bool:
    return text in _keys or _learn(_keys, text, not looks_secret(text))


def _clean_path(text: str) -> bool:
    return text in _paths or _learn(_paths, text, clean_path(text) == text)


def _clean_text(text: str) -> bool:
    return text in _texts or _learn(_texts, text, not looks_secret(text))


_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]*")
# First three characters of every known shape that has no "_" in it; checked against `_KNOWN` by a test.
_STARTS: Final = tuple(
    re.findall(
        r"\S+",
        "sk- glp gld glr glc glo gls gla glf gli xox xap eyJ AIz ya2 GOC pyp SG. hvs hvb hvr sq0 dap key PMA ATA"
        " xke AGE",
    )
)
_START_SET: Final = frozenset(_STARTS)
_HEADS: Final = np.array([int.from_bytes(start.encode(), "little") for start in _STARTS], np.uint64)


def _clean_request_id(text: str) -> bool:
    """By prefix only: a request id is random by nature and new at every event."""
    if "_" not in text and text[:3] not in _START_SET:
        return True
    return _PREFIXED.match(text) is None


def _clean_fingerprint(text: str) -> bool:
    """What is no fingerprint may be anything, and goes."""
    return not text or FINGERPRINT.fullmatch(text) is not None


def _clean_address(text: str) -> bool:
    return len(text) < SHORT_CHARS or _ADDRESS.fullmatch(text) is not None


_FEW: Final = {
    "route": _clean_path, "user_agent": _clean_text, "fingerprint": _clean_fingerprint, "scope": _clean_text,
    "source": _clean_text,
    "method": _clean_text, "outcome": _clean_text, "environment": _clean_text,
}  # fmt: skip
"""What has few different values in a slice, and the rule for it."""


def is_clean(item: Event | bytes) -> bool:
    """Whether `scrub` would return this very event; 0.7 us where texts recur (`unclean` for a slice: 0.3).

    Give the event where there is one: raw bytes are decoded first, and what is no event is not clean.
    """
    if isinstance(item, bytes):
        try:
            item = _decode(item)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
            return False
    event = item
    return (
        (event.key_id in _keys or _clean_key(event.key_id))
        and (event.path in _paths or _clean_path(event.path))
        and (event.user_agent in _texts or _clean_text(event.user_agent))
        and _clean_fingerprint(event.fingerprint)
        and (event.route in _paths or _clean_path(event.route))
        and (event.scope in _texts or _clean_text(event.scope))
        and (event.source in _texts or _clean_text(event.source))
        and (event.method in _texts or _clean_text(event.method))
        and (event.outcome in _texts or _clean_text(event.outcome))
        and (event.environment in _texts or _clean_text(event.environment))
        and _clean_request_id(event.request_id)
        and _clean_address(event.client_ip)
    )


def unclean(told: Fields) -> Array:
    """Indices of the events that are not clean, of many at once: 0.3 us each where `is_clean` takes 0.7 or more."""
    foul = np.zeros(len(told), np.bool_)
    for name, clean in (("key_id", _clean_key), ("path", _clean_path)):
        _mark(told, name, clean, _suspects(told, name), foul)
    for name, clean in _FEW.items():
        texts = told.coded(name)
        bad = [code for code, text in enumerate(texts.values) if not clean(text)]
        foul |= np.isin(texts.codes, bad) if bad else False
    _, _, lengths = told.span("client_ip")
    _mark(told, "client_ip", _clean_address, lengths >= SHORT_CHARS, foul)
    ids = np.empty(len(told), np.uint8)
    if spans.holds(*told.span("request_id"), ord("_"), _HEADS, ids):
        _mark(told, "request_id", _clean_request_id, ids, foul)
    return np.flatnonzero(foul)


def _mark(told: Fields, name: str, clean: Callable[[str], bool], suspects: Array, foul: Array) -> None:
    for i in np.flatnonzero(suspects).tolist():
        if not clean(told.text(name, i)):
            foul[i] = True


def _suspects(told: Fields, name: str) -> Array:
    """The texts that `clean_path` may change: with a mark of `strip_query`, or as long a run as `_LONG` asks for."""
    found = np.empty(len(told), np.uint8)
    spans.shaped(*told.span(name), _SHAPE, SHORT_CHARS, found)
    return found


def scrub(event: Event) -> Event | str:
    """The event without any secret, or the reject reason "secret" where the key id is one.

    Queries go always; a secret in path or route becomes `{secret}`; any other field that holds one
    is blanked. A clean event comes back as the same object.
    """
    if is_clean(event):
        return event
    if not _clean_key(event.key_id):
        return "secret"
    return msgspec.structs.replace(
        event,
        path=clean_path(event.path),
        route=clean_path(event.route),
        user_agent=_or_blank(event.user_agent, _clean_text),
        fingerprint=_or_blank(event.fingerprint, _clean_fingerprint),
        scope=_or_blank(event.scope, _clean_text),
        source=_or_blank(event.source, _clean_text),
        method=_or_blank(event.method, _clean_text),
        outcome=event.outcome if _clean_text(event.outcome) else "unknown",
        environment=_or_blank(event.environment, _clean_text),
        request_id=_or_blank(event.request_id, _clean_request_id),
        client_ip=_or_blank(event.client_ip, _clean_address),
    )


def _or_blank(text: str, clean: Callable[[str], bool]) -> str:
    return text if clean(text) else ""


def may_hold_secret(raw: bytes) -> bool:
    """Whether a rejected record must go without its payload: it holds a query or anything that looks secret.

    Slow (tens of us) and meant for rejects only. What is not UTF-8 may hold anything.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return True
    return "?" in text or looks_secret(text.replace("\\/", "/"))


_PROCESS_PEPPER: Final = os.urandom(32)
_HASHED_BYTES: Final = 2_048


def keyed_hash(raw: bytes) -> str:
    """16 hex digits by a pepper that lives as long as the process: tells equal payloads, and tells nothing else.

    Of a long one length, beginning and end count: a flood of large records must not cost a millisecond each.
    """
    if len(raw) > 2 * _HASHED_BYTES:
        raw = b"%d:" % len(raw) + raw[:_HASHED_BYTES] + raw[-_HASHED_BYTES:]
    return hashlib.blake2b(raw, key=_PROCESS_PEPPER, digest_size=8).hexdigest()


def key_id_of_secret(secret: str, pepper: str) -> str:
    """A stable public id for a gateway that logs only the raw key: HMAC-SHA256 with the operator's pepper."""
    return "hmac_" + hmac.new(pepper.encode(), secret.encode(), hashlib.sha256).hexdigest()[:32]
