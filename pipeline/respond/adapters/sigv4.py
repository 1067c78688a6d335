"""AWS Signature Version 4 of one request: the headers that prove who sends it.

Tested against AWS' published suite. Source: AWS documentation, "Signature Version 4 signing process"; the path is
signed percent-encoded once more, as all services but S3 want it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from pipeline.config.setting import Secret

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Signer:
    """One identity for one service in one region."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    region: str
    service: str

    def headers(
        self, method: str, host: str, path: str, body: bytes, now: datetime, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """`headers` with those of the signature; all of them and the host are signed. `now` is in UTC."""
        at = now.strftime("%Y%m%dT%H%M%SZ")
        given = {**headers, "X-Amz-Date": at}
        if token := self.session_token.reveal():
            given["X-Amz-Security-Token"] = token
        signed = {name.lower(): " ".join(value.split()) for name, value in {**given, "Host": host}.items()}
        names = ";".join(sorted(signed))
        scope = f"{at[:8]}/{self.region}/{self.service}/aws4_request"
        text = "\n".join((_ALGORITHM, at, scope, _digest(_canonical(method, path, signed, names, body).encode())))
        signature = hmac.new(self._key(at[:8]), text.encode(), hashlib.sha256).hexdigest()
        credential = f"{self.access_key_id}/{scope}"
        given["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return given

    def _key(self, date: str) -> bytes:
        key = b"AWS4" + self.secret_access_key.reveal().encode()
        for part in (date, self.region, self.service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def _canonical(method: str, path: str, signed: Mapping[str, str], names: str, body: bytes) -> str:
    place, _, query = path.partition("?")
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    pairs = sorted(pair if "=" in pair else pair + "=" for pair in query.split("&") if pair)
    return "\n".join((method, quote(place or "/", safe="/-_.~"), "&".join(pairs), *lines, "", names, _digest(body)))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
