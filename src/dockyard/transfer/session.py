"""One conversation with one registry: authentication, plain-HTTP probing, answers turned into errors.

Nothing is asked before it is needed: the first request goes out bare (or with a cached token), and a 401 tells realm,
service and scheme, which are then remembered for the session (distribution docs spec/auth/token.md).
"""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from dockyard.errors import DockyardError
from dockyard.lib.notjson import NOT_JSON

from . import answers
from .cancel import Cancel
from .challenge import Challenge, missing_actions, parse_challenges
from .errors import SERVER_ANSWER, TOKEN_REFUSED, UNREACHABLE
from .model import Auth, Context
from .settings import Endpoint
from .transport import Body, Transport, discard, operation, translate

CLIENT_ID = "docker"
MAX_TOKEN_ANSWER = 1 << 20
MIN_TOKEN_LIFE = 60.0
"""Seconds; a shorter or missing expires_in counts as this (spec/auth/token.md)."""
TOKEN_MARGIN = 10.0
RETRY_STATUS = frozenset({500, 502, 503, 504})
MAX_ATTEMPTS = 3
RETRY_PAUSE = 0.3
"""Seconds before the second attempt, doubled after each."""


@dataclass(frozen=True, slots=True)
class Token:
    value: str
    expires: float
    refresh: str = ""


class TokenCache:
    """Bearer tokens by (realm, service, scopes, account); shared by all operations, safe in threads."""

    MAX_TOKENS = 1024

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, ...], Token] = {}

    def get(self, key: tuple[str, ...]) -> Token | None:
        with self._lock:
            token = self._tokens.get(key)
            return token if token and token.expires - TOKEN_MARGIN > self.now() else None

    def put(self, key: tuple[str, ...], token: Token) -> None:
        with self._lock:
            if len(self._tokens) >= self.MAX_TOKENS:
                self._tokens.clear()
            self._tokens[key] = token

    def drop(self, key: tuple[str, ...]) -> None:
        with self._lock:
            self._tokens.pop(key, None)


