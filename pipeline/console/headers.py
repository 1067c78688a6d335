"""What every response carries: the security headers; and by which address browsers may keep a file of ours for good."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE: Final = Path(__file__).parent
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

FOR_GOOD: Final = "public, max-age=31536000, immutable"


@cache
def _addresses() -> dict[str, str]:
    """By the name of each file of ours: its address, another one as soon as its content is another."""
    files = [path for path in (HERE / "static").rglob("*") if path.is_file()]
    digests = {str(path.relative_to(HERE / "static")): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {name: f"/static/{name}?v={digest[:12]}" for name, digest in digests.items()}


def static(name: str) -> str:
    """Its address, by which browsers may keep it for good."""
    return _addresses()[name]


def _is_for_good(scope: Scope) -> bool:
    """Whether browsers may keep it: not under the name of a version that another replica serves."""
    asked = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
    return asked in _addresses().values()


class Headers:
    """The security headers on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] == 200 and _is_for_good(scope):
                    headers["Cache-Control"] = FOR_GOOD
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
