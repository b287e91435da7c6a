"""/token: GET with Basic (or nothing) and the OAuth2 POST, after distribution's token and oauth specifications.

Fewer actions than asked for are granted without an error; what is missing is told by the resource, with its reason.
"""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from dockyard.http import Request, Response
from dockyard.registry.access import ANONYMOUS, Caller, actions_of, level_of
from dockyard.registry.accounts import Accounts
from dockyard.registry.core import Actor, Core
from dockyard.registry.database import Tx
from dockyard.registry.errors import VALUE_INVALID
from dockyard.registry.gate import EVERYBODY, basic_credentials
from dockyard.registry.tokens import Tokens

_FORM_MAX = 64 * 1024
_SCOPES_MAX = 100
_REFRESH_SECONDS = 90 * 24 * 3600.0


class TokenApi:
    def __init__(self, core: Core, accounts: Accounts, tokens: Tokens) -> None:
        self.core = core
        self.accounts = accounts
        self.tokens = tokens

    async def handle(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._post(request)
        header = request.headers.get("authorization")
        caller = ANONYMOUS
        if header.lower().startswith("basic "):
            caller = await self.accounts.login(*basic_credentials(header[6:].strip()), request.peer.address)
        scopes = " ".join(request.query.get("scope", []))
        refresh = ""
        if request.query_get("offline_token") == "true" and caller.account is not None:
            refresh = await self._refresh(caller, request.query_get("service"))
        return await self._answer(caller, scopes, request.query_get("service"), refresh)

    async def _post(self, request: Request) -> Response:
        body = (await request.body(_FORM_MAX)).decode("utf-8", "replace")
        form = {k: v[0] for k, v in parse_qs(body, keep_blank_values=True).items()}
        service, refresh = form.get("service", ""), ""
        grant = form.get("grant_type")
        if grant == "password":
            caller = await self.accounts.login(form.get("username", ""), form.get("password", ""), request.peer.address)
            if form.get("access_type") == "offline":
                refresh = await self._refresh(caller, service)
        elif grant == "refresh_token":
            refresh = form.get("refresh_token", "")
            caller = await self.accounts.by_secret(refresh, kind="refresh", service=service)
        else:
            raise VALUE_INVALID(what="grant_type", reason="password or refresh_token")
        return await self._answer(caller, form.get("scope", ""), service, refresh, oauth=True)

    async def _refresh(self, caller: Caller, service: str) -> str:
        return await self.accounts.create_secret(
            caller.name, Actor(caller.name), kind="refresh", label="docker login", level=caller.cap,
            seconds=_REFRESH_SECONDS, service=service,
        )  # fmt: skip

    async def _answer(
        self, caller: Caller, scopes: str, service: str, refresh: str, *, oauth: bool = False
    ) -> Response:
        if service and service != self.core.config.service:
            raise VALUE_INVALID(what="service", reason=f"this server issues tokens for {self.core.config.service}")
        if self.core.config.auth == "none":
            caller = EVERYBODY
        asked = parse_scopes(scopes)
        access = await self.core.db.read(lambda tx: granted(tx, caller, asked))
        seconds = self.core.config.token_seconds
        token, now = await self.tokens.issue(caller.name, access, seconds)
        issued = datetime.datetime.fromtimestamp(int(now), datetime.UTC).isoformat().replace("+00:00", "Z")
        body: dict[str, Any] = {
            "token": token, "access_token": token, "expires_in": seconds, "issued_at": issued
        }  # fmt: skip
        if refresh:
            body["refresh_token"] = refresh
        if oauth:
            body |= {"scope": format_scopes(access), "token_type": "Bearer"}
        return Response(
            200, {"Content-Type": "application/json", "Cache-Control": "no-store"}, msgspec.json.encode(body)
        )


def parse_scopes(text: str) -> list[tuple[str, str, list[str]]]:
    """[(type, name, actions)] of `type[(class)]:name:actions`, separated by spaces; a name may hold one `:` (port)."""
    found = []
    for scope in text.split()[:_SCOPES_MAX]:
        kind, _, rest = scope.partition(":")
        name, colon, actions = rest.rpartition(":")
        if colon and name:
            found.append((kind.partition("(")[0], name, [a for a in actions.split(",") if a]))
    return found


def format_scopes(access: list[dict[str, Any]]) -> str:
    return " ".join(f"{a['type']}:{a['name']}:{','.join(a['actions'])}" for a in access)


def granted(tx: Tx, caller: Caller, asked: list[tuple[str, str, list[str]]]) -> list[dict[str, Any]]:
    """The part of what was asked for that the caller may do."""
    found: dict[tuple[str, str], list[str]] = {}
    for kind, name, wanted in asked:
        if kind == "repository":
            allowed = actions_of(level_of(tx, caller, name), wanted)
        elif kind == "registry" and name == "catalog":
            allowed = [a for a in wanted if a in {"*", "search"}]  # the lists themselves show only what one may see
        else:
            allowed = []
        if allowed:
            known = found.setdefault((kind, name), [])
            known += [a for a in allowed if a not in known]
    return [{"type": kind, "name": name, "actions": actions} for (kind, name), actions in found.items()]

