"""A call: a request that met its route. Parameters are read as Docker's router reads them (api/server/httputils)."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dockyard.api.routes import Route
from dockyard.errors import Code, InvalidParameter
from dockyard.http import BODY_TOO_LARGE, CLIENT_LEFT, Request
from dockyard.lib.clock import parse_rfc3339
from dockyard.lib.notjson import NOT_JSON
from dockyard.model import decode

if TYPE_CHECKING:
    from dockyard.api.ports import Engine

T = TypeVar("T")
Json = dict[str, Any]
MAX_JSON_BODY = 16 << 20

BAD_PARAMETER = Code("DY-API-001", InvalidParameter, "{cause}")
BAD_CONTENT_TYPE = Code(
    "DY-API-002", InvalidParameter, "unsupported Content-Type header ({given}): must be 'application/json'",
    hint="send Content-Type: application/json",
)  # fmt: skip
BAD_FILTERS = Code("DY-API-003", InvalidParameter, "invalid filter: {cause}")
UNKNOWN_FILTER = Code("DY-API-004", InvalidParameter, "invalid filter '{name}'", hint="allowed: {allowed}")

_FALSE = frozenset({"", "0", "no", "false", "none"})


@dataclass(frozen=True, slots=True)
class Call:
    request: Request
    engine: Engine
    route: Route
    params: dict[str, str]
    version: tuple[int, int]
    kept: bytes | None = None
    """The body, where somebody had to read it before the handler."""

    # -- query ----------------------------------------------------------------------------------------------------

    def text(self, name: str, default: str = "") -> str:
        return self.request.query_get(name, default)

    def all(self, name: str) -> list[str]:
        return list(self.request.query.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's BoolValue: everything but 0, no, false, none and nothing is true."""
        values = self.request.query.get(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def number(self, name: str, default: int = 0) -> int:
        value = self.text(name)
        if not value:
            return default
        try:
            number = int(value)
        except ValueError:
            raise BAD_PARAMETER(cause=f'strconv.Atoi: parsing "{value}": invalid syntax') from None
        if abs(number) >= 1 << 63:
            raise BAD_PARAMETER(cause=f'strconv.Atoi: parsing "{value}": value out of range')
        return number

    def optional_number(self, name: str) -> int | None:
        return self.number(name) if self.text(name) else None

    def moment(self, name: str) -> int:
        """Nanoseconds of a Unix time with fraction, or of an RFC 3339 date; 0 if absent."""
        value = self.text(name)
        if not value:
            return 0
        seconds, _, fraction = value.partition(".")
        try:
            if seconds.lstrip("-").isdigit() and (fraction.isdigit() or not fraction):
                return max(0, int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0")))
            return parse_rfc3339(value)
        except (ValueError, OverflowError):
            raise BAD_PARAMETER(cause=f'invalid value for "{name}": {value}') from None

    def filters(self) -> dict[str, list[str]]:
        """``{"k":{"v":true}}`` or the older ``{"k":["v"]}``. Raises InvalidParameter for a name the route lacks."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            raw = msgspec.json.decode(text.encode())
        except NOT_JSON as broken:
            raise BAD_FILTERS(cause=str(broken)) from None
        if not isinstance(raw, dict):
            raise BAD_FILTERS(cause="not a JSON object")
        found: dict[str, list[str]] = {}
        for name, values in raw.items():
            if isinstance(values, dict) and all(isinstance(wanted, bool) for wanted in values.values()):
                found[name] = [value for value, wanted in values.items() if wanted]
            elif isinstance(values, list) and all(isinstance(value, str) for value in values):
                found[name] = values
            else:
                raise BAD_FILTERS(cause=f"values of {name} must be a list or a map")
            if name not in self.route.filters:
                raise UNKNOWN_FILTER(name=name, allowed=", ".join(sorted(self.route.filters)))
        return found

    # -- body -----------------------------------------------------------------------------------------------------

    async def body(self, limit: int) -> bytes:
        """Raises BODY_TOO_LARGE."""
        if self.kept is None:
            return await self.request.body(limit)
        if len(self.kept) > limit:
            raise BODY_TOO_LARGE(limit=limit, status=413)
        return self.kept

    async def json(self, kind: type[T], *, empty: T | None = None) -> T:
        """The body as ``kind``; an empty body is ``empty`` (else an error). Wrong Content-Type is a 400, as in moby."""
        data = await self.body(MAX_JSON_BODY)
        if not data.strip():
            if empty is not None:
                return empty
            raise BAD_PARAMETER(cause="EOF")
        given = self.request.headers.get("content-type")
        if given and given.partition(";")[0].strip().lower() != "application/json":
            raise BAD_CONTENT_TYPE(given=given)
        return decode(data, kind)

    async def document(self) -> Json:
        return await self.json(dict, empty={})

    def stream(self) -> AsyncIterator[bytes]:
        return self.request.stream()

    async def while_client_stays(self, work: Coroutine[Any, Any, T]) -> T:
        """For what may wait long for others and serves nobody else: it ends with the client (Ctrl-C in a pull), as in
        moby. Raises Cancelled then."""
        task = asyncio.ensure_future(work)

        def leave() -> None:
            task.cancel()

        self.request.on_disconnect(leave)
        try:
            return await task
        except asyncio.CancelledError:
            if not self.request.disconnected:
                raise
            raise CLIENT_LEFT() from None

    def registry_auth(self) -> Json:
        """``X-Registry-Auth``: base64url JSON; what cannot be decoded is ignored, as in moby."""
        return _auth(self.request.headers.get("x-registry-auth"))

    def registry_config(self) -> Json:
        return _auth(self.request.headers.get("x-registry-config"))


def _auth(value: str) -> Json:
    try:
        decoded = msgspec.json.decode(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, msgspec.DecodeError, RecursionError, ValueError, UnicodeEncodeError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
