"""Passwords and secrets. Passwords are argon2id (RFC 9106, the library's second recommended parameters); secrets that
we made ourselves have 192 random bits, so one SHA-256 is enough to keep them unreadable in the database.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SECRET_PREFIX = "dyt_"
PASSWORD_MIN = 8
PASSWORD_MAX = 1024  # hashing cost grows with it


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


def hash_password(password: str) -> str:
    return _hasher().hash(password)


def verify_password(hashed: str | None, password: str) -> bool:
    """Takes the same time for an account without password, so that nobody learns who exists."""
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(hashed or _nobody(), password) and hashed is not None
    except (VerificationError, InvalidHashError):
        return False


@lru_cache(maxsize=1)
def _nobody() -> str:
    return hash_password(secrets.token_hex(16))


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(24)


def digest_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