class Session:
    """Requests to one endpoint under one account. Blocking; used from worker threads."""

    def __init__(
        self, transport: Transport, tokens: TokenCache, endpoint: Endpoint, auth: Auth, context: Context,
        cancel: Cancel, *, offline: bool = False,
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.auth = auth
        self.context = replace(context, host=endpoint.host, account=auth.username)
        self.cancel = cancel
        self._transport = transport
        self._tokens = tokens
        self._offline = offline
        self._challenge: Challenge | None = None
        self._probed = not endpoint.probes_plain_http
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        self._probe()
        return self.endpoint.base + path

    def request(
        self, method: str, url: str, *, want: tuple[int, ...], scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None, body: Body = None,
    ) -> BaseHTTPResponse:  # fmt: skip
        """The response, body unread, if its status is in ``want``; else raises. A streamed body is never sent twice."""
        replayable = body is None or isinstance(body, bytes)
        challenges = 0  # the first tells how to log in, a second that a cached token is no good any more
        attempt = 1
        while True:
            self.cancel.check()
            sent = dict(headers or {}) | self._authorization(url, scopes)
            try:
                response = self._transport.request(self.endpoint, method, url, sent, body)
            except DockyardError as error:
                if attempt >= MAX_ATTEMPTS or not replayable or error.code != UNREACHABLE.id or "dial" in str(error):
                    raise
                response = None
            if response is not None:
                stale = challenges == 1 and sent.get("Authorization", "").startswith("Bearer ")
                if response.status == 401 and replayable and (challenges == 0 or stale):
                    challenges += 1
                    self._take_challenge(response, scopes, used="Authorization" in sent)
                    continue
                if response.status in want:
                    return response
                if response.status not in RETRY_STATUS or attempt >= MAX_ATTEMPTS or not replayable:
                    raise self.refusal(response, method, url, scopes)
                discard(response)
            self.cancel.wait(RETRY_PAUSE * 2 ** (attempt - 1))
            attempt += 1

    def read(self, response: BaseHTTPResponse, limit: int) -> bytes:
        """The whole body, which must not be longer than ``limit``; the connection is given back."""
        url = response.url or self.endpoint.base
        try:
            with self.cancel.reading(response):
                data = response.read(limit + 1)
        except (HTTPError, OSError) as error:
            self.cancel.check()
            raise translate(error, "get", url) from error
        if len(data) > limit:
            response.close()
            raise SERVER_ANSWER(operation=operation("get", url), detail=f"the answer is longer than {limit} bytes")
        response.release_conn()
        return data

    def refusal(self, response: BaseHTTPResponse, method: str, url: str, scopes: tuple[str, ...] = ()) -> DockyardError:
        what = operation(method, url)
        body = b""
        if method == "HEAD" and response.status in (401, 403):  # only a GET has the reason (containerd asks so too)
            response.close()
            response = self._transport.request(self.endpoint, "GET", url, self._authorization(url, scopes))
        with contextlib.suppress(HTTPError, OSError):
            body = response.read(answers.MAX_ERROR_BODY)
        response.close()
        if response.status == 401 and self._challenge and self._challenge.scheme == "basic" and self.auth.is_anonymous:
            return answers.no_credentials(what, self.context)
        context = replace(self.context, missing=tuple(self._missing(scopes)))
        return answers.error_for(response.status, response.headers, body, what, context)

    def refresh_token(self) -> str:
        """What an ``offline`` session was given to log in with later, "" if nothing."""
        challenge = self._challenge
        token = self._tokens.get(self._key(challenge, ())) if challenge else None
        return token.refresh if token else ""

    # -- plain HTTP --------------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        """An insecure registry may speak TLS or not: ask /v2/ with TLS first, as dockerd does."""
        with self._lock:
            if self._probed:
                return
            try:
                discard(self._transport.request(self.endpoint, "GET", self.endpoint.base + "/v2/", {}))
            except DockyardError as error:
                if "dial tcp" in str(error):
                    raise  # nobody listens: plain HTTP would not get through either
                self.endpoint = replace(self.endpoint, base="http://" + self.endpoint.host)
            self._probed = True

    # -- authentication ----------------------------------------------------------------------------------------------

    def _authorization(self, url: str, scopes: tuple[str, ...]) -> dict[str, str]:
        if urlsplit(url).netloc != urlsplit(self.endpoint.base).netloc:
            return {}  # an upload location on another host: what it needs is in its URL
        if self.auth.registrytoken:
            return {"Authorization": f"Bearer {self.auth.registrytoken}"}
        challenge = self._challenge
        if challenge is None:
            return {}
        if challenge.scheme == "bearer":
            return {"Authorization": f"Bearer {self._bearer(challenge, scopes).value}"}
        return {} if self.auth.is_anonymous else {"Authorization": self.auth.basic()}

    def _take_challenge(self, response: BaseHTTPResponse, scopes: tuple[str, ...], *, used: bool) -> None:
        """Learn how to log in here; ``used`` tells that the refused request carried a token, which is then no good."""
        found = parse_challenges(response.headers.getlist("WWW-Authenticate"))
        chosen = next((c for scheme in ("bearer", "basic") for c in found if c.scheme == scheme), None)
        if chosen is None or self.auth.registrytoken:
            raise self.refusal(response, "get", response.url or self.endpoint.base)
        if chosen.scheme == "bearer" and used:
            self._tokens.drop(self._key(chosen, scopes))
        self._challenge = chosen
        if chosen.scheme == "basic" and self.auth.is_anonymous:
            raise self.refusal(response, "get", response.url or self.endpoint.base)
        discard(response)

    def _key(self, challenge: Challenge, scopes: tuple[str, ...]) -> tuple[str, ...]:
        parameters = challenge.parameters
        secret = str(hash((self.auth.password, self.auth.identitytoken)))
        return (parameters.get("realm", ""), parameters.get("service", ""), self.auth.username, secret, *scopes)

    def _bearer(self, challenge: Challenge, scopes: tuple[str, ...]) -> Token:
        key = self._key(challenge, scopes)
        if token := self._tokens.get(key):
            return token
        token = self._ask_token(challenge, scopes)
        self._tokens.put(key, token)
        return token

    def _ask_token(self, challenge: Challenge, scopes: tuple[str, ...]) -> Token:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise TOKEN_REFUSED(operation="cannot log in", detail=f"no usable realm: {realm!r}", host=self.context.host)
        fields = [("service", challenge.parameters["service"])] if challenge.parameters.get("service") else []
        if self.auth.identitytoken:
            fields += [("grant_type", "refresh_token"), ("refresh_token", self.auth.identitytoken)]
            fields += [("client_id", CLIENT_ID), ("scope", " ".join(scopes))]
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._transport.request(self.endpoint, "POST", realm, form, urlencode(fields).encode())
            return self._token_of(response, "post", realm)
        fields += [("scope", scope) for scope in scopes]
        headers = {}
        if not self.auth.is_anonymous:
            fields += [("account", self.auth.username), ("client_id", CLIENT_ID)]
            fields += [("offline_token", "true")] if self._offline else []
            headers["Authorization"] = self.auth.basic()
        separator = "&" if "?" in realm else "?"
        url = realm + (separator + urlencode(fields) if fields else "")
        return self._token_of(self._transport.request(self.endpoint, "GET", url, headers), "get", url)

    def _token_of(self, response: BaseHTTPResponse, method: str, url: str) -> Token:
        data = self.read(response, MAX_TOKEN_ANSWER)
        if response.status != 200:
            code, detail = answers.read_error(response.status, data)
            if response.status == 429 or code == "TOOMANYREQUESTS":
                raise answers.error_for(response.status, response.headers, data, operation(method, url), self.context)
            raise TOKEN_REFUSED(operation=operation(method, url), detail=detail, host=self.context.host)
        try:
            document: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
            value = str(document.get("token") or document.get("access_token") or "")
            life = max(float(document.get("expires_in") or 0), MIN_TOKEN_LIFE)
        except (*NOT_JSON, ValueError, TypeError):
            value, life, document = "", 0.0, {}
        if not value:
            detail = "authorization server did not include a token in the response"
            raise TOKEN_REFUSED(operation=operation(method, url), detail=detail, host=self.context.host)
        return Token(value, self._tokens.now() + life, str(document.get("refresh_token") or ""))

    def _missing(self, scopes: tuple[str, ...]) -> list[str]:
        """Actions the current token does not grant, read from its unverified claims; [] if it cannot be read."""
        if not scopes or self._challenge is None or self._challenge.scheme != "bearer":
            return []
        token = self._tokens.get(self._key(self._challenge, scopes))
        claims = granted_actions(token.value, self.context.path) if token else None
        return [] if claims is None else missing_actions(scopes[0], claims)


def granted_actions(token: str, path: str) -> list[str] | None:
    """The actions on repository ``path`` in a registry JWT (spec/auth/jwt.md); None if it is not such a token."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        access = claims["access"] or []
        return [action for item in access if item["name"] == path for action in item["actions"]]
    except (IndexError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        return None
