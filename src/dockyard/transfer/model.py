"""Nouns of the transfer room."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.oci import Digest

Progress = dict[str, Any]
"""One object of a progress stream (moby api/types/jsonstream)."""


class Auth(msgspec.Struct, frozen=True):
    """What ``docker login`` stored and the X-Registry-Auth header carries (moby api/types/registry AuthConfig)."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    @property
    def is_anonymous(self) -> bool:
        return not (self.username or self.identitytoken or self.registrytoken)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Auth(username={self.username!r}, serveraddress={self.serveraddress!r}, secrets hidden)"


ANONYMOUS = Auth()


def decode_auth(header: str | None) -> Auth:
    """The Auth of an X-Registry-Auth header; an undecodable value counts as none, as in dockerd's pull and push."""
    if not header:
        return ANONYMOUS
    try:
        raw = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        auth = msgspec.json.decode(raw, type=Auth)
    except (*NOT_JSON, binascii.Error, ValueError):
        return ANONYMOUS
    if auth.auth and not auth.username:
        try:
            username, _, password = base64.b64decode(auth.auth).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return auth
        return msgspec.structs.replace(auth, username=username, password=password)
    return auth


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest or index exactly as the registry sent it."""

    media_type: str
    digest: Digest
    raw: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A document that a push sends besides layers: a blob, or a manifest (put by its digest, or under a tag)."""

    media_type: str
    raw: bytes
    manifest: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a registry says about its rate limit; texts as sent."""

    limit: str = ""
    remaining: str = ""
    retry_after: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class LoginResult:
    status: str
    identity_token: str = ""


@dataclass(frozen=True, slots=True)
class SearchRow:
    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name, "description": self.description, "star_count": self.star_count,
            "is_official": self.is_official, "is_automated": self.is_automated,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Filters of ``docker search``; None leaves the field alone."""

    is_official: bool | None = None
    is_automated: bool | None = None
    stars: int = 0


ANY_ROW = SearchFilter()


@dataclass(frozen=True, slots=True)
class Context:
    """What an error text must know about the request that failed."""

    verb: str
    """``pull`` or ``push`` or what else was done, for the sentence."""
    name: str = ""
    """Familiar name with tag, as Docker prints it in errors."""
    repository: str = ""
    path: str = ""
    host: str = ""
    account: str = ""
    missing: tuple[str, ...] = field(default_factory=tuple)
    """Actions that were asked for and that the token does not grant."""
