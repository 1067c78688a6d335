"""Combined access logs of Apache and NGINX (and the common log without its last two fields).

The key is the authenticated user, or the client address with `key_field = "address"`: then the connection attests it.
A 401 names the user that was claimed, so it counts as `invalid`. The outcome is derived from the status, not said by
the server, so it is not declared; there is no latency, no request size and no route template.
Source: Apache mod_log_config and NGINX `combined`; reference/gateways.md, section 5.
"""

from __future__ import annotations

import re
from typing import Any, Final

from detectors.detector import SEES_OUTCOME
from pipeline.formats.client_address import client_address
from pipeline.formats.format import SEES_ALL, BadValueError, Format, Hops, Options, Refused
from pipeline.formats.values import event_of, log_us, outcome_of, status_code, text, whole
from schemas.event import Event

_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
# The last quote may be missing: servers cut long lines (one of 10,000 in the elastic sample).
_LINE: Final = re.compile(
    rf"(\S+) \S+ (\S+|\S.*?) \[([^\]]{{20,32}})\] {_QUOTED} (\d{{3}}|-) (\d+|-)"
    r'(?: "((?:[^"\\]|\\.)*)"(?: "((?:[^"\\]|\\.)*)"?)?)?'
)
_REQUEST: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,16}) (\S+)(?: HTTP/[\d.]+)?")
_ESCAPE: Final = re.compile(r'\\(x[0-9A-Fa-f]{2}|["\\])')


def event(record: Any, options: Options) -> Event | Refused:
    """One line of text."""
    match = _LINE.match(record)
    if match is None:
        raise BadValueError("the line is not of the combined or common log format")
    host, user, time, request, status, size, _, agent = match.groups()
    method, path = _request(_plain(request))
    code = status_code(status)
    fields = {
        "key_id": host if options.key_field == "address" else _user(user),
        "ts_us": log_us(time),
        "client_ip": client_address(Hops(host), options.trusted_proxies),
        "method": method,
        "path": path,
        "status": code,
        "outcome": outcome_of(code),
        "bytes_out": whole(size),
        "user_agent": text(_plain(agent or "")),
    }
    return event_of(fields, "combined")


def _user(name: str) -> str:
    """Blanks can't be in a key id, and Apache writes an empty user name as two quotes."""
    return "" if name in ("-", '""') else re.sub(r"\s+", "_", _plain(name))


def _request(line: str) -> tuple[str, str]:
    """Method and path of the request line; ("", "") for the rubbish that scanners send."""
    match = _REQUEST.fullmatch(line)
    return (match[1].upper(), match[2]) if match else ("", "")


def _plain(quoted: str) -> str:
    """Undo the servers' escapes: backslash-x22, backslash-quote."""
    return _ESCAPE.sub(lambda found: chr(int(found[1][1:], 16)) if found[1][0] == "x" else found[1], quoted)


def hops(record: Any) -> Hops:
    """The line's first word."""
    return Hops(record.partition(" ")[0])


def recognises(record: Any) -> bool:
    """By the whole line's form."""
    return _LINE.match(record) is not None


COMBINED = Format(
    name="combined",
    sees=SEES_ALL & ~SEES_OUTCOME,
    event=event,
    recognises=recognises,
    key='the third word, a user; or who asked, with intake.key_field = "address"',
    hops=hops,
    address="the first word, as `real_ip` (NGINX) or `mod_remoteip` (Apache) make it",
    lines=True,
)
