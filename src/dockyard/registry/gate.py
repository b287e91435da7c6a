"""Who is asking, and may they: from the Authorization header to an Actor, or to the answer that tells what is missing.

Bearer tokens carry what they allow; Basic is accepted everywhere too (curl, scripts) and judged by the database.
A refusal is 401 with a challenge when another token could help, and 403 with the reason when none could: the field's
commonest complaint is "insufficient scope" without one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from dockyard.errors import DockyardError
from dockyard.http import Request
from dockyard.registry.access import ANONYMOUS, NEEDED, Caller, Level, level_of, pushable
from dockyard.registry.accounts import Accounts
from dockyard.registry.core import Actor, Core, audit
from dockyard.registry.database import Tx
from dockyard.registry.errors import DENIED, LOGIN_FAILED, TOKEN_LACKS, UNAUTHORIZED
from dockyard.registry.tokens import Claims, Tokens

CATALOG = "registry:catalog"
EVERYBODY = Caller("", -1, True, Level.ADMIN)
"""Who asks while authentication is off."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`claims` is None unless a bearer token was shown."""

    caller: Caller
    claims: Claims | None = None


class Gate:
    def __init__(
        self, core: Core, accounts: Accounts, tokens: Tokens, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self.core = core
        self.accounts = accounts
        self.tokens = tokens
        self._spawn = spawn
        self.open = core.config.auth == "none"

    def quick(self, header: bytes | None, name: str, action: str) -> bool:
        """Allowed by a token that was verified before? False means: ask `require`."""
        if self.open:
            return True
        if header is None or not header.startswith(b"Bearer "):
            return False
        claims = self.tokens.remembered(header[7:].decode("latin-1"))
        return claims is not None and action in claims.access.get(f"repository:{name}", ())

    async def identify(self, request: Request) -> Identity:
        """Raises UNAUTHORIZED (a token that is not valid), LOGIN_FAILED, TOO_MANY."""
        if self.open:
            return Identity(EVERYBODY)
        scheme, _, value = request.headers.get("authorization").partition(" ")
        if scheme.lower() == "bearer":
            claims = await self.tokens.verify(value.strip())
            if claims is None:
                raise self.challenge(request, UNAUTHORIZED(), kind="invalid_token")
            return Identity(await self._by_name(claims.subject), claims)
        if scheme.lower() == "basic":
            name, password = basic_credentials(value)
            try:
                return Identity(await self.accounts.login(name, password, request.peer.address))
            except LOGIN_FAILED.kind as error:
                raise self.challenge(request, error) from None
        return Identity(ANONYMOUS)

    async def _by_name(self, name: str) -> Caller:
        if not name:
            return ANONYMOUS
        row = await self.core.db.read(
            lambda tx: tx.one("SELECT id, admin FROM accounts WHERE name = ? AND active = 1", (name,))
        )
        return ANONYMOUS if row is None else Caller(name, row[0], bool(row[1]))

    async def require(self, request: Request, name: str, action: str) -> Actor:
        """The actor, when `action` on the repository is allowed. Raises UNAUTHORIZED, DENIED."""
        identity = await self.identify(request)
        caller = identity.caller
        actor = Actor(caller.name, request.peer.address)
        if identity.claims is not None and action in identity.claims.access.get(f"repository:{name}", ()):
            return actor
        level = Level.ADMIN if self.open else await self.core.db.read(lambda tx: level_of(tx, caller, name))
        if level >= NEEDED[action]:
            if identity.claims is None and (caller.account is not None or "authorization" in request.headers):
                return actor
            scope = f"repository:{name}:{_asked(action)}"
            if identity.claims is not None:
                raise self.challenge(request, TOKEN_LACKS(action=action, name=name), scope, "insufficient_scope")
            raise self.challenge(request, UNAUTHORIZED(), scope)
        if caller.account is None:
            raise self.challenge(request, UNAUTHORIZED(), f"repository:{name}:{_asked(action)}")
        reason = await self.core.db.read(lambda tx: _reason(tx, caller, name, action, level))
        self._record(actor, action, name, reason)
        raise DENIED(reason=reason)

    async def allows(self, request: Request, name: str, action: str) -> bool:
        """As `require`, for a second repository of one request (the source of a mount)."""
        identity = await self.identify(request)
        if identity.claims is not None and action in identity.claims.access.get(f"repository:{name}", ()):
            return True
        # A token says what it is for: beyond that it opens only what everybody may read.
        caller = identity.caller if identity.claims is None else ANONYMOUS
        return self.open or await self.core.db.read(lambda tx: level_of(tx, caller, name)) >= NEEDED[action]

    async def require_any(self, request: Request) -> Identity:
        """Somebody, be it an anonymous token: GET /v2/ tells clients here that they have to ask for one."""
        identity = await self.identify(request)
        if identity.claims is None and identity.caller.account is None:
            raise self.challenge(request, UNAUTHORIZED())
        return identity

    async def require_catalog(self, request: Request) -> Caller:
        """Who asks for the list of repositories: a login, or a token made for it."""
        identity = await self.require_any(request)
        if identity.claims is not None and "*" not in identity.claims.access.get(CATALOG, ()):
            raise self.challenge(request, UNAUTHORIZED(), f"{CATALOG}:*", "insufficient_scope")
        return identity.caller

    def challenge(self, request: Request, error: DockyardError, scope: str = "", kind: str = "") -> DockyardError:
        """The error with the header that tells clients where a token comes from (token specification, "challenge")."""
        parts = [f'Bearer realm="{self.realm(request)}"', f'service="{self.core.config.service}"']
        if scope:
            parts.append(f'scope="{scope}"')
        if kind:
            parts.append(f'error="{kind}"')
        error.evidence["headers"] = {"WWW-Authenticate": ",".join(parts)}
        return error

    def realm(self, request: Request) -> str:
        if self.core.config.realm:
            return self.core.config.realm
        scheme = "https" if request.peer.tls else request.headers.get("x-forwarded-proto", "http")
        host = request.headers.get("x-forwarded-host") or request.headers.get("host", "localhost")
        safe = "".join(c for c in f"{scheme}://{host}" if c.isalnum() or c in ":/.-_[]")
        return f"{safe}/token"

    def _record(self, actor: Actor, action: str, object_: str, reason: str) -> None:
        now = self.core.clock()

        async def write() -> None:
            await self.core.db.write(lambda tx: audit(tx, now, actor, action, object_, reason, refused=True))

        self._spawn(write())


def basic_credentials(value: str) -> tuple[str, str]:
    """Raises LOGIN_FAILED."""
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise LOGIN_FAILED() from None
    if not colon:
        raise LOGIN_FAILED()
    return name, password


def _asked(action: str) -> str:
    """What to ask for: clients that push need pull too (distribution issue 2932)."""
    return {"push": "pull,push", "pull": "pull"}.get(action, f"pull,{action}")


def _reason(tx: Tx, caller: Caller, name: str, action: str, level: Level) -> str:
    """One sentence that tells the login what it lacks; the same for a hidden repository and one that does not exist."""
    places = f"this login may push to {', '.join(pushable(tx, caller))}"
    if action == "push" and level < Level.READ:
        return f"{caller.name} may not push to {name}; {places}"
    if action == "pull":  # the first thing that a push asks is whether a blob is there
        return f"repository {name} does not exist or {caller.name} may not read it; {places}"
    if level < Level.READ:
        return f"repository {name} does not exist or {caller.name} may not {action} in it"
    return f"{caller.name} may {level.word} {name}; {action} needs {NEEDED[action].word}"
