"""Bodies of requests that anybody may send, whatever their length says: beside chunks it may say anything."""

from __future__ import annotations

from starlette.requests import Request


async def body_of(request: Request, most: int) -> bytes | None:
    """The whole body, or None where it is more than `most` bytes: no more is held. Raises ClientDisconnect."""
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)
