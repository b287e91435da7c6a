"""Who is looking: sessions by cookie, tokens of forms, and what the last action has to say.

A session is a secret of kind "session" in the database (its digest only), so every replica knows it, a password change
or a logout ends it everywhere, and nothing is signed that could be forged. Before a login there is a visitor's cookie;
forms carry a token derived from whichever cookie there is, and a form from another origin is refused before that.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, unquote

from dockyard.http import Request
from dockyard.registry.access import ANONYMOUS, Caller
from dockyard.registry.accounts import Accounts
from dockyard.registry.core import Actor
from dockyard.registry.errors import DENIED, LOGIN_FAILED
from dockyard.registry.gate import EVERYBODY

SESSION_SECONDS = 12 * 3600.0
_COOKIE_MAX = 4096
_FLASH_MAX = 500
_FLASH_SECONDS = 60
_THEME_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Visitor:
    caller: Caller
    proof: str
    """The cookie that forms are bound to: the session's, or the visitor's."""
    fresh: bool
    """The visitor's cookie has to be set."""
    flash: str
    theme: str
    secure: bool

    @property
    def csrf(self) -> str:
        return hashlib.blake2b(self.proof.encode(), person=b"dockyard-form", digest_size=24).hexdigest()


def _name(what: str, secure: bool) -> str:
    """The prefix makes browsers refuse such a cookie from a sibling domain or plain http (RFC 6265bis 4.1.3)."""
    return f"__Host-dockyard-{what}" if secure else f"dockyard-{what}"


def is_secure(request: Request) -> bool:
    return request.peer.tls or request.headers.get("x-forwarded-proto") == "https"


def cookies(request: Request) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    text = request.headers.get("cookie")
    if len(text) <= _COOKIE_MAX:
        try:
            jar.load(text)
        except CookieError:
            return {}
    return {key: morsel.value for key, morsel in jar.items()}


async def visitor_of(request: Request, accounts: Accounts, *, everybody: bool) -> Visitor:
    """An ended or unknown session is an anonymous visit, never an error."""
    secure = is_secure(request)
    jar = cookies(request)
    session, visit = jar.get(_name("session", secure), ""), jar.get(_name("visit", secure), "")
    caller = EVERYBODY if everybody else ANONYMOUS
    if session and not everybody:
        try:
            caller = await accounts.by_secret(session, kind="session")
        except LOGIN_FAILED.kind:
            session = ""
    proof = (session if not everybody else "") or visit
    theme = jar.get("dockyard-theme", "")
    return Visitor(
        caller, proof or secrets.token_urlsafe(24), not proof, unquote(jar.get("dockyard-flash", ""))[:_FLASH_MAX],
        theme if theme in {"light", "dark"} else "", secure,
    )  # fmt: skip


def check_form(request: Request, visitor: Visitor, token: str) -> None:
    """Raises DENIED unless the form came from a page of ours to this very visitor."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    foreign = origin not in {"", "null"} and origin.partition("://")[2].lower() != _host(request)
    if site not in {"same-origin", "none"} or foreign or (origin == "null" and site != "same-origin"):
        raise DENIED(reason="the form came from another site")
    if visitor.fresh or not hmac.compare_digest(token.encode(), visitor.csrf.encode()):
        raise DENIED(reason="the form is too old; load the page again")


def _host(request: Request) -> str:
    return (request.headers.get("x-forwarded-host") or request.headers.get("host")).lower()


# ---- cookies that answers set


def _cookie(name: str, value: str, *, secure: bool, seconds: float | None, script: bool = False) -> tuple[str, str]:
    age = "" if seconds is None else f"; Max-Age={int(seconds)}"
    hidden = "" if script else "; HttpOnly"
    return "Set-Cookie", f"{name}={value}; Path=/; SameSite=Lax{hidden}{age}" + ("; Secure" if secure else "")


def visit_cookie(visitor: Visitor) -> tuple[str, str]:
    return _cookie(_name("visit", visitor.secure), visitor.proof, secure=visitor.secure, seconds=None)


async def begin_session(accounts: Accounts, caller: Caller, request: Request) -> tuple[str, str]:
    secure = is_secure(request)
    secret = await accounts.create_secret(
        caller.name, Actor(caller.name, request.peer.address), kind="session", label="browser", level=caller.cap,
        seconds=SESSION_SECONDS,
    )  # fmt: skip
    return _cookie(_name("session", secure), secret, secure=secure, seconds=SESSION_SECONDS)


async def end_session(accounts: Accounts, request: Request) -> tuple[str, str]:
    secure = is_secure(request)
    await accounts.forget_secret(cookies(request).get(_name("session", secure), ""), kind="session")
    return _cookie(_name("session", secure), "", secure=secure, seconds=0)


def flash_cookie(text: str, secure: bool) -> tuple[str, str]:
    """What the next page has to say, once; "" takes it away."""
    value = quote(text[:_FLASH_MAX], safe="")
    return _cookie("dockyard-flash", value, secure=secure, seconds=_FLASH_SECONDS if text else 0)


def theme_cookie(theme: str, secure: bool) -> tuple[str, str]:
    return _cookie("dockyard-theme", theme, secure=secure, seconds=_THEME_SECONDS if theme else 0)


def safe_next(text: str) -> str:
    """A path on this server, whatever was asked for (no open redirect)."""
    good = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return quote(text, safe="/?&=%:-._~+,@") if good and len(text) < 2000 else "/"
