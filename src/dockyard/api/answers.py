"""The kinds of answers that handlers give."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from dockyard.api.failure import log_failure, message_of, status_of
from dockyard.http import Response, StreamResponse

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("dockyard.api")


def json(value: Any, status: int = 200) -> Response:
    return Response(status, JSON, _encode(value) + b"\n")


def encoded(body: bytes) -> Response:
    return Response(200, JSON, body)


def empty(status: int = 204) -> Response:
    return Response(status)


def progress(messages: AsyncIterator[Json]) -> StreamResponse:
    """JSON messages, one per line and each flushed. An error after the first byte is told in band, both old and new."""
    return StreamResponse(200, JSON, _lines(messages))


async def _lines(messages: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    try:
        async for message in messages:
            yield _encode(_with_old_fields(message)) + b"\r\n"
    except Exception as error:  # noqa: BLE001 - the status line is gone: whatever it is must be told in the stream
        if status_of(error) >= 500:
            log_failure(_log, error, "a progress stream failed: %s", error)
        detail: Json = {"message": message_of(error)}
        if (status := status_of(error)) != 500:
            detail["code"] = status
        yield _encode({"errorDetail": detail, "error": detail["message"]}) + b"\r\n"


def _with_old_fields(message: Json) -> Json:
    """Clients before 2016 know ``error`` and a drawn ``progress`` bar instead of errorDetail and progressDetail."""
    detail = message.get("errorDetail")
    if detail and "error" not in message:
        return message | {"error": detail.get("message", "")}
    amount = message.get("progressDetail")
    if amount and "progress" not in message and amount.get("current"):
        return message | {"progress": _bar(amount.get("current", 0), amount.get("total", 0))}
    return message


def _bar(current: int, total: int) -> str:
    if total <= 0 or current > total:
        return f"{_size(current):>8}"
    done = min(50, current * 50 // total)
    return f"[{'=' * done}>{' ' * (50 - done)}] {_size(current):>8}/{_size(total)}"


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g}TB"


def json_lines(items: AsyncIterator[Any], headers: dict[str, str] | None = None) -> StreamResponse:
    async def lines() -> AsyncIterator[bytes]:
        async for item in items:
            yield _encode(item) + b"\n"

    return StreamResponse(200, headers or JSON, lines())


def tar(chunks: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> StreamResponse:
    return StreamResponse(200, {"Content-Type": "application/x-tar", **(headers or {})}, chunks)
