"""Bearer tokens (distribution's token specification): Ed25519, keys in the database, rotated.

A token is accepted only if its header names EdDSA and a key of ours, and iss, aud, exp, nbf are right; nothing in the
token chooses the algorithm or brings a key (jwk, x5c, jku are ignored). A key signs for a month and verifies as long
as a token of it can live. Verified tokens are remembered by their text until they expire: a signature costs 0.1 ms.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dockyard.registry.database import Database, Tx

KEY_SECONDS = 30 * 24 * 3600.0
KEY_KEPT_SECONDS = KEY_SECONDS + 24 * 3600.0
_ALGORITHM = "EdDSA"
_LEEWAY_SECONDS = 10  # clocks of replicas
_REMEMBERED = 10_000
_RELOAD_SECONDS = 1.0  # an unknown kid makes us look into the database at most so often


@dataclass(frozen=True, slots=True)
class Claims:
    subject: str
    expires: float
    access: dict[str, frozenset[str]]
    """"repository:name" -> actions."""


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    private: Ed25519PrivateKey
    created: float


class Tokens:
    def __init__(self, db: Database, service: str, clock: Callable[[], float]) -> None:
        self._db = db
        self._service = service
        self.clock = clock
        self._keys: dict[str, _Key] = {}
        self._loaded = 0.0
        self._seen: dict[str, Claims] = {}

    async def load(self) -> None:
        """Read the keys; make a new one when the newest is a month old."""
        now = self.clock()

        def work(tx: Tx) -> list[tuple[str, str, float]]:
            newest = tx.one("SELECT MAX(created) FROM signing_keys")
            if newest is None or newest[0] is None or newest[0] < now - KEY_SECONDS:
                private = Ed25519PrivateKey.generate()
                pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
                tx.run("INSERT INTO signing_keys (kid, private, created) VALUES (?, ?, ?)",
                       (secrets.token_hex(8), pem, now))  # fmt: skip
            tx.run("DELETE FROM signing_keys WHERE created < ?", (now - KEY_KEPT_SECONDS,))
            return [(r[0], r[1], r[2]) for r in tx.all("SELECT kid, private, created FROM signing_keys")]

        keys = {}
        for kid, pem, created in await self._db.write(work):
            private = load_pem_private_key(pem.encode(), None)
            if isinstance(private, Ed25519PrivateKey):
                keys[kid] = _Key(kid, private, created)
        self._keys = keys
        self._loaded = now

    async def issue(self, subject: str, access: list[dict[str, Any]], seconds: int) -> tuple[str, float]:
        """(token, when it was issued)."""
        now = self.clock()
        newest = max(self._keys.values(), key=lambda k: k.created, default=None)
        if newest is None or newest.created < now - KEY_SECONDS:
            await self.load()
            newest = max(self._keys.values(), key=lambda k: k.created)
        claims = {
            "iss": self._service, "aud": self._service, "sub": subject, "iat": int(now), "nbf": int(now) - 5,
            "exp": int(now) + seconds, "jti": secrets.token_hex(12), "access": access,
        }  # fmt: skip
        return jwt.encode(claims, newest.private, _ALGORITHM, {"kid": newest.kid}), now

    def remembered(self, token: str) -> Claims | None:
        """Claims of a token that was verified before and is not expired; costs a look-up."""
        claims = self._seen.get(token)
        return claims if claims is not None and claims.expires > self.clock() else None

    async def verify(self, token: str) -> Claims | None:
        """None for anything that is not a valid token of ours."""
        claims = self.remembered(token)
        if claims is not None:
            return claims
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, RecursionError):
            return None
        kid = header.get("kid")
        if not isinstance(kid, str) or header.get("alg") != _ALGORITHM:
            return None
        if kid not in self._keys and self.clock() - self._loaded > _RELOAD_SECONDS:
            await self.load()
        key = self._keys.get(kid)
        return None if key is None else self._check(token, key)

    def _check(self, token: str, key: _Key) -> Claims | None:
        try:
            body = jwt.decode(
                token, key.private.public_key(), algorithms=[_ALGORITHM], audience=self._service, issuer=self._service,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "nbf", "iss", "aud", "sub"], "verify_exp": False, "verify_nbf": False,
                         "verify_iat": False},
            )  # fmt: skip
            access = {f"{a['type']}:{a['name']}": frozenset(a["actions"]) for a in body.get("access", [])}
            claims = Claims(str(body["sub"]), float(body["exp"]), access)
            begin = float(body["nbf"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        now = self.clock()
        if not now < claims.expires < key.created + KEY_KEPT_SECONDS or now < begin - _LEEWAY_SECONDS:
            return None
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[token] = claims
        return claims
